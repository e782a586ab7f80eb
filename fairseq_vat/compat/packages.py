"""Packages beside fairseq."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

from fairseq_vat.errors import VATError


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


@contextlib.contextmanager
def quiet_transformers(transformers: ModuleType) -> Iterator[None]:
    """No progress bar, and no report of what a model's weights lack: that is for us to judge."""
    log = transformers.utils.logging
    verbosity, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bar:
            log.enable_progress_bar()
