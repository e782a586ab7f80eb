"""Flags of fairseq's own that fairseq takes without a look, and ends in a traceback with, or worse.

They are checked before anything is read or written (`fairseq_vat.compat`).
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import logging
import math
import os
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from fairseq import models
from fairseq.dataclass.configs import FairseqConfig
from fairseq.logging import progress_bar
from omegaconf import DictConfig

from fairseq_vat.criterions.config import TokenKLCrossEntropyConfig
from fairseq_vat.errors import VATError
from fairseq_vat.files import SaveFolder
from fairseq_vat.models.config import VATTransformerConfig
from fairseq_vat.models.precision import WITH_FP16
from fairseq_vat.models.vat_transformer import VATModel
from fairseq_vat.tasks.checkpoint_check import fits
from fairseq_vat.tasks.config import VariationalLMConfig

logger = logging.getLogger(__name__)

_OURS = (VATTransformerConfig, VariationalLMConfig, TokenKLCrossEntropyConfig)
_OF_FAIRSEQ = [field.type for field in fields(FairseqConfig) if is_dataclass(field.type)]
PACKAGE = Path(__file__).parents[1]

# group, name, lowest value, and whether the lowest itself is wrong; what is no number isn't given
_NUMBERS: tuple[tuple[str, str, float, bool], ...] = (
    ("common", "log_interval", 1, False),
    ("common", "seed", 0, False),
    ("dataset", "max_tokens", 1, False),
    ("dataset", "max_tokens_valid", 1, False),
    ("dataset", "batch_size", 1, False),
    ("dataset", "batch_size_valid", 1, False),
    ("dataset", "num_workers", 0, False),
    ("dataset", "required_batch_size_multiple", 1, False),
    ("dataset", "validate_interval", 1, False),
    ("dataset", "validate_interval_updates", 0, False),
    ("dataset", "num_shards", 1, False),
    ("dataset", "shard_id", 0, False),
    ("optimization", "max_update", 0, False),
    ("optimization", "max_epoch", 0, False),
    ("optimization", "clip_norm", 0, False),
    ("checkpoint", "save_interval", 1, False),
    ("checkpoint", "save_interval_updates", 0, False),
    ("generation", "beam", 1, False),
    ("generation", "nbest", 1, False),
    ("generation", "max_len_a", 0, False),
    ("generation", "max_len_b", 0, False),
    ("generation", "min_len", 0, False),
    ("generation", "temperature", 0, True),
    ("generation", "prefix_size", 0, False),
    ("generation", "lenpen", -math.inf, False),
    ("generation", "unkpen", -math.inf, False),
    ("interactive", "buffer_size", 0, False),
    ("distributed_training", "distributed_world_size", 1, False),
    ("optimizer", "weight_decay", 0, False),
    ("optimizer", "adam_eps", 0, True),
    ("lr_scheduler", "warmup_updates", 0, False),
)
# what a checkpoint's configuration holds, with its type
_OVERRIDABLE: dict[str, Any] = {
    field.name: field.type if dataclass in _OURS else Any
    for dataclass in (*_OF_FAIRSEQ, *_OURS)
    for field in fields(dataclass)
}
_COMMANDS_THAT_GENERATE = ("generate", "interactive")


def check_names(args: argparse.Namespace) -> None:
    """Raise `VATError` where a command line lacks the task or architecture that it needs.

    Args:
        args: parsed as far as it goes without them.
    """
    if hasattr(args, "only_source"):  # fairseq-preprocess, which needs neither
        return
    arch, ours, what = getattr(args, "arch", None), False, "--user-dir fairseq_vat"
    if not hasattr(args, "path"):  # a training
        if arch is None:
            raise VATError("--arch is needed and was not given, such as --arch vat_transformer")
        kind, what = models.ARCH_MODEL_REGISTRY.get(arch), f"--arch {arch}"
        ours = isinstance(kind, type) and issubclass(kind, VATModel)
    elif args.task in (None, "translation"):  # fairseq's defaults
        ours = os.path.realpath(args.user_dir or "") == str(PACKAGE.resolve())
    if args.task is None or (ours and args.task != "variational_lm"):
        raise VATError(f"--task {args.task or '(none)'}: {what} needs --task variational_lm")


def check_flags(cfg: DictConfig, command: str) -> None:
    """Raise `VATError` for a value that can't be meant, naming the flag.

    Args:
        cfg: the command's whole configuration.
        command: ``train``, ``generate``, ``interactive`` or ``validate``.
    """
    for group in dict.fromkeys(group for group, *_ in _NUMBERS):
        _check_numbers(group, cfg.get(group) or {})
    if cfg.common.seed >= 2**32:
        raise _wrong("seed", cfg.common.seed, "must be below 2^32")
    if cfg.common.tpu and importlib.util.find_spec("torch_xla") is None:
        raise VATError("--bf16 and --tpu need a TPU: give --precision bfloat16 in their place")
    if command == "train":
        _check_training(cfg)
    else:
        _check_evaluation(cfg)
    if command in _COMMANDS_THAT_GENERATE:
        _check_generation(cfg, command)


def _check_numbers(of_group: str, values: Any) -> None:
    for group, name, lowest, strict in _NUMBERS:
        value = getattr(values, name, None) if group == of_group else None
        if not isinstance(value, (int, float)):
            continue
        if not math.isfinite(value) or value < lowest or (strict and value == lowest):
            wanted = f"above {lowest:g}" if strict else f"at least {lowest:g}"
            wanted = "a finite number" if lowest == -math.inf else wanted
            raise _wrong(name, value, f"must be {wanted}")


def check_search(how: Any) -> None:
    """Raise `VATError` for settings of fairseq's generation that can't be meant, naming the flag.

    Args:
        how: `fairseq.dataclass.configs.GenerationConfig`.
    """
    _check_numbers("generation", how)
    if how.max_len_a == 0 and how.max_len_b == 0:
        raise _wrong("max_len_b", 0, "must be at least 1, without --max-len-a")
    if how.sampling_topk < 1 and how.sampling_topk != -1:
        raise _wrong("sampling_topk", how.sampling_topk, "must be at least 1, or -1 for all")
    if not 0 < how.sampling_topp <= 1 and how.sampling_topp != -1:
        raise _wrong("sampling_topp", how.sampling_topp, "must be above 0 and at most 1")
    for name in ("sampling_topk", "sampling_topp"):
        if how[name] != -1 and not how.sampling:
            raise VATError(f"--{name.replace('_', '-')} requires --sampling")
    if how.diverse_beam_groups > 0 and how.beam % how.diverse_beam_groups:
        raise _wrong(
            "diverse_beam_groups", how.diverse_beam_groups, f"must divide --beam, {how.beam}"
        )
    strategies = {
        "sampling": how.sampling,
        "match_source_len": how.match_source_len,
        "diverse_beam_groups": how.diverse_beam_groups > 0,
        "diversity_rate": how.diversity_rate > 0,
    }
    if len(given := [name for name, is_given in strategies.items() if is_given]) > 1:
        first, second = (f"--{name.replace('_', '-')}" for name in given[:2])
        raise VATError(f"{first} can't be combined with {second}: each is another search")
    if how.nbest > how.beam:
        raise _wrong("nbest", how.nbest, f"must be at most --beam, {how.beam}")
    if how.max_len_a == 0 and how.min_len > how.max_len_b:
        raise _wrong("min_len", how.min_len, f"must be at most --max-len-b, {how.max_len_b}")


def _check_evaluation(cfg: DictConfig) -> None:
    if cfg.common_eval.path is None:
        raise VATError("--path is needed and was not given: the path of a .pt checkpoint")
    results = cfg.common_eval.results_path
    if results is not None and os.path.isfile(results):
        raise VATError(f"--results-path {results} is a file; give a folder")
    try:
        overrides = ast.literal_eval(cfg.common_eval.model_overrides)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        overrides = None
    if not isinstance(overrides, dict):
        raise VATError(
            "--model-overrides must be a dictionary of plain values, not "
            f"{cfg.common_eval.model_overrides!r}"
        )
    if getattr(cfg.task, "_name", None) == "variational_lm":
        for name, value in overrides.items():
            if name not in _OVERRIDABLE:
                raise VATError(f"--model-overrides {name}: a model of this plugin has no such flag")
            if not fits(value, _OVERRIDABLE[name]):
                raise VATError(f"--model-overrides {name}: {value!r} is of another type")


def _check_generation(cfg: DictConfig, command: str) -> None:
    if sys.stdout is None and (command == "interactive" or cfg.common_eval.results_path is None):
        raise VATError("standard output is closed: nothing could be printed")
    check_search(cfg.generation)
    shards = cfg.dataset.num_shards
    if cfg.dataset.shard_id >= shards:
        raise _wrong("shard_id", cfg.dataset.shard_id, f"must be below --num-shards, {shards}")
    path = cfg.interactive.input
    if command == "interactive" and path != "-":
        if not os.path.exists(path):
            raise VATError(f"--input {path}: no such file")
        if os.path.isdir(path):
            raise VATError(f"--input {path} is a folder; give a file")


def _check_training(cfg: DictConfig) -> None:
    for name, holds, wanted in (
        ("lr", lambda value: 0 < value < math.inf, "numbers above 0"),
        ("update_freq", lambda value: value >= 1, "whole numbers, at least 1"),
    ):
        if not (values := list(cfg.optimization[name])) or not all(map(holds, values)):
            raise _wrong(name, ",".join(map(str, values)) or "''", f"must be {wanted}")
    half = cfg.common
    flat = not (half.fp16_no_flatten_grads or half.memory_efficient_fp16)
    if half.fp16 and flat and (half.cpu or not torch.cuda.is_available()):
        raise VATError("--fp16 needs a CUDA device: leave it out, or give --precision bfloat16")
    if cfg.common.tensorboard_logdir and progress_bar.SummaryWriter is None:
        raise VATError("--tensorboard-logdir needs tensorboard: pip install tensorboard")
    if cfg.optimizer is None:
        raise VATError("--optimizer is needed and was not given, such as --optimizer adam")
    SaveFolder(cfg.checkpoint.save_dir).refuse_links(cfg.common.log_file)
    if half.memory_efficient_fp16 and cfg.optimizer._name == "fused_adam":
        raise VATError("--memory-efficient-fp16 needs another --optimizer, such as adam")
    betas = getattr(cfg.optimizer, "adam_betas", None)
    if betas is not None and not _are_betas(betas):
        raise _wrong("adam_betas", betas, "must be two numbers of [0, 1), such as (0.9, 0.98)")
    cosine = getattr(cfg.lr_scheduler, "_name", None) == "cosine"
    if cosine and max(cfg.lr_scheduler.lr_period_updates, cfg.optimization.max_update) <= 0:
        raise VATError("--lr-period-updates is needed and was not given, a cosine's updates")
    task, model, criterion = cfg.task, cfg.model, cfg.criterion
    for flag in ("checkpoint_activations", "offload_activations"):
        if half.amp and getattr(model, flag, False):
            raise _wrong(flag, "with --amp", "fairseq would recompute in single precision")
    if getattr(task, "_name", None) != "variational_lm":
        return
    for flag in ("encoder_layers_to_keep", "decoder_layers_to_keep"):
        if kept := getattr(model, flag, None):
            raise _wrong(flag, kept, "prunes a trained model, in --model-overrides")
    if half.fp16 and str(getattr(model, "precision", "")) == "bfloat16":
        raise VATError(WITH_FP16)
    if getattr(model, "emulate_bfloat16", False) and str(model.precision) != "bfloat16":
        logger.warning("--emulate-bfloat16 does nothing without --precision bfloat16")
    if getattr(task, "latent_sampling", False):
        raise VATError("--latent-sampling is of generation: training draws in any case")
    has_latents = str(getattr(model, "encoder_type", "none")) != "none"
    if has_latents and criterion._name != "token_kl_cross_entropy":
        raise VATError(
            f"--criterion {criterion._name} leaves the KL out, and the latents would mean nothing: "
            "give --criterion token_kl_cross_entropy"
        )
    if criterion._name == "token_kl_cross_entropy":
        if not criterion.free_bits and _value(criterion.free_bits_per) != _value(
            TokenKLCrossEntropyConfig.free_bits_per
        ):
            logger.warning("--free-bits-per does nothing without --free-bits")
        if not has_latents and criterion.free_bits:
            logger.warning("--free-bits does nothing for a language model, which has no latents")
        _check_annealing(criterion)


def _check_annealing(cfg: DictConfig) -> None:
    schedule = _value(cfg.kl_annealing)
    if schedule == "constant" and cfg.kl_annealing_updates > 0:
        logger.warning(  # an experiment's file has it, and a flag of the same command turns it off
            f"--kl-annealing-updates {cfg.kl_annealing_updates} does nothing with --kl-annealing "
            "constant: give linear, cyclic or logistic, or leave it out"
        )
    others = {"cycles": "cyclic", "ratio": "cyclic", "init": "logistic", "slope": "logistic"}
    for name, needed in others.items():
        value = getattr(cfg, f"kl_annealing_{name}")
        default = getattr(TokenKLCrossEntropyConfig, f"kl_annealing_{name}")
        if schedule != needed and value != default:
            logger.warning(
                f"--kl-annealing-{name} {value} does nothing with --kl-annealing {schedule}: it is "
                f"for {needed}"
            )
    if schedule == "cyclic" and cfg.kl_annealing_cycles > cfg.kl_annealing_updates > 0:
        raise VATError(
            f"--kl-annealing-cycles {cfg.kl_annealing_cycles}: must be at most "
            f"--kl-annealing-updates, {cfg.kl_annealing_updates}"
        )


def _are_betas(betas: Any) -> bool:
    try:
        values = ast.literal_eval(betas) if isinstance(betas, str) else list(betas)
        return len(values) == 2 and all(0 <= float(value) < 1 for value in values)
    except (ValueError, SyntaxError, TypeError):
        return False


def _value(choice: Any) -> str:
    """The flag's word for a choice, be it one already or a member of an enumeration."""
    return str(getattr(choice, "value", choice))


def _wrong(name: str, value: Any, wanted: str) -> VATError:
    return VATError(f"--{name.replace('_', '-')} {value}: {wanted}")
