"""Classifiers on a model's sentence vectors: what trains one of them.

Shape legend: N examples, B of a batch, L latent width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation import probe
from fairseq_vat.evaluation.folds import Split
from fairseq_vat.evaluation.probed_encoders import ProbedEncoder


class Examples(NamedTuple):
    """All labelled sentences of a probe.

    Attributes:
        labels: the names, in order.
        pieces: every example in subwords.
        labels_N: every example's label by its number, int64.
        numbers: of the examples of each file.
    """

    labels: list[str]
    pieces: list[str]
    labels_N: Tensor
    numbers: dict[str, range]


@dataclass(frozen=True)
class Head:
    """The classifier on top: see `probe.new_head`."""

    hidden: int
    activation: str


class Probe:
    """An encoder and labelled examples on which classifiers are trained.

    Args:
        encoder: of the examples' sentences; it isn't changed.
        examples: all of them.
        poolings: all that `run` will be asked for.
        head: on top of the sentence vectors.
        fine_tuning: how encoder and head are trained together.
    """

    def __init__(
        self,
        encoder: ProbedEncoder,
        examples: Examples,
        poolings: Sequence[str],
        head: Head,
        fine_tuning: probe.Training,
    ):
        self.encoder = encoder
        self.examples = examples
        self.poolings = poolings
        self.head = head
        self.fine_tuning = fine_tuning

    @cached_property
    def features(self) -> dict[str, Tensor]:
        """All examples' vectors by pooling, (N, L)."""
        return self.encoder.embed(self.poolings)

    @cached_property
    def lengths(self) -> list[int]:
        """All examples' lengths in tokens."""
        return self.encoder.lengths

    def run(
        self, mode: str, pooling: str, split: Split, seed: int, on_batch: Callable[[int], object]
    ) -> dict[str, Any]:
        """Train one classifier; its epoch and its scores, for JSON.

        Args:
            mode: ``features`` or ``finetune``.
            pooling: as of `pool`.
            split: numbers of the examples.
            seed: of first weights, order and dropout.
            on_batch: called with the number of examples after every update.
        """
        head = self._new_head(seed)
        if mode == "features":
            training, lengths = probe.SENTEVAL, None
            classifiers = probe.FeatureClassifiers(
                self.features[pooling], head, len(training.weight_decays)
            )
        else:
            training, lengths = self.fine_tuning, self.lengths
            classifiers = probe.FineTunedClassifier(
                self.encoder.module,
                lambda module, numbers: self.encoder.vectors(module, numbers, pooling),
                head,
            )
        labels_N = self.examples.labels_N
        found = probe.fit(classifiers, labels_N, split, training, seed, lengths, on_batch)
        losses = [score.loss for score in (found.valid, found.test) if score is not None]
        if not all(map(math.isfinite, losses)):
            raise VATError(
                f"{self.encoder.name}: {mode}, {pooling}, seed {seed}: the training diverged, the "
                f"loss is {losses[0]}; give a smaller {self.encoder.lr_flag}"
            )
        return asdict(found)

    def _new_head(self, seed: int) -> nn.Sequential:
        return probe.new_head(
            self.encoder.width,
            len(self.examples.labels),
            self.head.hidden,
            self.head.activation,
            torch.Generator().manual_seed(seed),
        )
