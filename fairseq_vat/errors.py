"""Errors a user can mend, told in one line.

``VATError`` is raised wherever a flag, a file or a checkpoint is wrong.  It is a ``ValueError``
for Python callers.  In fairseq's commands the message is all that is printed: `fairseq_vat.compat`
installs the exception hook that does this, and Hydra prints the same line because the class is
also one of its *compact* exceptions.
"""

from __future__ import annotations

import pickle
import re
import traceback
import zipfile
from types import TracebackType

from hydra.errors import CompactHydraException
from omegaconf.errors import MissingMandatoryValue


class VATError(CompactHydraException, ValueError):
    """A mistake in the input; the message names what, where, and what would be right."""


def explain(error: BaseException, tb: TracebackType | None) -> str | None:
    """One line for an error that a user can mend, or None for one that is a defect.

    Besides `VATError`, also one raised in a process that fairseq spawned, it knows what fairseq
    raises for a missing checkpoint, sentencepiece model or batch size and for flags of sampling
    that need others, and what torch raises for a checkpoint that is cut off, is no checkpoint, or
    holds a pickle that ``weights_only`` loading refuses.  torch's messages don't name the file, so
    it is taken from the frame of fairseq's loader.

    Args:
        error: the exception that ended the command.
        tb: its traceback.
    """
    cause: BaseException | None = error
    while cause is not None:  # fairseq wraps some of ours in an Exception that says less
        if isinstance(cause, VATError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError) and str(error).startswith("Model file not found"):
        return f"--path: {str(error)[0].lower()}{str(error)[1:]}; give the path of a .pt checkpoint"
    if type(error).__name__ == "ProcessRaisedException":  # of a process that fairseq spawned
        told = re.search(r"^fairseq_vat\.errors\.VATError: (.*)$", str(error), re.MULTILINE)
        return told and told[1]
    if isinstance(error, OSError) and str(error).endswith(".model not found"):
        return f"--sentencepiece-model: {error}"
    if isinstance(error, AssertionError) and str(error).startswith("Must specify batch size"):
        return f"{error}"[0].lower() + f"{error}"[1:]
    if isinstance(error, AssertionError) and str(error).startswith("--sampling"):
        # "--sampling requires --nbest to be equal to --beam", and its like
        return str(error)
    if isinstance(error, MissingMandatoryValue):
        flag = str(getattr(error, "full_key", "")).split(".")[-1].replace("_", "-")
        return f"--{flag} is needed and was not given"
    if flag := _flag_being_read(tb):
        return flag
    if isinstance(error, FloatingPointError):
        return _not_finite(tb)
    path = _checkpoint_being_loaded(tb)
    if path is None:
        return None
    if isinstance(error, pickle.UnpicklingError):
        return (
            f"checkpoint {path} is refused: it is not a torch checkpoint, or holds objects other "
            "than tensors and plain data, which could run code when unpickled"
        )
    unreadable = (EOFError, OSError, RuntimeError, zipfile.BadZipFile, LookupError, ValueError)
    if isinstance(error, unreadable):
        return (
            f"checkpoint {path} can't be read: it is no checkpoint of fairseq's, or is cut off or "
            "damaged; restore it from a copy, or use another checkpoint of the run"
        )
    return None


def _checkpoint_being_loaded(tb: TracebackType | None) -> str | None:
    for frame, _ in traceback.walk_tb(tb):
        if frame.f_code.co_name == "load_checkpoint_to_cpu":
            return str(frame.f_locals.get("path"))
    return None


def _flag_being_read(tb: TracebackType | None) -> str | None:
    """A line about the value that argparse was converting, if it was."""
    for frame, _ in traceback.walk_tb(tb):
        if frame.f_code.co_name == "_get_value" and frame.f_globals["__name__"] == "argparse":
            action, text = frame.f_locals.get("action"), frame.f_locals.get("arg_string")
            if action is not None:
                return f"{'/'.join(action.option_strings)}: {text!r} can't be read"
    return None


def _not_finite(tb: TracebackType | None) -> str | None:
    """A line about a training whose gradients are no numbers any more."""
    for frame, _ in traceback.walk_tb(tb):
        trainer = frame.f_locals.get("self")
        if hasattr(trainer, "get_num_updates") and hasattr(trainer, "get_lr"):
            criterion = getattr(trainer.cfg, "criterion", None)
            return (
                f"loss or gradients aren't finite at update {trainer.get_num_updates() + 1:,} "
                f"(learning rate {trainer.get_lr():g}, --kl-weight "
                f"{getattr(criterion, 'kl_weight', 'none')}): try a lower --lr, a longer "
                "--warmup-updates, or --clip-norm 1; checkpoint_last.pt is from before"
            )
    return None
