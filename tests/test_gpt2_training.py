"""``--arch vae_gpt2`` through the commands, from text to variants."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils, options
from fairseq_cli import preprocess as fairseq_preprocess
from helpers import commands, gpt2

from fairseq_vat.cli import main as cli
from fairseq_vat.errors import VATError

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "prepare_corpus.sh"
DOCS = ROOT / "docs" / "gpt2.md"
SMALL = [
    *["--arch", "vae_gpt2", "--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "64"],
    *["--encoder-attention-heads", "2", "--latent-dim", "16", "--kl-weight", "0.01"],
    *["--max-tokens", "800", "--lr", "0.005", "--validate-interval", "9", "--save-interval", "9"],
]


@pytest.fixture(scope="module")
def corpus(text_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text in the vocabulary of a small GPT-2, as prepare_corpus.sh would make it."""
    folder = tmp_path_factory.mktemp("gpt2")
    gpt2.save(folder / "small")
    out = folder / "corpus"
    files = [f"--{split}={text_dir / split}" for split in ("train", "valid", "test")]
    assert (
        cli.main(["tokenize", *files, "--output", str(out), "--gpt2", str(folder / "small")]) == 0
    )
    parser = options.get_preprocessing_parser()
    flags = ["--only-source", "--srcdict", out / "dict.txt", "--destdir", out / "data-bin"]
    for split in ("train", "valid", "test"):
        flags += [f"--{split}pref", out / f"{split}.pieces"]
    fairseq_preprocess.main(parser.parse_args(list(map(str, flags))))
    return folder


def test_prepare_corpus_hands_the_directory_on(tmp_path):
    for name in ("fairseq-train", "fairseq-vat"):  # says what it was given
        (tmp_path / name).write_text('#!/bin/sh\necho "$@" >&2\nexit 7\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "text").write_text("w1\n")
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        [str(SCRIPT), "out", "-", "text", "text", "text"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, "GPT2_DIR": "small"},
    )
    assert done.returncode == 7
    command = done.stderr.splitlines()[-1].split()
    assert command[0] == "prepare" and "--vocab-size" not in command
    assert command[command.index("--gpt2") + 1] == str(tmp_path / "small")


def bpe(corpus: Path) -> list[str]:
    files = (str(corpus / "corpus" / name) for name in ("vocab.json", "merges.txt"))
    flags = zip(("--gpt2-encoder-json", "--gpt2-vocab-bpe"), files, strict=True)
    return ["--bpe", "gpt2", *(item for pair in flags for item in pair)]


@pytest.fixture(scope="module", params=["sentence", "token"])
def trained(request, corpus: Path) -> Path:
    """A checkpoint whose GPT-2 directory is gone."""
    once = corpus / f"once-{request.param}"
    shutil.copytree(corpus / "small", once)
    save_dir = corpus / request.param
    flags = ("--gpt2-dir", once, "--latent-level", request.param, "--max-update", "40")
    log = commands.train(corpus / "corpus/data-bin", save_dir, *SMALL, *flags)
    losses = [float(line["nll_loss"]) for line in commands.stats(log)]
    assert losses[-1] < 3.5  # 8 bits is a byte told at random
    shutil.rmtree(once)
    return save_dir / "checkpoint_last.pt"


def test_a_checkpoint_generates_without_the_directory(corpus, trained):
    data = corpus / "corpus/data-bin"
    assert "h.0.crossattention.c_attn.weight" in str(list(commands.parameters(trained)))
    log = commands.validate(data, trained)
    assert float(commands.stats(log)[-1]["nll_loss"]) < 3.5

    found = commands.generate(data, trained, *bpe(corpus))
    lines = [line.split("\t") for line in found.splitlines() if line.startswith("D-")]
    assert len(lines) == 20
    assert all(set(text) <= set("w0123456789 ") for _, _, text in lines)  # it has learned so much
    draws = ("--latent-sampling", "--latent-samples", "2")
    sampled = commands.hypotheses(commands.generate(data, trained, *draws))
    assert {len(every) for every in sampled.values()} == {2}


