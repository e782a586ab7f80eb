#!/usr/bin/env python
"""Tables 1 to 3 of the VAT paper for a checkpoint: samples, one word varied, interpolations.

On the paper's own example sentences, and on ten sentences of a held-out text that a rule chooses:
of the sentences with 6 to 20 words every n-th, so that ten are spread over the text; the word to
vary is a sentence's longest, the first of equals; interpolations go from each odd one to the next.

    scripts/latent_tables.py vat-small --text test.txt
"""

from __future__ import annotations

import re

from fairseq_vat.cli.checkpoint import add_checkpoint_arguments, load_hub, locate
from fairseq_vat.cli.flags import Parser, above, add_number, at_least
from fairseq_vat.cli.terminal import quiet
from fairseq_vat.errors import VATError
from fairseq_vat.text.lines import read_lines

TABLE_1 = ["In this class, we will introduce several fundamental concepts."]
TABLE_2 = ["Generative models have shown great [promise] in modeling complex distributions."]
TABLE_3 = [
    ("I want to talk to you.", "She didn't want to be with him."),
    ("He was silent for a long moment.", "It was my turn."),
]


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    add_checkpoint_arguments(parser)
    parser.add_argument("--text", metavar="FILE", required=True, help="held-out text")
    add_number(parser, "--samples", "draws of each", 12, at_least(1))
    add_number(parser, "--temperature", "of table 1", 1.0, above(0), "T")
    add_number(parser, "--word-temperature", "of table 2", 2.0, above(0), "T")
    args = parser.parse_args()
    with parser.one_line_errors(), quiet():
        locate(args)
        held_out = choose(list(read_lines(args.text)))
        vat = load_hub(args)
        sentences = [*TABLE_1, *held_out]
        marked = [*TABLE_2, *map(mark_longest, held_out)]
        pairs = [*TABLE_3, *zip(held_out[::2], held_out[1::2], strict=True)]
        means = vat.reconstruct(sentences)
        drawn = vat.sample(sentences, samples=args.samples, temperature=args.temperature)
        varied = vat.vary(marked, samples=args.samples, temperature=args.word_temperature)
        ways = vat.interpolate([first for first, _ in pairs], [second for _, second in pairs])

    print(f"**Table 1**: the sentence, its mean, {args.samples} draws (temperature "
          f"{args.temperature:g})\n\n```")  # fmt: skip
    for sentence, mean, samples in zip(sentences, means, drawn, strict=True):
        block(sentence, "= the sentence" if mean == sentence else mean, *counted(samples, mean))
    print(f"```\n\n**Table 2**: {args.samples} draws of the marked word (temperature "
          f"{args.word_temperature:g})\n\n```")  # fmt: skip
    for sentence, samples in zip(marked, varied, strict=True):
        block(sentence, *counted(samples, None))
    print("```\n\n**Table 3**: linear interpolation, three steps between the two ends\n\n```")
    for (first, second), way in zip(pairs, ways, strict=True):
        block(f"{first} | {second}", *way)
    print("```")


def choose(lines: list[str], count: int = 10) -> list[str]:
    """`count` sentences of 6 to 20 words: every n-th."""
    fitting = [line for line in lines if 6 <= len(line.split()) <= 20 and re.search(r"\w", line)]
    if len(fitting) < count:
        raise VATError(f"{len(fitting)} sentences of 6 to 20 words: {count} are needed")
    return fitting[:: len(fitting) // count][:count]


def mark_longest(sentence: str) -> str:
    """Marks around the longest word, without its punctuation."""
    words = list(re.finditer(r"\w+", sentence))
    longest = max(words, key=lambda word: len(word[0]))
    start, end = longest.span()
    return f"{escape(sentence[:start])}[{longest[0]}]{escape(sentence[end:])}"


def escape(text: str) -> str:
    return re.sub(r"([\[\]\\])", r"\\\1", text)


def counted(samples: list[str], mean: str | None) -> list[str]:
    """Different samples, with their number where it isn't 1."""
    lines = []
    for text in dict.fromkeys(samples):
        count = samples.count(text)
        lines.append(("= its mean" if text == mean else text) + f" (x{count})" * (count > 1))
    return lines


def block(title: str, *lines: str) -> None:
    print(title, *(f"    {line}" for line in lines), sep="\n")


if __name__ == "__main__":
    main()
