"""Classification on sentence vectors, as in the VAT paper's table 5: docs/probe.md.

Shape legend: N examples, L width of a vector.
"""

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation import classifier
from fairseq_vat.evaluation.classifier import FINE_TUNING, SENTEVAL, Training
from fairseq_vat.evaluation.folds import cross_validation, hold_out
from fairseq_vat.evaluation.heads import Heads, Labels, majority, on_features, over_runs
from fairseq_vat.evaluation.labelled import LabelledFiles
from fairseq_vat.evaluation.probed_encoders import ProbedEncoder, described
from fairseq_vat.files import read_json, sha256, write_json
from fairseq_vat.hub.loading import checkpoint_of

Splits = dict[int, list[dict[str, Tensor]]]


def probe(
    encoders: Sequence[ProbedEncoder],
    files: LabelledFiles,
    modes: Sequence[str] = ("features",),
    poolings: Sequence[str] = ("mean",),
    seeds: int = 1,
    folds: int = 10,
    max_folds: int | None = None,
    hidden: int | None = None,
    activation: str = "sigmoid",
    fine_tuning: Training = FINE_TUNING,
    hf_lr: float = 2e-5,
    save: str | None = None,
) -> dict[str, Any]:
    """Train classifiers on encoders' vectors, or with the encoders, and measure their accuracies.

    Args:
        encoders: of the examples, the checkpoint's first; they aren't changed.
        files: ``train`` with ``valid`` and ``test`` where there are any, or ``cv``, for
            cross-validation.
        hidden: width of the dense layer, 0 for none; None: the vectors'.
        hf_lr: the learning rate then of those beside the checkpoint.

    Returns:
        Figures and settings, as ``fairseq-vat probe --json`` prints them.

    Raises:
        VATError: for folds that the examples don't have, a label that a training part has none of,
            a training that diverges, and as `SavedRuns`.
    """
    cv = "cv" in files.paths
    splits = splits_of(files, seeds, folds, max_folds)
    widths = [encoder.width if hidden is None else hidden for encoder in encoders]
    tuning = {name: getattr(fine_tuning, name) for name in ("epochs", "batch_size", "lr")}
    settings = {
        **_examples(files),
        "checkpoint": sha256(checkpoint_of(encoders[0].path)) if save else None,
        "--folds": folds if cv else None,
        "--hidden": hidden,
        "--activation": activation,
        **{f"--{name.replace('_', '-')}": value for name, value in tuning.items()},
    }
    if "valid" not in files.paths:
        settings["choice of folds"] = "StratifiedKFold"
    saved = SavedRuns(save, settings)
    trainings = [fine_tuning] + [replace(fine_tuning, lr=hf_lr)] * (len(encoders) - 1)
    # all before the first training: a pooling that a model doesn't have is an error
    asked = [encoder.poolings(poolings) for encoder in encoders]
    results = []
    for encoder, width, training, some in zip(encoders, widths, trainings, asked, strict=True):
        work = Probe(encoder, files.label_numbers, some, width, activation, training)
        for mode in dict.fromkeys(modes):
            for pooling in some:
                runs = run_all(work, saved, mode, pooling, splits)
                shown = pooling if encoder.latent_level == "token" else None
                what = {"encoder": encoder.name, "mode": mode, "pooling": shown}
                results.append({**what, **_accuracies(runs), "runs": runs})
    return {
        **described(encoders),
        "pairs": len(files.all_lines[0].sentences) == 2,
        **files.described(),
        "seeds": seeds,
        "folds": folds if cv else None,
        "folds_run": len(splits[1]) if cv else None,
        "hidden": widths[0],
        "hf_hidden": widths[1:],
        "activation": activation if any(widths) else None,
        "finetune": {**tuning, "hf_lr": hf_lr},
        "results": results,
        "majority": _majority(files.label_numbers, splits),
    }


@dataclass
class Probe:
    """An encoder and labelled examples on which classifiers are trained."""

    encoder: ProbedEncoder
    labels_N: Tensor
    poolings: Sequence[str]
    hidden: int = 0
    activation: str = "sigmoid"
    fine_tuning: Training = FINE_TUNING

    @cached_property
    def features(self) -> dict[str, Tensor]:
        """All examples' vectors by pooling, (N, L)."""
        return self.encoder.embed(self.poolings)

    def run(
        self,
        mode: str,
        pooling: str,
        parts: Mapping[str, Tensor],
        seed: int,
        on_batch: Callable[[int], object] = lambda _: None,
    ) -> dict[str, Any]:
        """Train one classifier; its epoch and its scores, for JSON."""
        training, lengths = SENTEVAL, None
        sizes = (int(self.labels_N.max()) + 1, torch.Generator().manual_seed(seed), self.hidden)
        if mode == "features":
            vectors_NL, count = self.features[pooling], len(SENTEVAL.penalties)
            heads = on_features(vectors_NL, *sizes, self.activation, count)
        else:
            training, lengths = self.fine_tuning, self.encoder.lengths
            heads = Heads(
                lambda module, numbers: self.encoder.vectors(module, numbers, pooling),
                *(self.encoder.width, *sizes, self.activation),
                encoder=self.encoder.module,
                device=next(self.encoder.module.parameters()).device,
            )
        generator = torch.Generator().manual_seed(seed)
        fit = classifier.train(
            *(heads, Labels(self.labels_N), parts, training, generator, lengths), on_batch=on_batch
        )
        scores = {part: fit.scores.get(part) for part in ("valid", "test")}
        losses = [score.loss for score in scores.values() if score is not None]
        if not all(map(math.isfinite, losses)):
            raise VATError(
                f"{self.encoder.name}: {mode}, {pooling}, seed {seed}: the training diverged, the "
                f"loss is {losses[0]}; give a smaller {self.encoder.lr_flag}"
            )
        scores = {part: score and asdict(score) for part, score in scores.items()}
        return {"epoch": fit.epoch, "weight_decay": fit.penalty, **scores}


