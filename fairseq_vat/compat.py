"""Everything the plugin changes outside its own names, in one place, each with its reason."""

from __future__ import annotations

import argparse
import collections
import importlib
import importlib.util
import sys
import typing
from collections.abc import Iterator
from types import ModuleType, TracebackType

import torch
from fairseq.distributed import utils as distributed_utils
from omegaconf import DictConfig, ListConfig
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.nodes import AnyNode

from fairseq_vat.errors import VATError, explain
from fairseq_vat.text import decode_line


def install() -> None:
    """Apply all of it, when the package is imported; a second call changes nothing."""
    _allow_configuration_types()
    _install_exception_hook()
    _replace_interactive_reader()


def _allow_configuration_types() -> None:
    """Let ``torch.load(weights_only=True)`` read fairseq's configuration objects.

    When several processes resume, fairseq sends the checkpoint's state from one to the others
    with ``torch.save`` and ``torch.load``, and the state holds its configuration. These types
    hold plain data; the switch itself stays on.
    """
    torch.serialization.add_safe_globals(
        [
            argparse.Namespace,
            DictConfig,
            ListConfig,
            ContainerMetadata,
            Metadata,
            AnyNode,
            collections.defaultdict,
            typing.Any,
            dict,
            list,
            int,
            torch.device,
            distributed_utils._TensorPlaceholder,
        ]
    )


def _install_exception_hook() -> None:
    """Print a mistake in the input as one line; everything else as before.

    fairseq's commands let exceptions through to the interpreter, which would print thirty lines
    of traceback around the one that tells the user what to do. The exit status stays 1.
    """
    if sys.excepthook is not _print_explained:
        global _previous_hook
        _previous_hook = sys.excepthook
        sys.excepthook = _print_explained


_previous_hook = sys.__excepthook__


def _print_explained(
    kind: type[BaseException], error: BaseException, tb: TracebackType | None
) -> None:
    line = explain(error, tb)
    if line is None:
        _previous_hook(kind, error, tb)
    else:
        print(f"fairseq_vat: error: {line}", file=sys.stderr)


def _replace_interactive_reader() -> None:
    """Let `fairseq-interactive` read on after a line that isn't UTF-8.

    Its reader opens the input with strict decoding, out of reach of tasks and flags, and ends
    the process at the first wrong byte. The replacement reads bytes and replaces what is wrong.
    Nothing is changed in other commands.
    """
    interactive = sys.modules.get("fairseq_cli.interactive")
    if interactive is not None:
        interactive.buffered_read = _buffered_read


def _buffered_read(path: str, buffer_size: int) -> Iterator[list[str]]:
    """Lines of a file, or of standard input for ``-``, in lists of `buffer_size`."""
    buffer: list[str] = []
    if path == "-" and sys.stdin is None:
        raise VATError("standard input is closed: give --input FILE")
    with sys.stdin.buffer if path == "-" else open(path, "rb") as stream:
        for line in stream:
            buffer.append(decode_line(line).strip())
            if len(buffer) >= buffer_size:
                yield buffer
                buffer = []
    if buffer:
        yield buffer


def import_transformers(extra: str) -> ModuleType:
    """Hugging Face's transformers; without it, a `VATError` that names the extra to install.

    transformers imports torchaudio wherever it is installed, as it is with fairseq, and the build
    that pip installs doesn't load beside a CPU build of torch. Nothing here needs sound: a
    torchaudio that can't be loaded is hidden, for the rest of the process.
    """
    if importlib.util.find_spec("transformers") is None:
        raise VATError(
            "this needs the package transformers, which is not installed: "
            f"pip install 'fairseq_vat[{extra}]'"
        )
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError):
        sys.modules["torchaudio"] = None
    transformers = importlib.import_module("transformers")
    # who imported it before us may have made it remember that there is a torchaudio
    is_available = getattr(transformers.utils, "is_torchaudio_available", None)
    if hasattr(is_available, "cache_clear"):
        is_available.cache_clear()
    return transformers


install()
