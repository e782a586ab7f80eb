"""Read a training's statistics: ``metrics.jsonl``, or a log of fairseq."""

import json
import math
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fairseq_vat.errors import VATError
from fairseq_vat.files import METRICS, metrics_path

LOG = "train.log"

# Standard output has this before each message; a --log-file has the bare message.
_LOGGER_PREFIX = re.compile(r"^[\d-]+ [\d:]+ \| [A-Z]+ \| [^|]+ \| ")
_INNER = re.compile(r"^epoch (?P<epoch>\d+):\s+\d+ / \d+ (?P<stats>.*)$")
_END_OF_EPOCH = re.compile(
    r"^epoch (?P<epoch>\d+) \| (?:valid on '(?P<subset>[^']+)' subset \| )?(?P<stats>.*)$"
)

_Key = tuple[str, str, int]  # kind, subset, update


@dataclass(frozen=True)
class Record:
    """One line of statistics."""

    kind: str  # ``train_inner`` (within an epoch), ``train`` (a whole epoch) or ``valid``
    epoch: int
    num_updates: int
    # the numbers by fairseq's names (``nll_loss``, ``kl_loss``, ``kl_weight``, ...)
    stats: dict[str, float]
    subset: str = "train"  # the validation subset, or ``train``


def read_training_log(path: str | os.PathLike) -> list[Record]:
    """The records of a training, in the order of their updates.

    From ``metrics.jsonl`` if it is given or lies beside the log; what the log has from before it is
    added. Of a log it understands ``--log-format json`` and ``simple``, from ``--log-file`` or from
    standard output. Of several records for one kind and update the last counts: fairseq opens the
    log file once more in every epoch and then writes each line several times. A run resumed from a
    checkpoint does over again what came after it, of which nothing is left.

    Args:
        path: a log, ``metrics.jsonl``, or a folder with ``train.log`` or ``metrics.jsonl`` in it.

    Raises:
        VATError: when there is no record.
    """
    log, figures = _files(Path(path))
    records = _read(figures, _parse_figures) if figures.is_file() else {}
    if log is not None:
        first = min((key[-1] for key in records), default=None)
        told = _read(log, _parse)
        told = {key: record for key, record in told.items() if first is None or key[-1] <= first}
        records = told | records
    if not records:
        raise VATError(
            f"{path} has no statistics of a fairseq training; give the file of "
            "'fairseq-train --log-file FILE --log-format json' (or simple)"
        )
    return sorted(records.values(), key=lambda record: (record.num_updates, record.kind))


def _files(run: Path) -> tuple[Path | None, Path]:
    """The log, if there is one, and where its figures would be."""
    if run.is_dir():
        log, figures = run / LOG, run / METRICS
        if not (log.is_file() or figures.is_file()):
            raise VATError(f"{run} has neither {METRICS} nor {LOG}; give the log of its training")
        return (log if log.is_file() else None), figures
    return (None, run) if run.suffix == ".jsonl" else (run, metrics_path(run))


def _read(path: Path, parse: Callable[[str], Record | None]) -> dict[_Key, Record]:
    records, last = {}, 0
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = parse(line.strip())
            # numbers that are none or without end, brackets likewise
            except (ValueError, OverflowError, RecursionError):
                continue
            if record is None:
                continue
            if (update := record.num_updates) < last:  # a run that goes on from before, or anew
                records = {key: one for key, one in records.items() if key[-1] <= update}
            records[record.kind, record.subset, update], last = record, update
    return records


def _parse_figures(line: str) -> Record | None:
    try:
        stats = json.loads(line)
        head = {name: stats.pop(name) for name in ("epoch", "update", "subset", "kind")}
    except (ValueError, AttributeError, TypeError, KeyError):  # cut off by a crash
        return None
    stats = {name: math.nan if value is None else value for name, value in stats.items()}
    if not (isinstance(head["kind"], str) and isinstance(head["subset"], str)):
        return None
    subset = head["subset"] if head["kind"] == "valid" else "train"
    return _record(head["kind"], head["epoch"], {**stats, "num_updates": head["update"]}, subset)


def last_validation(path: str | os.PathLike) -> Record | None:
    """The last validation in a training log; None as long as there is none."""
    try:
        records = read_training_log(path)
    except (VATError, FileNotFoundError):
        return None
    return next((record for record in reversed(records) if record.kind == "valid"), None)


def _parse(line: str) -> Record | None:
    line = _LOGGER_PREFIX.sub("", line)
    if line.startswith("{"):
        return _parse_json(line)
    if match := _INNER.match(line):
        pairs = (item.partition("=") for item in match["stats"].split(", "))
        stats = {name: value for name, _, value in pairs}
        return _record("train_inner", match["epoch"], stats)
    if match := _END_OF_EPOCH.match(line):
        pairs = (item.strip().partition(" ") for item in match["stats"].split(" | "))
        stats = {name: value for name, _, value in pairs}
        kind = "valid" if match["subset"] else "train"
        return _record(kind, match["epoch"], stats, match["subset"] or "train")
    return None


def _parse_json(line: str) -> Record | None:
    try:
        stats = json.loads(line)
    except ValueError:  # a dump of the configuration, or a line cut off by a crash
        return None
    if not isinstance(stats, dict) or "epoch" not in stats:
        return None
    epoch = stats.pop("epoch")
    if "num_updates" in stats:
        return _record("train_inner", epoch, stats)
    # At the end of an epoch every name begins with the subset's: train_loss, valid_loss, ...
    for name in stats:
        if name.endswith("_num_updates"):
            subset = name.removesuffix("_num_updates")
            own = {key.removeprefix(f"{subset}_"): value for key, value in stats.items()}
            return _record("train" if subset == "train" else "valid", epoch, own, subset)
    return None


def _record(kind: str, epoch: object, stats: dict, subset: str = "train") -> Record | None:
    numbers = {}
    for name, value in {**stats, "epoch": epoch}.items():
        with suppress(TypeError, ValueError):
            numbers[name] = float(value)
    if not {"epoch", "num_updates"} <= numbers.keys():
        return None
    number, update = int(numbers.pop("epoch")), int(numbers.pop("num_updates"))
    return Record(kind, number, update, numbers, subset)
