"""The command line of fairseq's commands: a mistake in it is one line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

from fairseq import options

from fairseq_vat.compat.workers import is_first_to_tell


def tell_mistakes_in_one_line(check_names: Callable[[argparse.Namespace], None]) -> None:
    """Let fairseq's parsers tell what is wrong, and not all of their two hundred flags.

    Its parser is made after the plugin is imported by ``--user-dir``.

    Args:
        check_names: of what is parsed before fairseq looks up task, architecture and optimizer;
            raises `VATError` where one is missing.
    """
    if not isinstance(options.argparse, _Argparse):
        options.argparse = _Argparse(check_names)


class _Argparse(ModuleType):
    """argparse for `fairseq.options`: its parsers are brief."""

    def __init__(self, check_names: Callable[[argparse.Namespace], None]):
        super().__init__("argparse")
        self.check_names = check_names

    def __getattr__(self, name: str) -> Any:
        return getattr(argparse, name)

    def ArgumentParser(self, *args: Any, **kwargs: Any) -> argparse.ArgumentParser:
        return _Parser(self.check_names, *args, **kwargs)


# fairseq reads lists of numbers with a function that has no name
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "<lambda>": "numbers, separated by commas",
}


class _Parser(argparse.ArgumentParser):
    def __init__(
        self, check_names: Callable[[argparse.Namespace], None], *args: Any, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self._check_names = check_names

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        parsed, others = super().parse_known_args(*args, **kwargs)
        if hasattr(parsed, "task"):
            self._check_names(parsed)
        return parsed, others

    def error(self, message: str) -> NoReturn:
        wrong = re.fullmatch(r"argument (\S+): invalid (\S+) value: (.*)", message)
        if wrong and wrong[2] in _KINDS:
            message = f"{wrong[1]} {wrong[3]}: must be {_KINDS[wrong[2]]}"
        line = f"{self.prog}: error: {message}\n"
        self.exit(2, line if is_first_to_tell(line) else None)
