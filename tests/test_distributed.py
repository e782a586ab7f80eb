"""Two processes on the CPU train as one process does on the same global batches."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from helpers import commands
from helpers.distributed import FLAGS, train_with_two
from helpers.scripts import SCRIPTS, run

STOP, END = 4, 8  # of the 9 updates of an epoch
COMPARED = ["loss", "nll_loss", "kl_loss", "kl_nats", "kl_weight", "active_units", "wpb", "bsz"]


def epoch_length(log: str) -> int:
    """Updates an epoch, from the `1 / 9` of the log."""
    found = re.search(r"epoch \d+: +\d+ / (\d+) ", log)
    return int(found[1])


@dataclass
class Runs:
    """The same training three times, with the log and the folder of each."""

    one: str
    one_dir: Path
    two: str
    two_dir: Path
    resumed: str
    plain: str


@pytest.fixture(scope="module")
def runs(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One process with twice the batches an update; two, stopped and resumed."""
    folder = tmp_path_factory.mktemp("distributed")
    one_dir, two_dir = folder / "one", folder / "two"
    two, _ = train_with_two(data_dir, two_dir, "--max-update", str(STOP))
    resumed, _ = train_with_two(data_dir, two_dir, "--max-update", str(END))
    one = commands.train(
        *(data_dir, one_dir, *FLAGS, "--update-freq", "2", "--max-update", str(END))
    )
    plain = commands.train(data_dir, folder / "plain", *FLAGS, "--max-update", "1")
    return Runs(one, one_dir, two, two_dir, resumed, plain)


def test_the_work_is_shared(runs: Runs):
    # a process goes through half of the batches that one alone goes through ...
    assert epoch_length(runs.two) == (epoch_length(runs.plain) + 1) // 2
    # ... and an update sees the other half as well
    alone, together = (commands.updates(log)[1] for log in (runs.plain, runs.two))
    assert int(together["bsz"]) > int(alone["bsz"])
    assert int(together["bsz"]) == int(commands.updates(runs.one)[1]["bsz"])


def test_the_log_is_the_same(runs: Runs):
    two = {**commands.updates(runs.two), **commands.updates(runs.resumed)}
    one = commands.updates(runs.one)
    assert list(two) == list(one) == list(range(1, END + 1))
    for update in one:
        for name in COMPARED:
            # three digits after the point are printed, and the last one may be rounded up or down
            assert float(two[update][name]) == pytest.approx(
                float(one[update][name]), rel=1e-5, abs=1.5e-3
            ), (update, name)
    (one_valid,), (two_valid,) = (
        [line for line in commands.stats(log) if line["num_updates"] == str(END)]
        for log in (runs.one, runs.resumed)
    )
    for name in ("loss", "nll_loss", "kl_loss", "kl_nats", "active_units"):
        assert float(two_valid[name]) == pytest.approx(float(one_valid[name]), abs=1.5e-3), name


def test_the_parameters_are_the_same(runs: Runs):
    one, two = (
        commands.parameters(folder / "checkpoint_last.pt")
        for folder in (runs.one_dir, runs.two_dir)
    )
    start = commands.parameters(runs.one_dir.parent / "plain" / "checkpoint_last.pt")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6, msg=name)
    moved = max(float((one[name] - start[name]).abs().max()) for name in one)
    assert moved > 0.01


def test_the_sums_behind_the_log_are_the_same(runs: Runs):
    """To all their digits, over the part of the epoch that the checkpoint is in."""
    one, two = (
        {name: state for _, name, _, state in checkpoint["extra_state"]["metrics"]["train"]}
        for folder in (runs.one_dir, runs.two_dir)
        for checkpoint in [torch.load(folder / "checkpoint_last.pt", weights_only=True)]
    )
    for name in [name for name in COMPARED if name != "active_units"]:  # which keeps no sum
        sums = [torch.as_tensor(run[name]["sum"]).double() for run in (one, two)]
        torch.testing.assert_close(*sums, rtol=1e-5, atol=0, msg=name)


def test_two_processes_resume(runs: Runs):
    assert re.search(rf"Loaded checkpoint .*checkpoint_last\.pt \(epoch 1 @ {STOP}", runs.resumed)
    assert list(commands.updates(runs.resumed)) == list(range(STOP + 1, END + 1))


def train_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(SCRIPTS / "train.sh", *arguments)


@pytest.mark.slow
def test_train_script_with_two_processes(data_dir: Path, tmp_path: Path):
    save_dir = tmp_path / "new" / "run"
    flags = ["--arch", "vat_transformer_tiny", "--max-update", "4", "--log-interval", "1"]
    flags += ["--disable-validation", "--batch-size", "16", "--dropout", "0"]
    done = train_script(data_dir, save_dir, "--cpus", "2", "--", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (save_dir / "checkpoint_last.pt").exists()
    log = (save_dir / "train.log").read_text()
    assert epoch_length(log) == 13  # of the 25 batches
    found = commands.updates(log)
    assert list(found) == [1, 2, 3, 4]
    assert all(figures["bsz"] == "32" for figures in found.values())
    records = map(json.loads, (save_dir / "metrics.jsonl").read_text().splitlines())
    updates = [record["update"] for record in records if record["kind"] == "train_inner"]
    assert updates == [1, 2, 3, 4]  # of one process


def test_train_script_without_arguments_shows_its_usage():
    done = train_script()
    assert done.returncode != 0
    assert done.stderr.startswith("usage: scripts/train.sh DATA_BIN SAVE_DIR")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_train_script_without_a_gpu(data_dir: Path, tmp_path: Path):
    done = train_script(data_dir, tmp_path / "run", "--gpus", "1")
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "--gpus" in line and not (tmp_path / "run").exists()
