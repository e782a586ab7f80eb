"""``fairseq-vat reconstruct``, ``sample``, ``vary``, ``interpolate``, ``prior``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from fairseq_vat.cli.checkpoint import add_checkpoint_arguments, load_hub
from fairseq_vat.cli.flags import above, add_number, at_least
from fairseq_vat.cli.inputs import add_input_argument, input_name, read_input, read_sentences
from fairseq_vat.cli.terminal import highlighted, quiet, warn_of_unknown
from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.texts import unknown_share
from fairseq_vat.latent.choices import INTERPOLATION_METHODS, POOLINGS
from fairseq_vat.text.marks import parse_marks

if TYPE_CHECKING:
    from fairseq_vat.hub.interface import VATHubInterface


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add all five."""
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
        "as many subwords (default: drawn from the lengths of the training data in DATA)",
        kind=at_least(1),
    )


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


def _add_drawing(
    parser: argparse.ArgumentParser, samples: int, what: str = "draws a sentence"
) -> None:
    add_number(parser, "--samples", what, samples, at_least(1))
    add_number(parser, "--temperature", "factor on the standard deviation", 1.0, above(0), "T")
    add_number(parser, "--seed", "of the draws", 1)


def _drawing(args: argparse.Namespace) -> dict[str, Any]:
    names = ("samples", "temperature", "seed")
    return {name: getattr(args, name) for name in names} | generation(args)


def load_for(args: argparse.Namespace, sentences: Iterable[str]) -> VATHubInterface:
    """The model, and a warning if the sentences are in other subwords than its own."""
    vat = load_hub(args)
    pieces = [vat.apply_bpe(sentence) for sentence in sentences]
    warn_of_unknown(input_name(args), unknown_share(vat, pieces))
    return vat


def _reconstruct(args: argparse.Namespace) -> None:
    sentences = read_sentences(args)
    with quiet():
        found = load_for(args, sentences).reconstruct(sentences, **generation(args))
    for sentence, text in zip(sentences, found, strict=True):
        print(json_line(sentence=sentence, mean=text) if args.json else highlighted(sentence, text))


def _sample(args: argparse.Namespace) -> None:
    sentences = read_sentences(args)
    with quiet():
        vat = load_for(args, sentences)
        samples = vat.sample(sentences, **_drawing(args))
        means = vat.reconstruct(sentences, **generation(args))
    _print_samples(args, sentences, sentences, means, samples)


def _vary(args: argparse.Namespace) -> None:
    parse_marks(args.marks)  # what is wrong with them is no line's fault
    lines = {number: line for number, line in enumerate(read_sentences(args), 1) if line}
    if not lines:
        raise VATError("vary: the input has empty lines only")
    marked = [*lines.values()]
    with quiet():
        vat = load_hub(args)
        plain = [_unmarked(vat, args, number, line) for number, line in lines.items()]
        warn_of_unknown(
            input_name(args), unknown_share(vat, [vat.apply_bpe(line) for line in plain])
        )
        samples = vat.vary(marked, marks=args.marks, **_drawing(args))
        means = vat.reconstruct(plain, **generation(args))
    _print_samples(args, marked, plain, means, samples)


def _unmarked(vat: VATHubInterface, args: argparse.Namespace, number: int, line: str) -> str:
    """The line without its marks; what is wrong with it is told with its number."""
    try:
        (plain,), _ = vat.read_marked([line], args.marks)
    except VATError as error:
        raise VATError(f"{input_name(args)}:{number}: {error}") from error
    return plain


def _print_samples(
    args: argparse.Namespace,
    titles: list[str],
    sentences: list[str],
    means: list[str],
    samples: list[list[str]],
) -> None:
    rows = zip(titles, sentences, means, samples, strict=True)
    for number, (title, sentence, mean, drawn) in enumerate(rows):
        if args.json:
            print(json_line(sentence=title, mean=mean, samples=drawn))
            continue
        if number:
            print()
        print(f"{'sentence':12}{title}")
        print(f"{'mean':12}{highlighted(sentence, mean)}")
        # equal samples are one line, with their number
        for text in dict.fromkeys(drawn):
            count = drawn.count(text)
            name = "sample" if count == 1 else f"sample x{count}"
            print(f"{name:12}{highlighted(sentence, text)}")


def _interpolate(args: argparse.Namespace) -> None:
    rows = read_input(args, columns=2)
    with quiet():
        ways = load_for(args, chain.from_iterable(rows)).interpolate(
            [row[0] for row in rows],
            [row[1] for row in rows],
            steps=args.steps,
            method=args.method,
            **generation(args),
        )
    for number, (row, way) in enumerate(zip(rows, ways, strict=True)):
        if args.json:
            print(json_line(first=row[0], second=row[1], steps=way))
            continue
        if number:
            print()
        print(f"{'first':8}{row[0]}")
        for step, (last, text) in enumerate(pairwise([row[0], *way])):
            print(f"{step / (len(way) - 1):<8.2f}{highlighted(last, text)}")
        print(f"{'second':8}{row[1]}")


def _prior(args: argparse.Namespace) -> None:
    drawing = _drawing(args)
    with quiet():
        found = load_hub(args).sample_prior(
            drawing.pop("samples"), length=args.length, prior_std=args.prior_std, **drawing
        )
    for text in found:
        print(json_line(sample=text) if args.json else text)


def json_line(**values: Any) -> str:
    """An object with these values, as one line."""
    return json.dumps(values, ensure_ascii=False)
