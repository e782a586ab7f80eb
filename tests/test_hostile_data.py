"""Data directories that are damaged or made to do harm: one line, at once."""

from __future__ import annotations

import json
import shutil
import struct

import numpy as np
import pytest
from fairseq.data.indexed_dataset import IndexedDatasetBuilder
from helpers import commands
from helpers.checkpoints import refused

from fairseq_vat.errors import VATError
from fairseq_vat.files import SaveFolder, read_json, read_json_object
from fairseq_vat.models.gpt2_weights import fresh
from fairseq_vat.tasks.data_directory import load_dictionary, load_sentences
from fairseq_vat.text.subword_files import SubwordFiles


@pytest.fixture
def folder(data_dir, tmp_path):
    """A copy that may be spoilt."""
    return shutil.copytree(data_dir, tmp_path / "bin")


@pytest.fixture
def cached(folder):
    """The training split in fairseq's other kind of index."""
    dictionary = load_dictionary(str(folder))
    sentences = load_sentences(str(folder / "train"), dictionary)
    builder = IndexedDatasetBuilder(str(folder / "cached.bin"))
    for sentence in sentences:
        builder.add_item(sentence)
    builder.finalize(str(folder / "cached.idx"))
    return folder


# magic 9 bytes, version 8, dtype 1, count 8; then int32 sizes
MMAP_COUNT, MMAP_SIZES = 18, 26
# magic 8 bytes, version 8, code 8, width 8, count 8, sizes' count 8; then int64
CACHED_WIDTH, CACHED_COUNT, CACHED_DIMS = 24, 32, 48


def overwrite(path, offset, layout, value):
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, offset, value)
    path.write_bytes(content)


@pytest.mark.parametrize("size", [-1, 0, -(2**31), 2**31 - 1, 5000])
def test_a_size_that_can_not_be(folder, size):
    overwrite(folder / "train.idx", MMAP_SIZES + 4 * 2, "<i", size)
    line = refused(commands.train, folder, folder / "run")
    assert line.startswith(f"{folder}/train.idx can't be used: its sentence 3 has {size} tokens")


@pytest.mark.parametrize("start", [-2, 2**62, 1])
def test_a_start_that_can_not_be(folder, start):
    overwrite(folder / "valid.idx", MMAP_SIZES + 4 * 40 + 8 * 1, "<q", start)
    line = refused(commands.train, folder, folder / "run")
    assert line.startswith(f"{folder}/valid.idx can't be used: ")


@pytest.mark.parametrize("count", [2**64 - 1, 2**63, 2**40, 401])
def test_more_sentences_than_the_index_has_room_for(folder, count):
    overwrite(folder / "train.idx", MMAP_COUNT, "<Q", count)
    line = refused(commands.train, folder, folder / "run")
    assert line.startswith(f"{folder}/train.idx can't be used: it is no index of fairseq-preproc")


@pytest.mark.parametrize("content", [b"", b"MMIDIDX\x00\x00", b"HUFFIDX\x00\x00" + bytes(99)])
def test_an_index_of_another_kind(folder, content):
    (folder / "train.idx").write_bytes(content)
    line = refused(commands.train, folder, folder / "run")
    assert line.startswith(f"{folder}/train.idx can't be used: it is no index of fairseq-preproc")


def test_a_cut_off_bin_file(folder):
    path = folder / "train.bin"
    path.write_bytes(path.read_bytes()[:-2])
    line = refused(commands.train, folder, folder / "run")
    assert line.startswith(f"{folder}/train.idx can't be used: its sentence 400 has ")


def test_the_other_kind_of_index(cached):
    dictionary = load_dictionary(str(cached))
    sentences, others = (
        load_sentences(str(cached / split), dictionary) for split in ("train", "cached")
    )
    others.prefetch(range(len(others)))
    assert len(others) == len(sentences) == 400
    assert all(np.array_equal(one, other) for one, other in zip(sentences, others, strict=True))


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (CACHED_WIDTH, 1),
        (CACHED_COUNT, 2**40),
        (CACHED_DIMS + 8, 2),
        (CACHED_DIMS + 8 * 401, 1),  # where the first sentence starts
        (CACHED_DIMS + 8 * 402, 2**40),  # where it ends
        (CACHED_DIMS + 16 * 401, -1),  # how long it is
    ],
)
def test_a_wrong_number_in_the_other_kind(cached, offset, value):
    overwrite(cached / "cached.idx", offset, "<q", value)
    with pytest.raises(VATError, match=r"cached\.idx can't be used: "):
        load_sentences(str(cached / "cached"), load_dictionary(str(cached)))


