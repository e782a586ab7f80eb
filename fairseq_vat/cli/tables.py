"""Tables for people: rows with named columns, in the formats that are asked for."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from numbers import Number
from typing import Any, NamedTuple, Self

MISSING = "\N{EN DASH}"
# with the names of tabulate's; its "github" leaves the columns' alignment to whoever renders it
_TABULATE = {"github": "pipe", "latex": "latex", "plain": "plain"}
FORMATS = ("github", "latex", "csv", "plain")
# of a table as plain text, in characters
WIDTH = 100


def add_format_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--format``."""
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="plain",
        help="of tables; latex and csv print nothing else (default: %(default)s)",
    )


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--format`` and ``--json``, by which `show` goes."""
    add_format_flag(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def to_json(value: object) -> str:
    """One line of JSON, in characters that standard output has."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    return json.dumps(value, ensure_ascii=encoding != "utf8", allow_nan=False)


def show(
    args: argparse.Namespace, found: dict[str, Any], tables: Callable[[dict[str, Any], str], str]
) -> None:
    """Print figures, as one JSON object or as the tables that are made of them."""
    if args.json:
        print(to_json(found))
    else:
        print(tables(found, args.format))


def table(
    rows: Sequence[Mapping[str, object]],
    columns: Sequence[tuple[str, str, str]],
    style: str = "github",
) -> str:
    """Rows as a table; several below each other where it would be wider than `WIDTH` as plain text.

    A value that is missing or None is a dash, text stands as it is, numbers are to the right. The
    first column says what a row is; a row or another column without any value is left out.

    Args:
        columns: key, header and format specification (such as ``.3f``) of each, in their order.
    """
    first, *others = columns
    rows = [row for row in rows if any(row.get(key) is not None for key, *_ in others)]
    others = [one for one in others if any(row.get(one[0]) is not None for row in rows)]
    if any(row.get(first[0]) is not None for row in rows):
        others.insert(0, first)
    return _fitting(rows, others, style)


def _fitting(
    rows: Sequence[Mapping[str, object]], shown: Sequence[tuple[str, str, str]], style: str
) -> str:
    """The table, its columns in several where it is too wide, each with the first column."""
    text = _written(rows, shown, style)
    if style != "plain" or len(shown) < 3 or _width(text) <= WIDTH:
        return text
    last = next(
        (
            count
            for count in range(len(shown) - 1, 2, -1)
            if _width(_written(rows, shown[:count], style)) <= WIDTH
        ),
        2,
    )
    rest = _fitting(rows, [shown[0], *shown[last:]], style)
    return f"{_written(rows, shown[:last], style)}\n\n{rest}"


def _width(text: str) -> int:
    return max(map(len, text.splitlines()), default=0)


def _written(
    rows: Sequence[Mapping[str, object]], shown: Sequence[tuple[str, str, str]], style: str
) -> str:
    cells = [[_cell(row.get(key), form) for key, _, form in shown] for row in rows]
    heads = [head for _, head, _ in shown]
    if style == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([heads, *cells])
        return text.getvalue().rstrip("\n")
    if not shown:
        return ""
    if style == "github":
        cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    from tabulate import tabulate

    numbers = [
        form.rstrip("s") != "" or any(isinstance(row.get(key), Number) for row in rows)
        for key, _, form in shown
    ]
    return tabulate(
        cells,
        heads,
        tablefmt=_TABULATE[style],
        colalign=["right" if right else "left" for right in numbers],
        disable_numparse=True,
    )


def _cell(value: object, form: str) -> str:
    if value is None:
        return MISSING
    return value if isinstance(value, str) else format(value, form)


def prose(style: str, *parts: str) -> list[str]:
    """Text around tables, for formats that people read; none beside latex and csv."""
    return list(parts) if style in ("github", "plain") else []


class MeanAndStd(NamedTuple):
    """Printed as ``mean ± std``, both in one format; of one run as its figure."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, figures: Mapping[str, float | None], name: str, scale: float = 1) -> Self | None:
        """``NAME`` and, if it is there, ``NAME_std``, times `scale`; None where it is undefined."""
        mean, std = figures[name], figures.get(f"{name}_std")
        if mean is None:
            return None
        return cls(scale * mean, None if std is None else scale * std)

    def __format__(self, spec: str) -> str:
        return f"{self.mean:{spec}}" + ("" if self.std is None else f" ± {self.std:{spec}}")
