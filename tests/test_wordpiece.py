"""WordPiece: trained, given, in the data, in a checkpoint, and back to text."""

import json
import random
import shutil
import subprocess
import sys

import pytest
from fairseq.data import Dictionary
from helpers import commands

from fairseq_vat.cli.main import main
from fairseq_vat.errors import VATError
from fairseq_vat.hub.interface import from_pretrained
from fairseq_vat.hub.loading import build_bpe
from fairseq_vat.recipes.prepare import prepare
from fairseq_vat.text.pieces import Pieces, check_subwords
from fairseq_vat.text.subword_files import SubwordFiles
from fairseq_vat.text.tokenization import tokenize
from fairseq_vat.text.wordpiece import WordpieceVocabulary, train_wordpiece


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("text"), random.Random(3)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(1, 6))) for _ in range(120)]
    files = {}
    for split, count in {"train": 200, "valid": 20, "test": 20}.items():
        files[split] = folder / f"{split}.txt"
        lines = [" ".join(rng.choices(words, k=rng.randint(2, 6))) for _ in range(count)]
        files[split].write_text("\n".join([*lines, "It's Fün, isn't it?"]) + "\n")
    return files


@pytest.fixture(scope="module")
def data(texts, tmp_path_factory):
    return prepare(texts, tmp_path_factory.mktemp("prepared"), train_wordpiece=90, workers=1)


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """A checkpoint, moved away from its data."""
    folder = tmp_path_factory.mktemp("trained")
    commands.train(data, folder, "--max-update", "10", "--kl-weight", "0.01")
    return shutil.move(folder / "checkpoint_last.pt", tmp_path_factory.mktemp("alone") / "x.pt")