def test_negative_sizes_that_agree_with_each_other(cached):
    overwrite(cached / "cached.idx", CACHED_DIMS + 8 * 402, "<q", -1)
    overwrite(cached / "cached.idx", CACHED_DIMS + 16 * 401, "<q", -1)
    content = np.frombuffer((cached / "cached.idx").read_bytes()[CACHED_DIMS:], np.int64)
    second = int(content[401 + 2] + 1)
    overwrite(cached / "cached.idx", CACHED_DIMS + 16 * 401 + 8, "<q", second)
    with pytest.raises(VATError, match="its sentence 1 has -1 tokens"):
        load_sentences(str(cached / "cached"), load_dictionary(str(cached)))


def test_other_files_of_the_same_name_are_not_opened(folder, monkeypatch):
    """fairseq takes one for text, or for proteins, and gives its path to a shell."""
    monkeypatch.chdir(folder)
    dictionary = load_dictionary(str(folder))
    (folder / "x$(touch ran).fasta").write_text(">a\nACGT\n")
    (folder / "train").write_text("w1 w2\n")
    assert load_sentences("x$(touch ran)", dictionary) is None
    assert len(load_sentences("train", dictionary)) == 400
    assert not (folder / "ran").exists()


def test_parts_of_a_split_are_one(folder):
    dictionary = load_dictionary(str(folder))
    for end in ("idx", "bin"):
        shutil.copyfile(folder / f"valid.{end}", folder / f"train1.{end}")
        shutil.copyfile(folder / f"valid.{end}", folder / f"train3.{end}")  # after a gap
    alone, valid = (load_sentences(str(folder / name), dictionary) for name in ("train", "valid"))
    both = load_sentences(str(folder / "train"), dictionary, combine=True)
    assert len(both) == len(alone) + len(valid)
    assert both[len(alone)].tolist() == valid[0].tolist()


def test_a_link_out_of_the_folder_is_not_read(folder, tmp_path):
    """What it leads to would go into every checkpoint."""
    (tmp_path / "private").write_text("secret\n")
    (folder / "vocab.txt").symlink_to(tmp_path / "private")
    (folder / "subwords.json").write_text('{"bpe": "bert"}')
    with pytest.raises(VATError, match=r"vocab\.txt: is a link to another folder"):
        SubwordFiles.read(folder)


@pytest.mark.parametrize("name", ["dummy", ".lock", "metrics.jsonl", "train.log"])
def test_a_link_where_a_training_writes(name, data_dir, tmp_path):
    (tmp_path / "mine").write_text("mine\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "mine")
    log = ["--log-file", str(tmp_path / "run/train.log")]
    line = refused(commands.train, data_dir, tmp_path / "run", *log)
    assert line.startswith(f"{tmp_path}/run/{name}: is a link")
    assert (tmp_path / "mine").read_text() == "mine\n"
    (tmp_path / "log").symlink_to(tmp_path / "mine")  # as /dev/stdout is
    SaveFolder(tmp_path / "other").refuse_links(str(tmp_path / "log"))


def test_each_part_of_a_split_is_checked(folder):
    for suffix in ("bin", "idx"):
        shutil.copy(folder / f"train.{suffix}", folder / f"train1.{suffix}")
    dictionary = load_dictionary(str(folder))
    assert len(load_sentences(str(folder / "train"), dictionary, combine=True)) == 800
    overwrite(folder / "train1.idx", MMAP_SIZES, "<i", -1)
    with pytest.raises(VATError, match=r"train1\.idx can't be used"):
        load_sentences(str(folder / "train"), dictionary, combine=True)
    assert len(load_sentences(str(folder / "train"), dictionary)) == 400


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe 1\n", b"word\n", b"word many\n", b"<pad> 1\n", b"a 1\na 1\n", b"x" * 9000 + b"\n"],
)
def test_a_dictionary_that_is_none(folder, content):
    (folder / "dict.txt").write_bytes(content)
    line = refused(commands.train, folder, folder / "run")
    assert line.startswith(f"{folder}/dict.txt is no dictionary of fairseq-preprocess (")
    assert len(line) < 400


def test_json_without_end(tmp_path):
    path = tmp_path / "made_from.json"
    path.write_text('{"a":' * 100_000)
    assert read_json(path) is None
    with pytest.raises(VATError, match=r"made_from\.json is not JSON"):
        read_json_object(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ('{"n_layer": 10000000}', "n_layer 10000000: more than 1000"),
        ('{"n_inner": -5}', "no GPT-2 of these values"),
        ('{"initializer_range": -1.0}', "no GPT-2 of these values"),
        ('{"a":' * 100_000, "is not JSON"),
    ],
)
def test_a_gpt2_that_can_not_be(values, message):
    pytest.importorskip("transformers")
    small = {"vocab_size": 9, "n_embd": 4, "n_head": 2, "n_layer": 1, "n_positions": 8}
    special = {"bos_token_id": 0, "eos_token_id": 0}
    if values.endswith("}"):
        values = json.dumps({**small, **special, **json.loads(values)})
    with pytest.raises(VATError, match=message):
        fresh(values)
