"""Classifiers on sentence vectors, and what their outputs are held against.

Shape legend: N examples, B of a batch, L width of a vector, K labels, R classifiers side by side.
"""

import copy
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Score:
    """A classifier on one set of examples."""

    # cross-entropy, nats an example; with one output for two labels the binary one (BCE)
    loss: float
    accuracy: float  # in percent


@dataclass(frozen=True)
class Labels:
    """Labels as the target of `classifier.train`."""

    numbers: Tensor  # (N,) int64, of every example's label from 0, on the CPU

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


class Heads(nn.Module):
    """A dense layer with a non-linearity, then the output layer, R times, on sentence vectors.

    They begin alike and are trained at once, which takes little longer than training one.

    Args:
        vectors: gives (B, L) from an encoder, or None, and the numbers (B,) of examples.
        hidden: the dense layer's width; 0 leaves the output layer alone.
        count: R; one where an encoder is trained along.
        encoder: to be trained along: a copy is, and the one given stays as it is.
    """

    def __init__(
        self,
        vectors: Callable[[nn.Module | None, Tensor], Tensor],
        width: int,
        outputs: int,
        generator: torch.Generator,
        hidden: int = 0,
        activation: str = "sigmoid",
        count: int = 1,
        encoder: nn.Module | None = None,
        device: torch.device | str = "cpu",
    ):
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.vectors = vectors
        self.activation = getattr(torch, activation)
        sizes = (width, hidden, outputs) if hidden else (width, outputs)
        parameters = [
            parameter.detach().to(device).expand(count, -1, -1).clone()
            for layer in (new_linear(*some, generator) for some in pairwise(sizes))
            for parameter in (layer.weight.t(), layer.bias.unsqueeze(0))
        ]
        self.layers = nn.ParameterList(parameters)  # weight, bias, weight, bias; R first

    def forward(self, numbers_B: Tensor) -> Tensor:
        """Logits, (R, B, K)."""
        x_RBC = self.vectors(self.encoder, numbers_B).expand(len(self.layers[0]), -1, -1)
        x_RBC = torch.baddbmm(self.layers[1], x_RBC, self.layers[0])
        if len(self.layers) == 2:
            return x_RBC
        return torch.baddbmm(self.layers[3], self.activation(x_RBC), self.layers[2])


def on_features(features_NL: Tensor, *sizes: Any, **more: Any) -> Heads:
    """`Heads` on vectors that don't change, (N, L), of all examples."""
    device, width = features_NL.device, features_NL.size(1)
    return Heads(
        lambda _, numbers_B: features_NL[numbers_B.to(device)], width, *sizes, **more, device=device
    )


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
