"""``fairseq-vat embed``, ``encode`` and ``decode``: from text to latents and back."""

import argparse

from fairseq_vat.cli.checkpoint import add_checkpoint_arguments, load_for, load_hub
from fairseq_vat.cli.flags import output_file
from fairseq_vat.cli.inputs import (
    add_generation_arguments,
    add_input_argument,
    add_pooling,
    generation,
    json_line,
    read_sentences,
)
from fairseq_vat.cli.terminal import quiet


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "embed",
        help="sentences to vectors, in a .npy file",
        description="Writes a matrix in single precision, one row for every line of the input: the "
        "mean or sum of the means of a sentence's latents, or the start token's.",
    )
    add_checkpoint_arguments(parser, "text", "sentences")
    add_input_argument(parser)
    add_pooling(parser)
    parser.add_argument(
        "--output", metavar="FILE.npy", required=True, type=output_file(".npy"), help="the matrix"
    )
    parser.set_defaults(run=_embed)

    parser = subparsers.add_parser(
        "encode",
        help="sentences to latents, in a .npz file",
        description="Writes a .npz file with mean and logvar (sentences x latents x width, 0 where "
        "a sentence has no latent) and mask (sentences x latents, true where it has one).",
    )
    add_checkpoint_arguments(parser, "text", "sentences")
    add_input_argument(parser)
    parser.add_argument(
        "--output", metavar="FILE.npz", required=True, type=output_file(".npz"), help="the latents"
    )
    parser.set_defaults(run=_encode)

    parser = subparsers.add_parser(
        "decode",
        help="latents to sentences",
        description="Decodes what encode wrote, or a .npy file of one latent a sentence "
        "(sentences x width) for a model with one latent a sentence, and prints a sentence a line.",
    )
    add_checkpoint_arguments(parser, "optional")
    parser.add_argument("--input", metavar="FILE", required=True, help=".npz of encode, or .npy")
    add_generation_arguments(parser)
    parser.set_defaults(run=_decode)


def _embed(args: argparse.Namespace) -> None:
    sentences = read_sentences(args)
    with quiet():
        from fairseq_vat.hub.decoding import save_vectors

        vectors = load_for(args, sentences).embed(sentences, args.pooling)
    save_vectors(args.output, vectors)
    print(f"{args.output}: {_sizes(vectors.shape)}")


def _encode(args: argparse.Namespace) -> None:
    sentences = read_sentences(args)
    with quiet():
        from fairseq_vat.hub.decoding import save_latents

        latents = load_for(args, sentences).encode(sentences)
    save_latents(args.output, latents)
    print(f"{args.output}: {_sizes(latents.mean.shape)}")


def _decode(args: argparse.Namespace) -> None:
    with quiet():
        from fairseq_vat.hub.decoding import load_latents

        points = load_latents(args.input)
        found = load_hub(args).decode(points, **generation(args))
    for text in found:
        print(json_line(text=text) if args.json else text)


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{size:,}" for size in shape)
