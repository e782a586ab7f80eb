"""Errors a user can mend, told in one line.

``VATError`` is raised wherever a flag, a file or a checkpoint is wrong.  It is a ``ValueError``
for Python callers.  In fairseq's commands the message is all that is printed: `fairseq_vat.compat`
installs the exception hook that does this, and Hydra prints the same line because the class is
also one of its *compact* exceptions.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import re
import sys
import traceback
import zipfile
from types import TracebackType

from hydra.errors import CompactHydraException
from omegaconf.errors import (
    GrammarParseError,
    InterpolationResolutionError,
    MissingMandatoryValue,
)

# names come from files, and a terminal obeys some characters
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class VATError(CompactHydraException, ValueError):
    """A mistake in the input; the message names what, where, and what would be right."""

    def __str__(self) -> str:
        return _CONTROL.sub("\ufffd", super().__str__())


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
    line = _explain(error, tb)
    return None if line is None else _CONTROL.sub("\ufffd", line)


def _explain(error: BaseException, tb: TracebackType | None) -> str | None:
    cause: BaseException | None = error
    while cause is not None:  # fairseq wraps some of ours in an Exception that says less
        if isinstance(cause, VATError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError) and str(error).startswith("Model file not found"):
        several = any(".pt" in word and ":" in word for word in sys.argv)
        told = f"m{str(error)[1:]}{' (a colon separates several)' * several}"
        return f"--path: {told}; give the path of a .pt checkpoint"
    if type(error).__name__ == "ProcessRaisedException":  # of a process that fairseq spawned
        told = re.search(r"^fairseq_vat\.errors\.VATError: (.*)$", str(error), re.MULTILINE)
        return told and told[1]
    if is_lost_worker(error):
        return (
            "another worker of this training has ended, see what it said; the same command goes on "
            "from the last checkpoint"
        )
    if isinstance(error, OSError) and str(error).endswith(".model not found"):
        return f"--sentencepiece-model: {error}"
    if isinstance(error, OSError) and (missing := re.fullmatch("file (.*) not found", str(error))):
        return f"{_flag_of(missing[1])}{missing[1]}: no such file"
    if isinstance(error, RuntimeError) and "could not parse ModelProto" in str(error):
        path = str(error).rpartition(" from ")[2]
        return f"--sentencepiece-model {path}: it is no model of sentencepiece"
    if vectors := _word_vectors_being_read(tb):
        return vectors
    if isinstance(error, AssertionError) and str(error).startswith("Must specify batch size"):
        return f"{error}"[0].lower() + f"{error}"[1:]
    if isinstance(error, RuntimeError) and "dataloader mismatch" in str(error):
        return (
            "--restore-file: the checkpoint is from within an epoch of smaller batches: give its "
            "--max-tokens and --batch-size, or --reset-dataloader to begin an epoch"
        )
    if isinstance(error, (AssertionError, ValueError)) and str(error).startswith("--"):
        # "--sampling requires --nbest to be equal to --beam", and its like; some with all settings
        return str(error).partition(": {")[0]
    if isinstance(error, AssertionError) and str(error).startswith("min_len cannot be larger"):
        return "--min-len is larger than the longest output: lower it, or raise --max-len-b"
    if metric := _metric_not_logged(error, tb):
        return metric
    if isinstance(error, MissingMandatoryValue):
        flag = str(getattr(error, "full_key", "")).split(".")[-1].replace("_", "-")
        return f"--{flag} is needed and was not given"
    if _is_of_references(error) or _is_of_references(error.__cause__):
        where = getattr(error, "full_key", None) or str(error).rpartition("override ")[2]
        return f"{where}: Hydra reads '${{' in a value as a reference: give another name"
    if flag := _flag_being_read(tb):
        return flag
    path = _checkpoint_being_loaded(tb)
    if path is None:
        return _of_the_machine(error, tb)
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


def is_lost_worker(error: BaseException) -> bool:
    """Whether it is that another process of the same training, on whatever machine, is gone."""
    return isinstance(error, RuntimeError) and bool(_LOST_WORKER.search(str(error)))


# of gloo, of torch's store, and of NCCL
_LOST_WORKER = re.compile(
    r"Connection (closed|reset) by peer|Connection was likely closed|ncclRemoteError"
)


def _is_of_references(error: BaseException | None) -> bool:
    return isinstance(error, (GrammarParseError, InterpolationResolutionError))


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


def _metric_not_logged(error: BaseException, tb: TracebackType | None) -> str | None:
    """A line about a validation that fairseq can't judge."""
    if not isinstance(error, KeyError):
        return None
    for frame, _ in traceback.walk_tb(tb):
        stats, cfg = frame.f_locals.get("stats"), frame.f_locals.get("cfg")
        if frame.f_code.co_name in ("validate", "get_valid_stats") and isinstance(stats, dict):
            metric = cfg.checkpoint.best_checkpoint_metric
            known = ", ".join(sorted(name for name in stats if not name.startswith("_")))
            return f"--best-checkpoint-metric {metric} isn't logged in validation; {known} are"
    return None


