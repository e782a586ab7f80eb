"""Semantic textual similarity: do cosines of sentence vectors rank pairs as people do?

The VAT paper's table 4, by SentEval's definitions (Conneau and Kiela 2018): the correlations of
Spearman and of Pearson between the cosine of two sentence vectors and the gold score.

Shape legend: N pairs, L width of a vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import pearsonr, spearmanr

# Vectors are in single precision. Two that are nearly parallel have a cosine of 1 - d, where
# rounding alone changes d by about 1e-6 sqrt(2 d): below this, differences of cosines are noise.
LEAST_SPREAD = 1e-9


@dataclass(frozen=True)
class Correlation:
    """How similarities and scores go together."""

    pairs: int  # N, of all subsets where it is an average over them
    spearman: float | None  # from -1 to 1; None where it is undefined
    pearson: float | None  # likewise
    undefined: str | None = None  # why there is no correlation, or None where there is one


@dataclass(frozen=True)
class TaskResult:
    """A task: its subsets, and three numbers that all pass for "the" result in the literature."""

    subsets: dict[str, Correlation]
    mean: Correlation  # plain mean of the subsets' correlations (SentEval's ``mean``)
    # mean of them weighted by their numbers of pairs (SentEval's ``wmean``)
    weighted_mean: Correlation
    all_pairs: Correlation  # the correlation over the pairs of all subsets put together


def cosines(first_NL: np.ndarray, second_NL: np.ndarray) -> np.ndarray:
    """The cosine of each pair of vectors, (N,), in double precision.

    NaN where a vector is zero or isn't finite: `correlate` names the reason.
    """
    first_NL, second_NL = np.asarray(first_NL, np.float64), np.asarray(second_NL, np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        lengths_N = np.linalg.norm(first_NL, axis=1) * np.linalg.norm(second_NL, axis=1)
        # rounded, so that pairs of one sentence twice are ties, not ranked by chance
        return ((first_NL * second_NL).sum(axis=1) / lengths_N).round(12)


def correlate(
    similarities: np.ndarray, scores: np.ndarray, least_spread: float = LEAST_SPREAD
) -> Correlation:
    """Spearman's and Pearson's correlation of two rows of N, or why there is none.

    Args:
        similarities: a model's; NaN where there is none.
        scores: people's.
        least_spread: similarities that differ by no more are one, but for rounding.
    """
    similarities_N, scores_N = np.asarray(similarities, float), np.asarray(scores, float)
    count = len(scores_N)
    if reason := _undefined(similarities_N, scores_N, least_spread):
        return Correlation(count, None, None, reason)
    found = (of(similarities_N, scores_N).statistic for of in (spearmanr, pearsonr))
    return Correlation(count, *map(float, found))


def summarize(subsets: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> TaskResult:
    """The correlations of a task's subsets (similarities and scores), and the three averages.

    A mean of correlations of which one is undefined is undefined too.
    """
    found = {name: correlate(*pairs) for name, pairs in subsets.items()}
    together = (np.concatenate(column) for column in zip(*subsets.values(), strict=True))
    return TaskResult(found, average(found), average(found, weighted=True), correlate(*together))


def average(correlations: Mapping[str, Correlation], weighted: bool = False) -> Correlation:
    """The mean of correlations, plain or weighted by their numbers of pairs."""
    every = list(correlations.values())
    counts = [one.pairs for one in every]
    for name, correlation in correlations.items():
        if correlation.undefined is not None:
            return Correlation(sum(counts), None, None, f"{name} has no correlation")
    columns = ([one.spearman for one in every], [one.pearson for one in every])
    weights = counts if weighted else None
    return Correlation(sum(counts), *(float(np.average(one, weights=weights)) for one in columns))


def _undefined(similarities_N: np.ndarray, scores_N: np.ndarray, least_spread: float) -> str | None:
    if len(scores_N) < 2:
        return "a correlation needs two pairs at least"
    bad = int((~np.isfinite(similarities_N)).sum())
    if bad:
        return f"{bad:,} of {len(scores_N):,} pairs have a vector that is zero or isn't finite"
    if np.ptp(similarities_N) <= least_spread:
        return "all pairs have the same cosine, as where all sentences have one vector"
    if np.ptp(scores_N) == 0:
        return "all pairs have the same gold score"
    return None
