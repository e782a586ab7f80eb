"""Classifiers on sentence vectors, of an encoder that stays as it is or is trained with them.

VAT paper, section 6 and table 5: "a single dense layer with nonlinear activation and Adam", on
extracted features or on top of an encoder that is fine-tuned for five epochs. For extracted
features the training is SentEval's (Conneau and Kiela 2018, ``senteval/tools/classifier.py``),
which the paper names.

Shape legend: N examples, B of a batch, L latent width, K labels, R classifiers trained side by
side that differ in their L2 penalty.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_vat.evaluation.folds import Split
from fairseq_vat.evaluation.linear_probe import Score, new_linear, score_logits

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}

# batches are made of sentences of like length, out of so many batches' worth in random order
_WINDOW = 16


@dataclass(frozen=True)
class Training:
    """How a classifier is trained, with Adam at one learning rate.

    Attributes:
        epochs: through the training examples, at most.
        batch_size: the last batch of an epoch may be smaller.
        lr: Adam's.
        weight_decays: Adam's L2 penalty of each of the R classifiers.
        look_every: epochs between two looks at the validation accuracy.
        tenacity: the training ends when more looks than this brought nothing better, counted from
            its start as SentEval does; None: it never ends before its time.
    """

    epochs: int = 5
    batch_size: int = 32
    lr: float = 1e-3
    weight_decays: tuple[float, ...] = (0.0,)
    look_every: int = 1
    tenacity: int | None = None


# SentEval's defaults, and the penalties it chooses from; its limit of 200 epochs is looked at
# before each four, not after
SENTEVAL = Training(
    epochs=204,
    batch_size=64,
    lr=1e-3,
    weight_decays=(1e-5, 1e-4, 1e-3, 1e-2),
    look_every=4,
    tenacity=5,
)


@dataclass(frozen=True)
class Fit:
    """One trained classifier, as it was after its epoch of best validation accuracy.

    Attributes:
        epoch: that epoch, from 1; of several as good, the first.
        weight_decay: with which it was trained.
        valid: on the validation part.
        test: on the test part, if there is one.
    """

    epoch: int
    weight_decay: float
    valid: Score
    test: Score | None


def new_head(
    width: int, labels: int, hidden: int, activation: str, generator: torch.Generator
) -> nn.Sequential:
    """A dense layer with a non-linearity, then the output layer: (B, L) to logits (B, K).

    Args:
        width: L.
        labels: K.
        hidden: the dense layer's width; 0 leaves the output layer alone.
        activation: one of `ACTIVATIONS`.
        generator: of the first weights.
    """
    if not hidden:
        return nn.Sequential(new_linear(width, labels, generator))
    dense = new_linear(width, hidden, generator)
    return nn.Sequential(dense, ACTIVATIONS[activation](), new_linear(hidden, labels, generator))


class FeatureClassifiers(nn.Module):
    """Heads on vectors that don't change; examples are called by their numbers.

    They begin alike and are trained at once, which takes little longer than training one.

    Args:
        features_NL: (N, L), of all examples.
        head: from `new_head`.
        count: R.
    """

    def __init__(self, features_NL: Tensor, head: nn.Sequential, count: int = 1):
        super().__init__()
        self.features_NL = features_NL
        layers = [layer for layer in head if isinstance(layer, nn.Linear)]
        self.activation = head[1] if len(layers) > 1 else None
        parameters = [
            parameter.detach().to(features_NL.device).expand(count, -1, -1).clone()
            for layer in layers
            for parameter in (layer.weight.t(), layer.bias.unsqueeze(0))
        ]
        self.layers = nn.ParameterList(parameters)  # weight, bias, weight, bias; R first

    def forward(self, numbers_B: Tensor) -> Tensor:
        """Logits, (R, B, K)."""
        x_BL = self.features_NL[numbers_B.to(self.features_NL.device)]
        x_RBC = x_BL.expand(len(self.layers[0]), -1, -1)
        x_RBC = torch.baddbmm(self.layers[1], x_RBC, self.layers[0])
        if self.activation is None:
            return x_RBC
        return torch.baddbmm(self.layers[3], self.activation(x_RBC), self.layers[2])


class FineTunedClassifier(nn.Module):
    """A head on an encoder of its own: the one given is copied, and stays as it is.

    Args:
        encoder: any module.
        vectors: gives (B, L) from the encoder and the numbers (B,) of examples, with gradients.
        head: from `new_head`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        vectors: Callable[[nn.Module, Tensor], Tensor],
        head: nn.Module,
    ):
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.vectors = vectors
        self.head = head.to(next(encoder.parameters()).device)

    def forward(self, numbers_B: Tensor) -> Tensor:
        """Logits, (1, B, K): there is one of it."""
        return self.head(self.vectors(self.encoder, numbers_B)).unsqueeze(0)


