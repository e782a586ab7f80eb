"""Processes that begin as copies of this one, with torch and fairseq loaded."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fairseq_cli import preprocess


class Forked:
    """A function in a process of its own, which ends as a command would."""

    def __init__(self, output: Path, function: Callable[..., object], *args: object):
        """Args:
        output: a file for what it prints.
        function: what it does.
        args: the function's.
        """
        self.output = output
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_run, args=(output, function, *args))
        self.process.start()

    def wait(self) -> tuple[int, str]:
        """Exit status and output; after five minutes it is killed."""
        self.process.join(timeout=300)
        self.process.kill()
        self.process.join()
        return self.process.exitcode, self.output.read_text(encoding="utf-8")


def _run(output: Path, function: Callable[..., object], *args: object) -> None:
    with (
        open(output, "w", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            function(*args)
        except Exception:
            sys.excepthook(*sys.exc_info())
            sys.exit(1)


def preprocess_in_a_fork(
    command: Sequence[str], cwd: Path, **_: object
) -> subprocess.CompletedProcess:
    """`subprocess.run` of ``PYTHON -m fairseq_cli.preprocess``, which takes seconds to begin."""
    assert command[1:3] == ["-m", "fairseq_cli.preprocess"]
    status, output = Forked(cwd / "preprocess.out", _preprocess, cwd, command[2:]).wait()
    (cwd / "preprocess.out").unlink()
    return subprocess.CompletedProcess(command, status, "", output)


def _preprocess(folder: Path, argv: Sequence[str]) -> None:
    os.chdir(folder)
    sys.argv = [*argv]
    preprocess.cli_main()


@contextlib.contextmanager
def locked_by_another(folder: Path) -> Iterator[None]:
    """In this context another process has the folder's lock; it is killed at the end."""
    code = (
        "import sys, time; from fairseq_vat.files import lock_folder; "
        "lock_folder(sys.argv[1], ''); print('locked', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "locked\n"
            yield
        finally:
            other.kill()
