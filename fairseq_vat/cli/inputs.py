"""Lines of text into a subcommand, and flags and form of what is generated from them."""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from fairseq_vat.cli.flags import add_number, at_least
from fairseq_vat.cli.tables import to_json
from fairseq_vat.errors import VATError
from fairseq_vat.latent.choices import POOLINGS
from fairseq_vat.text.lines import clean_line, decode_line, raw_lines, read_raw_lines


def add_input_argument(parser: argparse.ArgumentParser) -> None:
    """Add --input, standard input by default, as fairseq-interactive has it."""
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="a sentence a line; plain, .gz or .xz (default: TEXT, or else standard input)",
    )


def input_name(args: argparse.Namespace) -> str:
    """Where the text comes from, for people."""
    if args.input in (None, "-"):
        return "the command line" if args.lines else "standard input"
    return args.input


def read_sentences(args: argparse.Namespace) -> list[str]:
    """All lines, cleaned; empty ones stay."""
    return [row[0] for row in read_input(args)]


def read_input(args: argparse.Namespace, columns: int = 1) -> list[list[str]]:
    """TEXT or all lines, cleaned, in rows of so many columns; empty lines stay.

    The columns of a line are separated by tabs; TEXTs are taken in their order.
    """
    name = input_name(args)
    if args.lines and args.input is not None:
        raise VATError("--input: there is text on the command line too; leave one out")
    if args.lines and columns > 1 and len(args.lines) % columns:
        raise VATError(f"{columns} sentences are needed, not {len(args.lines)}")
    rows = []
    for number, line in enumerate(_lines(args, columns), 1):
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


def _lines(args: argparse.Namespace, columns: int) -> Iterator[str]:
    """A row a line."""
    if args.lines:
        texts = [clean_line(text) for text in args.lines]
        for first in range(0, len(texts), columns):
            yield "\t".join(texts[first : first + columns])
    elif args.input not in (None, "-"):
        yield from map(decode_line, read_raw_lines(args.input))
    elif sys.stdin is None:
        raise VATError("standard input is closed: give TEXT or --input FILE")
    else:
        if sys.stdin.isatty():
            print("Reading lines; Ctrl-D ends them.", file=sys.stderr)
        yield from map(decode_line, raw_lines(sys.stdin.buffer, "standard input"))


def read_attribute(path: str) -> list[str]:
    """The sentences of a file, cleaned, without its empty lines."""
    sentences = [clean_line(decode_line(raw)) for raw in read_raw_lines(path)]
    if not any(sentences):
        raise VATError(f"{path} has no sentence: give a line at least")
    return [sentence for sentence in sentences if sentence]


def add_generation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --beam, --max-len-b and --json."""
    add_number(parser, "--beam", "width of the beam search", 5, at_least(1))
    add_number(parser, "--max-len-b", "subwords of a generated sentence, at most", 200, at_least(1))
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")


def add_pooling(parser: argparse.ArgumentParser) -> None:
    """Add --pooling."""
    parser.add_argument("--pooling", choices=POOLINGS, default="mean", help="default: %(default)s")


def generation(args: argparse.Namespace) -> dict[str, Any]:
    """What those say, as keywords of the hub's methods."""
    return {"beam": args.beam, "max_len_b": args.max_len_b}


def json_line(**values: Any) -> str:
    """An object with these values, as one line."""
    return to_json(values)
