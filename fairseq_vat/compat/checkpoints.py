"""Saving and resuming: nothing harmful is read, nothing whole is lost."""

from __future__ import annotations

import argparse
import collections
import logging
import math
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from fairseq.optim import OPTIMIZER_REGISTRY
from omegaconf import DictConfig, ListConfig
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.nodes import AnyNode

from fairseq_vat.compat import logs, patience
from fairseq_vat.errors import VATError
from fairseq_vat.files import SaveFolder, copy_whole

logger = logging.getLogger(__name__)


def allow_configuration_types() -> None:
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


def check_checkpoints(check_checkpoint: Callable[[str, Any], None]) -> None:
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


def resume_safely() -> None:
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
    except AssertionError as error:
        if "Optimizer does not match" not in str(error):
            raise
        names = {kind.__name__: name for name, kind in OPTIMIZER_REGISTRY.items()}
        # as classes, which are FP16Optimizer where --fp16 is the difference
        kinds = trainer._optim_history[-1]["optimizer_name"], type(trainer.optimizer).__name__
        before, now = (names.get(kind, kind) for kind in kinds)
        raise VATError(
            f"--optimizer {now}: the checkpoint in {cfg.save_dir} is of {before}: give that, or "
            "--reset-optimizer, which leaves its moments behind"
        ) from None
    finally:
        checkpoint_utils.torch.task = None
    if extra_state is not None and trainer.get_num_updates() and not cfg.reset_meters:
        logs.restore_interval(extra_state.get("metrics", {}))
    logs.follow(trainer)
    last, end = trainer.cfg.optimization.max_update, None
    if patience.go_on(cfg, extra_state):
        end = f"--patience {cfg.patience} validations without a better one"
    if extra_state is not None and 0 < last <= trainer.get_num_updates():
        end = f"{trainer.get_num_updates():,} of --max-update {last:,} updates"
    if end is not None:
        logger.info(f"finished: {end}")
        trainer.cfg.optimization.stop_min_lr = math.inf  # fairseq stops before the first update
    return extra_state, epoch_itr
