"""One of the processes that ``torchrun`` starts: `fairseq-train`, told its place in the world.

Left to itself fairseq starts independent runs on CPUs, and with an init method alone it ends
without training.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_the_launcher() -> None:
    """Let a killed ``torchrun`` leave nobody behind who waits for it, or writes on."""
    launcher = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != launcher:  # killed in between
            sys.exit(128 + signal.SIGTERM)


def main() -> None:
    """Train, with the place in the environment (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``)."""
    end_with_the_launcher()
    # only now, as it takes seconds
    import torch
    from fairseq_cli.train import cli_main

    import fairseq_vat.plugin  # noqa: F401  -- imported already, so that --user-dir does nothing

    on_cpu = "--cpu" in sys.argv or not torch.cuda.is_available()
    sys.argv.insert(1, "--ddp-backend=legacy_ddp")  # before all flags, of which a later one wins
    sys.argv += ["--distributed-world-size", os.environ["WORLD_SIZE"]]
    sys.argv += ["--distributed-rank", os.environ["RANK"], "--distributed-no-spawn"]
    sys.argv += ["--device-id", "0" if on_cpu else os.environ["LOCAL_RANK"]]
    sys.argv += ["--distributed-init-method", "env://"]
    sys.argv += ["--distributed-backend", "gloo" if on_cpu else "nccl"]
    cli_main()


if __name__ == "__main__":
    main()
