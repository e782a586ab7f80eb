"""The flags with which a subcommand finds a checkpoint, its subwords, and encoders beside it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fairseq_vat.cli.flags import add_list
from fairseq_vat.cli.inputs import input_name
from fairseq_vat.cli.terminal import warn_of_unknown
from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.texts import unknown_share
from fairseq_vat.pretrained import DEFAULT, packaged_models

if TYPE_CHECKING:
    from fairseq_vat.evaluation.probed_encoders import ProbedEncoder
    from fairseq_vat.hub.huggingface import HuggingFaceEncoder
    from fairseq_vat.hub.interface import VATHubInterface

# settings of fairseq's --bpe that name a file, and whose they are
_SUBWORD_FILES = {
    "sentencepiece_model": "sentencepiece",
    "gpt2_encoder_json": "gpt2",
    "gpt2_vocab_bpe": "gpt2",
    "bpe_vocab_file": "bert",
}


def add_checkpoint_arguments(
    parser: argparse.ArgumentParser, model: str = "needed", text: str = ""
) -> None:
    """Add MODEL, --data, --path, --bpe with the files it needs, and --cpu.

    Args:
        model: ``needed``; or ``optional``, the packaged one being the default; or ``text`` for the
            same with sentences behind it, as `locate` takes them apart.
        text: what the sentences are, for ``text``.
    """
    add_model_arguments(parser, model, text)
    parser.add_argument(
        "--bpe",
        metavar="NAME",
        help="subwords, as for fairseq-interactive (default: those of MODEL); none: the text is in "
        "subwords already",
    )
    for name, bpe in _SUBWORD_FILES.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, metavar="FILE", help=f"of --bpe {bpe}")


def add_model_arguments(
    parser: argparse.ArgumentParser, model: str = "needed", text: str = ""
) -> None:
    """Add MODEL, --data, --path and --cpu, as `add_checkpoint_arguments` says."""
    what = "a checkpoint, or the folder of one; with --path the data directory of its training"
    if model == "needed":
        parser.add_argument("model", metavar="MODEL", help=what)
    else:
        what = f"MODEL is {what} (default: {DEFAULT}, which the package has)"
    if model == "optional":
        parser.add_argument("model", metavar="MODEL", nargs="?", help=what)
    if model == "text":
        metavar = "[MODEL] TEXT"
        parser.add_argument(
            "model_and_text", metavar=metavar, nargs="*", help=f"TEXT is {text}; {what}"
        )
    parser.add_argument("--path", metavar="CHECKPOINT", help="the checkpoint, MODEL being its data")
    parser.add_argument(
        "--data", metavar="DIR", help="a data directory with the training's dictionary"
    )
    parser.add_argument("--cpu", action="store_true", help="leave a CUDA device alone")


def locate(args: argparse.Namespace) -> None:
    """Set `args.path` and `args.data` by what was given, for MODEL and for DATA --path MODEL.

    Where MODEL can be left out before TEXT, `args.lines` becomes the text: a first argument that
    has white space in it, and is no path, is no MODEL.
    """
    if hasattr(args, "model_and_text"):
        words = args.model_and_text
        text_only = not words or (len(words[0].split()) > 1 and not os.path.exists(words[0]))
        args.model, args.lines = (None, words) if text_only else (words[0], words[1:])
        packaged = packaged_models()
        named = text_only or os.path.exists(words[0]) or words[0] in packaged
        if not (named or args.lines or args.input or args.path):
            raise VATError(
                f"{words[0]} is no checkpoint, no folder of one and not "
                f"{' or '.join(packaged)}; before a text of one word give MODEL"
            )
    if args.path is None:
        args.path = DEFAULT if args.model is None else args.model
    elif args.data is None:
        args.data = args.model
    elif args.model is not None:
        raise VATError("--data and --path: MODEL is the checkpoint or the data; leave one out")


def load_hub(args: argparse.Namespace, **task_overrides: Any) -> VATHubInterface:
    """The checkpoint that the flags name, as a hub interface.

    A file of subwords says which subwords, so that --bpe can be left out beside it.
    """
    from fairseq_vat.hub.interface import VATHubInterface
    from fairseq_vat.hub.loading import build_bpe, load_model

    settings = {name: getattr(args, name) for name in _SUBWORD_FILES if getattr(args, name)}
    name = args.bpe
    if name is None and settings:
        name = _SUBWORD_FILES[next(iter(settings))]
    for setting in settings:
        if _SUBWORD_FILES[setting] != name:
            raise VATError(f"--{setting.replace('_', '-')} is no setting of --bpe {name}")
    bpe = build_bpe(None if name == "none" else name, **settings)
    loaded = load_model(args.path, args.data, "cpu" if args.cpu else None, **task_overrides)
    if name == "none":
        return VATHubInterface(loaded.cfg, loaded.task, loaded.model)
    return VATHubInterface.of(loaded, bpe)


def load_for(args: argparse.Namespace, sentences: Iterable[str]) -> VATHubInterface:
    """The model, and a warning if the input's sentences are in other subwords than its own."""
    vat = load_hub(args)
    warn_of_subwords(vat, input_name(args), sentences)
    return vat


def warn_of_subwords(vat: VATHubInterface, name: str, sentences: Iterable[str]) -> None:
    """`warn_of_unknown` of sentences that aren't in subwords yet."""
    warn_of_unknown(name, unknown_share(vat, [vat.apply_bpe(sentence) for sentence in sentences]))


def add_hf_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--hf``."""
    text = "folders of Hugging Face encoders to measure beside the checkpoint"
    add_list(parser, "--hf", text, "DIR", default=[])


def load_hf(paths: Sequence[str], device: Any) -> dict[str, HuggingFaceEncoder]:
    """The encoders by name."""
    if not paths:
        return {}
    from fairseq_vat.hub.huggingface import HuggingFaceEncoder

    names = names_of(paths)
    return {n: HuggingFaceEncoder(path, device) for n, path in zip(names, paths, strict=True)}


def names_of(paths: Sequence[str]) -> list[str]:
    """The last part of each path, or the whole where two have the same."""
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
