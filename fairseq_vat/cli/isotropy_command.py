"""``fairseq-vat isotropy``: how the representations of every layer, and the latents, fill space."""

import argparse
import itertools
import os
from collections.abc import Iterator
from typing import Any

from fairseq_vat.cli.checkpoint import add_checkpoint_arguments, load_hub
from fairseq_vat.cli.flags import add_list, add_number, at_least, seed
from fairseq_vat.cli.tables import add_output_flags, prose, show, table
from fairseq_vat.cli.terminal import quiet, warn_of_unknown
from fairseq_vat.errors import VATError

_LAYERS = (
    ("layer", "", ""),
    ("random_cosine", "random words", ".3f"),
    ("self_similarity", "self-similarity", ".3f"),
    ("intra_sentence_similarity", "intra-sentence", ".3f"),
    ("iso_score", "IsoScore", ".3f"),
)
_WORDS = (
    ("word", "word", ""),
    ("self_similarity", "self-similarity", ".3f"),
    ("occurrences", "times", ",d"),
    ("sentences", "sentences", ",d"),
)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
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
    add_list(text, "--text", "a sentence a line; plain, .gz or .xz", "FILE")
    text.add_argument(
        "--sts",
        metavar="DIR",
        help="both sentences of every score<TAB>sentence<TAB>sentence line in the folder's .tsv "
        "files",
    )
    for flag, default, least, help_ in (
        ("--sentences", 10_000, 1, "of more different sentences, N are chosen by chance"),
        ("--words", 20, 0, "how many of the words with the least self-similarity"),
        ("--min-sentences", 5, 1, "that each of these words is in"),
    ):
        add_number(parser, flag, help_, default, at_least(least))
    add_number(parser, "--seed", "of the choice of sentences, and of the random words", 1, seed)
    add_output_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    sentences = _read_pairs(args.sts) if args.sts else _read_files(args.text)
    with quiet():
        from fairseq_vat.evaluation.representations import measure_isotropy

        found = measure_isotropy(
            load_hub(args), sentences, args.seed, args.sentences, args.words, args.min_sentences
        )
    found = {"checkpoint": args.path, "text": args.text or [args.sts], **found}
    warn_of_unknown(", ".join(found["text"]), found["unknown_share"])
    show(args, found, _tables)


def _read_files(paths: list[str]) -> Iterator[str]:
    from fairseq_vat.text.lines import read_lines

    for path in paths:
        if os.path.isfile(path) or not os.path.exists(path):  # a pipe can be read once
            with open(path, "rb") as file:  # what is wrong is told before the model is loaded
                if not file.read(1):
                    raise VATError(f"{path} is empty: give a line at least")
    return itertools.chain.from_iterable(map(read_lines, paths))


def _read_pairs(folder: str) -> list[str]:
    from fairseq_vat.text.columns import read_task

    pairs = itertools.chain.from_iterable(read_task(folder).values())
    return [sentence for pair in pairs for sentence in (pair.first, pair.second)]


def _tables(found: dict[str, Any], style: str) -> str:
    heading = (
        f"{found['checkpoint']}: {found['updates']:,} updates, a latent of width "
        f"{found['latent_dim']} for each {found['latent_level']}\n"
        f"{found['sentences']:,} different sentences of {found['lines']:,} lines (seed "
        f"{found['seed']}), {found['tokens']:,} words (pieces of the dictionary), "
        f"{found['unknown_share']:.1%} of them unknown"
    )
    layers = [
        {**layer, "layer": f"layer {layer['layer']}" if layer["layer"] else "embeddings"}
        for layer in found["layers"]
    ]
    rows = [*layers, {"layer": "latents", **found["latents"]}]
    parts = [*prose(style, heading), table(rows, _LAYERS, style)]
    if found["words"]:
        least = (
            f"least self-similarity ({found['words_of']}), of words in {found['min_sentences']:,} "
            f"sentences or more; {found['types']:,} are in two or more"
        )
        parts += [*prose(style, least), table(found["words"], _WORDS, style)]
    return "\n\n".join(parts)
