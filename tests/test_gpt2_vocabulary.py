"""GPT-2's vocabulary: ids as fairseq's symbols, and every way a directory can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fairseq.data import Dictionary
from fairseq.data.encoders.gpt2_bpe import GPT2BPE, GPT2BPEConfig
from helpers import gpt2

from fairseq_vat.cli import main as cli
from fairseq_vat.errors import VATError
from fairseq_vat.text.gpt2_vocabulary import GPT2Vocabulary, read_config

CONFIG = {"model_type": "gpt2", "vocab_size": 265, "bos_token_id": 264, "eos_token_id": 264}
LINES = ["the cat is", "w1 w2 — “naïve” 猫 🙂", "<|endoftext|> is text here", "a"]


@pytest.fixture
def directory(tmp_path):
    """Configuration and vocabulary without a model: what `tokenize` needs."""
    folder = tmp_path / "gpt2"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "vocab.json").write_text(json.dumps(gpt2.vocabulary()))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *gpt2.MERGES]) + "\n")
    return folder


def fairseq_bpe(folder: Path) -> GPT2BPE:
    """fairseq's own encoder, as `--bpe gpt2` makes it."""
    files = (str(folder / "vocab.json"), str(folder / "merges.txt"))
    return GPT2BPE(GPT2BPEConfig(gpt2_encoder_json=files[0], gpt2_vocab_bpe=files[1]))


def tokenize(directory: Path, *more: str) -> list[str]:
    text = directory.parent / "text.txt"
    text.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    files = [item for name in ("train", "valid", "test") for item in (f"--{name}", str(text))]
    return ["tokenize", *files, "--output", str(directory.parent / "out"), *more]


def test_tokenize_round_trip_through_fairseq_s_bpe(directory, tmp_path, capsys):
    command = tokenize(directory, "--gpt2", str(directory))
    assert cli.main(command) == 0
    out = tmp_path / "out"
    bpe = fairseq_bpe(out)
    pieces = (out / "train.pieces").read_text().splitlines()
    assert [bpe.decode(line) for line in pieces] == LINES
    assert pieces == [bpe.encode(line) for line in LINES]
    assert len(pieces[0].split()) == 3  # merges act

    dictionary = Dictionary.load(str(out / "dict.txt"))
    assert dictionary.symbols[4:] == [str(i) for i in range(264)]  # all but the end of text
    every = [dictionary.encode_line(line, add_if_not_exist=False) for line in pieces]
    assert not any((line == dictionary.unk()).any() for line in every)
    assert dictionary.count[4:] == [" ".join(pieces).split().count(str(i)) for i in range(264)]

    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert cli.main(command) == 0
    assert "up to date" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == times
    (out / "merges.txt").unlink()
    assert cli.main([*command, "--vocab-size", "268"]) == 0
    assert (out / "merges.txt").exists()
    assert cli.main([*command, "--vocab-size", "99"]) == 1
    assert "give 268" in capsys.readouterr().err


