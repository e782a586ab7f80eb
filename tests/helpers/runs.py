"""Whether two training runs ended alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def state(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint, weights_only=True)


def assert_equal(one: Any, other: Any, where: str = "state") -> None:
    """Equal to the last bit, all the way down."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def assert_same_end(save_dir: Path, reference_dir: Path) -> None:
    """Same parameters, optimizer state and place in the data."""
    one, other = (state(folder / "checkpoint_last.pt") for folder in (save_dir, reference_dir))
    assert len(one["last_optimizer_state"]["state"]) > 0
    for key in ("model", "last_optimizer_state"):
        assert_equal(one[key], other[key], key)
    for run in (one, other):
        # the best validation loss, which this schedule never reads and a process sees from its
        # start on only
        run["optimizer_history"][-1]["lr_scheduler_state"].pop("best")
    assert_equal(one["optimizer_history"][-1], other["optimizer_history"][-1], "history")
    assert_equal(
        one["extra_state"]["train_iterator"], other["extra_state"]["train_iterator"], "iterator"
    )
