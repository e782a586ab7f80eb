"""What a linear classifier can read out of latents that don't change.

The VAE-Transformer paper's extrinsic evaluation (section 4.1.2, tables 3 and 6): the encoder is
frozen, one linear layer is trained on z; as the paper does it, or until it has converged.

Shape legend: N examples, L latent width.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from tqdm import tqdm

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation import PROTOCOLS, classifier
from fairseq_vat.evaluation.classifier import Fit, Training
from fairseq_vat.evaluation.folds import numbered
from fairseq_vat.evaluation.heads import Heads, Labels, majority, over_runs, score_logits
from fairseq_vat.evaluation.labelled import LabelledFiles
from fairseq_vat.evaluation.texts import unknown_share
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.latent.gaussian import DiagonalGaussian

_SPLITS = ("train", "valid", "test")
_TRAININGS = dict(zip(PROTOCOLS, (classifier.CONVERGED, classifier.PAPER), strict=True))
_MAX_ITERATIONS = 1000


def classify(
    vat: VATHubInterface,
    files: LabelledFiles,
    protocol: str = "converged",
    latents: str = "mean",
    pooling: str = "mean",
    standardize: bool | None = None,
    seeds: int = 5,
    **changes: Any,
) -> dict[str, Any]:
    """Train linear classifiers on a model's latents, and measure them: docs/measures.md.

    Args:
        files: ``train``, ``valid`` and ``test``, in the model's subwords.
        standardize: shift and scale every dimension to mean 0 and variance 1 on the training file;
            None: as the protocol does.
        seeds: how many classifiers, with the seeds from 1.
        **changes: ``lr``, ``epochs`` and ``batch_size`` other than the protocol's.

    Returns:
        Figures and settings, as ``fairseq-vat classify --json`` prints them.

    Raises:
        VATError: if a training diverges.
    """
    training = replace(_TRAININGS[protocol], **changes)
    if standardize is None:
        standardize = protocol == "converged"
    posteriors = {
        name: vat.embed_posterior([line.sentences[0] for line in files.lines[name]], pooling)
        for name in files.paths  # the labels' order
    }
    if standardize:
        posteriors = standardized(posteriors)
    drawn, labels_N, parts = latents == "sample", files.label_numbers, files.parts
    with tqdm(unit=" sentences", leave=False, disable=None) as bar:
        fits = [
            train_linear(posteriors, labels_N, training, drawn, seed, bar.update)
            for seed in range(1, seeds + 1)
        ]
    figures = ("loss", "accuracy")
    encoder = vat.model.encoder
    train_labels_N = labels_N[parts["train"]]
    return {
        "updates": vat.model.num_updates,
        "latent_level": str(encoder.latent_level),
        "protocol": protocol,
        "latents": latents,
        "pooling": pooling if encoder.latent_level == "token" else None,
        "standardized": standardize,
        "width": encoder.latent_dim,
        **files.described(),
        "unknown_share": {name: unknown_share(vat, files.pieces[name]) for name in _SPLITS},
        "lr": training.lr,
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "seeds": seeds,
        "kept_epochs": [fit.epoch for fit in fits],
        "trained_epochs": [fit.epochs for fit in fits],
        "converged": [fit.converged for fit in fits],
        "classifier": {
            name: over_runs([vars(fit.scores[name]) for fit in fits], *figures) for name in _SPLITS
        },
        "logistic_regression": logistic_regression(posteriors, labels_N, drawn),
        "majority": {
            name: vars(majority(train_labels_N, labels_N[parts[name]])) for name in _SPLITS
        },
    }


def train_linear(
    posteriors: Mapping[str, DiagonalGaussian],
    labels_N: Tensor,
    training: Training,
    drawn: bool = False,
    seed: int = 1,
    on_batch: Any = lambda _: None,
) -> Fit:
    """Train a linear classifier; two labels have one output, more have an output each.

    Everything random (first weights, order of the examples, draws) comes from `seed`.

    Args:
        posteriors: (N, L), of ``train``, ``valid``, and other parts that are only measured.
        labels_N: int64, of the parts' examples one after the other.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = int(labels_N.max()) + 1
    width = posteriors["train"].mean.size(1)

    def vectors(_: None, numbers_B: Tensor) -> Tensor:
        return (epoch_NL if model.training else measured_NL)[numbers_B]

    def draw(generator: torch.Generator) -> None:
        nonlocal epoch_NL
        epoch_NL = _vectors(posteriors["train"], drawn, generator)

    model = Heads(vectors, width, 1 if labels == 2 else labels, generator)
    # one draw for all epochs, so that they are compared on the same latents
    measured_NL = torch.cat([_vectors(some, drawn, generator) for some in posteriors.values()])
    epoch_NL = measured_NL
    parts = numbered({name: len(some.mean) for name, some in posteriors.items()})
    fit = classifier.train(
        *(model, Labels(labels_N), parts, training, generator),
        measured=[name for name in parts if name != "valid"],
        on_epoch=draw,
        on_batch=on_batch,
    )
    if not all(math.isfinite(score.loss) for score in fit.scores.values()):
        raise VATError(f"seed {seed}: the training diverged; give a smaller --lr")
    return fit


