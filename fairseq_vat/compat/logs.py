"""What a training tells: its log, ``metrics.jsonl``, and no warning of what it can't change."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator
from numbers import Number
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.logging import metrics, progress_bar

from fairseq_vat.files import METRICS, atomic_path, metrics_path

logger = logging.getLogger(__name__)

# what fairseq does with torch and Hydra and nobody who runs its commands can change: the
# beginnings of the messages, as regular expressions
_WARNINGS = (
    r"hydra\.experimental\.(initialize|compose)\(\) is no longer experimental",
    r"\s*The version_base parameter is not specified",
    r"\s*The strict flag in the compose API is deprecated",
    r"In 'config': Usage of deprecated keyword in package header",
    r"\s*'config' is validated against ConfigStore schema with the same name",
    r"'pin_memory' argument is set as true but no accelerator is found",
    r"`torch\.cuda\.amp\.(autocast|GradScaler)\(args\.\.\.\)` is deprecated",
    # a bool and a float mask side by side
    r"Support for mismatched key_padding_mask and attn_mask is deprecated",
)
# a perplexity above tells no more than that it is: an untrained KL makes it 1e+145
MOST_PERPLEXITY = 1e6


def silence_known_warnings() -> None:
    """Keep some 20 lines of deprecations in fairseq's own code off each of its commands.

    All other warnings are printed. A Python program that uses the plugin keeps its own filters.
    """
    if any(name.partition(".")[0] == "fairseq_cli" for name in list(sys.modules)):
        for message in _WARNINGS:
            warnings.filterwarnings("ignore", message)


def tell_of_a_lost_log() -> None:
    """One line where a log can't be written, in place of a traceback for each of its lines."""
    if any(name.partition(".")[0] == "fairseq_cli" for name in list(sys.modules)):
        logging.Handler.handleError = _tell_once


def _tell_once(handler: logging.Handler, record: logging.LogRecord) -> None:
    error = sys.exc_info()[1]
    if not isinstance(error, OSError):
        _handle_error(handler, record)
    # fairseq opens the file anew for each epoch
    elif (place := getattr(handler, "baseFilename", handler)) not in _lost:
        _lost.add(place)
        print(f"fairseq_vat: warning: the log is lost: {error.strerror}", file=sys.stderr)


_handle_error = logging.Handler.handleError
_lost: set[Any] = set()


def format_figures() -> None:
    """Let a log's text say ``>1e6`` for a perplexity above, and leave vectors and matrices out.

    `fairseq-validate` logs a batch's sums as they are. The json format and TensorBoard keep the
    perplexity.
    """
    bars = progress_bar.BaseProgressBar, progress_bar.JsonProgressBar
    if bars[0]._format_stats is not _format_stats:
        global _fairseq_format_stats, _fairseq_format_json
        _fairseq_format_stats, _fairseq_format_json = (bar._format_stats for bar in bars)
        bars[0]._format_stats, bars[1]._format_stats = _format_stats, _format_json


_fairseq_format_stats = progress_bar.BaseProgressBar._format_stats
_fairseq_format_json = progress_bar.JsonProgressBar._format_stats


def _single(stats: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in stats.items()
        if not (isinstance(value, torch.Tensor) and value.numel() > 1)
    }


