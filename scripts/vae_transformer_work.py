"""The steps of scripts/reproduce_vae_transformer.py; each does nothing if it is done already."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from vae_transformer_commands import (
    LOCK,
    ROOT,
    OutOfTime,
    StepFailed,
    commit,
    is_locked,
    json_of,
    locked,
    run_command,
    say,
    shown,
)
from vae_transformer_data import SPLITS, DataSet
from vae_transformer_results import write_results
from vae_transformer_runs import (
    Run,
    best_epoch,
    epochs_of,
    max_positions,
    training_flags,
    valid_metric,
)
from vae_transformer_tables import write_markdown

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.training_log import Record, read_training_log
from fairseq_vat.files import read_json, sha256, write_json
from fairseq_vat.hardware import preferred_precision


class Recipe:
    """All the work on one folder.

    Args:
        args: the flags of reproduce_vae_transformer.
        sets: the data sets by name.
        runs: in their order.
    """

    def __init__(self, args: argparse.Namespace, sets: Mapping[str, DataSet], runs: Sequence[Run]):
        self.args, self.sets, self.runs, self.out = args, sets, runs, args.out
        self._deadline = None if args.minutes is None else time.monotonic() + 60 * args.minutes
        self._on_cpu = args.cpu or not torch.cuda.is_available()
        self._device_flags = ["--cpu"] if self._on_cpu else []
        self._precision = args.precision or preferred_precision(self._on_cpu)
        self.failed: set[object] = set()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def work(self) -> None:
        """Do everything that is still to do; `failed` has what failed.

        Raises:
            OutOfTime: see `OutOfTime`; work is left.
        """
        gpt2 = self.args.gpt2 if "vae_gpt2" in self.args.only else None
        for data in self.sets.values():
            if not self.args.dry_run:
                place = self.out / data.name
                vocabulary = (self.args.vocabulary, self.args.drop_unused)
                self._attempt(data.name, data.prepare, place, *vocabulary, gpt2)
        for run in self.runs:
            if self._is_done(run):
                self._say_if_other_settings(run)
        while self._began_a_run():  # once more, as another process may have left one
            pass
        if "8" in self.args.tables:
            command = [sys.executable, str(ROOT / "scripts/time_forward.py"), "--parameters"]
            self._attempt("parameters", self._json, self.out / "parameters", [*command, "--json"])
        for name in self.sets if "7" in self.args.tables else ():
            if name not in self.failed:
                self._attempt(f"{name} time", self._time, name)

    def gather(self) -> None:
        """Write the tables, of all that is measured."""
        if not self.args.dry_run:
            with locked(self.out / "results"):
                write_results(self.out)
                write_markdown(self.out / "results")

    def say_what_is_left(self) -> None:
        """How much of the plan is done."""
        left = [run for run in self.runs if not self._is_done(run)]
        done = len(self.runs) - len(left)
        untrained = [run for run in left if self._trained(run) is None]
        epochs = sum(self.args.epochs - epochs_of(self._records(run)) for run in untrained)
        busy = sum(is_locked(self.out / run.folder) for run in self.runs)
        say(
            f"{done} of {len(self.runs)} runs done; left: {len(left)} ({busy} at work elsewhere), "
            f"{epochs} epochs at most"
        )
        if not self.args.dry_run:
            print(self.out / "results" / "tables.md")

    def _began_a_run(self) -> bool:
        began = False
        for number, run in enumerate(self.runs, 1):
            if run.data in self.failed or run in self.failed or self._is_done(run):
                continue
            if self.args.dry_run:
                self._print(run)
                continue
            if self._is_locked("*/time"):
                say("table 7 is measured: nothing may run beside it; run this again after it")
                return False
            with locked(self.out / run.folder, wait=False) as is_ours:
                if is_ours and not self._is_done(run):
                    began = True
                    say(f"run {number} of {len(self.runs)}: {run.folder}")
                    self._attempt(run, self._one_run, run)
        return began

    def _is_locked(self, folders: str) -> bool:
        """Whether another process is at work in one of them, also on what this call hasn't."""
        return any(is_locked(path.parent) for path in self.out.glob(f"{folders}/{LOCK}"))

    def _say_if_other_settings(self, run: Run) -> None:
        """Commands don't have these."""
        trained = self._trained(run) or {}
        for name in ("patience", "precision"):
            now, then = getattr(self.args, name), trained.get(name)
            if trained and then != now and not (name == "precision" and now is None):
                say(f"{run.folder}: is done, with --{name} {then}")

    def _attempt(self, what: object, step: Callable, *args: object) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise OutOfTime
        try:
            step(*args)
        except (VATError, OSError) as error:
            say(f"error: {error}")
            self.failed.add(what)

    def _data(self, run: Run) -> Path:
        return self.out / run.data / ("gpt2/" if run.system == "vae_gpt2" else "") / "data-bin"

    def _training(self, run: Run) -> list[str]:
        save = self.out / run.folder / "checkpoints"
        command = ["fairseq-train", str(self._data(run)), "--user-dir", str(ROOT / "fairseq_vat")]
        command += training_flags(run, self.sets[run.data].training_sentences, self.args.epochs)
        if run.system == "vae_gpt2":
            command += ["--gpt2-dir", str(self.args.gpt2)]
        return [*command, "--save-dir", str(save), "--log-file", str(save / "train.log")]

    def _measurements(self, run: Run) -> dict[str, list[str]]:
        """The commands, of a run that is trained."""
        trained = self._trained(run)
        name = trained["checkpoint"] if trained else self._measured_checkpoint()
        checkpoint = str(self.out / run.folder / "checkpoints" / name)
        data = [str(self._data(run)), "--path", checkpoint]
        commands = {}
        if set(self.args.tables) & set("245"):
            evaluate = ["fairseq-vat", "evaluate", *data, "--gen-subset", "test", "--json"]
            commands["evaluate"] = [*evaluate, *self.args.evaluate_flags]
        labels = self.sets[run.data]
        latents = run.latent_dim is not None
        if set(self.args.tables) & {"3", "6"} and latents and labels.has_labels:
            files = [word for s in SPLITS for word in (f"--{s}", str(labels.labels(s)))]
            classify = ["fairseq-vat", "classify", *data, *files, "--protocol", "paper", "--json"]
            commands["classify"] = classify
        return commands

    def _is_done(self, run: Run) -> bool:
        result = read_json(self.out / run.folder / "result.json")
        if result is None:
            return False
        return self._commands(run, result["precision"]).items() <= result["commands"].items()

    def _commands(self, run: Run, precision: str) -> dict[str, str]:
        """As they stand in the results."""
        train = [*self._training(run), "--precision", precision]
        commands = {"train": train, **self._measurements(run)}
        return {name: self._shown(command) for name, command in commands.items()}

    def _one_run(self, run: Run) -> None:
        folder = self.out / run.folder
        self._train(run)
        result = (read_json(folder / "result.json") or {"commands": {}}) | asdict(run)
        result |= read_json(folder / "trained.json")
        result["commands"] |= self._commands(run, result["precision"])
        for name, command in self._measurements(run).items():
            result[name] = self._json(folder / name, [*command, *self._device_flags])
        write_json(folder / "result.json", result)
        self.gather()

    def _print(self, run: Run) -> None:
        if self._trained(run) is None:
            print(self._shown(self._training(run)))
        for name, command in self._measurements(run).items():
            self._json(self.out / run.folder / name, command)

    def _train(self, run: Run) -> None:
        folder = self.out / run.folder
        save = folder / "checkpoints"
        command = self._training(run)
        begun = {"command": self._shown(command), "data": sha256(self._data(run) / "train.bin")}
        there = {"precision": self._precision} | (read_json(folder / "begun.json") or {})
        # without the flag one that was begun goes on as it was
        precision = begun["precision"] = self.args.precision or there["precision"]
        if there != begun:
            # what ended before its first checkpoint holds nobody to its flags
            if any(save.glob("checkpoint*.pt")):
                raise StepFailed(
                    f"{folder} was trained with other flags or texts (see begun.json); use "
                    "another OUT"
                )
            shutil.rmtree(save, ignore_errors=True)
            for name in ("trained", "result", "evaluate", "classify"):
                (folder / f"{name}.json").unlink(missing_ok=True)
            write_json(folder / "begun.json", begun)
        if self._trained(run) is not None:
            return
        save.mkdir(exist_ok=True)
        told = epochs_of(self._records(run))

        def watch() -> bool:
            nonlocal told
            records = self._records(run)
            best, since = best_epoch(records, valid_metric(run))
            if (epochs := epochs_of(records)) > told:
                told = epochs
                say(f"{run.folder}: epoch {epochs} of {self.args.epochs}, the best {best}")
            return self.args.patience is not None and since >= self.args.patience

        stopped = watch()
        if not stopped:
            flags = [*self._device_flags, "--precision", precision]
            flags += ["--distributed-world-size", "1"]  # fairseq's own default is all GPUs
            stopped = run_command([*command, *flags], folder / "out.log", watch, self._deadline)
        checkpoint = self._measured_checkpoint()
        trained = {
            "epochs": epochs_of(self._records(run)),
            "best_epoch": best_epoch(self._records(run), valid_metric(run))[0],
            "stopped": "patience" if stopped else "epochs",
            "patience": self.args.patience,
            "checkpoint": checkpoint,
            "precision": precision,
            "device": "cpu" if self._on_cpu else torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "commit": commit(),
        }
        for name in ("evaluate", "classify"):  # of what an earlier training left
            (folder / f"{name}.json").unlink(missing_ok=True)
        write_json(folder / "trained.json", trained)
        for path in save.glob("checkpoint*.pt"):
            if path.name != checkpoint:
                path.unlink()

    def _measured_checkpoint(self) -> str:
        # with patience the last is N epochs past the best
        return f"checkpoint_{'last' if self.args.patience is None else 'best'}.pt"

    def _trained(self, run: Run) -> dict[str, Any] | None:
        """What is noted when a training has ended."""
        return read_json(self.out / run.folder / "trained.json")

    def _records(self, run: Run) -> list[Record]:
        try:
            return read_training_log(self.out / run.folder / "checkpoints" / "train.log")
        except (VATError, FileNotFoundError):
            return []

    def _time(self, name: str) -> None:
        place = self.out / name
        record = place / "time.jsonl"
        command = [sys.executable, str(ROOT / "scripts/time_forward.py"), str(place / "data-bin")]
        command += ["--json", "--precision", self._precision, *self._device_flags]
        command += ["--max-positions", str(max_positions(name))]
        # hours at width 1024 on a few cores: what is stopped goes on behind its last batch
        command += ["--batches", "0", "--repeats", "1", "--record", str(record)]
        if self.args.dry_run:
            self._json(place / "time", command)
        elif self._is_locked("*/*"):
            say("table 7: nothing may run beside it; run this again when the others have ended")
        else:
            with locked(place / "time", wait=False) as is_ours:
                if is_ours:
                    self._json(place / "time", command, self._deadline)
                    record.unlink(missing_ok=True)  # other settings have a record of their own

    def _json(self, path: Path, command: list[str], deadline: float | None = None) -> Any:
        """What a command prints, kept in ``PATH.json`` with the command."""
        name, file = self._shown(command), path.with_suffix(".json")
        there = read_json(file)
        if there is not None and there["command"] == name:
            return there["output"]
        if self.args.dry_run:
            print(name)
            return None
        say(f"{path}: {' '.join(name.split()[:2])}")
        found = json_of(command, path.with_suffix(".log"), deadline)
        # results are published: no folders of this machine in them
        found |= {key: self._shown([found[key]]) for key in ("checkpoint", "data") if key in found}
        write_json(file, {"command": name, "commit": commit(), "output": found})
        return found

    def _shown(self, command: list[str]) -> str:
        places = {str(self.out): "OUT", sys.executable: "python", str(ROOT): ""}
        places |= {str(d.folder): name for name, d in self.sets.items()}
        return shown(command, places | {str(self.args.gpt2): "GPT2"})
