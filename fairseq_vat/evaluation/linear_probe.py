"""What a linear classifier can read out of latents that don't change.

The VAE-Transformer paper's extrinsic evaluation (section 4.1.2, tables 3 and 6): the encoder is
frozen, one linear layer is trained on z; as the paper does it, or until it has converged.

Shape legend: N examples, L latent width, K labels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, ReduceLROnPlateau

from fairseq_vat.latent.gaussian import DiagonalGaussian


@dataclass(frozen=True)
class Examples:
    """Labelled latents.

    Attributes:
        posterior: (N, L).
        labels: (N,) int64, numbers from 0.
    """

    posterior: DiagonalGaussian
    labels: Tensor


@dataclass(frozen=True)
class ProbeSettings:
    """How the classifier is trained; the defaults are the paper's (sections 4.1.1 and 4.1.2).

    Attributes:
        epochs: through the training examples; with `patience` at most.
        batch_size: the last batch of an epoch may be smaller.
        lr: AdamW's learning rate at the start and after every restart.
        patience: None: the rate follows cosines, for all epochs. Else it is constant until so many
            epochs and one more have brought no lower validation loss, then a tenth, then a
            hundredth; when that brings nothing either the training has converged and ends.
        min_lr: what a cosine falls to.
        restart_epochs: length of one cosine.
        betas: AdamW's.
        weight_decay: AdamW's.
        drawn: train on latents drawn anew in every epoch, and measure on one draw, instead of on
            the posterior's mean.
    """

    epochs: int = 20
    batch_size: int = 32
    lr: float = 1e-4
    patience: int | None = None
    min_lr: float = 1e-7
    restart_epochs: int = 10
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.1
    drawn: bool = False


PAPER = ProbeSettings()
CONVERGED = ProbeSettings(epochs=500, lr=1e-2, patience=3, weight_decay=0.0)


@dataclass(frozen=True)
class Score:
    """A classifier on one set of examples.

    Attributes:
        loss: cross-entropy, nats an example; with two labels the binary one (BCE).
        accuracy: in percent.
    """

    loss: float
    accuracy: float


@dataclass(frozen=True)
class ProbeResult:
    """One trained classifier.

    Attributes:
        epoch: after which it was kept, from 1.
        epochs: how many it was trained for.
        converged: whether it ended by itself; None where the epochs are fixed.
        scores: of every set of examples.
    """

    epoch: int
    epochs: int
    converged: bool | None
    scores: dict[str, Score]


def train_probe(
    splits: dict[str, Examples],
    labels: int,
    settings: ProbeSettings = ProbeSettings(),
    seed: int = 1,
    on_epoch: Callable[[], None] = lambda: None,
) -> ProbeResult:
    """Train a linear classifier and keep it as it was after the epoch of least validation loss.

    Two labels have one output and the binary cross-entropy, more have an output each and the
    cross-entropy. Everything random (first weights, order of the examples, draws) comes from
    `seed`, nothing from torch's global generator.

    Args:
        splits: ``train`` and ``valid``, and others that are only measured.
        labels: K, at least 2.
        settings: how.
        seed: any integer.
        on_epoch: called after every epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    train = splits["train"]
    outputs = 1 if labels == 2 else labels
    classifier = new_linear(train.posterior.mean.size(1), outputs, generator)
    optimizer = torch.optim.AdamW(
        classifier.parameters(),
        lr=settings.lr,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
    )
    count = len(train.labels)
    cosine = plateau = None
    if settings.patience is None:
        cosine = cosine_schedule(optimizer, settings, -(-count // settings.batch_size))
    else:
        plateau = ReduceLROnPlateau(optimizer, factor=0.1, patience=settings.patience)
    converged = None if plateau is None else False
    # one draw for all epochs, so that they are compared on the same latents
    measured = {
        name: features_of(split, settings.drawn, generator) for name, split in splits.items()
    }
    best, best_loss, best_epoch = copy.deepcopy(classifier), float("inf"), 0
    for epoch in range(1, settings.epochs + 1):
        features_NL = features_of(train, settings.drawn, generator)
        for batch in torch.randperm(count, generator=generator).split(settings.batch_size):
            optimizer.zero_grad()
            _loss(classifier(features_NL[batch]), train.labels[batch]).backward()
            optimizer.step()
            if cosine is not None:
                cosine.step()
        loss = score(classifier, measured["valid"], splits["valid"].labels).loss
        if loss < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(classifier), loss, epoch
        on_epoch()
        if plateau is not None:
            plateau.step(loss)
            # a thousandth would be next
            converged = optimizer.param_groups[0]["lr"] < settings.lr / 500
            if converged:
                break
    scores = {name: score(best, measured[name], split.labels) for name, split in splits.items()}
    return ProbeResult(best_epoch, epoch, converged, scores)


def cosine_schedule(
    optimizer: torch.optim.Optimizer, settings: ProbeSettings, updates_an_epoch: int
) -> CosineAnnealingWarmRestarts:
    """The learning rate of every update, as fairseq's ``cosine`` scheduler has it.

    At update t of a cosine of T = ``restart_epochs`` x `updates_an_epoch` updates it is
    min_lr + (lr - min_lr) (1 + cos(pi t / T)) / 2; at t = T the next begins (Loshchilov and Hutter
    2017, "SGDR", equation 5).
    """
    length = settings.restart_epochs * updates_an_epoch
    return CosineAnnealingWarmRestarts(optimizer, T_0=length, eta_min=settings.min_lr)


@torch.no_grad()
def score(classifier: nn.Module, features_NL: Tensor, labels_N: Tensor) -> Score:
    """Loss and accuracy of a classifier."""
    return score_logits(classifier(features_NL), labels_N)


def score_logits(logits: Tensor, labels_N: Tensor) -> Score:
    """Loss and accuracy of a classifier's output, (N, K), or (N, 1) for two labels."""
    logits = logits.double()
    found_N = (logits.squeeze(-1) > 0) if logits.size(-1) == 1 else logits.argmax(dim=-1)
    accuracy = 100 * (found_N.long() == labels_N).double().mean()
    return Score(_loss(logits, labels_N).item(), accuracy.item())


def without_features(splits: dict[str, Examples], labels: int) -> dict[str, Score]:
    """What is reached without looking at the latents.

    The loss is that of the training set's label frequencies as prediction, the accuracy that of
    its most frequent label: a classifier that learned nothing comes to these.
    """
    train = splits["train"].labels
    return {name: majority(train, split.labels, labels) for name, split in splits.items()}


def majority(train_N: Tensor, labels_N: Tensor, labels: int) -> Score:
    """What is reached on some examples by knowing the training set's labels alone.

    Args:
        train_N: labels of the training set.
        labels_N: labels of the examples measured.
        labels: K.
    """
    counts_K = torch.bincount(train_N, minlength=labels).double()
    log_frequencies_K, most_frequent = (counts_K / counts_K.sum()).log(), int(counts_K.argmax())
    return Score(
        -log_frequencies_K[labels_N].mean().item(),
        100 * (labels_N == most_frequent).double().mean().item(),
    )


def standardized(splits: dict[str, Examples]) -> dict[str, Examples]:
    """Every dimension with mean 0 and variance 1 over the training set's means.

    A dimension that is the same for all of them is only shifted.
    """
    mean_NL = splits["train"].posterior.mean
    shift_L, scale_L = mean_NL.mean(dim=0), mean_NL.std(dim=0, unbiased=False)
    # what single precision leaves of a constant is no spread
    constant_L = scale_L <= 1e-6 * mean_NL.abs().amax(dim=0)
    scale_L = scale_L.masked_fill(constant_L, 1.0)
    return {
        name: Examples(
            DiagonalGaussian(
                (split.posterior.mean - shift_L) / scale_L,
                split.posterior.logvar - 2 * scale_L.log(),
            ),
            split.labels,
        )
        for name, split in splits.items()
    }


def new_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with torch's usual first weights, from a generator of its own."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


def features_of(examples: Examples, drawn: bool, generator: torch.Generator) -> Tensor:
    """The posterior's means, or one draw, (N, L)."""
    posterior = examples.posterior
    if not drawn:
        return posterior.mean
    return posterior.sample(torch.randn(posterior.mean.shape, generator=generator))


def _loss(logits: Tensor, labels_N: Tensor) -> Tensor:
    if logits.size(-1) == 1:
        return F.binary_cross_entropy_with_logits(logits.squeeze(-1), labels_N.to(logits.dtype))
    return F.cross_entropy(logits, labels_N)
