"""Classifiers on sentence vectors, of an encoder that stays as it is or is trained with them.

VAT paper, section 6 and table 5: "a single dense layer with nonlinear activation and Adam", on
extracted features or on top of an encoder that is fine-tuned for five epochs. For extracted
features the training is SentEval's (Conneau and Kiela 2018, ``senteval/tools/classifier.py``),
which the paper names.

Shape legend: N examples, B of a batch, L latent width, K labels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

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
        weight_decay: Adam's, an L2 penalty.
        look_every: epochs between two looks at the validation accuracy.
        tenacity: the training ends when more looks than this brought nothing better, counted from
            its start as SentEval does; None: it never ends before its time.
    """

    epochs: int = 5
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.0
    look_every: int = 1
    tenacity: int | None = None


# SentEval's defaults, and the penalties it chooses from
SENTEVAL = Training(epochs=200, batch_size=64, lr=1e-3, look_every=4, tenacity=5)
SENTEVAL_WEIGHT_DECAYS = (1e-5, 1e-4, 1e-3, 1e-2)


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


class FeatureClassifier(nn.Module):
    """A head on vectors that don't change; examples are called by their numbers.

    Args:
        features_NL: (N, L), of all examples.
        head: from `new_head`.
    """

    def __init__(self, features_NL: Tensor, head: nn.Module):
        super().__init__()
        self.features_NL = features_NL
        self.head = head.to(features_NL.device)

    def forward(self, numbers_B: Tensor) -> Tensor:
        """Logits, (B, K)."""
        return self.head(self.features_NL[numbers_B.to(self.features_NL.device)])


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
        """Logits, (B, K)."""
        return self.head(self.vectors(self.encoder, numbers_B))


def fit(
    classifier: nn.Module,
    labels_N: Tensor,
    split: Split,
    training: Training,
    seed: int,
    lengths: Sequence[int] | None = None,
    on_batch: Callable[[int], object] = lambda _: None,
) -> Fit:
    """Train a classifier, and measure it where its validation accuracy was best.

    Order of examples and dropout come from `seed`; torch's global generators are left as they were.
    Dropout is on in training and off in measuring.

    Args:
        classifier: numbers of examples (B,) to logits (B, K); it is trained in place, and ends as
            after the last epoch.
        labels_N: (N,) int64, on the CPU.
        split: the examples' numbers.
        training: how.
        seed: any integer.
        lengths: of the examples, so that batches hold examples of like length; None: they are put
            together by chance alone.
        on_batch: called after every update with the number of its examples.
    """
    optimizer = torch.optim.Adam(
        classifier.parameters(), lr=training.lr, weight_decay=training.weight_decay
    )
    generator = torch.Generator().manual_seed(seed)
    best: Fit | None = None
    failures = 0
    with _seeded(seed):
        for epoch in range(1, training.epochs + 1):
            classifier.train()
            for batch in _batches(split.train, training.batch_size, lengths, generator):
                logits = classifier(batch)
                optimizer.zero_grad()
                F.cross_entropy(logits, labels_N[batch].to(logits.device)).backward()
                optimizer.step()
                on_batch(len(batch))
            if epoch % training.look_every and epoch < training.epochs:
                continue
            valid = measure(classifier, labels_N, split.valid, lengths)
            if best is None or valid.accuracy > best.valid.accuracy:
                best = Fit(epoch, training.weight_decay, valid, None)
                if split.test is not None:
                    best = replace(best, test=measure(classifier, labels_N, split.test, lengths))
            elif training.tenacity is not None:
                failures += 1
                if failures > training.tenacity:
                    break
    assert best is not None
    return best


def fit_features(
    features_NL: Tensor,
    labels_N: Tensor,
    split: Split,
    new_classifier: Callable[[torch.Generator], nn.Module],
    seed: int,
) -> Fit:
    """SentEval's training on extracted features: of four L2 penalties the best in validation.

    Args:
        features_NL: (N, L), of all examples.
        labels_N: (N,) int64.
        split: the examples' numbers.
        new_classifier: a head, with first weights from the generator.
        seed: of first weights and order, the same for the four.
    """
    fits = []
    for weight_decay in SENTEVAL_WEIGHT_DECAYS:
        head = new_classifier(torch.Generator().manual_seed(seed))
        training = replace(SENTEVAL, weight_decay=weight_decay)
        fits.append(fit(FeatureClassifier(features_NL, head), labels_N, split, training, seed))
    return max(fits, key=lambda found: found.valid.accuracy)


@torch.no_grad()
def measure(
    classifier: nn.Module,
    labels_N: Tensor,
    numbers: Tensor,
    lengths: Sequence[int] | None = None,
    batch_size: int = 128,
) -> Score:
    """Loss and accuracy on some of the examples, without dropout."""
    classifier.eval()
    if lengths is not None:
        numbers = numbers[_of_like_length(numbers, lengths)]
    logits = torch.cat([classifier(batch).cpu() for batch in numbers.split(batch_size)])
    return score_logits(logits, labels_N[numbers])


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
