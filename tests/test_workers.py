"""What several workers of a torchrun tell: each error once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import commands
from helpers.processes import Forked
from helpers.scripts import ENVIRONMENT
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from fairseq_vat.compat.workers import is_first_to_tell
from fairseq_vat.errors import explain
from fairseq_vat.recipes import launcher
from fairseq_vat.recipes.worker import main as worker_main


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Makes this process the worker of a rank, as torchrun says it."""

    def become(rank: int) -> None:
        file = tmp_path / "attempt_0" / str(rank) / "error.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))

    return become


def test_a_line_is_told_by_one_worker(worker):
    worker(0)
    assert is_first_to_tell("--lr 0: must be above 0")
    worker(1)
    assert not is_first_to_tell("--lr 0: must be above 0")
    assert is_first_to_tell("the GPU of this one is broken")


def test_that_another_has_ended_is_told_where_none_said_why(worker):
    worker(0)
    assert is_first_to_tell("another worker has ended", of_another=True)
    worker(1)
    assert not is_first_to_tell("another worker has ended", of_another=True)
    assert is_first_to_tell("the disk is full")


def test_without_torchrun_everything_is_told(monkeypatch):
    for value in ("", "/dev/null", "/nowhere/attempt_0/0/error.json"):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", value)
        assert is_first_to_tell("x") and is_first_to_tell("x")


@pytest.mark.parametrize(
    "message",
    [
        "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:33117",
        "Broken pipe. This may indicate a possible application crash on rank 0. "
        "Connection was likely closed. Did the remote server shutdown or crash?",
    ],
)
def test_a_lost_worker_is_one_line(message):
    line = explain(RuntimeError(message), None)
    assert line.startswith("another worker of this training has ended")
    assert explain(RuntimeError("some defect"), None) is None


@pytest.mark.parametrize(("status", "expected", "told"), [(-9, 137, "SIGKILL"), (1, 1, "")])
def test_the_launcher_tells_of_a_killed_worker_alone(status, expected, told, monkeypatch, capsys):
    failure = ProcessFailure(local_rank=1, pid=1, exitcode=status, error_file="<NA>")

    def fails(args: list[str]) -> None:
        assert args[2:] == ["--nproc_per_node", "2"]
        raise ChildFailedError("worker", {1: failure})

    monkeypatch.setattr(launcher.run, "main", fails)
    assert launcher.main(["--nproc_per_node", "2"]) == expected
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == bool(told)


def _work(rank: int, folder: Path, argv: list[str]) -> None:
    """As torchrun starts a worker."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}
    os.environ.update({name: str(value) for name, value in place.items()})
    file = folder / "attempt_0" / str(rank) / "error.json"
    file.parent.mkdir(parents=True)
    os.environ["TORCHELASTIC_ERROR_FILE"] = str(file)
    sys.argv = ["worker", *argv]
    worker_main()


def test_what_two_workers_fail_at_before_they_meet_is_told_once(data_dir: Path, tmp_path: Path):
    argv = [str(data_dir), *commands.TRAIN_FLAGS, "--no-such-flag"]
    both = [Forked(tmp_path / f"{rank}", _work, rank, tmp_path, argv) for rank in (0, 1)]
    ends = [process.wait() for process in both]
    assert [status for status, _ in ends] == [2, 2]
    told = [line for _, output in ends for line in output.splitlines() if line.strip()]
    assert ["error: unrecognized arguments: --no-such-flag" in line for line in told] == [True]


@pytest.mark.slow
def test_what_two_workers_fail_at_is_told_once(data_dir: Path, tmp_path: Path):
    command = [sys.executable, "-m", "fairseq_vat.cli", "train", "demo", str(data_dir)]
    command += [str(tmp_path / "run"), "--cpus", "2", "--arch", "vat_transformer_tiny"]
    command += ["--train-subset", "none"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 1
    lines = [
        line
        for line in done.stderr.splitlines()
        if " | INFO | " not in line and not line.startswith("+ ")
    ]
    assert ["none.bin" in line and "error: " in line for line in lines if line.strip()] == [True]