def _word_vectors_being_read(tb: TracebackType | None) -> str | None:
    """A line about a file of --encoder-embed-path that holds something else."""
    path = None
    for frame, _ in traceback.walk_tb(tb):
        if frame.f_code.co_name == "build_embedding":
            path = frame.f_locals.get("path")
        if frame.f_code.co_name in ("parse_embedding", "load_embedding") and os.path.isfile(path):
            return (
                f"{_flag_of(path)}{path} has no word vectors of the model's width: after its first "
                "line each must be a word and its numbers, with spaces between them"
            )
    return None


# of the machine's errors with files those that a user can mend
_MENDABLE = (
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EFBIG, errno.EIO),
)


def _of_the_machine(error: BaseException, tb: TracebackType | None) -> str | None:
    """A line about a file that can't be opened or written, or about memory that is too small."""
    if isinstance(error, OSError) and error.errno in _MENDABLE:
        if error.filename is None:
            return f"{_results_being_written(tb)}{error.strerror}"
        return f"{_flag_of(error.filename)}{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError) or re.search(
        r"out of memory|can't allocate memory|[Uu]nable to allocate", str(error)
    ):
        return f"out of memory: {_less_memory(tb)}"
    return None


def _results_being_written(tb: TracebackType | None) -> str:
    """The file of `fairseq-generate`'s results, with a colon behind it."""
    for frame, _ in traceback.walk_tb(tb):
        file = frame.f_locals.get("output_file", frame.f_locals.get("h"))
        if isinstance(file, io.TextIOBase) and file.name != "<stdout>":
            return f"{file.name}: "
    return ""


def _flag_of(value: object) -> str:
    """The flag of the command line that has a value, with a space behind it."""
    for flag, given in zip(sys.argv[1:], sys.argv[2:], strict=False):
        if flag.startswith("--") and value in (given, os.path.abspath(given)):
            return f"{flag} "
    return ""


def _less_memory(tb: TracebackType | None) -> str:
    """Which flags ask for the memory that isn't there, with their values where they are known."""
    hub = "VATHubInterface"
    if any(type(f.f_locals.get("self")).__name__ == hub for f, _ in traceback.walk_tb(tb)):
        return "lower --beam, or give fewer or shorter sentences at a time"
    names, cfg = [frame.f_code.co_name for frame, _ in traceback.walk_tb(tb)], None
    for frame, _ in traceback.walk_tb(tb):
        cfg = getattr(frame.f_locals.get("self"), "cfg", frame.f_locals.get("cfg", cfg))
        if hasattr(cfg, "dataset"):
            break
    dataset, generation = (getattr(cfg, part, None) for part in ("dataset", "generation"))
    if "build_model" in names:
        return "the model is too large: lower --encoder-layers, --decoder-layers, or its widths"
    flags = {"--max-tokens": getattr(dataset, "max_tokens", None)}
    flags["--batch-size"] = getattr(dataset, "batch_size", None)
    if {"generate", "inference_step"} & {*names}:
        flags["--beam"] = getattr(generation, "beam", None)
    given = [f"{flag} {value}" for flag, value in flags.items() if value is not None]
    return f"lower {' or '.join(given or ['--max-tokens or --batch-size'])}"


def is_debugging() -> bool:
    """Whether tracebacks are asked for: FAIRSEQ_VAT_DEBUG is set, and not to 0."""
    return os.environ.get("FAIRSEQ_VAT_DEBUG", "0") not in ("", "0")
