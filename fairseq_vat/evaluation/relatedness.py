"""Relatedness of two sentences, learned: SentEval's SICK-R and STS-B.

As SentEval's code does it (Conneau and Kiela 2018, ``senteval/sick.py`` and
``senteval/tools/relatedness.py``): a score becomes a distribution over whole grades (Tai et al.
2015), a linear layer with a softmax is trained to give it from |u - v| and u * v, and what is
predicted is the mean grade.

Shape legend: N pairs, L width of a vector, G grades.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fairseq_vat.evaluation import similarity
from fairseq_vat.evaluation.linear_probe import new_linear

# SentEval's: 64 pairs an update, Adam at 1e-3, a look at the validation part every 50 epochs, the
# end after four that brought nothing, or after the first one past 1,000 epochs
_BATCH_SIZE, _LR, _LOOK_EVERY, _MAX_EPOCHS, _TENACITY = 64, 1e-3, 50, 1050, 4


@dataclass(frozen=True)
class Agreement:
    """Predicted and gold scores.

    Attributes:
        pearson: from -1 to 1; None where all predictions, or all scores, are the same.
        spearman: likewise.
        mse: mean squared error.
    """

    pearson: float | None
    spearman: float | None
    mse: float


@dataclass(frozen=True)
class RelatednessFit:
    """A trained layer, as it was when it had the best validation correlation (Pearson's).

    Attributes:
        epoch: then, a multiple of 50.
        valid: on the validation part.
        test: on the test part.
    """

    epoch: int
    valid: Agreement
    test: Agreement


def pair_features(first_NL: Tensor, second_NL: Tensor) -> Tensor:
    """|u - v| beside u * v, (N, 2 L)."""
    return torch.cat(((first_NL - second_NL).abs(), first_NL * second_NL), dim=1)


def grade_distribution(scores_N: Tensor, least: int, most: int) -> Tensor:
    """Scores as shares of the two grades they are between, (N, G), in single precision.

    The mean grade under a row is its score. As in SentEval a score up to one under the least grade,
    such as STS-B's 0 to 1 under grades from 1, has its share of the least grade alone, and a row
    that doesn't add up to 1.

    Args:
        scores_N: from `least` - 1 to `most`.
        least: the first grade.
        most: the last.
    """
    grades_G = torch.arange(least, most + 1, dtype=scores_N.dtype)
    return (1 - (scores_N.unsqueeze(1) - grades_G).abs()).clamp(min=0).float()


def agreement(predicted_N: Tensor, scores_N: Tensor) -> Agreement:
    """How predictions go together with people's scores."""
    predicted, scores = predicted_N.double().numpy(), scores_N.double().numpy()
    found = similarity.correlate(similarity.Pairs(predicted, scores))
    return Agreement(found.pearson, found.spearman, float(np.mean((predicted - scores) ** 2)))


def fit_relatedness(
    features: dict[str, Tensor], scores: dict[str, Tensor], least: int, most: int, seed: int
) -> RelatednessFit:
    """Train on ``train``, choose on ``valid``, measure on both others.

    First weights and order come from `seed`.

    Args:
        features: from `pair_features`, of ``train``, ``valid`` and ``test``; on any one device.
        scores: (N,) double, on the CPU.
        least: the first grade.
        most: the last.
        seed: any integer.
    """
    generator = torch.Generator().manual_seed(seed)
    x_NF, device = features["train"], features["train"].device
    target_NG = grade_distribution(scores["train"], least, most).to(device)
    layer = new_linear(x_NF.size(1), most - least + 1, generator).to(device)
    optimizer = torch.optim.Adam(layer.parameters(), lr=_LR, fused=True)
    best, best_pearson, best_epoch, failures = layer, -1.0, 0, 0
    for epoch in range(1, _MAX_EPOCHS + 1):
        for batch in torch.randperm(len(x_NF), generator=generator).to(device).split(_BATCH_SIZE):
            optimizer.zero_grad()
            F.mse_loss(layer(x_NF[batch]).softmax(dim=-1), target_NG[batch]).backward()
            optimizer.step()
        if epoch % _LOOK_EVERY:
            continue
        valid = agreement(_predict(layer, features["valid"], least), scores["valid"])
        # SentEval too takes an undefined correlation for 0
        if (valid.pearson or 0.0) > best_pearson:
            best, best_pearson = copy.deepcopy(layer), valid.pearson or 0.0
            best_epoch = epoch
        else:
            failures += 1
            if failures == _TENACITY:
                break
    found = {
        name: agreement(_predict(best, features[name], least), scores[name])
        for name in ("valid", "test")
    }
    return RelatednessFit(best_epoch, found["valid"], found["test"])


@torch.no_grad()
def _predict(layer: torch.nn.Module, features_NF: Tensor, least: int) -> Tensor:
    """The mean grade, (N,)."""
    shares_NG = layer(features_NF).softmax(dim=-1).double().cpu()
    return shares_NG @ torch.arange(least, least + shares_NG.size(1), dtype=torch.double)
