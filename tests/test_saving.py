"""What a training leaves in its folder: whole checkpoints, one run's, and a log without repeats."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from unittest import mock

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.logging import progress_bar
from helpers import commands
from helpers.processes import locked_by_another

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.training_log import read_training_log
from fairseq_vat.files import SaveFolder, atomic_path, copy_whole

FLAGS = ["--save-interval-updates", "4", "--keep-interval-updates", "1", "--max-update", "10"]


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    commands.train(data_dir, folder, *FLAGS, "--disable-validation")
    return folder


@pytest.fixture
def copied(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def parameters(path):
    return torch.load(path, weights_only=True)["model"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def test_a_finished_run_stays_as_it_is(data_dir, copied):
    before = (copied / "checkpoint_last.pt").read_bytes()
    log = commands.train(data_dir, copied, *FLAGS, "--disable-validation")
    assert "finished: 10 of --max-update 10 updates" in log
    assert not commands.updates(log)
    assert (copied / "checkpoint_last.pt").read_bytes() == before
    log = commands.train(data_dir, copied, *FLAGS, "--disable-validation", "--max-update", "12")
    state = torch.load(copied / "checkpoint_last.pt", weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == 12


def test_a_cut_checkpoint_is_replaced_by_the_newest_whole_one(data_dir, run, copied, caplog):
    cut(copied / "checkpoint_last.pt")
    newest = next(copied.glob("checkpoint_*_8.pt"))
    log = commands.train(data_dir, copied, *FLAGS, "--disable-validation")
    assert f"checkpoint_last.pt is cut off or damaged: going on from {newest.name}" in log
    found = parameters(copied / "checkpoint_last.pt")
    for key, value in parameters(run / "checkpoint_last.pt").items():
        assert torch.equal(found[key], value), key


def test_without_a_whole_one_training_ends_and_leaves_everything(data_dir, copied):
    for path in copied.glob("checkpoint*.pt"):
        cut(path)
    before = {path: path.read_bytes() for path in copied.glob("*.pt")}
    with pytest.raises(VATError, match="no whole checkpoint lies beside it"):
        commands.train(data_dir, copied, *FLAGS)
    assert {path: path.read_bytes() for path in copied.glob("*.pt")} == before


def test_a_copy_that_fails_leaves_what_was_there(run, tmp_path, monkeypatch):
    """As with a full disk."""
    target = tmp_path / "checkpoint_last.pt"
    target.write_bytes(b"whole")

    def half(source, destination):
        with open(destination, "wb") as file:
            file.write(b"ha")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(OSError):
        checkpoint_utils.PathManager.copy(
            str(run / "checkpoint_last.pt"), str(target), overwrite=True
        )
    assert target.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [target]


def test_copies_are_whole(run, tmp_path):
    copy_whole(run / "checkpoint_last.pt", tmp_path / "copy.pt")
    assert (tmp_path / "copy.pt").read_bytes() == (run / "checkpoint_last.pt").read_bytes()
    assert zipfile.is_zipfile(tmp_path / "copy.pt")


def test_a_folder_is_one_run_s(copied):
    with (
        locked_by_another(copied),
        pytest.raises(VATError, match="another training writes there"),
    ):
        SaveFolder(copied).lock()
    SaveFolder(copied).lock()  # a kill frees it
    SaveFolder(copied).lock()  # and a run may be resumed by its own process


def test_a_second_run_is_told_at_its_start(data_dir, copied):
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    with (
        locked_by_another(copied),
        pytest.raises(VATError, match="another training writes there; give another --save-dir"),
    ):
        commands.train(data_dir, copied, *FLAGS, "--max-update", "12")
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before


def test_a_folder_that_cannot_be_made(tmp_path, data_dir):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        VATError, match=r"--save-dir .*file/run: can't be written to: Not a directory"
    ):
        commands.train(data_dir, tmp_path / "file/run", *FLAGS)


def test_a_checkpoint_to_restore_must_be_there(tmp_path, data_dir):
    with pytest.raises(VATError, match=r"--restore-file .*none\.pt: no such file"):
        commands.train(data_dir, tmp_path, *FLAGS, "--restore-file", tmp_path / "none.pt")


@pytest.fixture(scope="module")
def permuted(data_dir, tmp_path_factory):
    """The data, its dictionary in another order."""
    folder = shutil.copytree(data_dir, tmp_path_factory.mktemp("permuted") / "bin")
    first, second, *rest = (folder / "dict.txt").read_text().splitlines()
    (folder / "dict.txt").write_text("\n".join([second, first, *rest]) + "\n")
    return folder


def test_training_goes_on_with_its_own_dictionary_alone(permuted, run, copied, tmp_path):
    with pytest.raises(VATError, match="is not the dictionary the checkpoint was trained with"):
        commands.train(permuted, copied, *FLAGS, "--max-update", "12")
    flags = [*FLAGS, "--finetune-from-model", run / "checkpoint_last.pt"]
    with pytest.raises(VATError, match="is not the dictionary the checkpoint was trained with"):
        commands.train(permuted, tmp_path / "new", *flags)
    assert not list((tmp_path / "new").glob("*.pt"))


def test_a_log_file_gets_each_line_once(data_dir, tmp_path):
    """fairseq opens it for every epoch, and validation writes to the training's."""
    file = tmp_path / "train.log"
    flags = ["--max-tokens", "1000", "--log-interval", "5", "--max-update", "9"]  # 4 an epoch
    commands.train(data_dir, tmp_path / "run", "--log-file", file, *flags)
    handlers = [h for h in progress_bar.logger.handlers if isinstance(h, logging.FileHandler)]
    assert [handler.baseFilename for handler in handlers] == [str(file)]
    commands.close_log_files()
    lines = [line for line in file.read_text().splitlines() if re.match(r"epoch \d", line)]
    assert len(set(lines)) == len(lines)
    kinds = [(record.kind, record.num_updates) for record in read_training_log(file)]
    assert {("valid", 4), ("train", 4), ("train_inner", 5), ("valid", 9)} <= {*kinds}