def fit(
    classifiers: nn.Module,
    labels_N: Tensor,
    split: Split,
    training: Training,
    seed: int,
    lengths: Sequence[int] | None = None,
    on_batch: Callable[[int], object] = lambda _: None,
) -> Fit:
    """Train R classifiers; the one of best validation accuracy, measured where that was.

    Order of examples and dropout come from `seed`; torch's global generators are left as they were.
    Dropout is on in training and off in measuring.

    Args:
        classifiers: numbers of examples (B,) to logits (R, B, K); R is the first dimension of its
            parameters, unless `training` has no penalty. They are trained in place, and end as
            after the last epoch.
        labels_N: (N,) int64, on the CPU.
        split: the examples' numbers.
        training: how.
        seed: any integer.
        lengths: of the examples, so that batches hold examples of like length; None: they are put
            together by chance alone.
        on_batch: called after every update with the number of its examples.
    """
    optimizer = torch.optim.Adam(classifiers.parameters(), lr=training.lr, fused=True)
    generator = torch.Generator().manual_seed(seed)
    best: list[Fit | None] = [None] * len(training.weight_decays)
    failures = [0] * len(best)
    with _seeded(seed):
        for epoch in range(1, training.epochs + 1):
            classifiers.train()
            for batch in _batches(split.train, training.batch_size, lengths, generator):
                _update(classifiers, optimizer, batch, labels_N[batch], training.weight_decays)
                on_batch(len(batch))
            if epoch % training.look_every and epoch < training.epochs:
                continue
            going = [training.tenacity is None or n <= training.tenacity for n in failures]
            scores = measure(classifiers, labels_N, split.valid, lengths)
            better = [
                goes and (last is None or score.accuracy > last.valid.accuracy)
                for goes, last, score in zip(going, best, scores, strict=True)
            ]
            tested: list[Score | None] = [None] * len(best)
            if any(better) and split.test is not None:
                tested = [*measure(classifiers, labels_N, split.test, lengths)]
            for number, decay in enumerate(training.weight_decays):
                if better[number]:
                    best[number] = Fit(epoch, decay, scores[number], tested[number])
                else:
                    failures[number] += 1
            if training.tenacity is not None and min(failures) > training.tenacity:
                break
    return max((found for found in best if found), key=lambda found: found.valid.accuracy)


@torch.no_grad()
def measure(
    classifiers: nn.Module,
    labels_N: Tensor,
    numbers: Tensor,
    lengths: Sequence[int] | None = None,
    batch_size: int = 128,
) -> list[Score]:
    """Loss and accuracy of each on some of the examples, without dropout."""
    classifiers.eval()
    if lengths is not None:
        numbers = numbers[_of_like_length(numbers, lengths)]
    logits = [classifiers(batch).cpu() for batch in numbers.split(batch_size)]
    return [score_logits(logits_NK, labels_N[numbers]) for logits_NK in torch.cat(logits, dim=1)]


def _update(
    classifiers: nn.Module,
    optimizer: torch.optim.Optimizer,
    numbers_B: Tensor,
    labels_B: Tensor,
    weight_decays: Sequence[float],
) -> None:
    logits = classifiers(numbers_B)
    targets = labels_B.to(logits.device).repeat(len(logits))
    optimizer.zero_grad()
    # each one's loss is a mean of its own
    (F.cross_entropy(logits.flatten(0, 1), targets) * len(logits)).backward()
    if any(weight_decays):
        for parameter in classifiers.parameters():
            decay_R11 = parameter.new_tensor(weight_decays).view(-1, 1, 1)
            parameter.grad += decay_R11 * parameter.detach()
    optimizer.step()


def _batches(
    numbers: Tensor, batch_size: int, lengths: Sequence[int] | None, generator: torch.Generator
) -> Iterator[Tensor]:
    """One epoch's batches in random order."""
    shuffled = numbers[torch.randperm(len(numbers), generator=generator)]
    if lengths is None:
        yield from shuffled.split(batch_size)
        return
    batches = [
        batch
        for window in shuffled.split(batch_size * _WINDOW)
        for batch in window[_of_like_length(window, lengths)].split(batch_size)
    ]
    for number in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[number]


def _of_like_length(numbers: Tensor, lengths: Sequence[int]) -> Tensor:
    return torch.tensor([lengths[number] for number in numbers.tolist()]).argsort(stable=True)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's global generators, which dropout draws from, for the time of the block."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
