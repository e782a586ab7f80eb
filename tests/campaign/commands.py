"""Commands run as a user's shell would, without the seconds that importing torch takes each time.

A command begins as a copy of this process, which has imported torch and fairseq, but neither the
plugin nor any of fairseq's command modules: those are imported as in a process of their own, and
the plugin by ``--user-dir``.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import fairseq  # noqa: F401

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "fairseq_vat"
SECONDS = 90  # a command that takes longer hangs
MEMORY = 16 << 30

_PLUGIN_FLAGS = f"--user-dir {PLUGIN} --task variational_lm --cpu --num-workers 0".split()
_TRAIN_FLAGS = (
    "--arch vat_transformer_tiny --criterion token_kl_cross_entropy --kl-annealing constant "
    "--kl-weight 0.01 --dropout 0 --optimizer adam --lr 0.005 --max-tokens 200 --seed 3 "
    "--log-format simple --log-interval 10 --no-epoch-checkpoints --max-update 2 --save-dir out"
).split()
_GENERATE_FLAGS = "--beam 2 --max-tokens 400 --max-len-b 30".split()
# what a line of the table begins with, and what it stands for; all else is as it is
SHORT = {
    "train": ["fairseq-train", *_PLUGIN_FLAGS, *_TRAIN_FLAGS],
    "generate": ["fairseq-generate", *_PLUGIN_FLAGS, *_GENERATE_FLAGS],
    "interactive": ["fairseq-interactive", *_PLUGIN_FLAGS, *_GENERATE_FLAGS[:2], "--max-len-b=30"],
    "validate": ["fairseq-validate", *_PLUGIN_FLAGS, "--max-tokens", "400"],
    "vat": ["fairseq-vat"],
    "from_pretrained": [
        *(sys.executable, "-c"),
        "import sys; from fairseq_vat import VATModel\n"
        "try: VATModel.from_pretrained(*sys.argv[1:]).reconstruct(['w1'])\n"
        "except ValueError as error: sys.exit(f'fairseq_vat: error: {error}')",
    ],
}
_MODULES = ("train", "generate", "interactive", "validate", "preprocess")
_LIBRARIES = (
    "matplotlib.figure",
    "sacrebleu",
    "scipy.stats",
    "sentencepiece",
    "sklearn.linear_model",
)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status (below 0: the signal), and what it printed."""

    status: int
    stdout: str
    stderr: str
    seconds: float


def prepare() -> None:
    """Import what takes long, and leave the commands' own modules to the commands."""
    logging.disable(logging.INFO)
    for name in (*(f"fairseq_cli.{name}" for name in _MODULES), *_LIBRARIES):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "fairseq_cli"]:
        del sys.modules[name]
    logging.disable(logging.NOTSET)
    gc.freeze()


def run(
    words: list[str],
    folder: Path,
    stdin: str = os.devnull,
    stdout: str | None = None,
    environment: dict[str, str] | None = None,
    fresh: bool = False,
) -> Ended:
    """Run a command in a folder, with a limit of time and memory.

    Args:
        words: the command; its first word may be one of `SHORT`.
        folder: where it runs.
        stdin: a file.
        stdout: a file, or ``-`` for none at all.
        environment: beside this process's; LIMIT_FILE_SIZE is the largest file that it may write.
        fresh: in a process of its own, not in a copy of this one.
    """
    words = [*SHORT.get(words[0], words[:1]), *words[1:]]
    words = [str(PLUGIN) if word == "PLUGIN" else word for word in words]
    if words[0].startswith("scripts/"):
        words[0] = str(ROOT / words[0])
    fresh = fresh or not (words[0] == "fairseq-vat" or words[0].startswith("fairseq-"))
    pipes = [os.pipe(), os.pipe()]
    begun = time.monotonic()
    outputs = [writing for _, writing in pipes]
    if stdout not in (None, "-"):
        outputs.append(os.open(stdout, os.O_WRONLY | os.O_CREAT))
    settings = (stdin, [outputs[-1 if len(outputs) > 2 else 0], outputs[1]], stdout == "-")
    process = multiprocessing.get_context("fork").Process(
        target=_become, args=(words, folder, *settings, environment or {}, fresh)
    )
    process.start()
    for output in outputs:
        os.close(output)
    texts = _wait(process, begun, [reading for reading, _ in pipes])
    return Ended(process.exitcode, *texts, time.monotonic() - begun)


def _wait(process: multiprocessing.Process, begun: float, pipes: list[int]) -> list[str]:
    """What comes out of the pipes until the process has ended."""
    contents = dict.fromkeys(pipes, b"")
    for pipe in pipes:
        os.set_blocking(pipe, False)
    alive = True
    while alive:
        if time.monotonic() - begun > SECONDS:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.02)
        alive = process.is_alive()
        for pipe in pipes:
            with contextlib.suppress(BlockingIOError):
                while part := os.read(pipe, 1 << 16):
                    contents[pipe] += part
    for pipe in pipes:
        os.close(pipe)
    return [content.decode("utf-8", "replace") for content in contents.values()]


def _become(
    words: list[str],
    folder: Path,
    stdin: str,
    outputs: list[int],
    closed: bool,
    environment: dict[str, str],
    fresh: bool,
) -> None:
    """Be the command, in a copied process; ends it."""
    os.setsid()
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if "LIMIT_FILE_SIZE" in environment:
        size = int(environment["LIMIT_FILE_SIZE"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    os.environ.update(environment, PYTHONPATH=str(ROOT))
    os.environ.setdefault("FAIRSEQ_VAT_VENV", sys.prefix)  # scripts install nothing into it
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    sys.stdout.flush()
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
    if closed:
        os.close(1)
        sys.stdout = sys.__stdout__ = None
    if fresh:
        os.execvp(words[0], words)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 -- the command's
    sys.exit(_flushed(_status(words)))


def _status(words: list[str]) -> int:
    """The command's exit status; it ends as the interpreter would end it."""
    sys.argv = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
    sys.path[0] = str(Path(sys.executable).parent)
    try:
        if words[0] == "fairseq-vat":
            sys.path.insert(1, str(ROOT))
            sys.exit(importlib.import_module("fairseq_vat.cli.main").main())
        name = words[0].removeprefix("fairseq-")
        sys.exit(importlib.import_module(f"fairseq_cli.{name}").cli_main())
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
    except BaseException:
        try:
            sys.excepthook(*sys.exc_info())
        except BaseException:
            traceback.print_exc()
    return 1


def _flushed(status: int) -> int:
    """The status, or that of an interpreter that can't write its last output."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        print(f"Exception ignored on flushing sys.stdout: {error}", file=sys.stderr)
        return 120
    return status
