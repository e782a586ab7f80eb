"""``fairseq-vat isotropy``: how the representations of every layer, and the latents, fill space."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from typing import Any

from fairseq_vat.cli.checkpoint import add_checkpoint_arguments, load_hub
from fairseq_vat.cli.quiet import quiet
from fairseq_vat.cli.warn import warn_of_unknown

_COLUMNS = {
    "random_cosine": ("cosine of", "random words"),
    "self_similarity": ("self-", "similarity"),
    "intra_sentence_similarity": ("intra-sentence", "similarity"),
    "iso_score": ("", "IsoScore"),
}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add ``isotropy``."""
    parser = subparsers.add_parser(
        "isotropy",
        help="measure how isotropic and how contextual a checkpoint's representations are",
        description="Measures the representations of a text's words, after each encoder layer and "
        "as latents (the posterior's mean): mean cosine of random words, self-similarity, "
        "intra-sentence similarity (plain, as in the VAT paper's figure 3a) and IsoScore, and "
        "lists the words with the least self-similarity.",
    )
    add_checkpoint_arguments(parser)
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument(
        "--text", metavar="FILE", nargs="+", help="a sentence a line; plain, .gz or .xz"
    )
    text.add_argument(
        "--sts",
        metavar="DIR",
        help="both sentences of every score<TAB>sentence<TAB>sentence line in the folder's .tsv "
        "files",
    )
    for flag, default, help_ in (
        ("--sentences", 10_000, "of more different sentences, N are chosen by chance"),
        ("--seed", 1, "of that choice, and of the random words"),
        ("--words", 20, "how many of the words with the least self-similarity"),
        ("--min-sentences", 5, "that each of these words is in"),
    ):
        parser.add_argument(
            flag, type=int, default=default, metavar="N", help=f"{help_} (default: %(default)s)"
        )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read, measure, print."""
    sentences = _read_pairs(args.sts) if args.sts else _read_files(args.text)
    with quiet():
        from fairseq_vat.evaluation.representations import check_settings, measure_isotropy

        settings = {
            "max_sentences": args.sentences,
            "words": args.words,
            "min_sentences": args.min_sentences,
        }
        check_settings(**settings)
        vat = load_hub(args)
        found = measure_isotropy(vat, sentences, args.seed, **settings)
    found = {"checkpoint": args.path, "text": args.text or [args.sts], **found}
    warn_of_unknown(", ".join(found["text"]), found["unknown_share"])
    if args.json:
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
    else:
        _print_table(found)


def _read_files(paths: list[str]) -> Iterator[str]:
    from fairseq_vat.text.lines import read_lines

    for path in paths:
        with open(path, "rb"):  # a missing one is better named before the model is loaded
            pass
    return itertools.chain.from_iterable(map(read_lines, paths))


def _read_pairs(folder: str) -> list[str]:
    from fairseq_vat.text.columns import read_task

    pairs = itertools.chain.from_iterable(read_task(folder).values())
    return [sentence for pair in pairs for sentence in (pair.first, pair.second)]


def _print_table(found: dict[str, Any]) -> None:
    token_level = found["latent_level"] == "token"
    print(
        f"{found['checkpoint']}: {found['updates']:,} updates, a latent of width "
        f"{found['latent_dim']} for each {'token' if token_level else 'sentence'}"
    )
    print(
        f"{found['sentences']:,} different sentences of {found['lines']:,} lines (seed "
        f"{found['seed']}), {found['tokens']:,} words (pieces of the dictionary), "
        f"{found['unknown_share']:.1%} of them unknown\n"
    )
    for heads in zip(*_COLUMNS.values(), strict=True):
        print(f"{'':12}" + "".join(f"{head:>16}" for head in heads))
    for layer in found["layers"]:
        print(_row(f"layer {layer['layer']}" if layer["layer"] else "embeddings", layer))
    print(_row("latents", found["latents"]))
    if not found["words"]:
        return
    print(
        f"\nleast self-similarity ({found['words_of']}), of words in {found['min_sentences']:,} "
        f"sentences or more; {found['types']:,} are in two or more"
    )
    width = max(len(word["word"]) for word in found["words"])
    for word in found["words"]:
        print(
            f"{word['self_similarity']:7.3f}  {word['word']:{width}}  "
            f"{word['occurrences']:,} times in {word['sentences']:,} sentences"
        )


def _row(title: str, figures: dict[str, float | None]) -> str:
    values = (figures[name] for name in _COLUMNS)
    cells = ("-" if value is None else f"{value:.3f}" for value in values)
    return f"{title:12}" + "".join(f"{cell:>16}" for cell in cells)
