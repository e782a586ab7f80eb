"""Mistakes that would pass in silence and give figures without meaning: one line each."""

import copy
import math
import shutil

import numpy as np
import pytest
import torch
from helpers import commands
from helpers.checkpoints import crafted, refused
from helpers.models import build

from fairseq_vat.errors import VATError
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.hub.loading import load_model
from fairseq_vat.latent.prior import Prior
from fairseq_vat.tasks.data_directory import load_dictionary, load_split


@pytest.mark.parametrize("std", [1e300, math.inf, math.nan, 0.0, -1.0, 1e-13])
def test_a_prior_that_single_precision_can_t_hold(std):
    with pytest.raises(VATError, match="--prior-std must be"):
        Prior(std)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--latent-noise", "prior", "--prior-std", "1e-7"],
            "--prior-std must be from 1e-06 to 1e+06 with --latent-noise prior, not 1e-07",
        ),
        (["--prior-std", "1e300"], "--prior-std must be from 1e-12 to 1e+12, not 1e+300"),
        (
            ["--encoder-layers-to-keep", "0,2"],
            "--encoder-layers-to-keep 0,2: must be numbers from 0 to 1, the last of "
            "--encoder-layers 2",
        ),
        (["--decoder-layers-to-keep", "9"], "--decoder-layers-to-keep 9: must be numbers from 0"),
        (
            ["--encoder-layers-to-keep", "0"],
            "--decoder-layers-to-keep is needed beside the other: 0,1 keeps all",
        ),
        (["--gpt2-dir", "gpt2"], "--gpt2-dir gpt2: --decoder-type transformer has no GPT-2"),
    ],
)
def test_flags_that_do_nothing_or_harm(flags, message, data_dir):
    assert refused(build, data_dir, *flags).startswith(message)


def test_only_transformers_have_layers_to_keep(data_dir):
    keep = ("--encoder-layers-to-keep", "0", "--decoder-layers-to-keep", "0")
    _, pruned, _ = build(data_dir, *keep)
    assert len(pruned.encoder.body.layers) == len(pruned.decoder.layers) == 1
    _, model, _ = build(data_dir, "--arch", "transformer_decoder_lm", *keep[2:])
    assert len(model.decoder.layers) == 1
    _, whole, _ = build(data_dir, "--arch", "vae_lstm", *keep)
    assert whole.encoder.body.rnn.num_layers == whole.decoder.rnn.num_layers == 2


@pytest.mark.parametrize("value", [math.nan, -1.0, 1e300])
def test_a_checkpoint_s_prior(value, good, tmp_path):
    path = crafted(good, tmp_path, lambda cfg: cfg["criterion"].update(prior_std=value))
    line = refused(load_model, path)
    assert line.startswith(f"checkpoint {path} is refused: ") and "prior" in line


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_checkpoint_whose_training_diverged(value, good, data_dir, tmp_path):
    state = {**good, "model": copy.deepcopy(good["model"])}
    name = next(name for name, x in state["model"].items() if x.is_floating_point())
    state["model"][name].view(-1)[0] = value
    path = tmp_path / "diverged.pt"
    torch.save(state, path)
    for call in (load_model, lambda path: commands.generate(data_dir, path)):
        assert f"its parameter {name} holds values that aren't finite" in refused(call, path)


@pytest.fixture
def folder(data_dir, tmp_path):
    return shutil.copytree(data_dir, tmp_path / "bin")


def test_a_dictionary_of_another_text(folder):
    lines = (folder / "dict.txt").read_text().splitlines(keepends=True)
    (folder / "dict.txt").write_text("".join(lines[:20]))
    line = refused(commands.train, folder, folder / "run", "--max-update", "1")
    assert line.startswith(f"{folder}/valid.bin holds token ")
    assert "dict.txt has 24 types" in line


def test_a_token_below_zero(folder):
    tokens = np.fromfile(folder / "test.bin", np.uint16).astype(np.int16)
    tokens[3] = -7
    tokens.tofile(folder / "test.bin")
    content = bytearray((folder / "test.idx").read_bytes())
    content[17] = 3  # the code of int16
    (folder / "test.idx").write_bytes(content)
    with pytest.raises(VATError, match=r"test\.bin holds token -7, and dict\.txt has"):
        load_split(str(folder), "test", load_dictionary(str(folder)))


def test_a_count_below_zero(folder):
    with (folder / "dict.txt").open("a") as file:
        file.write("another -3\n")
    line = refused(commands.train, folder, folder / "run")
    assert "dict.txt is no dictionary" in line and "'another' has a count of -3" in line


def test_counts_that_are_others(folder, checkpoint, caplog):
    text = (folder / "dict.txt").read_text()
    (folder / "dict.txt").write_text(text.replace("w1 ", "w1 9", 1))
    load_model(checkpoint, folder)
    assert f"{folder}/dict.txt has other counts of words than the training's" in caplog.text


def test_a_beam_wider_than_the_dictionary(data_dir, checkpoint, vat):
    line = refused(commands.generate, data_dir, checkpoint, "--beam", "100000")
    types = len(vat.task.dictionary)
    assert line == f"--beam 100000: the dictionary has {types} types; give fewer"
    with pytest.raises(VATError, match="--beam 100000: the dictionary has"):
        vat.reconstruct(["w1"], beam=100000)


@pytest.mark.parametrize("start_token", [True, False])
def test_latents_of_an_empty_sentence_are_an_empty_one(data_dir, start_token):
    task, model, _ = build(data_dir, *([] if start_token else ["--no-start-token"]))
    vat = VATHubInterface(None, task, model)
    sentences = ["w1 w2", "", "w3"]
    decoded = vat.decode(vat.encode(sentences), beam=2, max_len_b=10)
    assert decoded[1] == "" and decoded == vat.reconstruct(sentences, beam=2, max_len_b=10)


def test_labels_that_a_file_lacks_are_told(subcommand, tmp_path):
    texts = {"train": "a\tw1\nb\tw2\n" * 5, "valid": "a\tw1\nb\tw2\n", "test": "a\tw1\n"}
    flags = []
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        flags += [f"--{name}", tmp_path / name]
    classify = subcommand("classify", "--cpu", "--seeds", "1", "--epochs", "2")
    classify(*flags, "--json")
    lacking = f"warning: {tmp_path}/test lacks 1 of the labels of {tmp_path}/train: 'b'\n"
    assert lacking in classify.warnings and classify.warnings.count(" lacks ") == 1


def test_undefined_correlations_are_warned_of(subcommand, tmp_path):
    (tmp_path / "flat.tsv").write_text("3\tw1 w2\tw3\n3.0\tw1\tw4\n", encoding="utf-8")
    sts = subcommand("sts", "--cpu", "--sts", str(tmp_path / "flat.tsv"))
    sts("--json")
    assert "correlations are undefined, the first: checkpoint, mean: flat.tsv" in sts.warnings