class SavedRuns:
    """Finished runs in a JSON file, and the settings they all have, so that `probe` can go on.

    Args:
        path: the file; None keeps nothing.
        settings: everything that a run's result depends on and that its key doesn't tell, under
            the names of the flags.

    Raises:
        VATError: if the file is there and isn't one of these, or its runs had other settings.
    """

    def __init__(self, path: str | None, settings: Mapping[str, Any]):
        self.path, self.settings = path, dict(settings)
        self.runs: dict[str, dict[str, Any]] = {}
        if path is not None and os.path.exists(path):
            self.runs = self._read(path)
        self._write()  # here, so that a place that can't be written to is met before the work

    def _read(self, path: str) -> dict[str, dict[str, Any]]:
        saved = read_json(path)
        parts = saved if isinstance(saved, dict) else {}
        whole = all(isinstance(part, dict) for part in parts.values())
        if not whole or parts.keys() != {"settings", "runs"}:
            raise VATError(f"--save {path}: is there and holds no runs of probe; name another file")
        for name in {**parts["settings"], **self.settings}:
            then, now = (some.get(name) for some in (parts["settings"], self.settings))
            if then != now:
                then, now = (x if len(x) <= 20 else x[:12] + "..." for x in (f"{then}", f"{now}"))
                raise VATError(
                    f"--save {path}: its runs were made with another {name} ({then}, now {now}); "
                    "name another file, or repeat the settings"
                )
        return parts["runs"]

    def add(self, key: str, run: dict[str, Any]) -> None:
        """Keep a run, beside those that another process has kept there since."""
        if self.path is not None:
            self.runs |= self._read(self.path)
        self.runs[key] = run
        self._write()

    def _write(self) -> None:
        if self.path is not None:
            write_json(self.path, {"settings": self.settings, "runs": self.runs})


def run_all(
    work: Probe, saved: SavedRuns, mode: str, pooling: str, splits: Splits
) -> list[dict[str, Any]]:
    """Every run of a mode and pooling, those not yet kept trained now, with a progress bar."""
    prefix = work.encoder.key
    if prefix and mode == "finetune":  # the checkpoint's rate is among the settings
        prefix += f"{work.encoder.lr_flag} {work.fine_tuning.lr}, "
    runs = []
    for seed, every in splits.items():
        for fold, parts in enumerate(every, start=1):
            key = f"{mode}, {pooling}, seed {seed}, fold {fold}"
            if prefix + key not in saved.runs:
                total = work.fine_tuning.epochs * len(parts["train"])
                with tqdm(
                    total=total if mode == "finetune" else None,
                    desc=f"{work.encoder.name}, {key}",
                    **{"unit": " sentences", "leave": False, "disable": None},
                ) as bar:
                    saved.add(prefix + key, work.run(mode, pooling, parts, seed, bar.update))
            runs.append({"seed": seed, **saved.runs[prefix + key]})
    return runs


def splits_of(
    files: LabelledFiles, seeds: int, folds: int = 10, max_folds: int | None = None
) -> Splits:
    """Of every seed: the folds of ``cv``, or the files' parts, a tenth held out for ``valid``."""
    labels_N, parts = files.label_numbers, files.parts
    path = next(iter(files.paths.values()))
    splits: Splits = {}
    for seed in range(1, seeds + 1):
        try:
            if "cv" in parts:
                splits[seed] = cross_validation(labels_N, folds, seed)[:max_folds]
            elif "valid" in parts:
                splits[seed] = [parts]
            else:
                splits[seed] = [{**parts, **hold_out(labels_N, parts["train"], seed)}]
        except VATError as error:
            raise VATError(f"{path}: {error}") from error
        for some in splits[seed]:
            missing = set(labels_N.tolist()) - set(labels_N[some["train"]].tolist())
            if missing:
                way_out = "fewer --folds" if "cv" in parts else "a file with --valid"
                raise VATError(
                    f"{path}: label {files.labels[min(missing)]!r} has too few lines: a part for "
                    f"training has none of it; give it more lines, or give {way_out}"
                )
    return splits


def _examples(files: LabelledFiles) -> dict[str, Any]:
    """What saved runs hold of the examples."""
    numbers = files.label_numbers.tolist()
    lines = [f"{label} {pieces}" for label, pieces in zip(numbers, files.all_pieces, strict=True)]
    return {
        "sentences or labels": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "division into files": {name: len(some) for name, some in files.lines.items()},
    }


def _accuracies(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        part: runs[0][part] and over_runs([run[part] for run in runs], "accuracy")
        for part in ("valid", "test")
    }


def _majority(labels_N: Tensor, splits: Splits) -> dict[str, Any]:
    """The accuracy of the training parts' most frequent labels."""
    runs = []
    for parts in (parts for some in splits.values() for parts in some):
        train_N = labels_N[parts["train"]]
        run = {name: vars(majority(train_N, labels_N[numbers])) for name, numbers in parts.items()}
        runs.append({"test": None, **run})
    return _accuracies(runs)