def standardized(posteriors: Mapping[str, DiagonalGaussian]) -> dict[str, DiagonalGaussian]:
    """Every dimension with mean 0 and variance 1 over the training set's means.

    A dimension that is the same for all of them is only shifted.
    """
    mean_NL = posteriors["train"].mean
    shift_L, scale_L = mean_NL.mean(dim=0), mean_NL.std(dim=0, unbiased=False)
    # what single precision leaves of a constant is no spread
    constant_L = scale_L <= 1e-6 * mean_NL.abs().amax(dim=0)
    scale_L = scale_L.masked_fill(constant_L, 1.0)
    return {
        name: DiagonalGaussian((some.mean - shift_L) / scale_L, some.logvar - 2 * scale_L.log())
        for name, some in posteriors.items()
    }


def logistic_regression(
    posteriors: Mapping[str, DiagonalGaussian], labels_N: Tensor, drawn: bool = False, seed: int = 1
) -> dict[str, Any]:
    """What a linear classifier trained by gradient steps is to be held against.

    Optimised by scikit-learn's L-BFGS until it has converged, with its usual penalty (C = 1): the
    sum of the training examples' cross-entropies plus half the weights' squared length.

    Returns:
        Settings, whether the optimiser ended by itself (``converged``), its ``iterations``, and
        ``loss`` and ``accuracy`` of every part.
    """
    generator = torch.Generator().manual_seed(seed)
    features = {
        name: _vectors(posterior, drawn, generator).double().numpy()
        for name, posterior in standardized(posteriors).items()
    }
    parts = numbered({name: len(some) for name, some in features.items()})
    model = LogisticRegression(max_iter=_MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is said in the result
        model.fit(features["train"], labels_N[parts["train"]].numpy())
    iterations = int(model.n_iter_.max())
    scores = {}
    for name, numbers in parts.items():
        logits = torch.from_numpy(model.decision_function(features[name]))
        # of two labels scikit-learn gives the second one's logit
        logits = logits.unsqueeze(-1) if logits.dim() == 1 else logits
        scores[name] = vars(score_logits(logits, labels_N[numbers]))
    converged = iterations < _MAX_ITERATIONS
    settings = {"C": model.C, "standardized": True}
    return {**settings, "converged": converged, "iterations": iterations, **scores}


def _vectors(posterior: DiagonalGaussian, drawn: bool, generator: torch.Generator) -> Tensor:
    """The posterior's means, or one draw, (N, L)."""
    if not drawn:
        return posterior.mean
    return posterior.sample(torch.randn(posterior.mean.shape, generator=generator))
