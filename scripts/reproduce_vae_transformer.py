#!/usr/bin/env python3
"""Train and measure the VAE-Transformer paper's systems: its tables with ours beside them.

It can be stopped at any time: the same command goes on where it was. Several may work on one OUT
side by side, each on runs of its own. OUT/results has a JSON file for each table, written anew as
each run ends, and OUT/results/tables.md the paper's figures beside ours.

NAME=DIR is a data set: DIR has train.txt, valid.txt and test.txt, a sentence a line, or train.tsv,
valid.tsv (or dev.tsv) and test.tsv, label<TAB>sentence a line, or both: labels are for table 3. The
names ptb, wikitext2, sst2 and air get the paper's settings for these; others get those of ptb. The
paper's air has no neutral tweets.
Flags after -- go to `fairseq-vat evaluate`, such as --iw-samples 0 --no-bleu.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from vae_transformer_commands import OutOfTime, say
from vae_transformer_data import SPLITS, DataSet
from vae_transformer_runs import ANNEALINGS, FREE_BITS, SYSTEMS, plan
from vae_transformer_work import Recipe

from fairseq_vat.cli.flags import Parser, above, add_number, at_least
from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.labelled import LabelledFiles

TABLES = ("2", "3", "4", "5", "6", "7", "8")


def some_of(allowed: tuple[str, ...]):
    """For ``type=``: comma-separated values, in the order of those allowed."""

    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := [value for value in chosen if value not in allowed]:
            raise argparse.ArgumentTypeError(f"{unknown[0]}: must be among {' '.join(allowed)}")
        return [value for value in allowed if value in chosen]

    return parse


def numbers(text: str) -> list[int]:
    """For ``type=``: comma-separated whole numbers from 1, each once."""
    return list(dict.fromkeys(at_least(1)(value) for value in text.split(",")))


def arguments(argv: list[str]) -> tuple[Parser, argparse.Namespace]:
    """The flags; what follows ``--`` is `evaluate_flags`."""
    parser = Parser(
        "reproduce_vae_transformer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="is made; everything goes there")
    parser.add_argument("sets", nargs="*", metavar="NAME=DIR")
    add_number(parser, "--epochs", "of every training", 50, at_least(1))
    add_number(
        parser,
        "--patience",
        "stop a training once the ELBO of the validation set, at the full weight of the KL, hasn't "
        "been better for N epochs, and measure the best checkpoint; above 10, the epochs of a "
        "cycle (default: train to the end, and measure the last)",
        kind=at_least(1),
    )
    add_number(
        parser,
        "--minutes",
        "stop after so many; with the next call training goes on behind its last whole epoch and "
        "table 7 behind its last batch, other measurements are ended first",
        kind=above(0),
    )
    several = {"only": SYSTEMS, "annealings": (*ANNEALINGS, FREE_BITS), "tables": TABLES}
    for flag, allowed in several.items():
        default = "all" if flag != "annealings" else f"the paper's, {' '.join(ANNEALINGS)}"
        parser.add_argument(
            f"--{flag}",
            type=some_of(allowed),
            metavar="A,B,..",
            help=f"of {' '.join(allowed)} (default: {default})"
            + "; of 2, 4 and 5, --only and --latent-dim choose the runs" * (flag == "tables"),
        )
    parser.add_argument(
        "--seeds",
        type=numbers,
        default=[1, 2, 3],
        metavar="N,..",
        help="of the VAE-Transformer with linear and cyclic annealing and the Transformer decoder; "
        "the first alone for all others (default: 1,2,3)",
    )
    parser.add_argument(
        "--latent-dim",
        type=numbers,
        metavar="N,..",
        help="width of the latents (default: 64, and 32 for the VAE-Transformer with cyclic "
        "annealing)",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="V",
        help="words: every word of the training text; N: so many sentencepiece pieces, or as many "
        "as the text allows; wordpiece: 30522 of WordPiece, trained; or the file of a WordPiece "
        "vocabulary (default: words for text with <unk> in it, else 30522)",
    )
    parser.add_argument(
        "--drop-unused", action="store_true", help="of that file, what the texts don't use"
    )
    parser.add_argument("--gpt2", type=Path, metavar="DIR", help="GPT-2's, for vae_gpt2")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), help="default: what is fast here"
    )
    parser.add_argument("--cpu", action="store_true", help="leave a CUDA device alone")
    parser.add_argument("--dry-run", action="store_true", help="print what is still to do")
    own, further = argv, []
    if "--" in argv:
        place = argv.index("--")
        own, further = argv[:place], argv[place + 1 :]
    args = parser.parse_intermixed_args(own)
    args.out = Path(os.path.abspath(args.out))
    args.evaluate_flags = further
    args.only = args.only or [name for name in SYSTEMS if args.gpt2 or name != "vae_gpt2"]
    args.annealings = args.annealings or list(ANNEALINGS)
    args.tables = args.tables or list(TABLES)
    if "vae_gpt2" in args.only and args.gpt2 is None:
        parser.error("--only vae_gpt2 needs --gpt2 DIR")
    if args.gpt2 and not (args.gpt2 / "config.json").is_file():
        parser.error(f"--gpt2 {args.gpt2} has no config.json: give the directory of a GPT-2 model")
    vocabulary = args.vocabulary
    named = vocabulary in (None, "words", "wordpiece") or Path(vocabulary).is_file()
    if not named and not (vocabulary.isdecimal() and int(vocabulary)):
        parser.error(f"--vocabulary {vocabulary}: must be words, wordpiece, a number or a file")
    if args.drop_unused and (vocabulary is None or not Path(vocabulary).is_file()):
        parser.error("--drop-unused: only of a file, --vocabulary FILE")
    return parser, args


def data_sets(args: argparse.Namespace) -> dict[str, DataSet]:
    """Those given, by name.

    Raises:
        VATError: for one that can't be used, and for none where one is needed.
    """
    sets: dict[str, DataSet] = {}
    for given in args.sets:
        name, found, folder = given.partition("=")
        if not found or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise VATError(f"{given}: give NAME=DIR")
        if name in sets or name == "results":
            raise VATError(f"{name} is given twice, or is the results' folder; name it otherwise")
        sets[name] = DataSet(name, Path(folder))
    if not sets and args.tables != ["8"]:
        raise VATError("give at least one data set, NAME=DIR")
    if sets and set(args.tables) <= {"3", "6"} and not any(d.has_labels for d in sets.values()):
        raise VATError("--tables 3: classification needs a data set with train.tsv")
    for data in sets.values():
        if data.has_labels and set(args.tables) & {"3", "6"}:  # before hours of training
            LabelledFiles.read({split: str(data.labels(split)) for split in SPLITS})
    return sets


def main() -> None:
    parser, args = arguments(sys.argv[1:])
    with parser.one_line_errors():
        sets = data_sets(args)
        runs = plan(list(sets), args.only, args.annealings, args.latent_dim, args.seeds)
        if not set(args.tables) & set("245"):  # encoders to classify with, or nothing
            with_labels = [name for name in sets if sets[name].has_labels]
            wanted = with_labels if set(args.tables) & set("36") else []
            runs = [run for run in runs if run.data in wanted and run.latent_dim is not None]
        recipe = Recipe(args, sets, runs)
        try:
            recipe.work()
        except OutOfTime:
            say(f"{args.minutes:g} minutes are over: the same command goes on")
        except KeyboardInterrupt:
            parser.exit(130, "stopped: the same command goes on\n")
        recipe.gather()
        recipe.say_what_is_left()
        if recipe.failed:
            raise VATError(
                "some steps failed, see above; when that is mended the same command goes on"
            )


if __name__ == "__main__":
    main()
