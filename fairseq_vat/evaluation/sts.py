"""Semantic textual similarity of encoders: docs/sentence-embeddings.md."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np

from fairseq_vat.evaluation.probed_encoders import ProbedEncoder
from fairseq_vat.evaluation.texts import share_of
from fairseq_vat.measures.correlation import average, cosines, summarize
from fairseq_vat.text.columns import ScoredPair

Tasks = Mapping[str, Mapping[str, Sequence[ScoredPair]]]


def sentences_of(pairs: Sequence[ScoredPair]) -> list[str]:
    """The different sentences of pairs, in the pairs' order."""
    return list(dict.fromkeys(text for pair in pairs for text in (pair.first, pair.second)))


def sts(
    encoders: Sequence[ProbedEncoder],
    sentences: Sequence[str],
    tasks: Tasks,
    poolings: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Correlations of the cosines of pairs' vectors with people's scores.

    Args:
        tasks: subsets of pairs, by the tasks' names and theirs.
        poolings: as of `pool`; None: all that an encoder has.

    Returns:
        Figures of each encoder, as ``fairseq-vat sts --json`` prints them.

    Raises:
        VATError: for a pooling that an encoder doesn't have.
    """
    number = {sentence: row for row, sentence in enumerate(sentences)}
    rows = {
        task: {
            name: (
                np.array([number[pair.first] for pair in pairs]),
                np.array([number[pair.second] for pair in pairs]),
                np.array([pair.score for pair in pairs]),
            )
            for name, pairs in subsets.items()
        }
        for task, subsets in tasks.items()
    }
    return [_measure(encoder, rows, encoder.poolings(poolings)) for encoder in encoders]


def _measure(
    encoder: ProbedEncoder,
    rows: dict[str, dict[str, tuple[np.ndarray, ...]]],
    poolings: Sequence[str],
) -> dict[str, Any]:
    system = {"name": encoder.name, "path": encoder.path, "width": encoder.width}
    if encoder.updates is not None:
        system |= {"updates": encoder.updates, "latent_level": encoder.latent_level}
    shares = {
        task: share_of([encoder.counts[n] for some in subsets.values() for n in chain(*some[:2])])
        for task, subsets in rows.items()
    }
    results = {}
    for pooling, vectors in encoder.embed(poolings).items():
        vectors_NL = vectors.cpu().numpy()
        tasks = {
            task: summarize(
                {
                    name: (cosines(vectors_NL[first], vectors_NL[second]), scores)
                    for name, (first, second, scores) in subsets.items()
                }
            )
            for task, subsets in rows.items()
        }
        results[pooling if encoder.latent_level == "token" else "latent"] = {
            "tasks": {task: asdict(result) for task, result in tasks.items()},
            "average_of_tasks": {
                kind: asdict(average({task: getattr(r, kind) for task, r in tasks.items()}))
                for kind in ("mean", "weighted_mean", "all_pairs")
            },
        }
    return {**system, "unknown_share": shares, "poolings": results}
