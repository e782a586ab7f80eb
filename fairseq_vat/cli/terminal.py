"""What subcommands that load models keep off the terminal, and their warnings."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fairseq_vat.evaluation.texts import MOST_UNKNOWN
from fairseq_vat.report.differences import differences, separator

if TYPE_CHECKING:
    from fairseq_vat.evaluation.labelled import LabelledFiles


# green and bold; grey and struck out
_STYLES = {"new": "\033[1;32m", "missing": "\033[9;90m"}


def highlighted(before: str, after: str) -> str:
    """The second sentence; on a terminal what it has anew, and what it lacks, is marked in colour.

    ``NO_COLOR`` in the environment turns that off, as in other programs.
    """
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return after
    runs = differences(before, after)
    texts = [f"{_STYLES[kind]}{text}\033[0m" if kind in _STYLES else text for kind, text in runs]
    return separator(before, after).join(texts)


@contextmanager
def quiet() -> Iterator[None]:
    """Only warnings and errors of fairseq's loggers, and of torch's warnings those of use.

    fairseq logs each step of loading; a command whose output is a figure or a sentence is better
    without.  Everything is as before when the block ends.
    """
    # importing fairseq configures the root logger: here, so that it happens before
    import fairseq_vat.plugin  # noqa: F401

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # fairseq passes a bool and a float mask side by side, which torch still takes
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            yield
    finally:
        root.setLevel(level)


def warn(message: str) -> None:
    """One line."""
    print(f"fairseq-vat: warning: {message}", file=sys.stderr)


def warn_of_unknown(path: str, share: float, model: str = "the model", ours: bool = True) -> None:
    """Say so if a file's subwords can't be the model's.

    Args:
        ours: whether its subwords are for flags to give.
    """
    if share > MOST_UNKNOWN:
        advice = ": is --bpe, with its files, that of the training?" if ours else ""
        warn(f"{share:.0%} of the pieces in {path} are unknown to {model}{advice}")


def warn_of_labelled(files: LabelledFiles) -> None:
    """Say how many lines of each file have an empty sentence, and which labels it lacks."""
    for name, left_out in files.left_out.items():
        if left_out:
            total = len(left_out) + len(files.lines[name])
            warn(
                f"{files.paths[name]}: {len(left_out):,} of {total:,} lines have an empty sentence "
                f"and are left out, the first is line {left_out[0]}"
            )
    for name, lines in list(files.lines.items())[1:]:
        missing = sorted({*files.labels} - {line.label for line in lines})
        if missing:
            some = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
            first = next(iter(files.paths.values()))
            warn(f"{files.paths[name]} lacks {len(missing):,} of the labels of {first}: {some}")
