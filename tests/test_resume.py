"""A run that was stopped, or killed, ends where one that never stopped does, bit for bit."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import commands
from helpers.checkpoints import refused
from helpers.runs import assert_same_end, state

from fairseq_vat.latent.annealing import Annealing, Schedule

ANNEALING_UPDATES = 30
# 14 updates an epoch or so; dropout and latent noise are on, and the weight moves all the time
FLAGS = [
    *["--dropout", "0.2", "--attention-dropout", "0.1", "--kl-weight", "0.5"],
    *["--kl-annealing", "logistic", "--kl-annealing-updates", str(ANNEALING_UPDATES)],
    *["--lr-scheduler", "inverse_sqrt", "--warmup-updates", "10", "--clip-norm", "1.0"],
    *["--log-interval", "1"],
]


def kl_weights(log: str) -> dict[int, str]:
    """The printed KL weight by the number of updates done."""
    return {update: figures["kl_weight"] for update, figures in commands.updates(log).items()}


@pytest.fixture(scope="module")
def unstopped(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of 24 updates, in its second epoch at the end."""
    folder = tmp_path_factory.mktemp("unstopped")
    return folder, commands.train(data_dir, folder, *FLAGS, "--max-update", "24")


def test_the_weight_follows_the_schedule(unstopped: tuple[Path, str]):
    annealing = Annealing(Schedule.logistic, ANNEALING_UPDATES)
    weights = kl_weights(unstopped[1])
    assert list(weights) == list(range(1, 25))
    for done, printed in weights.items():
        # the update that makes `done` of them is number done - 1
        assert float(printed) == pytest.approx(0.5 * annealing.weight(done - 1), abs=1e-6)


def test_patience_is_counted_over_stops(data_dir: Path, tmp_path: Path):
    """Nothing gets better at this rate: the end comes two validations after the first."""
    flags = [*FLAGS, "--kl-annealing", "constant", "--lr", "1e-30", "--patience", "2"]
    flags += ["--max-tokens", "2000"]
    commands.train(data_dir, tmp_path, *flags, "--max-epoch", "2")
    ended = commands.train(data_dir, tmp_path, *flags, "--max-epoch", "9")
    assert "early stop since valid performance" in ended
    assert state(tmp_path / "checkpoint_last.pt")["extra_state"]["train_iterator"]["epoch"] == 4
    again = commands.train(data_dir, tmp_path, *flags, "--max-epoch", "9")
    assert "finished: --patience 2 validations" in again and not commands.updates(again)
    more = commands.train(data_dir, tmp_path, *flags, "--patience", "3", "--max-epoch", "9")
    assert state(tmp_path / "checkpoint_last.pt")["extra_state"]["train_iterator"]["epoch"] == 5
    assert commands.updates(more)


def test_larger_batches_within_an_epoch_are_refused(data_dir: Path, tmp_path: Path):
    commands.train(data_dir, tmp_path, *FLAGS, "--max-update", "12")
    larger = (*FLAGS, "--max-tokens", "4000", "--max-update", "14")  # an epoch each
    line = refused(commands.train, data_dir, tmp_path, *larger)
    assert "within an epoch of smaller batches" in line and "--reset-dataloader" in line
    commands.train(data_dir, tmp_path, *larger, "--reset-dataloader")
    assert state(tmp_path / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"] == 14


@pytest.mark.parametrize("stop", [["--max-update", "12"], ["--max-epoch", "1"]])
def test_stopped_and_resumed(
    stop: list[str], data_dir: Path, tmp_path: Path, unstopped: tuple[Path, str]
):
    first = kl_weights(commands.train(data_dir, tmp_path, *FLAGS, *stop))
    stopped_at = max(first)
    iterator = state(tmp_path / "checkpoint_last.pt")["extra_state"]["train_iterator"]
    at_epochs_end = stop[0] == "--max-epoch"
    assert (iterator["iterations_in_epoch"] == 0) == at_epochs_end

    second = kl_weights(commands.train(data_dir, tmp_path, *FLAGS, "--max-update", "24"))
    assert list(second) == list(range(stopped_at + 1, 25))
    assert {**first, **second} == kl_weights(unstopped[1])
    assert_same_end(tmp_path, unstopped[0])


def test_a_line_over_the_end_of_an_epoch_is_of_its_whole_interval(data_dir: Path, tmp_path: Path):
    """An epoch has 6 updates, and a line is that of four, or of all since the last one."""
    flags = [*FLAGS, "--log-interval", "4", "--max-tokens", "600"]
    commands.train(data_dir, tmp_path / "stopped", *flags, "--max-epoch", "1")
    assert (
        state(tmp_path / "stopped/checkpoint_last.pt")["optimizer_history"][-1]["num_updates"] == 6
    )
    resumed = commands.train(data_dir, tmp_path / "stopped", *flags, "--max-update", "9")
    unstopped = commands.train(data_dir, tmp_path / "unstopped", *flags, "--max-update", "9")
    one, other = (commands.updates(log)[8] for log in (unstopped, resumed))
    for name in one.keys() - {"wps", "ups", "wall", "train_wall"}:
        assert one[name] == other[name], name


@pytest.mark.slow
def test_killed_and_resumed(data_dir: Path, tmp_path: Path):
    """SIGKILL between two checkpoints: the updates since the last one are made again."""
    flags = [*FLAGS, "--save-interval-updates", "20", "--max-update", "46"]
    flags += ["--save-interval", "100", "--disable-validation"]  # updates alone save
    killed_dir, reference_dir = tmp_path / "killed", tmp_path / "reference"
    command = [sys.executable, "-u", "-m", "fairseq_cli.train", str(data_dir)]
    command += [*commands.TRAIN_FLAGS, "--save-dir", str(killed_dir), *flags]
    # the smallest pipe, read a line at a time: what is trained beyond the last line read is a
    # page of log, fewer updates than there are to the next checkpoint, however busy the machine
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        pipesize=4096,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        log = ""
        while "num_updates=22," not in log:
            line = process.stdout.readline().decode()
            assert line, f"ended by itself:\n{log}"
            log += line
        process.send_signal(signal.SIGKILL)
        log += process.stdout.read().decode()
    assert process.returncode == -signal.SIGKILL
    assert 22 <= max(kl_weights(log)) < 40
    assert sorted(path.name for path in killed_dir.glob("*.pt")) == [
        "checkpoint_2_20.pt",
        "checkpoint_last.pt",
    ]

    resumed = commands.train(data_dir, killed_dir, *flags)
    assert re.search(r"Loaded checkpoint .*checkpoint_last\.pt \(epoch 2 @ 20 updates\)", resumed)
    reference = kl_weights(commands.train(data_dir, reference_dir, *flags))
    again = kl_weights(resumed)
    assert list(again) == list(range(21, 47))
    assert {**kl_weights(log), **again} == reference
    assert_same_end(killed_dir, reference_dir)
