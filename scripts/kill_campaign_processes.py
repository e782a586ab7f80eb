"""Commands that scripts/kill_campaign.py starts and kills, with all that they start."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fairseq_vat.errors import VATError

_ROOT = Path(__file__).resolve().parent.parent
_TAG = "FAIRSEQ_VAT_KILL_CAMPAIGN"
# seconds: no start takes longer, and no worker outlives its launcher by more
LIMIT, GRACE = 600, 20


def say(text: str) -> None:
    """A line of progress."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


class Started:
    """A command with all the processes that come of it, wherever they put themselves."""

    def __init__(self, command: Sequence[str], log: Path):
        self.log, self._mark = log, f"{_TAG}={secrets.token_hex(8)}"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path}
        environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
        environment[_TAG] = self._mark.partition("=")[2]
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )

    def wait(self) -> int:
        """Its exit status."""
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise VATError(f"it hangs: see {self.log}") from None

    def kill(self, spare_workers: bool = False) -> bool:
        """Kill it; whether all its processes have ended.

        Args:
            spare_workers: of its own process group alone; the others have to end by themselves.
        """
        os.killpg(self.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + GRACE
        while others := self._others():
            if spare_workers and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            for pid in others:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        self.process.wait()
        return not spare_workers or time.monotonic() < deadline

    def _others(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                try:
                    if self._mark.encode() in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
                except OSError:  # ended, or somebody else's
                    continue
        return found

    def last_line(self) -> str:
        """What it said last."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return ([line for line in lines if line.strip()] or ["it said nothing"])[-1]
