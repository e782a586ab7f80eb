#!/usr/bin/env python3
"""Hours, energy and emissions of trainings, from their logs.

    python scripts/energy.py runs/a/train.log runs/b/train.log --watts 60 --grams 197

hours = sum of ``train_wall`` (seconds of training between two lines of the log, validation apart,
which fairseq rounds to whole ones: lines shorter than five on average are refused),
kWh = hours x watts x processes / 1000, kg CO2eq = kWh x grams / 1000 (Lacoste et al. 2019). Updates
that a resumed run did over again count once.
"""

from __future__ import annotations

from fairseq_vat.cli.flags import Parser, above, add_number, at_least
from fairseq_vat.cli.tables import table
from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.training_log import read_training_log

COLUMNS = (
    ("log", "log", "s"),
    ("updates", "updates", ",d"),
    ("million_tokens", "million tokens", ".1f"),
    ("hours", "hours", ".2f"),
    ("kwh", "kWh", ".3f"),
    ("kg", "kg CO2eq", ".4f"),
)


def energy(log: str, watts: float, grams: float, processes: int = 1) -> dict[str, float]:
    """A training's hours, kWh and kg of CO2 equivalents.

    Args:
        log: a training's log with a line every ``--log-interval`` updates.
        watts: of one process's device, at work.
        grams: of CO2 equivalents a kWh, where it ran.
        processes: of the training.
    """
    lines = [record for record in read_training_log(log) if record.kind == "train_inner"]
    if not lines:
        raise VATError(
            f"{log}: has no line from within an epoch: log with a smaller --log-interval, and "
            "--log-format simple or json"
        )
    seconds = sum(record.stats.get("train_wall", 0.0) for record in lines)
    if seconds < 5 * len(lines):
        raise VATError(
            f"{log}: its lines are of {seconds / len(lines):.1f} seconds, too short for fairseq's "
            "whole ones: log with a larger --log-interval"
        )
    tokens = 0.0
    for before, record in zip([None, *lines], lines, strict=False):
        updates = record.num_updates - (before.num_updates if before else 0)
        tokens += updates * record.stats.get("wpb", 0.0)
    hours = seconds / 3600
    kwh = hours * watts * processes / 1000
    return {
        "updates": lines[-1].num_updates,
        "million_tokens": tokens / 1e6,
        "hours": hours,
        "kwh": kwh,
        "kg": kwh * grams / 1000,
    }


def main() -> None:
    """Print a table, a row a log."""
    parser = Parser(description=__doc__.split("\n\n")[0])
    parser.add_argument("log", nargs="+")
    add_number(parser, "--watts", "of one process's device", kind=above(0), metavar="W")
    add_number(parser, "--grams", "of CO2 equivalents a kWh", 197, above(0), "G")
    add_number(parser, "--processes", "of each training", 1, at_least(1))
    args = parser.parse_args()
    if args.watts is None:
        parser.error("--watts is needed: of the CPU core's or GPU's share, at work")
    with parser.one_line_errors():
        rows = [
            {"log": log, **energy(log, args.watts, args.grams, args.processes)} for log in args.log
        ]
    print(table(rows, COLUMNS))


if __name__ == "__main__":
    main()
