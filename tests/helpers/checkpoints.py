"""Checkpoints made to do harm, and what a user is told of a checkpoint that is refused."""

from __future__ import annotations

import copy

import pytest
import torch

from fairseq_vat.errors import explain


def payload(marker):
    return f"[__import__('pathlib').Path({str(marker)!r}).touch()]"


def crafted(good, folder, change, *args, name="crafted.pt"):
    """A file with the good checkpoint's content, its configuration changed."""
    state = dict(good, cfg=copy.deepcopy(good["cfg"]))
    change(state["cfg"], *args)
    path = folder / name
    torch.save(state, path)
    return path


def refused(call, *args):
    """The one line that a user sees."""
    with pytest.raises(Exception) as caught:
        call(*args)
    line = explain(caught.value, caught.value.__traceback__)
    assert line is not None and "\n" not in line
    return line
