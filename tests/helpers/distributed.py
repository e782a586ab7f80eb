"""Training in two processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from helpers import commands

# no dropout: its random numbers belong to a process.  The latents' belong to a sentence.
FLAGS = [
    *["--dropout", "0", "--kl-weight", "0.1", "--clip-norm", "1.0", "--log-interval", "1"],
    *["--kl-annealing", "logistic", "--kl-annealing-updates", "20"],
    *["--lr-scheduler", "inverse_sqrt", "--warmup-updates", "10"],
]
ENV = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
}
if sys.prefix != sys.base_prefix:
    ENV["FAIRSEQ_VAT_VENV"] = sys.prefix  # as it is: the scripts install nothing into it


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def train_with_two(data: Path, save_dir: Path, *flags: str) -> list[str]:
    """`fairseq-train` in two processes joined by gloo. Returns what each printed."""
    place = ["--distributed-world-size", "2", "--distributed-no-spawn", "--device-id", "0"]
    place += ["--distributed-init-method", f"tcp://127.0.0.1:{free_port()}"]
    place += ["--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp"]
    command = [sys.executable, "-m", "fairseq_cli.train", str(data), *commands.TRAIN_FLAGS]
    command += [*FLAGS, "--save-dir", str(save_dir), *flags, *place, "--distributed-rank"]
    processes, logs = [], []
    try:
        for rank in (0, 1):
            # into files: nobody reads one's pipe while the other is waited for
            with open(f"{save_dir}.{rank}.log", "w", encoding="utf-8") as output:
                processes.append(
                    subprocess.Popen([*command, str(rank)], stdout=output, stderr=output, env=ENV)
                )
        for rank, process in enumerate(processes):
            process.wait(timeout=300)
            logs.append(Path(f"{save_dir}.{rank}.log").read_text(encoding="utf-8"))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, log in zip(processes, logs, strict=True):
        assert process.returncode == 0, log
    return logs
