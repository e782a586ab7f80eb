"""``--patience``, counted over stops: fairseq counts in attributes of a function alone."""

from __future__ import annotations

from typing import Any

from fairseq_vat.compat.commands import loaded_command

# of `fairseq_cli.train.should_stop_early`: the best validation's figure, and how many came since
_COUNTS = ("best", "num_runs")
_KEY = "early_stopping"


def count() -> dict[str, Any]:
    """What a checkpoint's ``extra_state`` keeps; nothing where nothing was counted."""
    found = {name: getattr(_counter(), name, None) for name in _COUNTS}
    if None in found.values():
        return {}
    return {_KEY: {name: float(value) for name, value in found.items()}}


def go_on(cfg: Any, extra_state: dict[str, Any] | None) -> bool:
    """Count on from where the stopped run was; whether that was its end.

    Args:
        cfg: fairseq's, of checkpoints.
        extra_state: of the checkpoint that is gone on from; None for none.
    """
    counter = _counter()
    for name in _COUNTS:  # of an earlier training of this process
        vars(counter).pop(name, None)
    kept = (extra_state or {}).get(_KEY)
    if not isinstance(kept, dict) or cfg.reset_meters or cfg.reset_optimizer:
        return False
    for name in _COUNTS:
        if isinstance(kept.get(name), float):
            setattr(counter, name, kept[name])
    return 0 < cfg.patience <= getattr(counter, "num_runs", 0)


def _counter() -> Any:
    return getattr(loaded_command("train"), "should_stop_early", lambda: None)