class Killed(BaseException):
    pass


def test_the_figures_of_an_epoch_outlive_a_kill_after_its_checkpoint(data_dir, tmp_path):
    flags = ["--max-tokens", "1000"]  # 4 updates an epoch
    flags += ["--max-epoch", "2", "--max-update", "6", "--log-file"]
    unstopped, killed = tmp_path / "unstopped", tmp_path / "killed"
    commands.train(data_dir, unstopped, *flags, unstopped.with_suffix(".log"))

    save = checkpoint_utils.save_checkpoint
    saved = []

    def save_and_end(*args):
        save(*args)
        saved.append(args)
        raise Killed

    for _ in range(2):
        with (
            mock.patch.object(checkpoint_utils, "save_checkpoint", save_and_end),
            pytest.raises(Killed),
        ):
            commands.train(data_dir, killed, *flags, killed.with_suffix(".log"))
    assert [trainer.get_num_updates() for _, trainer, *_ in saved] == [4, 6]
    log = commands.train(data_dir, killed, *flags, killed.with_suffix(".log"))
    assert "finished: 6 of" in log
    one, other = (epochs(folder.with_suffix(".metrics.jsonl")) for folder in (unstopped, killed))
    assert [record["update"] for record in one] == [4, 6]
    assert one == other
    told = read_training_log(killed.with_suffix(".log"))
    assert [(r.epoch, r.num_updates) for r in told if r.kind == "train"] == [(1, 4), (2, 6)]


def epochs(file):
    """The figures of whole epochs, without times."""
    records = map(json.loads, file.read_text().splitlines())
    return [
        {name: x for name, x in r.items() if name not in ("wps", "ups", "wall", "train_wall")}
        for r in records
        if r["kind"] == "train"
    ]


def test_links_and_pipes_stay_what_they_are(tmp_path):
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to("file")
    os.mkfifo(pipe)
    with atomic_path(link) as temporary:
        temporary.write_text("whole")
    assert link.is_symlink() and (tmp_path / "file").read_text() == "whole"
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    with atomic_path(pipe) as temporary:
        temporary.write_text("through")
    assert reader.communicate(timeout=60) == (b"through", None) and pipe.is_fifo()


def test_what_a_killed_process_left_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".dict.txt.{dead.pid}.tmp"
    alive = tmp_path / ".dict.txt.1.tmp"
    other = tmp_path / f".other.txt.{dead.pid}.tmp"
    for path in (left, alive, other):
        path.write_text("")
    with atomic_path(tmp_path / "dict.txt") as temporary:
        temporary.write_text("whole")
    assert not left.exists()
    assert alive.exists() and other.exists()
