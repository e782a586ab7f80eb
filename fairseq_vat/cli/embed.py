"""``fairseq-vat embed``, ``encode`` and ``decode``: from text to latents and back."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path

from fairseq_vat.cli.checkpoint import add_checkpoint_arguments, load_hub
from fairseq_vat.cli.latent_commands import add_generation_arguments, generation, load_for
from fairseq_vat.cli.lines import add_input_argument, read_input
from fairseq_vat.cli.quiet import quiet
from fairseq_vat.errors import VATError
from fairseq_vat.files import atomic_path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add all three."""
    parser = subparsers.add_parser(
        "embed",
        help="sentences to vectors, in a .npy file",
        description="Writes a matrix in single precision, one row for every line of the input: the "
        "mean or sum of the means of a sentence's latents, or the start token's.",
    )
    add_checkpoint_arguments(parser)
    add_input_argument(parser)
    parser.add_argument(
        "--pooling", choices=("mean", "sum", "start"), default="mean", help="default: %(default)s"
    )
    parser.add_argument("--output", metavar="FILE.npy", required=True)
    parser.set_defaults(run=_embed)

    parser = subparsers.add_parser(
        "encode",
        help="sentences to latents, in a .npz file",
        description="Writes a .npz file with mean and logvar (sentences x latents x width, 0 where "
        "a sentence has no latent) and mask (sentences x latents, true where it has one).",
    )
    add_checkpoint_arguments(parser)
    add_input_argument(parser)
    parser.add_argument("--output", metavar="FILE.npz", required=True)
    parser.set_defaults(run=_encode)

    parser = subparsers.add_parser(
        "decode",
        help="latents to sentences",
        description="Decodes what encode wrote, or a .npy file of one latent a sentence "
        "(sentences x width) for a model with one latent a sentence, and prints a sentence a line.",
    )
    add_checkpoint_arguments(parser)
    parser.add_argument("--input", metavar="FILE", required=True, help=".npz of encode, or .npy")
    add_generation_arguments(parser)
    parser.set_defaults(run=_decode)


def _check_output(path: str, suffix: str) -> None:
    """Before the work, not after it."""
    if not path.endswith(suffix):
        raise VATError(f"--output {path}: must end in {suffix}")
    if not Path(path).absolute().parent.is_dir():
        raise VATError(f"--output {path}: the folder doesn't exist")


def _embed(args: argparse.Namespace) -> None:
    _check_output(args.output, ".npy")
    sentences = [row[0] for row in read_input(args.input)]
    with quiet():
        import numpy as np

        vectors = load_for(args, sentences).embed(sentences, args.pooling)
    with atomic_path(args.output) as temporary, open(temporary, "wb") as file:
        np.save(file, vectors, allow_pickle=False)
    print(f"{args.output}: {vectors.shape[0]:,} x {vectors.shape[1]:,}")


def _encode(args: argparse.Namespace) -> None:
    _check_output(args.output, ".npz")
    sentences = [row[0] for row in read_input(args.input)]
    with quiet():
        import numpy as np

        mean, logvar, mask = load_for(args, sentences).encode(sentences)
    with atomic_path(args.output) as temporary, open(temporary, "wb") as file:
        np.savez(file, mean=mean.numpy(), logvar=logvar.numpy(), mask=mask.numpy())
    print(f"{args.output}: {' x '.join(f'{size:,}' for size in mean.shape)}")


def _decode(args: argparse.Namespace) -> None:
    with quiet():
        import numpy as np

        try:
            loaded = np.load(args.input, allow_pickle=False)
            if hasattr(loaded, "files"):
                mean, mask = loaded["mean"], loaded["mask"].astype(bool)
                points = [rows[kept] for rows, kept in zip(mean, mask, strict=True)]
            else:
                points = list(loaded)
            if any(point.dtype.kind not in "fiu" for point in points):
                raise ValueError(f"its values are of type {points[0].dtype}")
            points = [point.astype(np.float32) for point in points]
        except (ValueError, TypeError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
            # what numpy advises of a file that it can't read is to trust it
            reason = "it is another kind of file" if "allow_pickle" in str(error) else error
            raise VATError(
                f"{args.input} isn't a .npz of 'fairseq-vat encode' or a .npy of numbers: {reason}"
            ) from error
        found = load_hub(args).decode(points, **generation(args))
    for text in found:
        print(json.dumps({"text": text}, ensure_ascii=False) if args.json else text)
