"""The flags with which a subcommand finds a checkpoint, its dictionary and its subwords."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from fairseq_vat.errors import VATError
from fairseq_vat.pretrained import DEFAULT, packaged_models

if TYPE_CHECKING:
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
        parser: of a subcommand.
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
        parser.add_argument("model", metavar="MODEL", nargs="?", default=DEFAULT, help=what)
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
        text_only = not words or (" " in words[0].strip() and not os.path.exists(words[0]))
        args.model, args.lines = (DEFAULT, words) if text_only else (words[0], words[1:])
        if not (text_only or args.lines or args.input or args.path or _is_model(words[0])):
            raise VATError(
                f"{words[0]} is no checkpoint, no folder of one and not "
                f"{' or '.join(packaged_models())}; before a text of one word give MODEL"
            )
    if args.path is None:
        args.path = args.model
    elif args.data is None:
        args.data = args.model
    else:
        raise VATError("--data and --path: MODEL is the checkpoint or the data; leave one out")


def _is_model(word: str) -> bool:
    return os.path.exists(word) or word in packaged_models()


def load_hub(args: argparse.Namespace, **task_overrides: Any) -> VATHubInterface:
    """The checkpoint that the flags name, as a hub interface.

    A file of subwords says which subwords, so that --bpe can be left out beside it.

    Raises:
        VATError: for files that are missing or aren't what they should be, for a language model,
            and for a file of other subwords than --bpe's.
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
