"""Training in two processes."""

from __future__ import annotations

import socket
from pathlib import Path

from helpers import commands
from helpers.processes import Forked

# no dropout: its random numbers belong to a process.  The latents' belong to a sentence.
FLAGS = [
    *["--dropout", "0", "--kl-weight", "0.1", "--clip-norm", "1.0", "--log-interval", "1"],
    *["--kl-annealing", "logistic", "--kl-annealing-updates", "20"],
    *["--lr-scheduler", "inverse_sqrt", "--warmup-updates", "10"],
]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def train_with_two(data: Path, save_dir: Path, *flags: str) -> list[str]:
    """`fairseq-train` in two processes joined by gloo. Returns what each printed."""
    place = ["--distributed-world-size", "2", "--distributed-no-spawn", "--device-id", "0"]
    place += ["--distributed-init-method", f"tcp://127.0.0.1:{free_port()}"]
    place += ["--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp"]
    place += ["--distributed-rank"]
    processes = [
        Forked(Path(f"{save_dir}.{rank}.log"), _train, data, save_dir, *flags, *place, str(rank))
        for rank in (0, 1)
    ]
    logs = []
    for status, log in [process.wait() for process in processes]:
        assert status == 0, log
        logs.append(log)
    return logs


def _train(data: Path, save_dir: Path, *flags: str) -> None:
    print(commands.train(data, save_dir, *FLAGS, *flags))
