"""The shell recipes, as a user would run them, on toy text."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
from fairseq.data import Dictionary
from helpers import commands
from helpers.scripts import SCRIPTS, run
from helpers.text import sentences


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by prepare_corpus.sh from text with every kind of odd line."""
    folder = tmp_path_factory.mktemp("recipes")
    for split, count in {"train": 500, "valid": 30, "test": 30}.items():
        lines = [line.replace("w", "word").encode() for line in sentences(count, seed=len(split))]
        lines[3:3] = [b"", b"  \t ", b"word1 \xff\xfe word2", b"word3 \x00 word4"]
        (folder / f"{split}.txt").write_bytes(b"\n".join(lines) + b"\n")
    splits = [f"{split}.txt" for split in ("train", "valid", "test")]
    done = run(SCRIPTS / "prepare_corpus.sh", "corpus", 48, *splits, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_prepare_corpus_counts_what_it_cleans(corpus):
    data = corpus / "corpus" / "data-bin"
    assert len(Dictionary.load(str(data / "dict.txt"))) == 48
    again = run(
        *(SCRIPTS / "prepare_corpus.sh", "corpus", 48, "train.txt", "valid.txt", "test.txt"),
        cwd=corpus,
    )
    assert "up to date" in again.stdout
    note = (corpus / "corpus" / "tokenize.json").read_text()
    assert '"empty": 2' in note and '"invalid_utf8": 1' in note
    assert '"control_characters": ' in note


def test_prepare_corpus_refuses_what_it_cannot_use(corpus):
    usage = run(SCRIPTS / "prepare_corpus.sh", "out", cwd=corpus)
    assert usage.returncode == 2 and "usage:" in usage.stderr
    missing = run(SCRIPTS / "prepare_corpus.sh", "out", 64, "no", "no", "no", cwd=corpus)
    assert missing.returncode == 1 and "can't be read" in missing.stderr
    texts = ("train.txt", "valid.txt", "test.txt")
    large = run(SCRIPTS / "prepare_corpus.sh", "out", 64000, *texts, cwd=corpus)
    assert large.returncode == 1
    assert large.stderr.splitlines()[-1].startswith("fairseq-vat: error: ")
    assert not (corpus / "out" / "data-bin").exists()


@pytest.mark.slow
def test_sample_shows_sentence_mean_and_variants(corpus):
    data = corpus / "corpus" / "data-bin"
    commands.train(data, corpus / "model", "--max-update", "2")
    checkpoint = corpus / "model" / "checkpoint_last.pt"
    model = corpus / "corpus" / "sentencepiece.model"
    done = run(
        *(SCRIPTS / "sample.sh", checkpoint, data, model, 2, "--", "--latent-seed", 3, "--cpu"),
        cwd=corpus,
        stdin="word1 word2\nword3\n",
    )
    assert done.returncode == 0, done.stderr
    blocks = [block.splitlines() for block in done.stdout.strip().split("\n\n")]
    assert [block[0] for block in blocks] == ["word1 word2", "word3"]
    for block in blocks:
        assert [line.split()[0] for line in block[1:]] == ["mean", "sample", "sample"]
    wrong = run(SCRIPTS / "sample.sh", checkpoint, data, "none.model", cwd=corpus)
    assert wrong.returncode == 1 and "there is no file none.model" in wrong.stderr


def test_latent_tables(data_dir, checkpoint, tmp_path, capsys, monkeypatch):
    import latent_tables

    (tmp_path / "text").write_text("\n".join(f"w{n} w2 w3 w4 w{n} w17" for n in range(20)))
    for name, examples in {
        "TABLE_1": ["w1 w2"],
        "TABLE_2": ["w1 [w2]"],
        "TABLE_3": [("w1 w2", "w3")],
    }.items():
        monkeypatch.setattr(latent_tables, name, examples)
    flags = (data_dir, "--path", checkpoint, "--cpu", "--text", tmp_path / "text")
    monkeypatch.setattr("sys.argv", ["latent_tables.py", *map(str, flags), "--samples", "2"])
    latent_tables.main()
    tables = [part.split("```")[1] for part in capsys.readouterr().out.split("**Table ")[1:]]
    titles = [
        [line for line in table.splitlines() if line and not line.startswith(" ")]
        for table in tables
    ]
    held_out = [f"w{n} w2 w3 w4 w{n} w17" for n in range(0, 20, 2)]
    assert titles[0] == ["w1 w2", *held_out]
    assert titles[1] == ["w1 [w2]", *(line.replace("w17", "[w17]") for line in held_out[:5]),
                         *(f"[w{n}] w2 w3 w4 w{n} w17" for n in range(10, 20, 2))]  # fmt: skip
    pairs = zip(held_out[::2], held_out[1::2], strict=True)
    assert titles[2] == ["w1 w2 | w3", *(f"{one} | {other}" for one, other in pairs)]
    assert latent_tables.mark_longest("a \\[b] longest, c") == "a \\\\\\[b\\] [longest], c"


@pytest.mark.parametrize("trained", [True, False])
def test_benchmark_generation(data_dir, checkpoint, capsys, monkeypatch, trained):
    import benchmark_generation

    flags = ["--sentences", "3", "--draws", "2", "--beam", "2", "--repeats", "1", "--threads", "1"]
    flags += ["--data", data_dir, "--path", checkpoint] if trained else ["--vocabulary", "50"]
    monkeypatch.setattr("sys.argv", ["benchmark_generation.py", *map(str, flags), "--json"])
    benchmark_generation.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["sentences"] == 3 and figures["draws"] == 2
    seconds = figures["seconds"]
    assert figures["draws_against_stock"] == 2 * seconds["stock"] / seconds["draws"]
    assert figures["sentences_per_second"]["sample"] == 6 / seconds["sample"]


def test_benchmark_embed(data_dir, checkpoint, tmp_path, capsys, monkeypatch):
    import benchmark_embed

    (tmp_path / "text").write_text("w1 w2\nw3\n" * 20)
    flags = (data_dir, "--path", checkpoint, "--cpu", "--sentences", tmp_path / "text")
    flags = [*map(str, flags), "--threads", "1", "--count", "30", "--repeats", "3"]
    monkeypatch.setattr("sys.argv", ["benchmark_embed.py", *flags, "--json"])
    benchmark_embed.main()
    found = json.loads(capsys.readouterr().out)
    # w1 w2 and w3 in turn, with start token and end of sentence
    assert (found["sentences"], found["tokens"]) == (30, 15 * 4 + 15 * 3)
    taken = found["seconds"]
    assert len(taken["embed"]) == len(taken["encoder"]) == 3
    ratios = sorted(b / a for a, b in zip(taken["embed"], taken["encoder"], strict=True))
    assert found["ratio"] == pytest.approx(ratios[1])
    speed = found["sentences_per_second"]["embed"]
    assert speed == pytest.approx(30 / sorted(taken["embed"])[1])


def test_a_second_demo_is_told_at_its_start(tmp_path):
    with open(tmp_path / ".demo.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = run(SCRIPTS / "demo.sh", DEMO_DIR=str(tmp_path))
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"{tmp_path}: another demo is at work there: wait, or set DEMO_DIR")


def test_another_training_is_not_the_demo_s_to_remove(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "checkpoint_last.pt").write_text("mine")
    done = run(SCRIPTS / "demo.sh", DEMO_DIR=str(tmp_path))
    assert done.returncode == 1
    assert f"{tmp_path}/checkpoints holds another training: set DEMO_DIR" in done.stderr
    assert (tmp_path / "checkpoints" / "checkpoint_last.pt").read_text() == "mine"


def test_a_folder_s_name_is_no_pattern(tmp_path):
    """What has a checkpoint was begun; brackets in its path are brackets."""
    save, data = tmp_path / "o[1]", tmp_path / "data"
    data.mkdir()
    for name in ("dict.txt", "train.bin"):
        (data / name).touch()
    code = '. "$1"; dry_run=; begin_training "$2" "$3" "${@:4}"'
    begin = ("bash", "-c", code, "script", SCRIPTS / "resumable.sh", save, data)
    assert run(*begin, "train", "--lr", "1").returncode == 0
    (save / "checkpoint_last.pt").touch()
    (save / "train.log").touch()
    assert run(*begin, "train", "--lr", "1").returncode == 0
    done = run(*begin, "train", "--lr", "2")
    assert done.returncode == 1 and "was made with other flags or texts" in done.stderr
    assert (save / "train.log").exists()


def test_scripts_are_found_through_a_link_and_cdpath(tmp_path):
    (tmp_path / "sample").symlink_to(SCRIPTS / "sample.sh")
    for name in ("model.pt", "dict.txt", "sp.model"):
        (tmp_path / name).touch()
    flags = ("model.pt", ".", "sp.model", "--", "--latent-marks", "[]")
    for script, cwd in ((tmp_path / "sample", tmp_path), ("sample", tmp_path)):
        done = run("bash", script, *flags, cwd=cwd, CDPATH=".")
        assert done.returncode == 1
        assert done.stderr.endswith("--latent-marks: fairseq-vat vary draws marked words\n")
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_demo_runs_from_text_to_pictures(corpus):
    text = (corpus / "train.txt").read_bytes().splitlines(keepends=True)
    (corpus / "short.txt").write_bytes(b"".join(text[:80]))
    done = run(
        *(SCRIPTS / "demo.sh", "short.txt"),
        cwd=corpus,
        DEMO_DIR=str(corpus / "demo"),
        MAX_UPDATE="2",
        VOCAB_SIZE="40",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for command in ("fairseq-preprocess", "fairseq-train", "fairseq-validate", "fairseq-generate"):
        assert f"+ {command}" in done.stdout + done.stderr
    assert "Reconstruction from the mean" in done.stdout
    assert "| accuracy " in done.stdout + done.stderr
    for picture in ("learning_curves.png", "annealing.png"):
        assert (corpus / "demo" / picture).read_bytes().startswith(b"\x89PNG")
