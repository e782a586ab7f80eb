"""Flags whose values are checked while they are parsed, and a parser that says so in one line."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from fairseq_vat.errors import VATError

Number = TypeVar("Number", int, float)


class _Formatter(argparse.HelpFormatter):
    """argparse's; a text that begins with a line break is printed as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text.strip("\n") if text[:1] == "\n" else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """An argument parser (also for subcommands) whose errors are one line, without the usage.

    Its usage has what is needed, in the order in which it always works, and leaves the rest to the
    list below it.
    """

    def __init__(self, *args, formatter_class: type = _Formatter, **kwargs):
        super().__init__(*args, formatter_class=formatter_class, **kwargs)

    def format_help(self) -> str:
        """argparse's, with the shorter usage."""
        self.usage = self.usage or self._needed()
        return super().format_help()

    def _needed(self) -> str:
        groups = [group for group in self._mutually_exclusive_groups if group.required]
        either = [_written(group._group_actions, " | ") for group in groups]
        flags = [action for action in self._actions if action.option_strings and action.required]
        positionals = self._get_positional_actions()
        parts = ["%(prog)s", _written(positionals), _written(flags)]
        parts += [f"({text})" for text in either]
        return " ".join(filter(None, [*parts, "[options]"]))

    def _parse_optional(self, arg_string: str) -> Any:
        """argparse's, but "-have a look" is text, and not -h."""
        is_text = arg_string[:2] != "--" and " " in arg_string
        return None if is_text else super()._parse_optional(arg_string)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and exit with 2."""
        names = [_name(action) for action in self._get_positional_actions()]
        lists = [action.option_strings[0] for action in self._actions if type(action) is _List]
        missing = message.startswith("the following arguments are required")
        if lists and missing and any(name in message for name in names):
            first = " ".join(names)
            message += f"; {first} goes before {', '.join(lists)}, which take all that follows"
        self.exit(2, f"{self.prog}: error: {message}\n")

    @contextmanager
    def one_line_errors(self) -> Iterator[None]:
        """In this context what a user can mend is told in one line, and exits with 1."""
        try:
            yield
        except (VATError, OSError) as error:
            self.exit(1, f"{self.prog}: error: {message_of(error)}\n")


class _List(argparse.Action):
    """Values of `add_list`; a flag that is given again adds to them."""

    def __call__(self, parser, namespace, values, option_string=None):
        before = getattr(namespace, self.dest)
        before = [] if before is self.default else before
        setattr(namespace, self.dest, before + [part for parts in values for part in parts])


def _name(action: argparse.Action) -> str:
    return action.metavar or action.dest


def _written(actions: Sequence[argparse.Action], between: str = " ") -> str:
    """Flags and what follows them, for a usage."""
    texts = []
    for action in actions:
        value = "" if action.nargs == 0 else _name(action) + " ..." * (action.nargs == "+")
        texts.append(" ".join(filter(None, [*action.option_strings[:1], value])))
    return between.join(texts)


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


def seed(text: str) -> int:
    """For ``type=``: what both torch and numpy take."""
    return _checked(int, lambda value: 0 <= value < 2**32, f"from 0 to {2**32 - 1}")(text)


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
        if Path(text).is_dir():
            raise argparse.ArgumentTypeError(f"{text} is a folder")
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


def add_list(
    container: argparse._ActionsContainer,
    flag: str,
    text: str,
    metavar: str | None = None,
    choices: Sequence[str] | None = None,
    default: Sequence[str] | None = None,
    required: bool = False,
) -> None:
    """Add a flag for several values, with spaces or commas between them.

    Args:
        container: a parser, or a group of one.
        flag: its name.
        text: its help.
        metavar: of a value; with `choices`, they are.
        choices: what a value may be; None: a path, in which a comma may be.
        default: where the flag isn't given.
        required: whether it must be.
    """

    def parse(value: str) -> list[str]:
        if choices is None and os.path.exists(value):
            return [value]
        parts = list(filter(None, value.split(",")))
        wrong = [part for part in parts if choices is not None and part not in choices]
        if wrong or not parts:
            wanted = "a path" if choices is None else f"of {', '.join(choices)}"
            raise argparse.ArgumentTypeError(
                f"must be {wanted}, several with spaces or commas between, "
                f"not {(wrong or [value])[0]!r}; what is no value of it goes before it"
            )
        return parts

    container.add_argument(
        flag,
        action=_List,
        type=parse,
        nargs="+",
        metavar=metavar or "{" + ",".join(choices or ()) + "}",
        default=default,
        required=required,
        help=f"{text}; several with spaces or commas between",
    )
