"""The word ``<unk>``, as PTB and WikiText-2 have it, from text to a dictionary and back."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from fairseq.data import Dictionary, data_utils
from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE
from helpers import commands

from fairseq_vat.cli import main as cli
from fairseq_vat.text import subwords

SPLITS = ("train", "valid", "test")


@pytest.fixture
def texts(tmp_path):
    rng = random.Random(1)
    words = [*("cat dog house tree runs fast slowly the of and".split()), "<unk>"]
    for split in SPLITS:
        lines = [" ".join(rng.choices(words, k=rng.randint(2, 8))) for _ in range(200)]
        (tmp_path / split).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def _tokenize(folder, out, *more):
    files = [item for split in SPLITS for item in (f"--{split}", str(folder / split))]
    assert cli.main(["tokenize", *files, "--output", str(out), *more]) == 0


def _bpe(out):
    return SentencepieceBPE(
        SimpleNamespace(
            sentencepiece_model=str(out / "sentencepiece.model"),
            sentencepiece_enable_sampling=False,
            sentencepiece_alpha=None,
        )
    )


def test_a_piece_of_its_own_from_text_to_data_and_back(texts, capsys):
    out = texts / "out"
    _tokenize(texts, out, "--vocab-size", "32")
    told = capsys.readouterr().err.splitlines()
    bpe = _bpe(out)
    data = commands.preprocess(out / "bin", **{split: out / f"{split}.pieces" for split in SPLITS})
    dictionary = Dictionary.load(str(out / "dict.txt"))
    for split, line in zip(SPLITS, told, strict=True):
        lines = (texts / split).read_text(encoding="utf-8").splitlines()
        count = " ".join(lines).split().count("<unk>")
        file = texts / split
        assert line == f"{split}: {file}: the word <unk> {count} times: a piece of its own"
        pieces = (out / f"{split}.pieces").read_text(encoding="utf-8").splitlines()
        assert " ".join(pieces).split().count("▁<unk>") == count
        # as fairseq-interactive and the hub do it
        assert pieces == [bpe.encode(sentence) for sentence in lines]
        assert [bpe.decode(sentence) for sentence in pieces] == lines
        ids = [dictionary.encode_line(line, add_if_not_exist=False) for line in pieces]
        assert not any((tokens == dictionary.unk()).any() for tokens in ids)
        assert [bpe.decode(dictionary.string(tokens)) for tokens in ids] == lines
        binarised = data_utils.load_indexed_dataset(
            str(data / split), Dictionary.load(str(data / "dict.txt"))
        )
        assert binarised.sizes.tolist() == [len(line.split()) + 1 for line in pieces]


def test_cut_pieces_are_told_of(texts, capsys):
    """Where the training text hasn't the word, or the model given was made without."""
    train = texts / "train"
    train.write_text(train.read_text(encoding="utf-8").replace("<unk>", "x"), encoding="utf-8")
    _tokenize(texts, texts / "out", "--vocab-size", "32")
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in told] == ["valid", "test"]
    pieces = len(subwords.load_model(texts / "out/sentencepiece.model").encode("<unk>"))
    assert pieces > 1
    how = f"times: cut into {pieces} pieces, since the vocabulary has none for it"
    assert all(line.endswith(how) for line in told)


def test_text_without_it_is_not_told_of(texts, capsys):
    for split in SPLITS:
        path = texts / split
        path.write_text(path.read_text(encoding="utf-8").replace("<unk>", "x"), encoding="utf-8")
    _tokenize(texts, texts / "out", "--vocab-size", "32")
    assert capsys.readouterr().err == ""
