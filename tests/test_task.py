"""The task: what it reads, cuts, refuses."""

from __future__ import annotations

import gc
import multiprocessing
import shutil

import pytest
import torch
from helpers import commands
from helpers.models import batch, build

from fairseq_vat.errors import VATError
from fairseq_vat.tasks.variational_lm import VariationalLMTask
from fairseq_vat.text.subword_files import SubwordFiles


def test_source_is_target_headed_by_a_start_token(data_dir):
    task, _, _ = build(data_dir)
    sample = batch(task, [0, 1, 2])
    source, target = sample["net_input"]["src_tokens"], sample["target"]
    assert (source[:, 0] == task.dictionary.bos()).all()
    assert torch.equal(source[:, 1:], target)
    assert not (target == task.dictionary.bos()).any()
    assert sample["ntokens"] == target.ne(1).sum()
    plain, _, _ = build(data_dir, "--no-start-token")
    sample = batch(plain, [0, 1, 2])
    assert torch.equal(sample["net_input"]["src_tokens"], sample["target"])


def test_without_truncate_long_sentences_are_skipped_as_in_fairseq(data_dir, tmp_path):
    short = ("--max-source-positions", "7", "--max-target-positions", "6", "--max-update", "2")
    log = commands.train(data_dir, tmp_path, *short, "--skip-invalid-size-inputs-valid-test")
    assert "samples have invalid sizes and will be skipped" in log


def test_sentences_too_long_for_the_model_are_cut_or_refused(data_dir, tmp_path):
    short = ("--max-source-positions", "7", "--max-target-positions", "6", "--truncate")
    commands.train(data_dir, tmp_path, *short, "--max-update", "2")
    model = tmp_path / "checkpoint_last.pt"
    with pytest.raises(VATError, match=r"of 20 sentences are longer .* give --truncate to cut"):
        commands.generate(data_dir, model)
    assert len(commands.hypotheses(commands.generate(data_dir, model, "--truncate"))) == 20
    skip = commands.generate(data_dir, model, "--skip-invalid-size-inputs-valid-test")
    assert 0 < len(commands.hypotheses(skip)) < 20


def test_generating_from_the_training_split_leaves_none_out(data_dir, checkpoint):
    output = commands.generate(data_dir, checkpoint, "--gen-subset", "train", "--max-tokens", 3000)
    assert len(commands.hypotheses(output)) == 400


def test_sharded_directories_are_gone_through_by_epoch(data_dir, text_dir, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        shutil.copytree(data_dir, folder)
    SubwordFiles("words").write(first)  # the dictionary is the first's, and so are its subwords
    for suffix in ("bin", "idx"):  # the second shard's training text is the test text
        shutil.copy(data_dir / f"test.{suffix}", second / f"train.{suffix}")
    log = commands.train(f"{first}:{second}", tmp_path / "run", "--max-epoch", "3")
    read = [line.split("| ")[-1] for line in log.splitlines() if ": train, " in line]
    # fairseq loads the fourth epoch's shard before it finds that three were asked for
    one, other = f"{first}: train, 400 sentences", f"{second}: train, 20 sentences"
    assert read == [one, other, one, other]
    state = torch.load(tmp_path / "run" / "checkpoint_last.pt", weights_only=True)
    assert state["task_state"]["subwords"]["bpe"] == "words"
    with pytest.raises(VATError, match=r"data directory .*third' doesn't exist"):
        commands.train(f"{first}:{tmp_path / 'third'}", tmp_path / "other", "--max-epoch", "1")


@pytest.mark.parametrize(
    ("flags", "sentences"),
    [
        (("--batch-size", "4"), "4"),
        (("--update-freq", "3"), "66.7"),
        (("--num-workers", "1"), "24"),
        (("--max-tokens", "60", "--batch-size", "3"), "3"),
    ],
)
def test_fairseq_s_batching_flags(data_dir, tmp_path, flags, sentences):
    log = commands.train(data_dir, tmp_path, "--max-update", "3", *flags)
    (last,) = commands.stats(log, "train")
    assert (last["num_updates"], last["bsz"]) == ("3", sentences)


def test_data_that_is_not_there_or_of_another_kind(data_dir, text_dir, tmp_path):
    with pytest.raises(VATError, match="doesn't exist"):
        build(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(VATError, match=r"has no dict.txt: it must be the --destdir"):
        build(empty)
    (empty / "dict.en.txt").write_text("w1 1\n")
    with pytest.raises(VATError, match=r"preprocessed as a pair of languages .* --only-source"):
        build(empty)
    shutil.copy(data_dir / "dict.txt", empty / "dict.txt")
    with pytest.raises(VATError, match="has no binarised text"):
        commands.train(empty, tmp_path / "run")
    (empty / "train.en-de.en.bin").write_bytes(b"")
    with pytest.raises(VATError, match="train was preprocessed as a pair"):
        commands.train(empty, tmp_path / "run", "--disable-validation")
    assert not list(tmp_path.glob("run/*.pt"))


def test_a_split_that_is_not_there_is_named_with_those_that_are(data_dir, checkpoint):
    with pytest.raises(VATError, match=r"no .*/dev.bin and .idx; .* has test, train, valid"):
        commands.generate(data_dir, checkpoint, "--gen-subset", "dev")


def test_another_dictionary_than_the_checkpoint_s(data_dir, checkpoint, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(data_dir, other)
    lines = (data_dir / "dict.txt").read_text().splitlines()
    # as long, but in another order: every embedding would be another word's
    (other / "dict.txt").write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    with pytest.raises(VATError, match=r"dict.txt is not the dictionary the checkpoint"):
        commands.generate(other, checkpoint)
    (other / "dict.txt").write_text("\n".join([*lines, "w99 1"]) + "\n")
    with pytest.raises(VATError, match="48 types then, 49 now"):
        commands.generate(other, checkpoint)
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(checkpoint, run / "checkpoint_last.pt")
    with pytest.raises(VATError, match="48 types then, 49 now"):
        commands.train(other, run)
    # of fewer words than the binarised text has
    (other / "dict.txt").write_text("\n".join(lines[:20]) + "\n")
    with pytest.raises(VATError, match=r"dict\.txt has 24 types: they aren't of one"):
        commands.train(other, run)


@pytest.mark.parametrize("flag", ["--max-source-positions", "--max-target-positions"])
def test_positions_without_room_are_refused(data_dir, flag):
    with pytest.raises(VATError, match=f"{flag} must be at least 3"):
        build(data_dir, flag, "2")


@pytest.mark.slow
def test_validations_leave_no_loader_processes(data_dir, tmp_path, monkeypatch):
    running = []
    begin = VariationalLMTask.begin_valid_epoch

    def counted(self, epoch, model):
        begin(self, epoch, model)
        running.append(len(multiprocessing.active_children()))

    monkeypatch.setattr(VariationalLMTask, "begin_valid_epoch", counted)
    flags = ["--num-workers", "1", "--validate-interval-updates", "1", "--max-update", "4"]
    gc.disable()  # it comes by itself in a small process, and hours late in a large one
    try:
        commands.train(data_dir, tmp_path, *flags)
    finally:
        gc.enable()
    assert len(running) >= 4
    assert running[-1] <= running[0] + 1  # one that is ending
