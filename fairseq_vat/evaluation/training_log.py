"""Read the statistics back out of a training log of fairseq."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass

from fairseq_vat.errors import VATError

# Standard output has this before each message; a --log-file has the bare message.
_LOGGER_PREFIX = re.compile(r"^[\d-]+ [\d:]+ \| [A-Z]+ \| [^|]+ \| ")
_INNER = re.compile(r"^epoch (?P<epoch>\d+):\s+\d+ / \d+ (?P<stats>.*)$")
_END_OF_EPOCH = re.compile(
    r"^epoch (?P<epoch>\d+) \| (?:valid on '(?P<subset>[^']+)' subset \| )?(?P<stats>.*)$"
)


@dataclass(frozen=True)
class Record:
    """One line of statistics.

    Attributes:
        kind: ``train_inner`` (within an epoch), ``train`` (a whole epoch) or ``valid``.
        epoch: the epoch, from 1.
        num_updates: updates done when it was written.
        stats: the numbers by fairseq's names (``nll_loss``, ``kl_loss``, ``kl_weight``, ...).
        subset: the validation subset, or ``train``.
    """

    kind: str
    epoch: int
    num_updates: int
    stats: dict[str, float]
    subset: str = "train"


def read_training_log(path: str | os.PathLike) -> list[Record]:
    """The records of a training log, in the order of their updates.

    Understands ``--log-format json`` and ``simple``, from ``--log-file`` or from standard output.
    Of several records for one kind and update the last counts: fairseq opens the log file once more
    in every epoch and then writes each line several times, and a run resumed from a checkpoint does
    over again what came after it.

    Raises:
        VATError: when there is no record in the file.
    """
    records: dict[tuple[str, str, int], Record] = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if record := _parse(line.strip()):
                records[record.kind, record.subset, record.num_updates] = record
    if not records:
        raise VATError(
            f"{path} has no statistics of a fairseq training; give the file of "
            "'fairseq-train --log-file FILE --log-format json' (or simple)"
        )
    return sorted(records.values(), key=lambda record: (record.num_updates, record.kind))


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


def _record(kind: str, epoch: str | int, stats: dict, subset: str = "train") -> Record | None:
    floats = {name: _float(value) for name, value in stats.items()}
    numbers = {name: value for name, value in floats.items() if value is not None}
    if "num_updates" not in numbers:
        return None
    return Record(kind, int(epoch), int(numbers.pop("num_updates")), numbers, subset)


def _float(value: object) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
