"""fairseq's commands, driven in this process: importing fairseq anew would take seconds a test."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import torch
from fairseq import checkpoint_utils, options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils
from fairseq_cli import generate as fairseq_generate
from fairseq_cli import interactive as fairseq_interactive
from fairseq_cli import preprocess as fairseq_preprocess
from fairseq_cli import train as fairseq_train
from fairseq_cli import validate as fairseq_validate

import fairseq_vat
from fairseq_vat import plugin

PLUGIN = str(Path(fairseq_vat.__file__).parent)
# no loader processes: starting them would take longer than the work
PLUGIN_FLAGS = ["--user-dir", PLUGIN, "--task", "variational_lm", "--cpu", "--num-workers", "0"]
TRAIN_FLAGS = [
    *PLUGIN_FLAGS,
    *["--arch", "vat_transformer_tiny", "--criterion", "token_kl_cross_entropy"],
    *["--optimizer", "adam", "--lr", "0.005", "--max-tokens", "200", "--seed", "3"],
    *["--log-format", "simple", "--log-interval", "10", "--no-epoch-checkpoints"],
]


# equation (6) as it is; known to our criterion alone
KL_FLAGS = ["--kl-weight", "1", "--kl-annealing", "constant"]


def train_flags(flags: Sequence[str]) -> list[str]:
    """`TRAIN_FLAGS`, and `KL_FLAGS` unless further flags name another criterion."""
    return [*TRAIN_FLAGS, *([] if "--criterion" in flags else KL_FLAGS)]


def preprocess(destination: Path, **splits: Path) -> Path:
    """`fairseq-preprocess --only-source`; splits are train=, valid= and test=."""
    flags = ["--only-source", "--destdir", str(destination)]
    for split, path in splits.items():
        flags += [f"--{split}pref", str(path)]
    parser = options.get_preprocessing_parser()
    with contextlib.redirect_stdout(io.StringIO()):
        fairseq_preprocess.main(parser.parse_args(flags))
    return destination


def train(data: Path | str, save_dir: Path, *flags: str) -> str:
    """`fairseq-train` with the tiny architecture; later flags win. Returns its log."""
    parser = options.get_training_parser()
    every = [str(data), *train_flags(flags), "--save-dir", str(save_dir), *map(str, flags)]
    # survives from one run to the next in one process
    if hasattr(checkpoint_utils.save_checkpoint, "best"):
        del checkpoint_utils.save_checkpoint.best
    with logged() as log:
        args = options.parse_args_and_arch(parser, every)
        distributed_utils.call_main(convert_namespace_to_omegaconf(args), fairseq_train.main)
    return log.getvalue()


def close_log_files() -> None:
    """Those of `train`: a process of its own would take them with it."""
    for logger in map(logging.getLogger, list(logging.root.manager.loggerDict)):
        for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
            logger.removeHandler(handler)
            with contextlib.suppress(OSError):  # on a full disk
                handler.close()


def validate(data: Path | str, checkpoint: Path, *flags: str) -> str:
    """`fairseq-validate`. Returns its log."""
    every = [str(data), *PLUGIN_FLAGS, "--path", str(checkpoint), "--max-tokens", "400"]
    every += ["--log-format", "simple", "--log-interval", "1000", *map(str, flags)]
    plugin.install()  # as when the command, and not this module, is what imports the plugin
    with (
        logged() as log,
        mock.patch("sys.argv", ["fairseq-validate", *every]),
        # it would take the handlers of this process away, ours and pytest's
        mock.patch("fairseq_cli.validate.reset_logging"),
    ):
        fairseq_validate.cli_main()
    return log.getvalue()


def generate(data: Path | str, checkpoint: Path | str, *flags: str) -> str:
    """`fairseq-generate`. Returns what it printed."""
    every = [str(data), *PLUGIN_FLAGS, "--path", str(checkpoint), "--beam", "2"]
    every += ["--max-tokens", "400", "--max-len-b", "30", *map(str, flags)]
    output = io.StringIO()
    with contextlib.redirect_stdout(output), mock.patch("sys.argv", ["generate", *every]):
        fairseq_generate.cli_main()
    return output.getvalue()


def interactive(data: Path | str, checkpoint: Path | str, text: bytes, *flags: str) -> str:
    """`fairseq-interactive` on standard input `text`. Returns what it printed."""
    every = [str(data), *PLUGIN_FLAGS, "--path", str(checkpoint), "--beam", "2"]
    every += ["--max-len-b", "30", *map(str, flags)]
    plugin.install()  # as when the command, and not this module, is what imports the plugin
    stdin = io.TextIOWrapper(io.BytesIO(text), encoding="utf-8")
    output = io.StringIO()
    with (
        contextlib.redirect_stdout(output),
        mock.patch("sys.stdin", stdin),
        mock.patch("sys.argv", ["interactive", *every]),
        logged(),
    ):
        fairseq_interactive.cli_main()
    return output.getvalue()


def hypotheses(output: str) -> dict[int, list[str]]:
    """H- lines of generate's or interactive's output by sentence, in their order."""
    found: dict[int, list[str]] = {}
    for line in output.splitlines():
        if line.startswith("H-"):
            name, _, text = line.split("\t")
            found.setdefault(int(name[2:]), []).append(text)
    return found


def stats(log: str, kind: str = "valid") -> list[dict[str, str]]:
    """The figures of every `valid` or `train` line of a log in the simple format."""
    lines = [line.split(f"| {kind} |", 1)[1] for line in log.splitlines() if f"| {kind} |" in line]
    fields = [[field.split() for field in line.split("|")] for line in lines]
    return [{pair[0]: pair[1] for pair in line if len(pair) == 2} for line in fields]


def updates(log: str) -> dict[int, dict[str, str]]:
    """The figures of every `--log-interval`, by the number of updates done."""
    lines = [line for line in log.splitlines() if "num_updates=" in line]
    found = [dict(re.findall(r"(\w+)=([^,\s]+)", line)) for line in lines]
    return {int(figures["num_updates"]): figures for figures in found}


def parameters(checkpoint: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's model parameters."""
    return torch.load(checkpoint, weights_only=True)["model"]


@contextlib.contextmanager
def logged():
    """What the commands log, in the format they use."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)s | %(name)s | %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