def test_the_likelihood_of_a_hypothesis_is_its_score(corpus, trained):
    """Beam search, with its cache reordered, and one full forward agree on a sentence."""
    data = corpus / "corpus/data-bin"
    flags = ("--beam", "3", "--nbest", "3", "--max-tokens", "200")
    output = commands.generate(data, trained, *flags)
    scores = [line.split("\t") for line in output.splitlines() if line[:2] in ("H-", "P-")]
    overrides = {"data": str(data)}
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(trained)], arg_overrides=overrides
    )
    model.eval()
    task.load_dataset("test")
    entries = task.target_dictionary
    for hypothesis, positional in zip(scores[::2][:12], scores[1::2][:12], strict=True):
        sample = task.dataset("test")[int(hypothesis[0][2:])]
        target = torch.tensor([[*map(entries.index, hypothesis[2].split()), entries.eos()]])
        prev = torch.cat((target[:, -1:], target[:, :-1]), dim=1)
        with torch.no_grad():
            encoder_out = model.encoder(sample["source"].unsqueeze(0))
            nll = model.sentence_nll(encoder_out, prev, target)
        bits = -sum(map(float, positional[1].split()))  # printed with four decimals
        assert nll.item() / math.log(2) == pytest.approx(bits, abs=1e-4 * target.numel())


def test_interactive_reads_and_writes_text(corpus, trained):
    text = "w1 w2\nodd: naïve 猫\n".encode()
    output = commands.interactive(corpus / "corpus/data-bin", trained, text, *bpe(corpus))
    decoded = [line.split("\t")[2] for line in output.splitlines() if line.startswith("D-")]
    assert len(decoded) == 2 and decoded[0].startswith("w")
    assert "<unk>" not in output


def test_resuming_is_exact_and_word_dropout_trains(corpus, tmp_path):
    data = corpus / "corpus/data-bin"
    flags = [*SMALL, "--gpt2-dir", corpus / "small", "--word-dropout", "0.2"]
    commands.train(data, tmp_path / "whole", *flags, "--max-update", "6")
    commands.train(data, tmp_path / "parts", *flags, "--max-update", "3")
    commands.train(data, tmp_path / "parts", *flags, "--max-update", "6")
    whole, parts = (
        commands.parameters(tmp_path / name / "checkpoint_last.pt") for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_mistakes_are_named(corpus, data_dir, tmp_path):
    data = corpus / "corpus/data-bin"
    with pytest.raises(VATError, match="--gpt2-dir"):
        commands.train(data, tmp_path, *SMALL)
    with pytest.raises(VATError, match="is not a GPT-2 directory"):
        commands.train(data, tmp_path, *SMALL, "--gpt2-dir", tmp_path)
    with pytest.raises(VATError, match=r"dict.txt has 'w\d+', which is no token id"):
        commands.train(data_dir, tmp_path, *SMALL, "--gpt2-dir", corpus / "small")


def printed(program: str) -> list[str]:
    """The flags of a command in docs/gpt2.md, without those that the drivers give."""
    block = re.search(r"```bash\n(.*?)```", DOCS.read_text(), re.DOTALL)[1].replace("\\\n", " ")
    (line,) = [line for line in block.splitlines() if f"{program} OUT/data-bin" in line]
    words = shlex.split(line.partition(f"{program} OUT/data-bin")[2])
    at = words.index("--user-dir")
    return words[:at] + words[at + 2 :]


def test_the_documented_commands_run(corpus, tmp_path):
    places = {"DIR": corpus / "small", "checkpoints/checkpoint_last.pt": tmp_path / "one.pt"}
    places |= {f"OUT/{name}": corpus / "corpus" / name for name in ("vocab.json", "merges.txt")}
    train, interactive = (
        [str(places.get(word, word)) for word in printed(f"fairseq-{name}")]
        for name in ("train", "interactive")
    )
    data = corpus / "corpus/data-bin"
    small = [*SMALL[2:8], "--max-update", "2", "--save-dir", tmp_path]
    log = commands.train(data, tmp_path, *train, *small)
    assert commands.stats(log)[-1]["num_updates"] == "2"
    (tmp_path / "checkpoint_last.pt").rename(tmp_path / "one.pt")
    output = commands.interactive(data, tmp_path / "one.pt", b"w1 w2\n", *interactive)
    assert len([line for line in output.splitlines() if line.startswith("D-")]) == 4
