"""A logistic regression on latents that don't change, fitted until it has converged.

What a linear classifier trained by gradient steps is to be held against. Optimised by
scikit-learn's L-BFGS, with its usual penalty (C = 1): the sum of the training examples'
cross-entropies plus half the weights' squared length.

Shape legend: N examples, L latent width.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from fairseq_vat.evaluation.linear_probe import (
    Examples,
    Score,
    features_of,
    score_logits,
    standardized,
)

C = 1.0
_MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class Regression:
    """A fitted logistic regression.

    Attributes:
        converged: whether the optimiser ended by itself.
        iterations: of the optimiser.
        scores: of every set of examples.
    """

    converged: bool
    iterations: int
    scores: dict[str, Score]


def logistic_regression(
    splits: dict[str, Examples], drawn: bool = False, seed: int = 1
) -> Regression:
    """Fit on the training set, of which every dimension is given mean 0 and variance 1.

    Args:
        splits: ``train``, and others that are only measured; each label is in ``train``.
        drawn: on one draw of every example's latents instead of their means.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    features = {
        name: features_of(split, drawn, generator).double().numpy()
        for name, split in standardized(splits).items()
    }
    model = LogisticRegression(C=C, max_iter=_MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is said in the result
        model.fit(features["train"], splits["train"].labels.numpy())
    iterations = int(model.n_iter_.max())
    scores = {}
    for name, split in splits.items():
        logits = torch.from_numpy(model.decision_function(features[name]))
        # of two labels scikit-learn gives the second one's logit
        logits = logits.unsqueeze(-1) if logits.dim() == 1 else logits
        scores[name] = score_logits(logits, split.labels)
    return Regression(iterations < _MAX_ITERATIONS, iterations, scores)
