"""What a checkpoint holds beside its configuration: tensors and plain data, as fairseq has it."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Collection, Mapping
from typing import Any

from omegaconf.base import Node
from torch import Tensor, strided

from fairseq_vat.errors import VATError

# names of figures, which go into a training's files
_METER = re.compile(r"[\w./ -]*")


def check_parts(state: dict[str, Any]) -> None:
    """Raise `VATError` unless it is tensors and plain data, each where fairseq expects it.

    Args:
        state: the checkpoint's; ``cfg`` is left alone.
    """
    check_no_attributes(state["model"], "model", {"_metadata"})  # torch's
    for name, value in state["model"].items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise VATError(f"model: {told(name)} is no tensor")
        _check_tensor(f"model: {told(name)}", value)
        if value.is_complex():  # torch would drop their imaginary parts
            raise VATError(f"model: {told(name)} holds complex numbers")
        if value.is_floating_point() and not value.isfinite().all():
            raise VATError(
                f"its parameter {name} holds values that aren't finite: the training diverged; use "
                "an earlier checkpoint"
            )
    for name, kind in {"optimizer_history": list, "extra_state": dict, "task_state": dict}.items():
        if not isinstance(state.get(name, kind()), kind):
            raise VATError(f"{name} is {told(state[name])}, no {kind.__name__}")
    for entry in state.get("optimizer_history", []):
        updates = entry.get("num_updates", 0) if isinstance(entry, dict) else None
        if type(updates) is not int or updates < 0:
            raise VATError(f"optimizer_history: num_updates is {told(updates)}, no number")
    for name in _names(state.get("extra_state", {}).get("metrics")):
        if not _METER.fullmatch(name):
            raise VATError(f"extra_state: {told(name)} is no figure's name")
    dictionary = state.get("task_state", {}).get("dictionary", "0 0")
    if not (isinstance(dictionary, str) and dictionary.split()):
        raise VATError(f"task_state: dictionary is {told(dictionary)}, no fingerprint")
    for name, part in state.items():
        if name not in ("cfg", "model"):
            _check_no_configuration(str(name), part)


def _check_no_configuration(where: str, value: Any) -> None:
    """OmegaConf's containers resolve what they hold when they are read; only cfg is one."""
    if isinstance(value, (Node, Namespace)):
        raise VATError(f"{where} holds a {type(value).__name__} in place of plain data")
    if isinstance(value, Tensor):
        _check_tensor(where, value)
    if isinstance(value, Mapping):
        check_no_attributes(value, where)
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for item in value:
        _check_no_configuration(where, item)


def _check_tensor(where: str, value: Tensor) -> None:
    """What lies in memory as its shape says: torch doesn't look at the indices of a sparse one."""
    plain = value.layout is strided and value.device.type == "cpu"
    if not plain or value.is_nested or value.is_quantized:
        raise VATError(f"{where} is no plain tensor")


def check_no_attributes(value: Any, where: str, known: Collection[str] = ()) -> None:
    """An OrderedDict's attributes can be read too, and one named items hides what it holds."""
    for name in set(getattr(value, "__dict__", ())) - set(known):
        raise VATError(f"{where} holds a dictionary with the attribute {told(name)}")


def _names(metrics: Any) -> list[str]:
    """The texts in fairseq's state of its meters."""
    if isinstance(metrics, str):
        return [metrics]
    if isinstance(metrics, Mapping):
        return [name for item in metrics.items() for part in item for name in _names(part)]
    if isinstance(metrics, (list, tuple)):
        return [name for item in metrics for name in _names(item)]
    return []


def told(value: Any) -> str:
    """A value for a message: on one line, and short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]} ..."
