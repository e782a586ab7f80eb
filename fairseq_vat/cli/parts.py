"""Sentences that are worked on and printed some at a time."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator

from fairseq_vat.cli.inputs import json_line
from fairseq_vat.cli.terminal import highlighted, quiet

AT_ONCE = 4096  # lines that are worked on before any is printed


def by_parts(work: Callable[[list], Iterable], rows: list) -> Iterator[tuple]:
    """Each row with what `work` makes of it, some at a time: what is printed is out of memory.

    A command that is stopped has then printed what it did.
    """
    for first in range(0, len(rows), AT_ONCE):
        part = rows[first : first + AT_ONCE]
        with quiet():
            found = work(part)
        yield from zip(part, found, strict=True)
        sys.stdout.flush()


def print_texts(args: argparse.Namespace, name: str, found: Iterable[tuple[str, str]]) -> None:
    for sentence, text in found:
        line = json_line(sentence=sentence, **{name: text})
        print(line if args.json else highlighted(sentence, text))


def print_samples(
    args: argparse.Namespace, found: Iterable[tuple[str, tuple[str, str, list[str]]]]
) -> None:
    """Titles with sentence, mean and draws."""
    for number, (title, (sentence, mean, drawn)) in enumerate(found):
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
