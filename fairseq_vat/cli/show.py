"""``fairseq-vat show``: sentences beside their reconstructions and samples, with figures."""

from __future__ import annotations

import argparse
import json

from fairseq_vat.errors import VATError


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add ``show``."""
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
        "-n", type=int, default=10, help="sentences to print (default: %(default)s)"
    )
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="print every N-th sentence: the first ones are often of one document",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the sentences and the figures."""
    from fairseq_vat.evaluation import generation_log

    if args.every < 1:
        raise VATError(f"--every {args.every}: must be at least 1")
    mean = generation_log.read_generation(args.mean)
    samples = generation_log.read_generation(args.samples) if args.samples else []
    samples_by_id = {sentence.id: sentence for sentence in samples}
    for sentence in mean:
        other = samples_by_id.get(sentence.id)
        if other is not None and other.source != sentence.source:
            raise VATError(
                f"{args.samples} and {args.mean} differ in sentence {sentence.id}; give outputs "
                "over the same subset of the same data"
            )
    figures = {"mean": generation_log.reconstruction_figures(mean)}
    if samples:
        figures["samples"] = generation_log.sample_figures(samples)
    sentences = [
        {
            "id": sentence.id,
            "sentence": sentence.source,
            "mean": sentence.outputs[0],
            "samples": samples_by_id[sentence.id].outputs if sentence.id in samples_by_id else [],
        }
        for sentence in mean[:: args.every][: max(args.n, 0)]
    ]
    if args.json:
        print(json.dumps({"sentences": sentences, "figures": figures}, ensure_ascii=False))
    else:
        _print_sentences(sentences)
        _print_figures(figures)


def _print_sentences(sentences: list[dict]) -> None:
    for sentence in sentences:
        print(f"sentence {sentence['id']:<4} {sentence['sentence']}")
        print(f"from mean     {sentence['mean']}")
        for number, sample in enumerate(sentence["samples"], start=1):
            print(f"sample {number:<6} {sample}")
        print()


def _print_figures(figures: dict[str, dict[str, float]]) -> None:
    mean = figures["mean"]
    print(
        f"Reconstruction from the mean, {mean['sentences']:,} sentences: BLEU {mean['bleu']:.1f}, "
        f"{mean['exact_match']:.1%} equal to the sentence"
    )
    if "samples" in figures:
        drawn = figures["samples"]
        print(
            f"Samples, {drawn['samples_per_sentence']:g} a sentence, {drawn['sentences']:,} "
            f"sentences: BLEU {drawn['bleu']:.1f} against the sentence, {drawn['exact_match']:.1%} "
            f"equal to it, {drawn['distinct_per_sentence']:.2f} different ones a sentence"
        )
