"""Flags of fairseq's own that fairseq takes without a look, and ends in a traceback with, or worse.

They are checked before anything is read or written (`fairseq_vat.compat.commands`).
"""

from __future__ import annotations

import ast
import math
import os
from typing import Any

from omegaconf import DictConfig

from fairseq_vat.errors import VATError

# group, name, lowest value, and whether the lowest itself is wrong; None counts as not given
_NUMBERS: tuple[tuple[str, str, float, bool], ...] = (
    ("common", "log_interval", 1, False),
    ("common", "seed", 0, False),
    ("dataset", "max_tokens", 1, False),
    ("dataset", "max_tokens_valid", 1, False),
    ("dataset", "batch_size", 1, False),
    ("dataset", "batch_size_valid", 1, False),
    ("dataset", "num_workers", 0, False),
    ("dataset", "required_batch_size_multiple", 1, False),
    ("optimization", "max_update", 0, False),
    ("optimization", "max_epoch", 0, False),
    ("optimization", "clip_norm", 0, False),
    ("checkpoint", "save_interval", 1, False),
    ("checkpoint", "save_interval_updates", 0, False),
    ("generation", "beam", 1, False),
    ("generation", "nbest", 1, False),
    ("generation", "max_len_a", 0, False),
    ("generation", "max_len_b", 1, False),
    ("generation", "min_len", 0, False),
    ("generation", "temperature", 0, True),
)


def check_flags(cfg: DictConfig, command: str) -> None:
    """Raise `VATError` for a value that can't be meant, naming the flag.

    Args:
        cfg: the command's whole configuration.
        command: ``train``, ``generate``, ``interactive`` or ``validate``.
    """
    for group, name, lowest, strict in _NUMBERS:
        value = getattr(cfg.get(group) or {}, name, None)
        if value is None:
            continue
        if not math.isfinite(value) or value < lowest or (strict and value == lowest):
            wanted = f"above {lowest:g}" if strict else f"at least {lowest:g}"
            raise _wrong(name, value, f"must be {wanted}")
    results = cfg.common_eval.results_path
    if results is not None and os.path.isfile(results):
        raise VATError(f"--results-path {results} is a file; give a folder")
    if command == "train":
        _check_training(cfg)


def _check_training(cfg: DictConfig) -> None:
    for name, holds, wanted in (
        ("lr", lambda value: 0 < value < math.inf, "numbers above 0"),
        ("update_freq", lambda value: value >= 1, "whole numbers, at least 1"),
    ):
        values = list(cfg.optimization[name])
        if not values or not all(map(holds, values)):
            raise _wrong(name, ",".join(map(str, values)), f"must be {wanted}")
    betas = getattr(cfg.optimizer or {}, "adam_betas", None)
    if betas is not None and not _are_betas(betas):
        raise _wrong("adam_betas", betas, "must be two numbers of [0, 1), such as (0.9, 0.98)")
    task, model, criterion = cfg.task, cfg.model, cfg.criterion
    if getattr(task, "_name", None) != "variational_lm":
        return
    if getattr(task, "latent_sampling", False):
        raise VATError("--latent-sampling is of generation: training draws in any case")
    has_latents = str(getattr(model, "encoder_type", "none")) != "none"
    if has_latents and criterion._name != "token_kl_cross_entropy":
        raise VATError(
            f"--criterion {criterion._name} leaves the KL out, and the latents would mean nothing: "
            "give --criterion token_kl_cross_entropy"
        )
    if cfg.common.fp16 and cfg.common.cpu:
        raise VATError("--fp16 needs a CUDA device: leave it or --cpu out")


def _are_betas(betas: Any) -> bool:
    try:
        values = ast.literal_eval(betas) if isinstance(betas, str) else list(betas)
        return len(values) == 2 and all(0 <= float(value) < 1 for value in values)
    except (ValueError, SyntaxError, TypeError):
        return False


def _wrong(name: str, value: Any, wanted: str) -> VATError:
    return VATError(f"--{name.replace('_', '-')} {value}: {wanted}")
