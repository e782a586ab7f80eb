"""The shell recipes, run as a user would; also with commands that only pretend."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = ROOT / "scripts"
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "WORKERS": "1",
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    "PYTHONPATH": os.pathsep.join(
        filter(None, [str(Path(__file__).parent / "lean"), os.environ.get("PYTHONPATH")])
    ),
}
if sys.prefix != sys.base_prefix:  # as it is: the scripts install nothing into it
    ENVIRONMENT["FAIRSEQ_VAT_VENV"] = sys.prefix


def squeezed(text: str) -> str:
    """A table without the spaces that fill its columns up."""
    return re.sub(" +", " ", text)


def run(*command: object, cwd: Path | None = None, stdin: str = "", **environment: str):
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, **environment},
    )


# each command notes that it was called; what it leaves behind is for the test to say
PRETEND = """#!{python} -IS
import json, os, sys, zipfile
from pathlib import Path

name, args = Path(sys.argv[0]).name, sys.argv[1:]
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps([name, *args]) + "\\n")
value = lambda flag: args[args.index(flag) + 1]
if name == "python":  # no GPU, single precision and no drawing; anything else is for the real one
    if args[0] == "-c" and "cuda" in args[1]:
        sys.exit(1)
    if args[0] == "-c" and "preferred_precision" in args[1]:
        print("float32")
        sys.exit()
    # tables are made after every job: of the sweep the last time alone, unless asked for
    if "sweep_prior_std.py" in args[0] and not {{"--figures", "EACH"}} & {{*args, *os.environ}}:
        sys.exit()
    if "vat_tables.py" in args[0] and "EACH" not in os.environ:  # the test makes them
        sys.exit()
    os.execv(sys.executable, [sys.executable, *(arg for arg in args if arg != "--figures")])
"""
PRETENDING = ("fairseq-preprocess", "fairseq-train", "fairseq-vat", "python")


def _run_main(
    main: Callable[[], object],
    folder: Path,
    flags: Sequence[str],
    environment: dict[str, str],
    output: Path,
    errors: Path,
) -> None:
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = ["script", *flags]
    sys.exit(main())


class Workplace:
    """A folder for a script to run in, with commands that pretend: `body` is what they do.

    The body is Python, with `name`, `args` and `value(flag)` of the call. `main` is what a
    shell script of nothing else runs.
    """

    def __init__(
        self, folder: Path, script: str, body: str, main: Callable[[], object] | None = None
    ):
        self.folder, self.script, self.calls_file = folder, SCRIPTS / script, folder / "calls"
        self.main = main
        (folder / "bin").mkdir()
        for name in PRETENDING:
            path = folder / "bin" / name
            path.write_text(PRETEND.format(python=sys.executable) + body)
            path.chmod(0o755)

    def run(self, *flags: str, **environment: str) -> subprocess.CompletedProcess:
        """The script; `main` in a copy of this process, which has imported what takes long."""
        if self.main is None:
            return self.run_script(*flags, **environment)
        environment = self._begin(environment)
        output, errors = self.folder / "output", self.folder / "errors"
        args = (self.main, self.folder, flags, {**ENVIRONMENT, **environment}, output, errors)
        process = multiprocessing.get_context("fork").Process(target=_run_main, args=args)
        process.start()
        process.join()
        return subprocess.CompletedProcess(
            flags, process.exitcode, output.read_text(), errors.read_text()
        )

    def run_script(self, *flags: str, **environment: str) -> subprocess.CompletedProcess:
        return run(self.script, *flags, cwd=self.folder, **self._begin(environment))

    def _begin(self, environment: dict[str, str]) -> dict[str, str]:
        self.calls_file.write_text("")
        path = f"{self.folder / 'bin'}:{ENVIRONMENT['PATH']}"
        return {**environment, "PATH": path, "CALLS": str(self.calls_file)}

    def calls(self, *words: str) -> list[list[str]]:
        """The calls since the last run that begin with these words."""
        called = [json.loads(line) for line in self.calls_file.read_text().splitlines()]
        return [call for call in called if call[: len(words)] == list(words)]
