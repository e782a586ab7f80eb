"""What a training tells: metrics.jsonl, capped perplexities, and nothing that isn't its own."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from fairseq.logging import progress_bar
from helpers import commands

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.training_log import read_training_log
from fairseq_vat.files import metrics_path

FLAGS = ("--dropout", "0", "--validate-interval-updates", "15")


def _records(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _keys(records: list[dict]) -> list[tuple]:
    return [(record["kind"], record["subset"], record["update"]) for record in records]


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    """40 updates, an epoch of 18; its log and its folder."""
    folder = tmp_path_factory.mktemp("run")
    flags = (*FLAGS, "--max-update", "40", "--valid-subset", "valid,test")
    log = commands.train(data_dir, folder, *flags, "--save-interval-updates", "15")
    return log, folder


def test_every_line_of_the_log_has_its_record(run):
    log, folder = run
    records = _records(folder / "metrics.jsonl")
    assert [r["update"] for r in records if r["kind"] == "train_inner"] == [10, 20, 30, 40]
    for subset in ("valid", "test", "train"):
        told = commands.stats(log, subset)
        found = [r for r in records if r["subset"] == subset]
        assert len(told) == len(found) > 0
        for text, record in zip(told, found, strict=True):
            assert record["update"] == int(text["num_updates"])
            assert record["kind"] == ("train" if subset == "train" else "valid")
            assert {*text} - {"num_updates"} <= record.keys()
            numbers = {name: x for name, x in record.items() if name not in ("kind", "subset")}
            assert all(isinstance(x, int | float) for x in numbers.values())
            assert record["nll_loss"] == pytest.approx(float(text["nll_loss"]), rel=1e-5)


def test_a_run_that_goes_on_forgets_what_it_does_again(run, data_dir, tmp_path):
    _, whole = run
    flags = (*FLAGS, "--valid-subset", "valid,test", "--save-interval-updates", "15")
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    path = folder / "metrics.jsonl"
    # killed after its last line, and once within it, when it had saved update 30 last
    (folder / "checkpoint_2_30.pt").replace(folder / "checkpoint_last.pt")
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"update": 41, "ep')
    commands.train(data_dir, folder, *flags, "--max-update", "40")
    keys = _keys(_records(path))
    assert keys == _keys(_records(whole / "metrics.jsonl"))
    assert len(set(keys)) == len(keys)


def test_it_lies_beside_the_log(data_dir, tmp_path):
    log = tmp_path / "logs" / "one.log"
    log.parent.mkdir()
    flags = ("--log-file", log, "--max-update", "10", "--disable-validation", "--no-save")
    commands.train(data_dir, tmp_path / "run", *flags)
    for handler in list(progress_bar.logger.handlers):
        progress_bar.logger.removeHandler(handler)
        handler.close()
    assert _records(tmp_path / "logs" / "one.metrics.jsonl")
    assert metrics_path(tmp_path / "train.log") == tmp_path / "metrics.jsonl"
    # without a log or checkpoints, nothing is written
    commands.train(data_dir, tmp_path / "none", *flags[2:])
    assert not list((tmp_path / "none").iterdir())


@pytest.mark.parametrize("form", ["simple", "json"])
def test_a_perplexity_beyond_telling(form, caplog):
    bar = progress_bar.progress_bar([0], log_format=form, log_interval=1, epoch=1)
    stats = OrderedDict(loss=500.0, ppl=999_999.0, elbo_ppl=1e145, num_updates=1)
    with caplog.at_level(logging.INFO):
        for _ in bar:
            bar.log(stats, tag="train_inner", step=1)
        bar.print(stats, tag="train", step=1)
    inner, end = (record.getMessage() for record in caplog.records[-2:])
    if form == "simple":
        assert "ppl=999999, elbo_ppl=>1e6" in inner and "| elbo_ppl >1e6 |" in end
    else:
        assert float(json.loads(inner)["elbo_ppl"]) == float(json.loads(end)["train_elbo_ppl"])
        assert float(json.loads(inner)["elbo_ppl"]) == 1e145


@pytest.mark.parametrize("form", ["simple", "json"])
def test_what_is_no_figure_is_left_out(form, caplog):
    bar = progress_bar.progress_bar([0], log_format=form, log_interval=1)
    with caplog.at_level(logging.INFO):
        for _ in bar:
            bar.log({"latents": torch.tensor(7), "latent_mean_sum": torch.ones(3)}, step=1)
    told = caplog.records[-1].getMessage()
    assert "latents" in told and "7" in told and "latent_mean_sum" not in told


@pytest.mark.slow
def test_a_healthy_run_has_nothing_on_standard_error(data_dir, tmp_path, monkeypatch):
    """With loader processes, as by default; the command itself, since warnings come once."""
    monkeypatch.setenv("WHOLE_FAIRSEQ", "1")
    flags = [*commands.TRAIN_FLAGS, *FLAGS, "--num-workers", "2"]
    flags += ["--max-tokens", "2000", "--max-update", "3"]  # over the end of an epoch
    command = [sys.executable, "-m", "fairseq_cli.train", str(data_dir), *flags]
    command += ["--save-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    command = [sys.executable, "-m", "fairseq_cli.validate", str(data_dir), *commands.PLUGIN_FLAGS]
    command += ["--path", str(tmp_path / "checkpoint_last.pt"), "--max-tokens", "400"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Warning" not in done.stderr


def _write_messages(path, log: str) -> None:
    """As --log-file has them."""
    messages = [line.split(" | ", 3)[-1] for line in log.splitlines()]
    path.write_text("\n".join(messages), encoding="utf-8")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="it is Linux's")
def test_a_log_that_cannot_be_written_is_one_warning(data_dir, tmp_path, capfd):
    flags = ["--max-tokens", "2000", "--max-update", "3"]  # over the end of an epoch
    commands.train(data_dir, tmp_path, *flags, "--log-file", "/dev/full")
    commands.close_log_files()
    told = capfd.readouterr().err
    assert told.count("warning: the log is lost: No space left on device") == 1
    assert "Traceback" not in told
    assert (tmp_path / "checkpoint_last.pt").is_file()


def test_the_reader_prefers_the_figures(run, tmp_path):
    log, folder = run
    figures = folder / "metrics.jsonl"
    records = read_training_log(folder)
    assert records == read_training_log(figures)
    keys = [(r.kind, r.num_updates) for r in records]
    assert sorted(keys) == sorted((kind, n) for kind, _, n in _keys(_records(figures)))
    # a log of other figures beside them; what it has from before them is kept
    _write_messages(tmp_path / "train.log", log)
    lines = figures.read_text(encoding="utf-8").splitlines(keepends=True)
    later = [line.replace('"kl_weight": 1.0', '"kl_weight": 0.5') for line in lines[5:]]
    (tmp_path / "metrics.jsonl").write_text("".join(later), encoding="utf-8")
    mixed = read_training_log(tmp_path / "train.log")
    assert [(r.kind, r.num_updates) for r in mixed] == keys
    first = json.loads(later[0])["update"]
    assert {r.stats["kl_weight"] for r in mixed if r.num_updates < first} == {1.0}
    assert {r.stats["kl_weight"] for r in mixed if r.num_updates > first} == {0.5}


def test_a_log_of_text_alone_still_reads(run, tmp_path):
    _write_messages(tmp_path / "train.log", run[0])
    of_text, of_figures = read_training_log(tmp_path), read_training_log(run[1])
    record = json.dumps({**_records(run[1] / "metrics.jsonl")[0], "epoch": None})  # of no epoch
    (tmp_path / "metrics.jsonl").write_text(record + "\n", encoding="utf-8")
    assert read_training_log(tmp_path) == of_text
    assert len(of_text) == len(of_figures)
    for one, other in zip(of_text, of_figures, strict=True):
        assert one.stats["nll_loss"] == pytest.approx(other.stats["nll_loss"], rel=1e-5)


def test_lines_that_no_training_wrote(run, tmp_path):
    folder, records = run[1], read_training_log(run[1])
    first = _records(folder / "metrics.jsonl")[0]
    wrong = [
        {"update": math.inf},
        {"epoch": 10**400},
        {"epoch": math.nan},
        {"kind": []},
        {"subset": None},
        {"kind": None},
    ]
    lines = [json.dumps({**first, **change}) for change in wrong]
    lines += ["[" * 100_000, (folder / "metrics.jsonl").read_text(encoding="utf-8")]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert read_training_log(tmp_path) == records
    inf = "epoch 001:     10 / 14 loss=3, num_updates=inf"
    (tmp_path / "other.log").write_text(inf + "\n")
    with pytest.raises(VATError, match="no statistics"):
        read_training_log(tmp_path / "other.log")


def test_tensorboard_gets_the_figures(data_dir, tmp_path, monkeypatch):
    written = {}

    class Writer:
        def __init__(self, folder: str):
            self.subset = folder.rpartition("/")[2]

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written[self.subset, name, step] = value

        def add_text(self, *_: str) -> None: ...
        def flush(self) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr(progress_bar, "SummaryWriter", Writer)
    folder = tmp_path / "tensorboard"
    flags = (*FLAGS, "--max-update", "20", "--tensorboard-logdir", folder)
    commands.train(data_dir, tmp_path / "run", *flags)
    for record in _records(tmp_path / "run" / "metrics.jsonl"):
        for name in {"kl_nats", "elbo_ppl", "active_units"} & record.keys():
            assert written[record["subset"], name, record["update"]] == record[name]
    assert ("train_inner", "kl_nats", 10) in written and ("valid", "latent_gain", 15) in written
