"""Flags whose values are checked while they are parsed, and a parser that says so in one line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

from fairseq_vat.errors import VATError

Number = TypeVar("Number", int, float)


class Parser(argparse.ArgumentParser):
    """An argument parser (also for subcommands) whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and exit with 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")

    @contextmanager
    def one_line_errors(self) -> Iterator[None]:
        """In this context what a user can mend is told in one line, and exits with 1."""
        try:
            yield
        except (VATError, OSError) as error:
            self.exit(1, f"{self.prog}: error: {message_of(error)}\n")


def message_of(error: VATError | OSError) -> str:
    """One line about an error that a user can mend."""
    text = str(error)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        text = f"{place}{error.strerror or error}"
    return " ".join(text.split())


def at_least(low: float, kind: type[Number] = int) -> Callable[[str], Number]:
    """For ``type=``: a finite number that isn't under `low`."""
    return _checked(kind, lambda value: value >= low, f"at least {low:g}")


def above(
    low: float, high: float = math.inf, kind: type[Number] = float
) -> Callable[[str], Number]:
    """For ``type=``: a finite number above `low`, and `high` at most."""
    wanted = f"above {low:g}" + ("" if high == math.inf else f" and at most {high:g}")
    return _checked(kind, lambda value: low < value <= high, wanted)


def between(low: float, high: float, kind: type[Number] = float) -> Callable[[str], Number]:
    """For ``type=``: a number from `low` to `high`, both included."""
    return _checked(kind, lambda value: low <= value <= high, f"from {low:g} to {high:g}")


def _checked(
    kind: type[Number], holds: Callable[[Number], bool], wanted: str
) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {what}, not {text!r}") from None
        if not (math.isfinite(value) and holds(value)):
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {text}")
        return value

    return parse


finite = _checked(float, lambda value: True, "a finite number")


def output_file(suffix: str) -> Callable[[str], str]:
    """For ``type=``: a file that can be written: its name ends so, and its folder is there."""

    def parse(text: str) -> str:
        if not text.endswith(suffix):
            raise argparse.ArgumentTypeError(f"must end in {suffix}, not {text}")
        if not Path(text).absolute().parent.is_dir():
            raise argparse.ArgumentTypeError(f"the folder of {text} doesn't exist")
        return text

    return parse


def add_number(
    parser: argparse._ActionsContainer,
    flag: str,
    text: str,
    default: float | None = None,
    kind: Callable[[str], float] = int,
    metavar: str = "N",
) -> None:
    """Add a flag for a number; its default is told, if there is one."""
    suffix = "" if default is None else " (default: %(default)s)"
    parser.add_argument(flag, type=kind, metavar=metavar, default=default, help=text + suffix)
