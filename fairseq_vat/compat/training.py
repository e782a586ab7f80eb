"""How a training ends that can't go on: one line, and the last good checkpoint stays."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.optim.amp_optimizer import AMPOptimizer
from fairseq.trainer import Trainer

from fairseq_vat.compat import patience
from fairseq_vat.errors import VATError
from fairseq_vat.files import atomic_path


def end_where_nothing_is_finite() -> None:
    """Let a loss or gradients that aren't finite end a training in one line.

    fairseq writes ``crash.pt``, as large as any checkpoint, repeats the update with hooks on every
    module, and prints all gradients. The norm of the gradients is where it looks for them.
    """
    if Trainer.clip_grad_norm is not _finite_grad_norm:
        global _fairseq_clip_grad_norm
        _fairseq_clip_grad_norm = Trainer.clip_grad_norm
        Trainer.clip_grad_norm = _finite_grad_norm


def save_what_counts() -> None:
    """Let a mistake that only a forward pass can see end a training without a ``crash.pt``.

    And let checkpoints keep what ``--patience`` has counted, which fairseq's don't.
    """
    if Trainer.save_checkpoint is not _save_checkpoint:
        global _fairseq_save_checkpoint
        _fairseq_save_checkpoint = Trainer.save_checkpoint
        Trainer.save_checkpoint = _save_checkpoint


def unscale_once() -> None:
    """Let ``--amp`` divide gradients by the loss's scale once.

    fairseq lets torch's scaler unscale torch's optimizer, before it clips, and step fairseq's,
    which to the scaler is another: it divides again, and Adam's epsilon is no longer small. It also
    looks for overflows again, where those of gradients that are left out are gone.
    """
    AMPOptimizer.step = _step_unscaled


def _step_unscaled(self: AMPOptimizer) -> None:
    self.scaler.step(self.optimizer)
    self.scaler.update()


_fairseq_clip_grad_norm = Trainer.clip_grad_norm
_fairseq_save_checkpoint = Trainer.save_checkpoint


def _save_checkpoint(self: Trainer, filename: str, extra_state: dict[str, Any]) -> None:
    # fairseq saves a crash.pt while it handles the error
    if not (Path(filename).name == "crash.pt" and isinstance(sys.exc_info()[1], VATError)):
        _fairseq_save_checkpoint(self, filename, extra_state | patience.count())


def _finite_grad_norm(self: Trainer, clip_norm: float) -> Any:
    try:
        norm = _fairseq_clip_grad_norm(self, clip_norm)
    except FloatingPointError as error:  # --fp16, at its smallest scale
        raise _not_finite(self) from error
    if not (self.cfg.common.amp or self.tpu or torch.isfinite(norm).all()):
        raise _not_finite(self)
    return norm


def _not_finite(trainer: Trainer) -> VATError:
    updates, criterion = trainer.get_num_updates(), trainer.get_criterion()
    annealing = getattr(criterion, "annealing", None)
    weight = annealing and f", KL weight {criterion.cfg.kl_weight * annealing.weight(updates):g}"
    clip = trainer.cfg.optimization.clip_norm
    advice = "a lower --clip-norm" if clip > 0 else "--clip-norm 1"
    last = Path(trainer.cfg.checkpoint.save_dir) / "checkpoint_last.pt"
    return VATError(
        f"the loss or its gradients aren't finite at update {updates + 1:,} (learning rate "
        f"{trainer.get_lr():g}{weight or ''}): try a lower --lr, a longer --warmup-updates, or "
        f"{advice}" + (f"; {last} is from before" if last.exists() else "")
    )


def save_whole_or_say_why() -> None:
    """Let a checkpoint that can't be written leave nothing of itself, and tell it in one line.

    fairseq tries three times, logs the traceback, and leaves a part of the file on the full disk.
    """
    if checkpoint_utils.torch_persistent_save is not _save:
        global _fairseq_save
        _fairseq_save = checkpoint_utils.torch_persistent_save
        checkpoint_utils.torch_persistent_save = _save


_fairseq_save = checkpoint_utils.torch_persistent_save


def _save(state: Any, filename: str, async_write: bool = False) -> None:
    if async_write:
        return _fairseq_save(state, filename, async_write)
    try:
        with atomic_path(filename) as temporary, open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reason = error.strerror or error
        raise VATError(f"checkpoint {filename} can't be written: {reason}") from None
