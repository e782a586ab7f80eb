"""What ``fairseq-vat probe`` takes sentence vectors from: the checkpoint, and --hf beside it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fairseq_vat.cli.labelled_input import warn_of_unknown
from fairseq_vat.errors import VATError

if TYPE_CHECKING:
    from fairseq_vat.evaluation.probed_encoders import ProbedEncoder
    from fairseq_vat.hub.huggingface import HuggingFaceEncoder
    from fairseq_vat.hub.interface import VATHubInterface


def poolings_of(args: argparse.Namespace, vat: VATHubInterface) -> list[str]:
    """What to measure of the checkpoint; of one latent a sentence all poolings are the same.

    Raises:
        VATError: for a start token that the model doesn't have.
    """
    if vat.model.encoder.latent_level != "token":
        return ["mean"]
    if "start" in args.pooling and not vat.task.start_token:
        raise VATError("--pooling start: the model was trained with --no-start-token")
    return list(dict.fromkeys(args.pooling))


def encoders_of(
    vat: VATHubInterface,
    beside: Mapping[str, HuggingFaceEncoder],
    pieces: Sequence[str],
    columns: Sequence[Sequence[str]],
    path: str,
) -> list[ProbedEncoder]:
    """The checkpoint's encoder and those beside it, with a warning of unknown pieces.

    Args:
        vat: the checkpoint.
        beside: Hugging Face encoders by name.
        pieces: the sentences, or pairs joined, in the checkpoint's subwords.
        columns: the sentences as they are, or the first ones and the second ones.
        path: of the sentences' file, for people.
    """
    from fairseq_vat.evaluation.probed_encoders import CheckpointEncoder, PretrainedEncoder

    encoders: list[ProbedEncoder] = [CheckpointEncoder(vat, pieces)]
    encoders += [PretrainedEncoder(name, encoder, *columns) for name, encoder in beside.items()]
    for encoder in encoders:
        ours = encoder is encoders[0]
        name = "the model" if ours else encoder.name
        warn_of_unknown(path, encoder.unknown_share, name, ours)
    return encoders


def described(
    args: argparse.Namespace, vat: VATHubInterface, encoders: list[ProbedEncoder]
) -> dict[str, Any]:
    """What was measured, for JSON."""
    first, *others = encoders
    return {
        "checkpoint": args.path,
        "updates": vat.model.num_updates,
        "data": args.data,
        "latent_level": str(vat.model.encoder.latent_level),
        "unknown_share": first.unknown_share,
        "hf": [
            {
                "name": encoder.name,
                "path": path,
                "width": encoder.width,
                "unknown_share": encoder.unknown_share,
            }
            for encoder, path in zip(others, args.hf, strict=True)
        ],
    }
