"""Relatedness of two sentences, learned: SentEval's SICK-R and STS-B.

As SentEval's code does it (Conneau and Kiela 2018, ``senteval/sick.py`` and
``senteval/tools/relatedness.py``): a score becomes a distribution over whole grades (Tai et al.
2015), a linear layer with a softmax is trained to give it from |u - v| and u * v, and what is
predicted is the mean grade.

Shape legend: N pairs, L width of a vector, G grades.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from fairseq_vat.evaluation import classifier
from fairseq_vat.evaluation.classifier import Fit, Training
from fairseq_vat.evaluation.folds import numbered
from fairseq_vat.evaluation.heads import on_features, over_runs
from fairseq_vat.evaluation.probed_encoders import ProbedEncoder, described
from fairseq_vat.measures.correlation import correlate
from fairseq_vat.text.columns import ScoredPair

# SentEval's: 64 pairs an update, Adam at 1e-3, a look at the validation part every 50 epochs, the
# end after four that brought nothing, or after the first one past 1,000 epochs
TRAINING = Training(1050, 64, 1e-3, chosen_by="pearson", look_every=50, tenacity=3)
FIGURES = ("pearson", "spearman", "mse")
# of predicted grades, which a softmax in single precision gives
_LEAST_SPREAD = 1e-5


@dataclass(frozen=True)
class Agreement:
    """Predicted and gold scores."""

    pearson: float | None  # from -1 to 1; None where all predictions, or all scores, are the same
    spearman: float | None  # likewise
    mse: float


@dataclass(frozen=True)
class Grades:
    """Scores as the target of `classifier.train`; outputs are shares of the grades."""

    scores: Tensor
    least: int
    most: int

    def loss(self, logits_RBG: Tensor, numbers_B: Tensor) -> Tensor:
        """Mean squared error of the grades' shares."""
        shares_BG = grade_distribution(self.scores[numbers_B], self.least, self.most)
        return F.mse_loss(logits_RBG.softmax(dim=-1), shares_BG.to(logits_RBG.device)[None])

    def score(self, logits_NG: Tensor, numbers_N: Tensor) -> Agreement:
        """How the mean grades go with the scores."""
        grades_G = torch.arange(self.least, self.most + 1, dtype=torch.double)
        return agreement(logits_NG.softmax(dim=-1).double() @ grades_G, self.scores[numbers_N])


def relatedness(
    encoders: Sequence[ProbedEncoder],
    sentences: Sequence[str],
    pairs: Mapping[str, Sequence[ScoredPair]],
    poolings: Sequence[str] = ("mean",),
    grades: tuple[int, int] = (1, 5),
    seeds: int = 5,
) -> dict[str, Any]:
    """Learn the scores of ``train``, choose on ``valid``, measure on both others: docs/probe.md.

    Returns:
        Figures and settings, as ``fairseq-vat probe --relatedness --json`` prints them.
    """
    row = {sentence: number for number, sentence in enumerate(sentences)}
    every = [pair for some in pairs.values() for pair in some]
    rows = [[row[pair.first] for pair in every], [row[pair.second] for pair in every]]
    target = Grades(torch.tensor([pair.score for pair in every], dtype=torch.double), *grades)
    sizes = {name: len(some) for name, some in pairs.items()}
    parts = numbered(sizes)
    results = []
    for encoder in encoders:
        for pooling, vectors_NL in encoder.embed(encoder.poolings(poolings)).items():
            features_NF = pair_features(*(vectors_NL[some] for some in rows))
            name = f"{encoder.name}, {pooling}"
            bar = tqdm(range(1, seeds + 1), name, unit=" runs", leave=False, disable=None)
            fits = [fit_relatedness(features_NF, target, parts, seed) for seed in bar]
            runs = [
                {"seed": seed, "epoch": fit.epoch}
                | {part: asdict(fit.scores[part]) for part in ("valid", "test")}
                for seed, fit in enumerate(fits, start=1)
            ]
            result = {
                "encoder": encoder.name,
                "mode": "features",
                "pooling": pooling if encoder.latent_level == "token" else None,
            }
            for part in ("valid", "test"):
                result[part] = over_runs([run[part] for run in runs], *FIGURES)
            results.append({**result, "runs": runs})
    scores = {part: target.scores[numbers] for part, numbers in parts.items()}
    mean = scores["train"].mean()
    return {
        **described(encoders),
        "grades": list(grades),
        "examples": sizes,
        "seeds": seeds,
        "results": results,
        "mean_score": {  # the training part's as every prediction
            part: asdict(agreement(mean.expand(len(scores[part])), scores[part]))
            for part in ("valid", "test")
        },
    }


def fit_relatedness(
    features_NF: Tensor, target: Grades, parts: Mapping[str, Tensor], seed: int
) -> Fit:
    """One trained layer, as it was when it had the best validation correlation (Pearson's).

    First weights and order come from `seed`.

    Args:
        features_NF: from `pair_features`, of all pairs; on any device.
    """
    generator = torch.Generator().manual_seed(seed)
    layer = on_features(features_NF, target.most - target.least + 1, generator)
    return classifier.train(layer, target, parts, TRAINING, generator)


def pair_features(first_NL: Tensor, second_NL: Tensor) -> Tensor:
    """|u - v| beside u * v, (N, 2 L)."""
    return torch.cat(((first_NL - second_NL).abs(), first_NL * second_NL), dim=1)


def grade_distribution(scores_N: Tensor, least: int, most: int) -> Tensor:
    """Scores as shares of the two grades they are between, (N, G), in single precision.

    The mean grade under a row is its score. As in SentEval a score up to one under the least grade,
    such as STS-B's 0 to 1 under grades from 1, has its share of the least grade alone, and a row
    that doesn't add up to 1.
    """
    grades_G = torch.arange(least, most + 1, dtype=scores_N.dtype)
    return (1 - (scores_N.unsqueeze(1) - grades_G).abs()).clamp(min=0).float()


def agreement(predicted_N: Tensor, scores_N: Tensor) -> Agreement:
    """How predictions go together with people's scores."""
    predicted, scores = predicted_N.double().numpy(), scores_N.double().numpy()
    found = correlate(predicted, scores, _LEAST_SPREAD)
    return Agreement(found.pearson, found.spearman, float(np.mean((predicted - scores) ** 2)))
