"""Lines of text into a subcommand."""

from __future__ import annotations

import argparse
import sys

from fairseq_vat.errors import VATError
from fairseq_vat.text.lines import clean_line, decode_line, raw_lines, read_raw_lines


def add_input_argument(parser: argparse.ArgumentParser, what: str = "a sentence a line") -> None:
    """Add --input, standard input by default, as fairseq-interactive has it."""
    parser.add_argument(
        "--input",
        metavar="FILE",
        default="-",
        help=f"{what}; plain, .gz or .xz (default: standard input)",
    )


def input_name(path: str) -> str:
    """What --input names, for people."""
    return "standard input" if path == "-" else path


def read_sentences(path: str) -> list[str]:
    """All lines, cleaned; empty ones stay.

    Raises:
        VATError: as `read_input`.
    """
    return [row[0] for row in read_input(path)]


def read_input(path: str, columns: int = 1) -> list[list[str]]:
    """All lines, cleaned, as lists of so many columns (separated by tabs); empty lines stay.

    Raises:
        VATError: for a file without a line, a line with another number of columns, and a standard
            input that is closed.
    """
    name = input_name(path)
    if path == "-" and sys.stdin is None:
        raise VATError("standard input is closed: give --input FILE")
    lines = raw_lines(sys.stdin.buffer, name) if path == "-" else read_raw_lines(path)
    rows = []
    for number, raw in enumerate(lines, 1):
        line = decode_line(raw)
        row = [clean_line(part) for part in (line.split("\t") if columns > 1 else [line])]
        if len(row) != columns or (columns > 1 and not all(row)):
            found = "an empty one" if len(row) == columns else len(row)
            raise VATError(
                f"{name}:{number}: {columns} sentences with tabs between them are needed, "
                f"not {found}"
            )
        rows.append(row)
    if not rows:
        raise VATError(f"{name} is empty: give a line at least")
    return rows
