"""Commands and locks of scripts/reproduce_vae_transformer.py."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from fairseq_vat.errors import VATError
from fairseq_vat.recipes.train import training_environment

ROOT = Path(__file__).resolve().parent.parent
# seconds between two looks at a training
LOOK = 20.0
LOCK = ".recipe.lock"  # not .lock, which is the training's own


class OutOfTime(Exception):
    """--minutes are over."""


class StepFailed(VATError):
    """A command ended with an error, told in one line."""


def say(text: str) -> None:
    """A line of progress."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


@contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Whether this process has the folder to itself while the context lasts.

    Its commands hold the lock too, so that one outliving it (SIGKILL) keeps others out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as file:
        if wait:
            fcntl.flock(file, fcntl.LOCK_EX)
        elif not _lock(file, fcntl.LOCK_EX):
            time.sleep(0.1)  # another process's `is_locked` has it for a moment
            if not _lock(file, fcntl.LOCK_EX):
                yield False
                return
        os.set_inheritable(file.fileno(), True)
        yield True


def is_locked(folder: Path) -> bool:
    """Whether another process has the folder to itself; those that only look don't count."""
    if not (folder / LOCK).is_file():
        return False
    with open(folder / LOCK) as file:
        return not _lock(file, fcntl.LOCK_SH)


def _lock(file: IO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def run_command(
    command: Sequence[str],
    log: Path,
    watch: Callable[[], bool] = lambda: False,
    deadline: float | None = None,
    output: Path | None = None,
) -> bool:
    """Run a command to its end, or until it is to be stopped; True if `watch` said so.

    Args:
        command: its words.
        log: for what it prints.
        watch: is asked every `LOOK` seconds whether to stop it.
        deadline: of `time.monotonic`, when it is stopped too; None: never.
        output: for standard output; None: into the log.

    Raises:
        OutOfTime: it was stopped at the deadline.
        StepFailed: it failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        errors = files.enter_context(open(log, "w"))
        printed = files.enter_context(open(output, "w")) if output else errors
        process = subprocess.Popen(
            command,
            stdout=printed,
            stderr=errors,
            env=training_environment(),
            stdin=subprocess.DEVNULL,
            close_fds=False,  # the lock's alone is one that is handed on
        )
        try:
            status = None
            while status is None:
                left = LOOK if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise OutOfTime
                try:
                    status = process.wait(min(left, LOOK))
                except subprocess.TimeoutExpired:
                    if watch():
                        return True
        finally:  # also where this script is stopped
            process.terminate()
            process.wait()
    if status:
        lines = [x for x in log.read_text(errors="replace").splitlines() if x.strip()]
        said = lines[-1] if lines else "it said nothing"
        raise StepFailed(f"{Path(command[0]).name} failed: {said} (all of it: {log})")
    return False


def json_of(command: Sequence[str], log: Path, deadline: float | None = None) -> Any:
    """The JSON that a command prints; see `run_command`."""
    output = log.with_suffix(f".{os.getpid()}.partial")
    try:
        run_command(command, log, deadline=deadline, output=output)
        return json.loads(output.read_text(encoding="utf-8"))
    finally:
        output.unlink(missing_ok=True)


def shown(command: Sequence[str], places: Mapping[str, str]) -> str:
    """A command as it stands in results, without which device it ran on.

    Args:
        command: its words.
        places: what is written for the folders and files of this machine.
    """
    words = []
    for word in command:
        for place, name in places.items():
            if word == place or word.startswith(f"{place}/"):
                word = (name + word.removeprefix(place)).removeprefix("/" if not name else "")
                break
        if word != "--cpu":
            words.append(word)
    return shlex.join(words)


def commit() -> str | None:
    """This checkout's, with -dirty where files were changed; None outside of git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip() or None
