"""``fairseq-vat tokenize`` and ``show``: text before the training, and after the generation."""

import argparse
import sys
from functools import partial
from typing import Any

from fairseq_vat.cli.flags import above, add_number, at_least
from fairseq_vat.cli.tables import to_json
from fairseq_vat.cli.terminal import warn

_SPLITS = ("train", "valid", "test")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "tokenize",
        help="train sentencepiece and write pieces and dict.txt for fairseq-preprocess",
        description="Cleans the text, trains a sentencepiece unigram model on the training text "
        "and writes DIR/sentencepiece.model, DIR/{train,valid,test}.pieces and DIR/dict.txt.  "
        "With --gpt2 the vocabulary is GPT-2's, and DIR/vocab.json and DIR/merges.txt are written "
        "for fairseq's --bpe gpt2; with WordPiece it is DIR/vocab.txt, for --bpe bert.  "
        "The word <unk> in the training text, as PTB and WikiText-2 have it, is a piece of its own "
        "(of sentencepiece's).  "
        "What is there already, from the same text and options, is not made again.",
    )
    add_tokenization_flags(parser)
    parser.set_defaults(run=_tokenize)

    parser = subparsers.add_parser(
        "show",
        help="print sentences, reconstructions and samples of fairseq-generate, with BLEU",
        description="Prints the first sentences with their reconstruction from the mean and their "
        "variational samples, and then figures over all sentences.",
    )
    parser.add_argument(
        "--mean",
        metavar="GEN",
        required=True,
        help="output of fairseq-generate that decodes from the mean: the generate-SUBSET.txt, or "
        "the folder given as --results-path",
    )
    parser.add_argument("--samples", metavar="GEN", help="the same with --latent-sampling")
    parser.add_argument(
        *("-n", "--examples"),
        type=at_least(0),
        metavar="N",
        default=10,
        help="sentences to print (default: %(default)s); the figures are over all",
    )
    add_number(
        parser,
        "--every",
        "print every N-th sentence: the first ones are often of one document",
        1,
        at_least(1),
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_show)


def add_tokenization_flags(parser: argparse.ArgumentParser) -> None:
    """Add the texts, the folder and the vocabulary."""
    for name in _SPLITS:
        parser.add_argument(
            f"--{name}", metavar="FILE", required=True, help="a sentence a line; plain, .gz or .xz"
        )
    parser.add_argument("--output", metavar="DIR", required=True, help="made if it is not there")
    add_number(
        parser,
        "--vocab-size",
        "length of fairseq's dictionary, its four special symbols included; a multiple of 8 is "
        "best on GPUs (default: one that fits the text, 32768 at most)",
        kind=at_least(1),
    )
    given = parser.add_mutually_exclusive_group()
    given.add_argument(
        "--sentencepiece-model", metavar="MODEL", help="use this model and don't train one"
    )
    given.add_argument(
        "--gpt2", metavar="DIR", help="use the byte-level vocabulary of this GPT-2 directory"
    )
    given.add_argument(
        "--wordpiece", metavar="FILE", help="use WordPiece with this uncased vocab.txt of BERT's"
    )
    add_number(
        given,
        "--train-wordpiece",
        "train WordPiece of N pieces, fewer if there are fewer",
        kind=at_least(1),
    )
    parser.add_argument(
        "--drop-unused",
        action="store_true",
        help="leave out of --wordpiece what none of the texts uses: the same pieces of a smaller "
        "dictionary, for a model of these texts alone",
    )
    add_number(
        parser,
        "--character-coverage",
        "share of the training text's characters that get a piece, the others being unknown; ASCII "
        "characters always get one.  More than the default is worth its place where accented "
        "letters or curly quotes matter (default: 0.9995)",
        kind=above(0, 1),
        metavar="SHARE",
    )
    add_number(parser, "--max-pieces", "drop sentences of more than N pieces", kind=at_least(1))


def tokenization(args: argparse.Namespace) -> tuple[dict[str, str], str, dict[str, Any]]:
    """The texts, the folder and the settings of the vocabulary."""
    settings = ("vocab_size", "sentencepiece_model", "gpt2", "wordpiece", "train_wordpiece")
    settings += ("drop_unused", "character_coverage", "max_pieces")
    texts = {name: getattr(args, name) for name in _SPLITS}
    return texts, args.output, {name: getattr(args, name) for name in settings}


def _tokenize(args: argparse.Namespace) -> None:
    from fairseq_vat.text.tokenization import tokenize

    texts, out, settings = tokenization(args)
    warn = partial(print, file=sys.stderr)
    tokenize(texts, out, tell=partial(print, flush=True), warn=warn, **settings)


def _show(args: argparse.Namespace) -> None:
    from fairseq_vat.evaluation.generation_log import compare_generations

    found = compare_generations(args.mean, args.samples)
    found["sentences"] = found["sentences"][:: args.every][: args.examples]
    if args.json:
        print(to_json(found))
        return
    _print_generations(**found)


def _print_generations(
    latents: dict[str, str | None], sentences: list[dict[str, Any]], figures: dict[str, Any]
) -> None:
    """What isn't known to be from the mean, or drawn, is called a hypothesis."""
    from fairseq_vat.evaluation.texts import bleu_of

    one = "from mean" if latents["mean"] else "hypothesis"
    more = "sample" if latents["samples"] else "hypothesis"
    for sentence in sentences:
        print(f"sentence {sentence['id']:<4} {sentence['sentence']}")
        print(f"{one:13} {sentence['mean']}")
        for number, sample in enumerate(sentence["samples"], start=1):
            print(f"{f'{more} {number}':13} {sample}")
        print()
    mean, drawn = (figures.get(name) for name in ("mean", "samples"))
    what = "Reconstruction from the mean" if latents["mean"] else "Hypotheses of --mean"
    name, bleu = bleu_of(mean)
    print(
        f"{what}, {mean['sentences']:,} sentences: {name} {bleu:.1f}, "
        f"{mean['exact_match']:.1%} equal to the sentence"
    )
    if drawn:
        what = "Samples" if latents["samples"] else "Hypotheses of --samples"
        name, bleu = bleu_of(drawn)
        print(
            f"{what}, {drawn['samples_per_sentence']:g} a sentence, {drawn['sentences']:,} "
            f"sentences: {name} {bleu:.1f} against the sentence, {drawn['exact_match']:.1%} "
            f"equal to it, {drawn['distinct_per_sentence']:.2f} different ones a sentence"
        )
    if name != "BLEU":
        warn("the outputs are subwords: generate with --post-process or --bpe to join them")
    if None in (latents["mean"], latents["samples"] if drawn else "draws"):
        warn("the output of an earlier version doesn't say which latents it was decoded from")
