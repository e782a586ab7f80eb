"""Classifiers on sentence vectors, and what their outputs are held against.

Shape legend: N examples, B of a batch, L width of a vector, K labels, R classifiers side by side.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_vat.evaluation.classifier import Classifiers


@dataclass(frozen=True)
class Score:
    """A classifier on one set of examples.

    Attributes:
        loss: cross-entropy, nats an example; with one output for two labels the binary one (BCE).
        accuracy: in percent.
    """

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Labels:
    """Labels as the target of `classifier.train`.

    Attributes:
        numbers: (N,) int64, of every example's label from 0, on the CPU.
    """

    numbers: Tensor

    def loss(self, logits_RBK: Tensor, numbers_B: Tensor) -> Tensor:
        """Mean cross-entropy."""
        targets = self.numbers[numbers_B].to(logits_RBK.device).repeat(len(logits_RBK))
        return _cross_entropy(logits_RBK.flatten(0, 1), targets)

    def score(self, logits_NK: Tensor, numbers_N: Tensor) -> Score:
        """Loss and accuracy."""
        return score_logits(logits_NK, self.numbers[numbers_N])


def score_logits(logits: Tensor, labels_N: Tensor) -> Score:
    """Loss and accuracy of a classifier's output, (N, K), or (N, 1) for two labels."""
    logits = logits.double()
    found_N = (logits.squeeze(-1) > 0) if logits.size(-1) == 1 else logits.argmax(dim=-1)
    accuracy = 100 * (found_N.long() == labels_N).double().mean()
    return Score(_cross_entropy(logits, labels_N).item(), accuracy.item())


def majority(train_N: Tensor, labels_N: Tensor) -> Score:
    """What is reached on some examples by knowing the training set's labels alone.

    The loss is that of their frequencies as prediction, the accuracy that of the most frequent one:
    a classifier that learned nothing comes to these.

    Args:
        train_N: labels of the training set.
        labels_N: labels of the examples measured; each is in the training set.
    """
    counts_K = torch.bincount(train_N).double()
    log_frequencies_K, most_frequent = (counts_K / counts_K.sum()).log(), int(counts_K.argmax())
    return Score(
        -log_frequencies_K[labels_N].mean().item(),
        100 * (labels_N == most_frequent).double().mean().item(),
    )


def over_runs(scores: Sequence[Mapping[str, float | None]], *names: str) -> dict[str, float | None]:
    """Figures of several runs by name, and their standard deviations (n - 1) as ``NAME_std``.

    Of one run there is no deviation, and where a figure is undefined in one there is neither.
    """
    found: dict[str, float | None] = {}
    for name in names:
        values = [score[name] for score in scores]
        defined = None not in values
        found[name] = statistics.fmean(values) if defined else None
        several = defined and len(values) > 1
        found[f"{name}_std"] = statistics.stdev(values) if several else None
    return found


class Head(nn.Module):
    """A dense layer with a non-linearity, then the output layer: (B, L) to (B, K).

    Args:
        width: L.
        outputs: K.
        hidden: the dense layer's width; 0 leaves the output layer alone.
        activation: one of `ACTIVATIONS`.
        generator: of the first weights.
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        generator: torch.Generator,
        hidden: int = 0,
        activation: str = "sigmoid",
    ):
        super().__init__()
        sizes = (width, hidden, outputs) if hidden else (width, outputs)
        layers = [new_linear(a, b, generator) for a, b in pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        self.activation = getattr(torch, activation)

    def forward(self, x_BL: Tensor) -> Tensor:
        """Logits."""
        for layer in self.layers[:-1]:
            x_BL = self.activation(layer(x_BL))
        return self.layers[-1](x_BL)


class FeatureClassifiers(Classifiers):
    """Heads on vectors that don't change.

    They begin alike and are trained at once, which takes little longer than training one.

    Args:
        features_NL: (N, L), of all examples.
        head: with which each begins.
        count: R.
        draw: gives the vectors of the first examples, those of the training part, for an epoch;
            None: they are the same in training and measuring.
    """

    def __init__(
        self,
        features_NL: Tensor,
        head: Head,
        count: int = 1,
        draw: Callable[[torch.Generator], Tensor] | None = None,
    ):
        super().__init__()
        self.features_NL, self.drawn_NL, self.draw = features_NL, features_NL, draw
        self.activation = head.activation
        parameters = [
            parameter.detach().to(features_NL.device).expand(count, -1, -1).clone()
            for layer in head.layers
            for parameter in (layer.weight.t(), layer.bias.unsqueeze(0))
        ]
        self.layers = nn.ParameterList(parameters)  # weight, bias, weight, bias; R first

    def begin_epoch(self, generator: torch.Generator) -> None:
        """Draw."""
        if self.draw is not None:
            self.drawn_NL = self.draw(generator)

    def forward(self, numbers_B: Tensor) -> Tensor:
        """Logits, (R, B, K)."""
        vectors_NL = self.drawn_NL if self.training else self.features_NL
        x_BL = vectors_NL[numbers_B.to(vectors_NL.device)]
        x_RBC = x_BL.expand(len(self.layers[0]), -1, -1)
        x_RBC = torch.baddbmm(self.layers[1], x_RBC, self.layers[0])
        if len(self.layers) == 2:
            return x_RBC
        return torch.baddbmm(self.layers[3], self.activation(x_RBC), self.layers[2])


class FineTunedClassifier(Classifiers):
    """A head on an encoder of its own: the one given is copied, and stays as it is.

    Args:
        encoder: any module.
        vectors: gives (B, L) from the encoder and the numbers (B,) of examples, with gradients.
        head: on them.
    """

    def __init__(
        self, encoder: nn.Module, vectors: Callable[[nn.Module, Tensor], Tensor], head: nn.Module
    ):
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.vectors = vectors
        self.head = head.to(next(encoder.parameters()).device)

    def forward(self, numbers_B: Tensor) -> Tensor:
        """Logits, (1, B, K): there is one of it."""
        return self.head(self.vectors(self.encoder, numbers_B)).unsqueeze(0)


def new_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with torch's usual first weights, from a generator of its own."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


def _cross_entropy(logits: Tensor, labels_N: Tensor) -> Tensor:
    if logits.size(-1) == 1:
        return F.binary_cross_entropy_with_logits(logits.squeeze(-1), labels_N.to(logits.dtype))
    return F.cross_entropy(logits, labels_N)
