"""The shell recipes, as a user would run them, on toy text."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import commands
import pytest
from conftest import sentences
from fairseq.data import Dictionary

SCRIPTS = Path(__file__).parent.parent / "scripts"


def run(*command: object, cwd: Path, stdin: str = "", **environment: str):
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "WORKERS": "1", **environment},
    )


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


def test_sample_shows_sentence_mean_and_variants(corpus):
    data = corpus / "corpus" / "data-bin"
    commands.train(data, corpus / "model", "--max-update", "20")
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


def test_demo_runs_from_text_to_pictures(corpus):
    done = run(
        *(SCRIPTS / "demo.sh", "train.txt"),
        cwd=corpus,
        DEMO_DIR=str(corpus / "demo"),
        MAX_UPDATE="6",
        VOCAB_SIZE="48",
        FAIRSEQ_VAT_VENV=os.environ.get("VIRTUAL_ENV", ""),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for command in ("fairseq-preprocess", "fairseq-train", "fairseq-validate", "fairseq-generate"):
        assert f"+ {command}" in done.stdout + done.stderr
    assert "Reconstruction from the mean" in done.stdout
    assert "| accuracy " in done.stdout + done.stderr
    for picture in ("learning_curves.png", "annealing.png"):
        assert (corpus / "demo" / picture).read_bytes().startswith(b"\x89PNG")