def test_the_word_unk_is_cut_and_told_of(directory, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(f"{__name__}.LINES", ["the <unk> is <unk>", "a"])
    assert cli.main(tokenize(directory, "--gpt2", str(directory))) == 0
    told = capsys.readouterr().err.splitlines()
    pieces = len(GPT2Vocabulary(directory).encode(["<unk>"])[0])
    assert len(told) == 3 and pieces > 1
    assert told[0].startswith("train: ")
    assert f"the word <unk> 2 times: cut into {pieces} pieces" in told[0]
    lines = (tmp_path / "out/train.pieces").read_text().splitlines()
    assert fairseq_bpe(tmp_path / "out").decode(lines[0]) == "the <unk> is <unk>"


def test_another_vocabulary_is_noticed(directory, tmp_path, capsys):
    assert cli.main(tokenize(directory, "--gpt2", str(directory))) == 0
    (directory / "merges.txt").write_text("#version: 0.2\nt h\n")
    assert cli.main(tokenize(directory, "--gpt2", str(directory))) == 0
    assert "up to date" not in capsys.readouterr().out
    assert (
        len((tmp_path / "out/train.pieces").read_text().split("\n")[0].split())
        == len("the cat is") - 1
    )


def test_merges_without_header_or_last_line_break_lose_nothing(directory, tmp_path):
    whole = GPT2Vocabulary(directory)
    (directory / "merges.txt").write_text("\n".join(gpt2.MERGES))
    bare = GPT2Vocabulary(directory)
    assert bare.digest() == whole.digest()
    bare.write(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert fairseq_bpe(tmp_path).encode("the w1") == " ".join(whole.encode(["the w1"])[0])
    # what fairseq makes of the file itself: the first merge is taken for the header
    assert fairseq_bpe(directory).encode("a w1") != fairseq_bpe(tmp_path).encode("a w1")


@pytest.mark.parametrize("as_text", [True, False])
def test_tokenizer_json_alone_will_do(directory, as_text):
    expected = GPT2Vocabulary(directory).digest()
    merges = [merge if as_text else merge.split() for merge in gpt2.MERGES]
    tokenizer = {
        "model": {"type": "BPE", "vocab": gpt2.vocabulary(), "merges": merges},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (directory / "merges.txt").unlink()
    (directory / "vocab.json").unlink()
    assert GPT2Vocabulary(directory).digest() == expected
    tokenizer["pre_tokenizer"] = {"type": "Metaspace"}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(VATError, match="not a byte-level BPE"):
        GPT2Vocabulary(directory)


def test_configuration_s_defaults_are_gpt2_s(directory):
    (directory / "config.json").write_text('{"model_type": "gpt2"}')
    config = read_config(directory)
    assert (config["vocab_size"], config["n_embd"], config["eos_token_id"]) == (50257, 768, 50256)
    (directory / "config.json").write_text(
        '{"model_type": "gpt2", "bos_token_id": null, "eos_token_id": 7}'
    )
    assert read_config(directory)["bos_token_id"] == 7


def _without(name):
    return lambda folder: (folder / name).unlink()


def _config(**changes):
    return lambda folder: (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))


def _vocab(**changes):
    value = {**gpt2.vocabulary(), **changes}
    kept = {symbol: i for symbol, i in value.items() if i is not None}
    return lambda folder: (folder / "vocab.json").write_text(json.dumps(kept))


def _merges(line):
    return lambda folder: (folder / "merges.txt").write_text(f"#version: 0.2\n{line}\n")


def _tokenizer(**model):
    """Alone, without the two files of its parts."""

    def spoil(folder):
        for name in ("vocab.json", "merges.txt"):
            (folder / name).unlink()
        value = {"model": model, "pre_tokenizer": {"type": "ByteLevel"}}
        (folder / "tokenizer.json").write_text(json.dumps(value))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without("config.json"), "it has no config.json"),
        (_without("vocab.json"), "it has no vocab.json"),
        (_without("merges.txt"), "it has no merges.txt"),
        (_config(model_type="bert"), "model_type 'bert', not 'gpt2'"),
        (_config(vocab_size="many"), "vocab_size must be a number from 1, not 'many'"),
        (_config(vocab_size=200), "bos_token_id must be from 0 to 199"),
        (_config(n_head=7), "n_embd 768 can't be divided by n_head 7"),
        (_config(tie_word_embeddings=False), "tie_word_embeddings is false"),
        (_vocab(A=None), "1 of the 256 bytes have no token, 'A' for one"),
        (_vocab(A=1, B=1), "give every token its own id"),
        (_vocab(new=265), "from 0 to 264"),
        (_merges("q q"), "'q q' makes no token"),
        (_merges("one"), "'one' makes no token"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda folder: (folder / "vocab.json").write_text("[]"), "is not a JSON object"),
        (lambda folder: (folder / "merges.txt").write_bytes(b"\xff"), "merges.txt isn't UTF-8"),
        (_tokenizer(type="BPE"), "tokenizer.json has no vocab and merges"),
    ],
)
def test_a_directory_that_is_none_is_named(directory, tmp_path, capsys, spoil, message):
    spoil(directory)
    assert cli.main(tokenize(directory, "--gpt2", str(directory))) == 1
    error = capsys.readouterr().err
    assert message in error and str(directory) in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_directory_and_flags_that_do_not_go_together(directory, tmp_path, capsys):
    assert cli.main(tokenize(directory, "--gpt2", str(tmp_path / "none"))) == 1
    assert "there is no such directory" in capsys.readouterr().err
    more = ("--gpt2", str(directory), "--character-coverage", "0.9")
    assert cli.main(tokenize(directory, *more)) == 1
    assert "--character-coverage" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(tokenize(directory, *more[:2], "--sentencepiece-model", "x.model"))
