"""Entry point of ``fairseq-vat``: parse, call the subcommand, turn errors into one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from fairseq_vat.cli import (
    classify_command,
    embed,
    evaluate,
    isotropy,
    latent_commands,
    plot,
    probe_command,
    report,
    show,
    sts_command,
    tokenize,
)
from fairseq_vat.cli.flags import Parser
from fairseq_vat.errors import VATError

# In the order of their use.  A new subcommand is a module with
#   add_parser(subparsers): adds its parser and sets run as its default,
#   run(args): does the work; it imports what is slow to import itself.
SUBCOMMANDS = (
    tokenize,
    plot,
    show,
    latent_commands,
    embed,
    evaluate,
    classify_command,
    probe_command,
    isotropy,
    sts_command,
    report,
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``fairseq-vat`` with all its subcommands."""
    parser = Parser(
        prog="fairseq-vat",
        description="Tools around Variational Auto-Transformers in fairseq: corpora, vocabularies, "
        "figures and samples.  Training and generation are fairseq's own commands.",
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in SUBCOMMANDS:
        module.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status: 0, 1 (error) or 130 (interrupted)."""
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()  # here, so that a reader gone away is met inside the try
    except BrokenPipeError:
        # What is still buffered would raise once more when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("fairseq-vat: interrupted", file=sys.stderr)
        return 130
    except VATError as error:
        return _fail(str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}")
    return 0


def _fail(message: str) -> int:
    print(f"fairseq-vat: error: {' '.join(message.split())}", file=sys.stderr)
    return 1
