"""Entry point of ``fairseq-vat``: parse, call the subcommand, turn errors into one line."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from fairseq_vat import __version__
from fairseq_vat.cli import (
    classify_command,
    embed,
    evaluate_command,
    isotropy_command,
    latent_commands,
    probe_command,
    recipe_commands,
    report_commands,
    sts_command,
    text_commands,
)
from fairseq_vat.cli.checkpoint import locate
from fairseq_vat.cli.flags import Parser, message_of
from fairseq_vat.cli.startup import leave_out_scikit_learn
from fairseq_vat.errors import VATError, explain, is_debugging

# By the heading they have in the help.  A new subcommand is a module with
#   add_parser(subparsers): adds its parser and sets run as its default,
#     A command line for its help is in EXAMPLES.
#   run(args): calls what does the work, and prints; it imports what is slow to import itself.  What
#     it returns is the exit status; takes_further_flags=True leaves unknown flags to it.
SUBCOMMANDS = {
    "text": (text_commands,),
    "model": (recipe_commands, report_commands),
    "latents": (latent_commands, embed),
    "measures": (evaluate_command, isotropy_command, classify_command, probe_command, sts_command),
}

# a command line to copy, the last thing in the help of each
EXAMPLES = {
    "tokenize": "fairseq-vat tokenize --train train.txt --valid valid.txt --test test.txt "
    "--output corpus",
    "show": "fairseq-vat show --mean generated/mean --samples generated/samples -n 5",
    "prepare": "fairseq-vat prepare --train train.txt --valid valid.txt --test test.txt "
    "--output corpus",
    "train": "fairseq-vat train vat_small corpus/data-bin checkpoints --max-update 10000",
    "pack": "fairseq-vat pack checkpoints my-model",
    "plot": "fairseq-vat plot checkpoints/train.log --output figures",
    "report": "fairseq-vat report checkpoints --data corpus/data-bin --output report.html",
    "reconstruct": "fairseq-vat reconstruct checkpoints --input sentences.txt",
    "sample": "fairseq-vat sample 'Models have shown promise.' --samples 8",
    "vary": "fairseq-vat vary 'Models have shown [promise].' --temperature 2",
    "interpolate": "fairseq-vat interpolate 'I want to talk.' 'It was my turn.'",
    "arithmetic": "fairseq-vat arithmetic checkpoints --input three-columns.tsv",
    "prior": "fairseq-vat prior checkpoints --samples 10",
    "embed": "fairseq-vat embed checkpoints --input sentences.txt --output vectors.npy",
    "encode": "fairseq-vat encode checkpoints --input sentences.txt --output latents.npz",
    "decode": "fairseq-vat decode checkpoints --input latents.npz",
    "evaluate": "fairseq-vat evaluate checkpoints --data corpus/data-bin --sentences 1000",
    "isotropy": "fairseq-vat isotropy checkpoints --text sentences.txt --sentences 1000",
    "classify": "fairseq-vat classify checkpoints --train train.tsv --valid valid.tsv "
    "--test test.tsv",
    "probe": "fairseq-vat probe checkpoints --cv labelled.tsv --mode features,finetune",
    "sts": "fairseq-vat sts checkpoints --sts sts12,stsb/test.tsv",
}


class _Group:
    """The subparsers, as a heading's modules see them: what they add is listed under it."""

    def __init__(self, subparsers: argparse._SubParsersAction, listing: list[str], title: str):
        self._subparsers, self._listing = subparsers, listing
        listing += ["", f"{title}:"]

    def add_parser(self, name: str, help: str, **settings: Any) -> argparse.ArgumentParser:
        self._listing.append(f"  {name:12} {help}")
        further = f"{settings.pop('epilog')}\n\n" if "epilog" in settings else ""
        example = f"\n{further}example:\n  {EXAMPLES[name]}"
        return self._subparsers.add_parser(name, epilog=example, **settings)


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``fairseq-vat`` with all its subcommands."""
    parser = Parser(
        prog="fairseq-vat",
        usage="fairseq-vat [-h] [--version] COMMAND ...",
        description="Tools around Variational Auto-Transformers in fairseq: corpora, vocabularies, "
        "figures and samples.\nTraining and generation are fairseq's own commands.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fairseq-vat {__version__}")
    subparsers = parser.add_subparsers(
        prog=parser.prog, metavar="COMMAND", required=True, help=argparse.SUPPRESS
    )
    listing = ["commands (fairseq-vat COMMAND --help says more):"]
    for title, modules in SUBCOMMANDS.items():
        group = _Group(subparsers, listing, title)
        for module in modules:
            module.add_parser(group)
    parser.epilog = "\n".join(listing)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status: 0, 1 (error) or 130 (interrupted).

    A command line that is wrong exits with 2, as argparse has it.
    """
    leave_out_scikit_learn()
    if sys.stdout is None:
        sys.stdout = _ClosedOutput()
    if hasattr(sys.stdout, "reconfigure"):  # a terminal without UTF-8 gets escapes, no traceback
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(build_parser(), argv)
        finally:  # here, so that a reader gone away and a full disk are met inside the try
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would raise once more when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("fairseq-vat: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        own = isinstance(error, (VATError, OSError))
        line = message_of(error) if own else explain(error, error.__traceback__)
        if line is None or is_debugging():
            raise
        print(f"fairseq-vat: error: {line}", file=sys.stderr)
        return 1


def _run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    args, further = parser.parse_known_args(argv)
    if hasattr(args, "model_and_text"):
        # argparse takes positional arguments from before the flags only
        end = further.index("--") if "--" in further else len(further)
        flags = [word for word in further[:end] if word.startswith("-") and " " not in word]
        args.model_and_text += [word for word in further[:end] if word not in flags]
        args.model_and_text += further[end + 1 :]
        further = flags
    if further and not hasattr(args, "takes_further_flags"):
        text = "; -- goes before text that begins so" * hasattr(args, "model_and_text")
        parser.error(f"unrecognized arguments: {' '.join(further)}{text}")
    args.further_flags = [flag for flag in further if flag != "--"]
    if hasattr(args, "path"):
        locate(args)
    return args.run(args) or 0


class _ClosedOutput(io.TextIOBase):
    """In the place of a standard output that is closed: a command that prints nothing may run."""

    def write(self, text: str) -> int:
        raise VATError("standard output is closed: nothing can be printed")
