"""Untrained models and the batches they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from helpers import commands


def build(data_dir: Path, *flags: str) -> tuple[Any, Any, Any]:
    """Task, model and criterion, as `fairseq-train` would make them."""
    parser = options.get_training_parser()
    every = [str(data_dir), *commands.train_flags(flags), *flags]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, every))
    torch.manual_seed(1)
    task = tasks.setup_task(cfg.task)
    return task, task.build_model(cfg.model), task.build_criterion(cfg.criterion)


def batch(task: Any, rows: list[int], pad_to: int | None = None) -> dict[str, Any]:
    """Sentences of the test split as a batch, rows in fairseq's order, longest first."""
    task.load_dataset("test")
    data = task.dataset("test")
    length = {"source": pad_to, "target": pad_to} if pad_to else None
    return data.collater([data[row] for row in rows], pad_to_length=length)
