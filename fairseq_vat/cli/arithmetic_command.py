"""``fairseq-vat arithmetic``."""

from __future__ import annotations

import argparse
from itertools import chain

from fairseq_vat.cli.flags import add_number, finite
from fairseq_vat.cli.inputs import read_attribute, read_input, read_sentences
from fairseq_vat.cli.latent_commands import (
    add_command,
    add_pooling,
    generation,
    json_line,
    load_for,
)
from fairseq_vat.cli.terminal import highlighted, quiet, warn_of_unknown
from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.texts import unknown_share


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add it."""
    parser = add_command(
        subparsers,
        "arithmetic",
        _run,
        "a - b + c of sentences, or a step towards an attribute, decoded",
        "Prints the sentence decoded from z(a) - z(b) + z(c); with a latent for every token, a's "
        "latents are moved by the difference of the pooled latents of c and b.  In a file the "
        "three are a line, with tabs between them.  With --from and --to every sentence's latents "
        "are moved by SCALE times the difference of the mean pooled latents of the two files.",
        text="three sentences, a, b and c; with --from and --to any number of them",
    )
    add_pooling(parser)
    attribute = "sentences with an attribute, one a line; plain, .gz or .xz"
    parser.add_argument("--from", dest="source", metavar="FILE", help=attribute)
    parser.add_argument("--to", dest="target", metavar="FILE", help="sentences with another")
    add_number(parser, "--scale", "of the step from --from to --to", 1.0, finite, "SCALE")


def _run(args: argparse.Namespace) -> None:
    if args.source and args.target:
        _shift(args)
    elif args.source or args.target:
        raise VATError("--from and --to: give both, or neither for a - b + c")
    elif args.scale != 1:
        raise VATError("--scale is of --from and --to: give them")
    else:
        _three(args)


def _three(args: argparse.Namespace) -> None:
    rows = read_input(args, columns=3)
    with quiet():
        found = load_for(args, chain.from_iterable(rows)).arithmetic(
            *([row[column] for row in rows] for column in range(3)),
            pooling=args.pooling,
            **generation(args),
        )
    for (a, b, c), text in zip(rows, found, strict=True):
        print(json_line(a=a, b=b, c=c, result=text) if args.json else text)


def _shift(args: argparse.Namespace) -> None:
    attributes = [(path, read_attribute(path)) for path in (args.source, args.target)]
    sentences = read_sentences(args)
    with quiet():
        vat = load_for(args, sentences)
        for path, lines in attributes:
            warn_of_unknown(path, unknown_share(vat, [vat.apply_bpe(line) for line in lines]))
        direction = vat.direction(*(lines for _, lines in attributes), pooling=args.pooling)
        found = vat.shift(sentences, direction, args.scale, **generation(args))
    for sentence, text in zip(sentences, found, strict=True):
        line = json_line(sentence=sentence, result=text)
        print(line if args.json else highlighted(sentence, text))