def _format_json(bar: Any, stats: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    return _fairseq_format_json(bar, _single(stats), *args, **kwargs)


def _format_stats(bar: Any, stats: dict[str, Any]) -> dict[str, str]:
    formatted = _fairseq_format_stats(bar, _single(stats))
    for name in {"ppl", "elbo_ppl"} & stats.keys():
        if stats[name] > MOST_PERPLEXITY:
            formatted[name] = ">1e6"
    return formatted


def record_metrics() -> None:
    """Let ``--log-file`` get each line once, and ``metrics.jsonl`` its figures.

    fairseq opens the log anew for every epoch and writes to all: lines are repeated, and after some
    250 epochs the process may open no more files. A validation names none and uses the last.
    """
    if progress_bar.progress_bar is not _progress_bar:
        global _fairseq_progress_bar
        _fairseq_progress_bar = progress_bar.progress_bar
        progress_bar.progress_bar = _progress_bar


_fairseq_progress_bar = progress_bar.progress_bar


def _progress_bar(*args: Any, **kwargs: Any) -> Any:
    for handler in list(progress_bar.logger.handlers) if kwargs.get("log_file") else []:
        if isinstance(handler, logging.FileHandler):
            progress_bar.logger.removeHandler(handler)
            with contextlib.suppress(OSError):  # told of when it was written: the disk is full
                handler.close()
    bar = _fairseq_progress_bar(*args, **kwargs)
    # the bars of trainings are the ones that are told the folder
    if _training is not None and kwargs.get("aim_param_checkpoint_dir") == _training.save_dir:
        kind = "train" if kwargs.get("prefix") is None else "valid"
        recorded = _Recorded(bar, _training, kwargs["epoch"], kind)
        if kind == "train":
            _training.bar = recorded
        return recorded
    return bar


_training: _Training | None = None


def follow(trainer: Any) -> None:
    """Record the training that begins or goes on; its checkpoint is loaded.

    Args:
        trainer: fairseq's.
    """
    global _training
    _training = _Training(trainer)


class _Training:
    """Where a training's figures go: a file, and the task's ``post_log``, if it has one."""

    def __init__(self, trainer: Any):
        common, checkpoint = trainer.cfg.common, trainer.cfg.checkpoint
        self.save_dir = checkpoint.save_dir
        self.bar: _Recorded | None = None  # of the epoch that is being trained
        self._post_log = getattr(trainer.task, "post_log", None)
        self._path, self._is_told = None, False  # that figures are lost
        log = common.log_file
        if log and os.path.exists(log) and not os.path.isfile(log):
            log = None  # /dev/null: nothing belongs beside it
        if trainer.data_parallel_rank == 0 and (log or not checkpoint.no_save):
            self._path = metrics_path(log or os.path.join(self.save_dir, METRICS))
            _forget_after(self._path, trainer.get_num_updates())

    def record(self, kind: str, subset: str, epoch: int, stats: dict[str, Any]) -> None:
        figures = {name: _number(x) for name, x in stats.items() if _is_number(x)}
        if "num_updates" not in figures:  # an epoch without one
            return
        update = int(figures.pop("num_updates"))
        if self._path is not None:
            head = {"update": update, "epoch": epoch, "subset": subset, "kind": kind}
            try:
                with open(self._path, "a", encoding="utf-8") as file:
                    file.write(json.dumps({**head, **figures}, allow_nan=False) + "\n")
            except OSError as error:  # as with the log: no reason to end a training
                if not self._is_told:
                    logger.warning(f"{self._path}: figures are lost: {error.strerror}")
                self._is_told = True
        if self._post_log is not None and kind == "train_inner":
            self._post_log(update, figures)


def restore_interval(saved: dict[str, Any]) -> None:
    """Let the first line of a run that goes on cover all updates of its ``--log-interval``.

    At an epoch's end fairseq forgets those since the last line, though the interval goes on.

    Args:
        saved: a checkpoint's ``metrics``.
    """
    if "train_inner" in saved:
        metrics.load_state_dict({"train_inner": saved["train_inner"]})


def tell_epoch_before_saving() -> None:
    """Let the figures of an epoch be told before the checkpoint at its end is there.

    fairseq tells them after that, and a run that is killed in between goes on with the next epoch:
    they would be missing for good, from the log and from what counts its epochs.
    """
    if checkpoint_utils.save_checkpoint is not _save_checkpoint:
        global _fairseq_save_checkpoint
        _fairseq_save_checkpoint = checkpoint_utils.save_checkpoint
        checkpoint_utils.save_checkpoint = _save_checkpoint


_fairseq_save_checkpoint = checkpoint_utils.save_checkpoint


def _save_checkpoint(cfg: Any, trainer: Any, epoch_itr: Any, val_loss: Any) -> Any:
    updates, last = trainer.get_num_updates(), trainer.cfg.optimization.max_update
    bar = None if _training is None else _training.bar
    if bar is not None and (epoch_itr.end_of_epoch() or 0 < last <= updates):
        stats = dict(metrics.get_smoothed_values("train"))
        stats["wall"] = round(metrics.get_meter("default", "wall").elapsed_time, 0)
        bar.print(stats, tag="train", step=updates)
    return _fairseq_save_checkpoint(cfg, trainer, epoch_itr, val_loss)


def _is_number(x: Any) -> bool:
    return isinstance(x, Number) or (torch.is_tensor(x) and x.numel() == 1)


def _number(x: Any) -> float | int | None:
    """None, JSON's null, for what JSON has no number for."""
    x = x.item() if torch.is_tensor(x) else x
    return x if math.isfinite(x) else None


def _forget_after(path: Any, update: int) -> None:
    """Leave out the records that a run which goes on from `update` will make again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if _update_of(line) <= update]
    if kept != lines:
        with atomic_path(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")


def _update_of(line: str) -> float:
    try:
        return json.loads(line)["update"]
    except (ValueError, TypeError, KeyError):  # cut off by a kill
        return math.inf


class _Recorded(progress_bar.BaseProgressBar):
    """A progress bar whose statistics are recorded, in the way of fairseq's for TensorBoard."""

    def __init__(self, bar: Any, training: _Training, epoch: int, kind: str):
        self._bar, self._training, self._epoch, self._kind = bar, training, epoch, kind
        self._told: int | None = None

    def __iter__(self) -> Iterator:
        return iter(self._bar)

    def log(self, stats: dict[str, Any], tag: str | None = None, step: int | None = None) -> None:
        """Within an epoch."""
        self._training.record("train_inner", tag, self._epoch, stats)
        self._bar.log(stats, tag=tag, step=step)

    def print(self, stats: dict[str, Any], tag: str | None = None, step: int | None = None) -> None:
        """At the end of an epoch, or of a validation; once."""
        if self._kind == "train" and step == self._told:
            return
        self._told = step
        self._training.record(self._kind, tag, self._epoch, stats)
        self._bar.print(stats, tag=tag, step=step)

    def update_config(self, config: dict[str, Any]) -> None:
        """Handed on."""
        self._bar.update_config(config)