def test_a_dictionary_is_as_long_as_the_vocabulary(data):
    pieces = (data / "vocab.txt").read_text().splitlines()
    assert len(pieces) == 90 and pieces[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    symbols = [line.rpartition(" ")[0] for line in (data / "dict.txt").read_text().splitlines()]
    assert symbols == pieces[4:]
    subwords = SubwordFiles.read(data)
    assert subwords.kind == "bert"
    assert subwords.files == {"bpe_vocab_file": (data / "vocab.txt").read_bytes()}


def test_training_is_the_same_in_every_process(texts, data, tmp_path):
    script = "import sys; from fairseq_vat.text.wordpiece import train_wordpiece as t; "
    script += "t(sys.argv[1], sys.argv[2], 90)"
    for number in range(2):
        path = tmp_path / f"{number}.txt"
        command = [sys.executable, "-c", script, str(texts["train"]), str(path)]
        subprocess.run(command, check=True)
        assert path.read_bytes() == (data / "vocab.txt").read_bytes()


def test_a_given_vocabulary_makes_the_same_data(texts, data, tmp_path, capsys):
    flags = [word for split, path in texts.items() for word in (f"--{split}", str(path))]
    flags += ["--wordpiece", str(data / "vocab.txt"), "--out", str(tmp_path), "--workers", "1"]
    assert main(["prepare", *flags]) == 0
    for name in ("dict.txt", "train.bin", "vocab.txt", "subwords.json"):
        assert (tmp_path / "data-bin" / name).read_bytes() == (data / name).read_bytes()
    capsys.readouterr()
    assert main(["prepare", *flags]) == 0
    assert "up to date, nothing to do" in capsys.readouterr().out
    # the one that was trained isn't trained again either
    told = []
    prepare(texts, data.parent, train_wordpiece=90, tell=told.append)
    assert "there already, from the same text" in told[0]


def test_what_the_texts_do_not_use_is_left_out(texts, data, tmp_path):
    whole = (data / "vocab.txt").read_text().splitlines()
    given = tmp_path / "vocab.txt"
    given.write_text("\n".join(["[unused0]", *whole, "zebra", "##zz", ""]))
    made, told = tmp_path / "out", []
    for _ in range(2):
        tokenize(texts, made, wordpiece=given, drop_unused=True, tell=told.append)
    assert sum("what the texts use" in line for line in told) == 1
    used = {piece for s in texts for piece in (data.parent / f"{s}.pieces").read_text().split()}
    kept = (made / "vocab.txt").read_text().splitlines()
    assert kept == [piece for piece in whole if piece in used or piece[0] == "["]
    for split in texts:
        same = [folder / f"{split}.pieces" for folder in (data.parent, made)]
        assert same[0].read_bytes() == same[1].read_bytes()
    # the whole one again
    tokenize(texts, made, wordpiece=given)
    assert (made / "vocab.txt").read_bytes() == given.read_bytes()
    assert not (made / "wordpiece.json").exists()


def test_raw_text_is_enough_beside_a_checkpoint(data, alone, tmp_path, capsys):
    (tmp_path / "lines").write_text("Abc isn't it?\nfab\n")
    outputs = []
    for flags in ([], ["--bpe-vocab-file", str(data / "vocab.txt")]):
        for name in ("reconstruct", "sample"):
            words = [name, str(alone), "--input", str(tmp_path / "lines"), "--max-len-b", "9"]
            assert main([*words, "--cpu", *flags]) == 0
            outputs.append(capsys.readouterr().out)
    assert outputs[:2] == outputs[2:]
    assert "##" not in outputs[0]
    vat = from_pretrained(alone, device="cpu")
    flags = ["--bpe", "bert", "--bpe-vocab-file", str(data / "vocab.txt")]
    log = commands.interactive(data, alone, b"Abc isn't it?\nfab\n", *flags, "--max-len-b", "9")
    assert vat.apply_bpe("Abc isn't it?") in log


def test_the_round_trip_is_text_in_lower_case(data):
    """What comes back has no capitals, no accents, and BERT's spaces."""
    vocabulary = data / "vocab.txt"
    pieces = " ".join(WordpieceVocabulary(vocabulary).encode(["It's Fün, isn't it?"])[0])
    assert build_bpe("bert", bpe_vocab_file=vocabulary).decode(pieces) == "it's fun, isn't it?"
    assert Pieces("wordpiece").join(pieces) == "it ' s fun , isn ' t it ?"
    dictionary = Dictionary.load(str(data / "dict.txt"))
    assert Pieces.of(dictionary).kind == "wordpiece"
    check_subwords([pieces, "[UNK]", f"{pieces} </s> {pieces}"], dictionary)  # one is a pair
    with pytest.raises(VATError, match="WordPiece: give --bpe bert --bpe-vocab-file"):
        check_subwords(["It's Fün"], dictionary)


def test_words_are_counted_as_bert_has_them(data, alone, capsys):
    words = ["evaluate", str(alone), "--data", str(data), "--json", "--no-bleu", "--cpu"]
    assert main([*words, "--iw-samples", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    text = (data.parent / "test.pieces").read_text().replace(" ##", "")
    assert found["words"] == len(text.split())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        (b"a\nb\n", r"it has no \[CLS\], \[PAD\], \[SEP\], \[UNK\]"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\na\n", "every line must be another piece"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na b\n", "every line must be another piece"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n\na\n", "every line must be another piece"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n<pad>\n", "has <pad>, which are fairseq's own"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nThe\n", "has the piece 'The'; text is lower-cased"),
        (b"\xff\xfe", "isn't UTF-8"),
    ],
)
def test_a_file_that_is_no_vocabulary(content, message, tmp_path):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VATError, match=message):
        WordpieceVocabulary(path)
    with pytest.raises(VATError, match=message):
        build_bpe("bert", bpe_vocab_file=path)


def test_mistakes(texts, tmp_path):
    with pytest.raises(VATError, match="--bpe-vocab-file is needed"):
        build_bpe("bert")
    with pytest.raises(VATError, match="--train-wordpiece 9 is too small"):
        prepare(texts, tmp_path, train_wordpiece=9)
    with pytest.raises(VATError, match="--character-coverage is sentencepiece's"):
        prepare(texts, tmp_path, train_wordpiece=90, character_coverage=0.9)
    with pytest.raises(VATError, match=r"--vocab-size 50: .*makes a dictionary of 90"):
        prepare(texts, tmp_path, train_wordpiece=90, vocab_size=50)
    with pytest.raises(VATError, match="--drop-unused: only of --wordpiece"):
        prepare(texts, tmp_path, train_wordpiece=90, drop_unused=True)
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(VATError, match="has no line with text"):
        train_wordpiece(tmp_path / "empty", tmp_path / "vocab.txt", 100)
