"""One of the processes that ``torchrun`` starts: `fairseq-train`, told its place in the world.

Left to itself fairseq starts independent runs on CPUs, and with an init method alone it ends
without training.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import torch
from fairseq_cli.train import cli_main

import fairseq_vat.plugin  # noqa: F401  -- the package is imported already: --user-dir does nothing

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Train, with the place in the environment (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``)."""
    if sys.platform == "linux":  # so that a killed torchrun leaves nobody behind who writes on
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    on_cpu = "--cpu" in sys.argv or not torch.cuda.is_available()
    sys.argv += ["--distributed-world-size", os.environ["WORLD_SIZE"]]
    sys.argv += ["--distributed-rank", os.environ["RANK"], "--distributed-no-spawn"]
    sys.argv += ["--device-id", "0" if on_cpu else os.environ["LOCAL_RANK"]]
    sys.argv += ["--distributed-init-method", "env://", "--ddp-backend", "legacy_ddp"]
    sys.argv += ["--distributed-backend", "gloo" if on_cpu else "nccl"]
    cli_main()


if __name__ == "__main__":
    main()
