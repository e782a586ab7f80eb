"""Everything the plugin changes outside its own names, in one place, each with its reason."""

from __future__ import annotations

import argparse
import ast
import collections
import contextlib
import importlib
import importlib.util
import logging
import math
import sys
import typing
from collections.abc import Callable, Iterator
from types import ModuleType, TracebackType
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from fairseq.logging import progress_bar
from omegaconf import DictConfig, ListConfig
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.nodes import AnyNode

from fairseq_vat.errors import VATError, explain
from fairseq_vat.files import SaveFolder, copy_whole
from fairseq_vat.text.lines import decode_line

logger = logging.getLogger(__name__)


def install(check_checkpoint: Callable[[str, Any], None]) -> None:
    """Apply all of it; a second call changes nothing.

    Args:
        check_checkpoint: of a checkpoint's path and content; raises `VATError` for one that
            fairseq must not see.
    """
    _allow_configuration_types()
    _check_checkpoints(check_checkpoint)
    _resume_safely()
    _open_log_files_once()
    _install_exception_hook()
    _replace_interactive_reader()
    _read_overrides_as_literals()


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


class _CheckedTorch(ModuleType):
    """torch for `fairseq.checkpoint_utils`: its ``load`` reads checkpoints of this plugin only."""

    def __init__(self, check_checkpoint: Callable[[str, Any], None]):
        super().__init__("torch")
        self.check = check_checkpoint
        self.task: Any = None  # of a training that goes on, which must have the same dictionary

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def load(self, file: Any, *args: Any, **kwargs: Any) -> Any:
        """``torch.load`` with ``weights_only``, then the check."""
        state = torch.load(file, *args, **{**kwargs, "weights_only": True})
        self.check(str(getattr(file, "name", file)), state)
        if self.task is not None:
            self.task.load_state_dict(state.get("task_state", {}))
        return state


def _check_checkpoints(check_checkpoint: Callable[[str, Any], None]) -> None:
    """Let no checkpoint reach fairseq before it is known to be harmless and one of this plugin.

    fairseq builds whatever class a checkpoint's configuration names, and many evaluate strings of
    it. It also leaves ``weights_only`` to torch's default, which the environment variable
    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD turns off. All of its commands, its trainer and its hub load
    through ``checkpoint_utils``, and import the plugin before.
    """
    if not isinstance(checkpoint_utils.torch, _CheckedTorch):
        checkpoint_utils.torch = _CheckedTorch(check_checkpoint)


class _WholeCopies(PathManager):
    """fairseq's files, but a copy appears whole or not at all."""

    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        copy_whole(src_path, dst_path)
        return True


def _resume_safely() -> None:
    """Let nothing that stops a training keep it from going on, and nothing train on past its end.

    fairseq writes ``checkpoint_last.pt`` over the whole one that is there, so that a kill or a full
    disk leaves a part of it, at which every restart ends. It trains a finished run on by an update
    each time that its command is repeated, and two runs in one folder spoil each other's files.
    ``checkpoint_utils`` is the one door through which `fairseq-train` saves and resumes.
    """
    checkpoint_utils.PathManager = _WholeCopies
    checkpoint_utils.verify_checkpoint_directory = _verify_save_dir
    if checkpoint_utils.load_checkpoint is not _resume:
        global _fairseq_resume
        _fairseq_resume = checkpoint_utils.load_checkpoint
        checkpoint_utils.load_checkpoint = _resume


_fairseq_resume = checkpoint_utils.load_checkpoint
_fairseq_verify_save_dir = checkpoint_utils.verify_checkpoint_directory


def _verify_save_dir(save_dir: str) -> None:
    try:
        _fairseq_verify_save_dir(save_dir)
    except OSError as error:
        raise VATError(f"--save-dir {save_dir}: can't be written to: {error.strerror}") from None


def _resume(cfg: Any, trainer: Any, **more: Any) -> Any:
    """fairseq's ``load_checkpoint``, from a whole checkpoint, in a folder of this run's own."""
    if trainer.data_parallel_rank == 0 and not cfg.no_save:
        saved = SaveFolder(cfg.save_dir)
        saved.lock()
        saved.mend(f"checkpoint_last{trainer.checkpoint_suffix}.pt")
    if cfg.restore_file != "checkpoint_last.pt" and not PathManager.isfile(cfg.restore_file):
        raise VATError(f"--restore-file {cfg.restore_file}: no such file")  # fairseq starts anew
    # fairseq asks the task whether a checkpoint fits its data everywhere but here
    checkpoint_utils.torch.task = trainer.task
    try:
        extra_state, epoch_itr = _fairseq_resume(cfg, trainer, **more)
    finally:
        checkpoint_utils.torch.task = None
    last = trainer.cfg.optimization.max_update
    if extra_state is not None and 0 < last <= trainer.get_num_updates():
        logger.info(f"finished: {trainer.get_num_updates():,} of --max-update {last:,} updates")
        trainer.cfg.optimization.stop_min_lr = math.inf  # fairseq stops before the first update
    return extra_state, epoch_itr


def _open_log_files_once() -> None:
    """Let ``--log-file`` get each line once.

    fairseq opens it anew for every epoch and writes to all: lines are repeated, and after some
    250 epochs the process may open no more files. A validation names none and uses the last.
    """
    if progress_bar.progress_bar is not _progress_bar:
        global _fairseq_progress_bar
        _fairseq_progress_bar = progress_bar.progress_bar
        progress_bar.progress_bar = _progress_bar


_fairseq_progress_bar = progress_bar.progress_bar


def _progress_bar(*args: Any, **kwargs: Any) -> Any:
    for handler in list(progress_bar.logger.handlers) if kwargs.get("log_file") else []:
        if isinstance(handler, logging.FileHandler):
            progress_bar.logger.removeHandler(handler)
            handler.close()
    return _fairseq_progress_bar(*args, **kwargs)


def _read_overrides_as_literals() -> None:
    """Let `fairseq-validate` and `fairseq-eval-lm` read ``--model-overrides`` as the others do.

    They call ``eval`` on it, where generate and interactive read a literal.
    """
    for name in ("validate", "eval_lm"):
        command = sys.modules.get(f"fairseq_cli.{name}")
        if command is not None:
            command.eval = _literal_overrides


def _literal_overrides(text: str) -> dict[str, Any]:
    try:
        overrides = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        overrides = None
    if not isinstance(overrides, dict):
        raise VATError(f"--model-overrides must be a dictionary of plain values, not {text!r}")
    return overrides


def _install_exception_hook() -> None:
    """Print a mistake in the input as one line; everything else as before.

    fairseq's commands let exceptions through to the interpreter, which would print thirty lines
    of traceback around the one that tells the user what to do. The exit status stays 1. A Python
    program that uses the plugin as a library keeps its own hook.
    """
    in_command = any(name.partition(".")[0] == "fairseq_cli" for name in list(sys.modules))
    if in_command and sys.excepthook is not _print_explained:
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
