"""``--hf``: Hugging Face encoders beside the checkpoint, where sentence vectors are measured."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fairseq_vat.cli.checkpoint import load_hub
from fairseq_vat.cli.flags import add_list
from fairseq_vat.cli.terminal import warn_of_unknown
from fairseq_vat.errors import VATError

if TYPE_CHECKING:
    from fairseq_vat.evaluation.probed_encoders import ProbedEncoder
    from fairseq_vat.hub.huggingface import HuggingFaceEncoder


def add_hf_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--hf``."""
    text = "folders of Hugging Face encoders to measure beside the checkpoint"
    add_list(parser, "--hf", text, "DIR", default=[])


def load_hf(paths: Sequence[str], device: Any) -> dict[str, HuggingFaceEncoder]:
    """The encoders by name.

    Raises:
        VATError: as `names_of` and `HuggingFaceEncoder`.
    """
    if not paths:
        return {}
    from fairseq_vat.hub.huggingface import HuggingFaceEncoder

    names = names_of(paths)
    return {n: HuggingFaceEncoder(path, device) for n, path in zip(names, paths, strict=True)}


def names_of(paths: Sequence[str]) -> list[str]:
    """The last part of each path, or the whole where two have the same.

    Raises:
        VATError: if one is given twice.
    """
    names = [os.path.basename(os.path.abspath(path)) for path in paths]
    if len(set(names)) == len(names):
        return names
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise VATError(f"{twice} is given twice")
    return list(paths)


def load_encoders(args: argparse.Namespace, sentences: Sequence[str]) -> list[ProbedEncoder]:
    """The checkpoint's encoder of some sentences, and --hf's."""
    from fairseq_vat.evaluation.probed_encoders import encoders_of

    vat = load_hub(args)
    beside = load_hf(args.hf, vat.device)
    pieces = [vat.apply_bpe(sentence) for sentence in sentences]
    return encoders_of(vat, args.path, pieces, beside, sentences)


def warn_of_encoders(encoders: Sequence[ProbedEncoder], path: str) -> None:
    """`warn_of_unknown` of each."""
    for encoder in encoders:
        ours = encoder.updates is not None
        warn_of_unknown(path, encoder.unknown_share, "the model" if ours else encoder.name, ours)
