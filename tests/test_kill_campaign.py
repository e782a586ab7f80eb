"""scripts/kill_campaign.py: it kills, and it sees what isn't the same or isn't whole."""

from __future__ import annotations

import json
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import kill_campaign
import kill_campaign_cases as cases
import pytest
import torch
from helpers import commands

FLAGS = ("--save-interval-updates", "2", "--max-update", "4", "--disable-validation")


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "one"
    commands.train(data_dir, folder, *FLAGS, "--log-interval", "1")
    return folder


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "other"))


def test_times_and_places_are_no_difference(run, copy, tmp_path):
    run = Path(shutil.copytree(run, tmp_path / "one"))
    for folder in (run, copy):
        (folder / "note").write_text(f"{folder}/x")
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    records = [{**json.loads(line), "wall": 7.0, "ups": 1.0} for line in lines]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert cases.differences(copy, run) == []


def test_a_bit_is_a_difference(run, copy):
    state = torch.load(copy / "checkpoint_last.pt", weights_only=True)
    parameter = next(iter(state["model"].values()))
    parameter.view(-1)[0] = torch.nextafter(parameter.view(-1)[0], torch.tensor(9.0))
    torch.save(state, copy / "checkpoint_last.pt")
    (copy / "metrics.jsonl").write_text("")
    (copy / ".checkpoint_last.pt.1.tmp").write_text("")
    next(copy.glob("checkpoint_*_2.pt")).unlink()
    found = cases.differences(copy, run)
    assert [problem.partition(": ")[2] for problem in found] == [
        "missing", "left over", "differs", "differs"
    ]  # fmt: skip
    assert {p.partition(":")[0] for p in found[2:]} == {"checkpoint_last.pt", "metrics.jsonl"}


def test_what_is_half_made_is_seen(run, copy):
    assert cases.half_made(copy, run) == []
    (copy / ".checkpoint_last.pt.1.tmp").write_text("{")  # under a name that nobody takes
    (copy / "note.json").write_text("{")
    assert cases.cut_short(copy, random.Random(1)) == 4
    assert sorted(cases.half_made(copy, run)) == [
        "checkpoint_last.pt is cut short", "note.json is cut short"
    ]  # fmt: skip


def test_updates_lost(run, copy):
    assert cases.updates_lost(run) == 0
    with open(copy / "metrics.jsonl", "a") as file:
        file.write('{"update": 7, "epoch": 1}\n{"update": 8')
    assert cases.updates_lost(copy) == 4  # the last was logged, or nearly


def test_kills_are_shared_by_weight():
    found = kill_campaign.shares(list(cases.CASES), 50)
    assert sum(found.values()) == 50
    assert found["one"] > found["sweep"] >= 1
    assert kill_campaign.shares(["one", "prepare"], 1) == {"one": 1, "prepare": 1}


@pytest.mark.slow
def test_killed_runs_are_compared(data_dir, tmp_path, monkeypatch):
    def shorter(texts: Path, out: Path) -> list[str]:
        return [*case.command(texts, out), "--max-update", "20"]

    def prepared(texts: Path, out: Path) -> list[str]:  # what another test does with real text
        code = "import shutil, sys; shutil.copytree(*sys.argv[1:])"
        return [sys.executable, "-c", code, str(data_dir), str(out / "data-bin")]

    case = cases.CASES["one"]
    monkeypatch.setitem(cases.CASES, "one", replace(case, command=shorter))
    monkeypatch.setattr(cases, "prepare_command", prepared)
    found = kill_campaign.run(["one"], 2, 1, tmp_path.resolve())["one"]
    assert (found.kills, found.exact, found.lost, found.problems) == (2, 2, 0, [])
    assert found.aimed == 1
    assert [path.name for path in tmp_path.glob("one/killed1-*.log")]
