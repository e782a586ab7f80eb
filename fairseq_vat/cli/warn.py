"""Warnings of subcommands, a line each on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fairseq_vat.evaluation.unknown_pieces import MOST_UNKNOWN

if TYPE_CHECKING:
    from fairseq_vat.evaluation.labelled import LabelledFiles


def warn(message: str) -> None:
    """One line."""
    print(f"fairseq-vat: warning: {message}", file=sys.stderr)


def warn_of_unknown(path: str, share: float, model: str = "the model", ours: bool = True) -> None:
    """Say so if a file's subwords can't be the model's.

    Args:
        path: the file, or its name for people.
        share: of its pieces, those unknown.
        model: its name for people.
        ours: whether its subwords are for flags to give.
    """
    if share > MOST_UNKNOWN:
        advice = ": is --bpe, with its files, that of the training?" if ours else ""
        warn(f"{share:.0%} of the pieces in {path} are unknown to {model}{advice}")


def warn_of_left_out(files: LabelledFiles) -> None:
    """Say how many lines of each file have an empty sentence."""
    for name, left_out in files.left_out.items():
        if left_out:
            total = len(left_out) + len(files.lines[name])
            warn(
                f"{files.paths[name]}: {len(left_out):,} of {total:,} lines have an empty sentence "
                f"and are left out, the first is line {left_out[0]}"
            )
