"""Classifiers on a model's sentence vectors: what trains one of them.

Shape legend: N examples, B of a batch, L latent width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from fairseq.data import data_utils
from torch import Tensor, nn

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation import probe
from fairseq_vat.evaluation.folds import Split
from fairseq_vat.evaluation.pooling import pool
from fairseq_vat.hub import VATHubInterface


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
    """A model and labelled examples on which classifiers are trained.

    Args:
        vat: the model; it isn't changed.
        examples: all of them.
        poolings: all that `run` will be asked for.
        head: on top of the sentence vectors.
        fine_tuning: how encoder and head are trained together.
    """

    def __init__(
        self,
        vat: VATHubInterface,
        examples: Examples,
        poolings: Sequence[str],
        head: Head,
        fine_tuning: probe.Training,
    ):
        # what it reads are pieces already
        self.vat = VATHubInterface(vat.cfg, vat.task, vat.model, bpe=None)
        self.examples = examples
        self.poolings = poolings
        self.head = head
        self.fine_tuning = fine_tuning
        self._features: dict[str, Tensor] = {}
        self._sources: dict[int, Tensor] = {}

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
                self._embedded(pooling), head, len(training.weight_decays)
            )
        else:
            training, sources = self.fine_tuning, self._read()
            lengths = [len(sources[number]) for number in range(len(sources))]
            classifiers = probe.FineTunedClassifier(
                self.vat.model.encoder,
                lambda encoder, numbers: self._vectors(encoder, numbers, pooling),
                head,
            )
        labels_N = self.examples.labels_N
        found = probe.fit(classifiers, labels_N, split, training, seed, lengths, on_batch)
        losses = [score.loss for score in (found.valid, found.test) if score is not None]
        if not all(map(math.isfinite, losses)):
            raise VATError(
                f"{mode}, {pooling}, seed {seed}: the training diverged, the loss is "
                f"{losses[0]}; give a smaller --lr"
            )
        return asdict(found)

    def _new_head(self, seed: int) -> nn.Sequential:
        return probe.new_head(
            self.vat.model.encoder.latent_dim,
            len(self.examples.labels),
            self.head.hidden,
            self.head.activation,
            torch.Generator().manual_seed(seed),
        )

    def _embedded(self, pooling: str) -> Tensor:
        if not self._features:
            found = self.vat.embed_posteriors(self.examples.pieces, self.poolings)
            self._features = {name: found[name].mean.to(self.vat.device) for name in found}
        return self._features[pooling]

    def _read(self) -> dict[int, Tensor]:
        """Every example's tokens as the hub makes them: start token, cut to the positions."""
        if not self._sources:
            for sample in self.vat.batches(self.examples.pieces):
                net_input = sample["net_input"]
                lengths = net_input["src_lengths"].tolist()
                rows = zip(
                    sample["id"].tolist(), net_input["src_tokens"].cpu(), lengths, strict=True
                )
                self._sources.update({number: row[:length] for number, row, length in rows})
        return self._sources

    def _vectors(self, encoder: nn.Module, numbers_B: Tensor, pooling: str) -> Tensor:
        """Pooled posterior means, (B, L)."""
        sources = [self._read()[number] for number in numbers_B.tolist()]
        padding = self.vat.task.source_dictionary.pad()
        src_tokens = data_utils.collate_tokens(sources, padding, left_pad=False)
        src_lengths = torch.tensor([len(source) for source in sources])
        out = encoder(src_tokens.to(self.vat.device), src_lengths.to(self.vat.device))
        return pool(encoder.posterior(out), out["encoder_padding_mask"][0], pooling).mean
