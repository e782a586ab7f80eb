"""``fairseq-vat reconstruct``, ``sample``, ``vary``, ``interpolate``, ``arithmetic``, ``prior``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from fairseq_vat.cli.checkpoint import (
    add_checkpoint_arguments,
    load_for,
    load_hub,
    warn_of_subwords,
)
from fairseq_vat.cli.flags import above, add_number, at_least, finite, seed
from fairseq_vat.cli.inputs import (
    add_generation_arguments,
    add_input_argument,
    add_pooling,
    generation,
    input_name,
    json_line,
    read_attribute,
    read_input,
    read_sentences,
)
from fairseq_vat.cli.parts import by_parts, print_samples, print_texts
from fairseq_vat.cli.terminal import highlighted, quiet
from fairseq_vat.errors import VATError
from fairseq_vat.latent.choices import INTERPOLATION_METHODS
from fairseq_vat.text.marks import parse_marks

if TYPE_CHECKING:
    from fairseq_vat.hub.interface import VATHubInterface


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = add_command(
        subparsers,
        "reconstruct",
        _reconstruct,
        "decode sentences from the means of their latents",
        "Prints a sentence for every one of the text.",
    )

    parser = add_command(
        subparsers,
        "sample",
        _sample,
        "variants of sentences, decoded from draws of their latents",
        "Prints every sentence, the one decoded from its mean, and its samples.",
    )
    _add_drawing(parser, samples=4)

    parser = add_command(
        subparsers,
        "vary",
        _vary,
        "variants of the marked words of sentences, the rest at its mean",
        "Reads sentences with marked words, such as 'Models have shown great [promise].', and "
        "draws the latents of these words only.  A backslash before a mark makes it text.",
        text="sentences with marked words",
    )
    _add_drawing(parser, samples=8)
    parser.add_argument(
        "--marks",
        default="[]",
        help="the opening and the closing mark, such as '<v> </v>' (default: %(default)s)",
    )

    parser = add_command(
        subparsers,
        "interpolate",
        _interpolate,
        "sentences on the way from one to another",
        "Prints the sentences decoded on the way from the first to the second, both ends included. "
        "In a file the two are a line, with a tab between them.",
        text="two sentences",
    )
    add_number(parser, "--steps", "with both ends", 5, at_least(2))
    parser.add_argument(
        "--method", choices=INTERPOLATION_METHODS, default="linear", help="default: %(default)s"
    )

    parser = add_command(
        subparsers,
        "prior",
        _prior,
        "sentences decoded from draws of the prior",
        "Prints sentences decoded from latents drawn from their prior N(0, p^2).",
        text=None,
    )
    _add_drawing(parser, samples=10, what="sentences")
    add_number(parser, "--prior-std", "default: the training's", kind=above(0), metavar="P")
    add_number(
        parser,
        "--length",
        "latents a sentence, its start's and end's apart; the decoder, if it follows them, writes "
        "as many subwords (default: drawn from the lengths of the training data)",
        kind=at_least(1),
    )

    parser = add_command(
        subparsers,
        "arithmetic",
        _arithmetic,
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


def add_command(
    subparsers: argparse._SubParsersAction,
    name: str,
    work: Callable[[argparse.Namespace], None],
    title: str,
    description: str,
    text: str | None = "sentences",
) -> argparse.ArgumentParser:
    """Add a command that decodes, which `work` does; `text` says what it reads, None nothing."""
    parser = subparsers.add_parser(name, help=title, description=description)
    if text is None:
        add_checkpoint_arguments(parser, "optional")
    else:
        add_checkpoint_arguments(parser, "text", text)
        add_input_argument(parser)
    add_generation_arguments(parser)
    parser.set_defaults(run=work)
    return parser


def _add_drawing(
    parser: argparse.ArgumentParser, samples: int, what: str = "draws a sentence"
) -> None:
    add_number(parser, "--samples", what, samples, at_least(1))
    add_number(parser, "--temperature", "factor on the standard deviation", 1.0, above(0), "T")
    add_number(parser, "--seed", "of the draws", 1, seed)


def _drawing(args: argparse.Namespace) -> dict[str, Any]:
    names = ("samples", "temperature", "seed")
    return {name: getattr(args, name) for name in names} | generation(args)


def _reconstruct(args: argparse.Namespace) -> None:
    sentences = read_sentences(args)
    with quiet():
        vat = load_for(args, sentences)
    found = by_parts(lambda part: vat.reconstruct(part, **generation(args)), sentences)
    print_texts(args, "mean", found)


def _sample(args: argparse.Namespace) -> None:
    sentences = read_sentences(args)
    with quiet():
        vat = load_for(args, sentences)

    def work(part: list[str]) -> Iterable:
        means = vat.reconstruct(part, **generation(args))
        return zip(part, means, vat.sample(part, **_drawing(args)), strict=True)

    print_samples(args, by_parts(work, sentences))


def _vary(args: argparse.Namespace) -> None:
    parse_marks(args.marks)  # what is wrong with them is no line's fault
    marked = read_sentences(args)
    if not any(marked):
        raise VATError("vary: the input has empty lines only")
    with quiet():
        vat = load_hub(args)
        plain = {
            line: _unmarked(vat, args, number, line)
            for number, line in enumerate(marked, 1)
            if line
        }
        warn_of_subwords(vat, input_name(args), plain.values())

    def work(part: list[str]) -> Iterable:
        lines = [line for line in part if line]
        sentences = [plain[line] for line in lines]
        means = vat.reconstruct(sentences, **generation(args))
        samples = vat.vary(lines, marks=args.marks, **_drawing(args))
        found = iter(zip(sentences, means, samples, strict=True))
        # something for each line, so that they can be counted
        return [next(found) if line else ("", "", [""] * args.samples) for line in part]

    print_samples(args, by_parts(work, marked))


def _unmarked(vat: VATHubInterface, args: argparse.Namespace, number: int, line: str) -> str:
    """What is wrong with the line is told with its number."""
    try:
        (plain,), _ = vat.read_marked([line], args.marks)
    except VATError as error:
        raise VATError(f"{input_name(args)}:{number}: {error}") from error
    return plain


def _interpolate(args: argparse.Namespace) -> None:
    rows = read_input(args, columns=2)
    how = {"steps": args.steps, "method": args.method, **generation(args)}
    with quiet():
        vat = load_for(args, chain.from_iterable(rows))
    found = by_parts(lambda part: vat.interpolate(*_columns(part), **how), rows)
    for number, (row, way) in enumerate(found):
        if args.json:
            print(json_line(first=row[0], second=row[1], steps=way))
            continue
        if number:
            print()
        print(f"{'first':8}{row[0]}")
        for step, (last, text) in enumerate(pairwise([row[0], *way])):
            print(f"{step / (len(way) - 1):<8.2f}{highlighted(last, text)}")
        print(f"{'second':8}{row[1]}")


def _columns(rows: list[list[str]]) -> list[list[str]]:
    """Of rows that are all as long."""
    return [list(column) for column in zip(*rows, strict=True)]


def _arithmetic(args: argparse.Namespace) -> None:
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
    how = {"pooling": args.pooling, **generation(args)}
    with quiet():
        vat = load_for(args, chain.from_iterable(rows))
    for (a, b, c), text in by_parts(lambda part: vat.arithmetic(*_columns(part), **how), rows):
        print(json_line(a=a, b=b, c=c, result=text) if args.json else text)


def _shift(args: argparse.Namespace) -> None:
    attributes = [(path, read_attribute(path)) for path in (args.source, args.target)]
    sentences = read_sentences(args)
    with quiet():
        vat = load_for(args, sentences)
        for path, lines in attributes:
            warn_of_subwords(vat, path, lines)
        direction = vat.direction(*(lines for _, lines in attributes), pooling=args.pooling)
    how = generation(args)
    found = by_parts(lambda part: vat.shift(part, direction, args.scale, **how), sentences)
    print_texts(args, "result", found)


def _prior(args: argparse.Namespace) -> None:
    drawing = _drawing(args)
    with quiet():
        found = load_hub(args).sample_prior(
            drawing.pop("samples"), length=args.length, prior_std=args.prior_std, **drawing
        )
    for text in found:
        print(json_line(sample=text) if args.json else text)
