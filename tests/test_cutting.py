"""Sizes are those of the tokens, and sentences are cut alike on both sides, however loaded."""

from __future__ import annotations

import shutil

import pytest
import torch
from helpers import commands
from helpers.models import build

from fairseq_vat.evaluation.subset import Subset
from fairseq_vat.hub.loading import load_model
from fairseq_vat.models.vat_transformer import VATModel
from fairseq_vat.text.cutting import cut

EIGHT = ("--max-source-positions", "8", "--max-target-positions", "8")
SENTENCE_LEVEL = (
    *("--arch", "vae_transformer", "--encoder-embed-dim", "16", "--decoder-embed-dim", "16"),
)
LANGUAGE_MODEL = ("--arch", "transformer_decoder_lm")
# flags, and the most words that are left of a sentence
LOADINGS = {
    "whole": ((), None),
    "whole, no start token": (("--no-start-token",), None),
    "cut": (("--truncate", *EIGHT), 6),
    "cut, no start token": (("--truncate", "--no-start-token", *EIGHT), 7),
    "cut by the source": (("--truncate", "--max-source-positions", "7"), 5),
    "cut by the target": (("--truncate", "--max-target-positions", "7"), 6),
    "cut, sentence level": (("--truncate", *EIGHT, *SENTENCE_LEVEL), 6),
    "cut, language model": (("--truncate", *EIGHT, *SENTENCE_LEVEL, *LANGUAGE_MODEL), 6),
}


def lengths(path, most):
    """Words of a text file's lines, cut to `most`."""
    words = [len(line.split()) for line in path.read_text(encoding="utf-8").splitlines()]
    return [min(n, most or n) for n in words]


def _check(task, dataset, words):
    start, eos = int(task.start_token), task.dictionary.eos()
    assert len(dataset) == len(words)
    numbers = list(range(len(words)))
    for number, count in enumerate(words):
        item = dataset[number]
        source, target = item["source"], item["target"]
        assert len(target) == dataset.tgt_sizes[number] == count + 1
        assert len(source) == dataset.src_sizes[number] == count + 1 + start
        assert torch.equal(source[start:], target) and target[-1] == eos
        assert not (target[:-1] == eos).any()
        assert dataset.num_tokens(number) == len(source)
        assert tuple(dataset.size(number)) == (len(source), len(target))
    assert dataset.num_tokens_vec(numbers).tolist() == [n + 1 + start for n in words]
    sample = dataset.collater([dataset[number] for number in numbers])
    assert sample["ntokens"] == sum(words) + len(words)


@pytest.mark.parametrize("name", LOADINGS)
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_sizes_are_those_of_the_tokens(data_dir, text_dir, name, split, caplog):
    flags, most = LOADINGS[name]
    caplog.set_level("INFO")
    task, _, _ = build(data_dir, *flags)
    task.load_dataset(split)
    words = lengths(text_dir / split, most)
    _check(task, task.dataset(split), words)
    if most is not None:
        whole = lengths(text_dir / split, None)
        count = sum(n > most for n in whole)
        assert 0 < count < len(whole)
        told = f"--truncate: {split}: {count:,} of {len(whole):,} sentences cut to their first"
        assert f"{told} {most} tokens" in caplog.text


@pytest.mark.parametrize("name", LOADINGS)
def test_a_subset_counts_the_tokens_of_its_text(data_dir, text_dir, name):
    flags, most = LOADINGS[name]
    task, _, _ = build(data_dir, *flags)
    for first in (None, 7):
        words = lengths(text_dir / "test", most)[:first]
        whole = lengths(text_dir / "test", None)[:first]
        subset = Subset(task, "test", first)
        assert subset.tokens == sum(words) + len(words)
        assert subset.longest == max(words) + 1
        assert subset.cut == (0 if most is None else sum(n > most for n in whole))
        batches = list(subset.batches(40, None, torch.device("cpu")))
        assert sum(batch["ntokens"] for batch in batches) == subset.tokens
        counted = sum(int(batch["target"].ne(task.dictionary.pad()).sum()) for batch in batches)
        assert counted == subset.tokens
        assert sum(len(batch["id"]) for batch in batches) == len(words)
        for batch in batches:
            assert batch["net_input"]["src_tokens"].numel() <= 40


@pytest.mark.parametrize("name", ["whole", "cut"])
def test_training_s_batches_hold_the_tokens_of_the_text(data_dir, text_dir, name, tmp_path):
    """Over two data directories, the second's training text being the first's test text."""
    flags, most = LOADINGS[name]
    second = tmp_path / "second"
    second.mkdir()
    shutil.copy(data_dir / "dict.txt", second)
    for suffix in ("bin", "idx"):
        shutil.copy(data_dir / f"test.{suffix}", second / f"train.{suffix}")
    task, _, _ = build(f"{data_dir}:{second}", *flags)
    for epoch, split in ((1, "train"), (2, "test"), (3, "train")):
        task.load_dataset("train", epoch=epoch)
        words = lengths(text_dir / split, most)
        batches = task.get_batch_iterator(
            task.dataset("train"), max_tokens=60, max_positions=task.max_positions(), epoch=epoch
        ).next_epoch_itr(shuffle=True)
        counted = sum(batch["ntokens"] for batch in batches)
        assert counted == sum(words) + len(words)


def test_cut_keeps_the_end():
    tokens = torch.tensor([7, 8, 9, 2])
    assert torch.equal(cut(tokens, 4), tokens)
    assert torch.equal(cut(tokens, 3), torch.tensor([7, 8, 2]))


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (EIGHT, 6),
        (("--max-target-positions", "6"), 5),
    ],
)
def test_generation_and_the_hub_cut_as_training_does(data_dir, tmp_path, caplog, flags, kept):
    commands.train(data_dir, tmp_path, *flags, "--truncate", "--max-update", "1")
    path = tmp_path / "checkpoint_last.pt"
    words = [f"w{i}" for i in range(12)]
    loaded = load_model(path, data_dir, "cpu")
    vat = VATModel.from_pretrained(tmp_path, data_name_or_path=str(data_dir), device="cpu")
    task = loaded.task
    dataset = task.build_dataset_for_inference([vat.binarize(" ".join(words))], [13])
    expected = [task.dictionary.index(word) for word in words[:kept]]
    assert dataset[0]["source"].tolist() == [task.dictionary.bos(), *expected, 2]
    assert f"cut to the first {kept}" in caplog.text
    (sample,) = vat.batches([" ".join(words)])
    assert sample["net_input"]["src_tokens"][0].tolist() == [task.dictionary.bos(), *expected, 2]
    assert f"cut to their first {kept} subwords" in caplog.text
    line = " ".join(words).encode()
    output = commands.interactive(data_dir, path, line + b"\n")
    read = next(line for line in output.splitlines() if line.startswith("S-"))
    assert read.split("\t")[1].split() == words[:kept]
