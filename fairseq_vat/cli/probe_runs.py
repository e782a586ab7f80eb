"""The trainings of ``fairseq-vat probe``: one by one, each kept in a file when it is done."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from fairseq.data import data_utils
from torch import Tensor, nn
from tqdm import tqdm

from fairseq_vat.cli.probe_data import Examples
from fairseq_vat.errors import VATError
from fairseq_vat.evaluation import probe
from fairseq_vat.evaluation.folds import Split
from fairseq_vat.evaluation.pooling import pool
from fairseq_vat.files import read_json, write_json
from fairseq_vat.hub import VATHubInterface


@dataclass(frozen=True)
class Head:
    """The classifier on top: see `probe.new_head`."""

    hidden: int
    activation: str


class SavedRuns:
    """Finished runs in a JSON file, and the settings they all have.

    Args:
        path: the file; None keeps nothing.
        settings: everything that a run's result depends on and that its key doesn't tell, under
            the names of the flags.

    Raises:
        VATError: if the file is there and isn't one of these, or its runs had other settings.
    """

    def __init__(self, path: str | None, settings: Mapping[str, Any]):
        self.path = path
        self.settings = dict(settings)
        self.runs: dict[str, dict[str, Any]] = {}
        if path is not None and os.path.exists(path):
            self.runs = self._read(path)
        self._write()  # here, so that a place that can't be written to is met before the work

    def _read(self, path: str) -> dict[str, dict[str, Any]]:
        saved = read_json(path)
        if not isinstance(saved, dict) or set(saved) != {"settings", "runs"}:
            raise VATError(f"--save {path}: is there and holds no runs of probe; name another file")
        then = saved["settings"]
        for name in {**then, **self.settings}:
            if then.get(name) != self.settings.get(name):
                raise VATError(
                    f"--save {path}: its runs were made with another {name} "
                    f"({_short(then.get(name))}, now {_short(self.settings.get(name))}); name "
                    "another file, or repeat the settings"
                )
        return saved["runs"]

    def add(self, key: str, run: Mapping[str, Any]) -> None:
        """Keep a run."""
        self.runs[key] = dict(run)
        self._write()

    def _write(self) -> None:
        if self.path is not None:
            write_json(self.path, {"settings": self.settings, "runs": self.runs})


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


def run_all(
    work: Probe,
    saved: SavedRuns,
    mode: str,
    pooling: str,
    splits: Mapping[int, list[Split]],
) -> list[dict[str, Any]]:
    """Every run of a mode and pooling, those not yet kept trained now, with a progress bar.

    Args:
        work: what trains.
        saved: what is kept.
        mode: ``features`` or ``finetune``.
        pooling: as of `pool`.
        splits: of every seed, one or a list of folds.
    """
    runs = [
        (f"{mode}, {pooling}, seed {seed}, fold {fold}", seed, split)
        for seed, folds in splits.items()
        for fold, split in enumerate(folds, start=1)
    ]
    sizes = {
        key: 1 if mode == "features" else work.fine_tuning.epochs * len(split.train)
        for key, _, split in runs
    }
    done = sum(size for key, size in sizes.items() if key in saved.runs)
    unit = " runs" if mode == "features" else " sentences"
    with tqdm(total=sum(sizes.values()), initial=done, unit=unit, leave=False, disable=None) as bar:
        for key, seed, split in runs:
            if key in saved.runs:
                continue
            bar.set_description(key)
            by_batch = bar.update if mode == "finetune" else lambda _: None
            saved.add(key, work.run(mode, pooling, split, seed, by_batch))
            if mode == "features":
                bar.update()
    return [{"seed": seed, **saved.runs[key]} for key, seed, _ in runs]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 20 else text[:12] + "..."
