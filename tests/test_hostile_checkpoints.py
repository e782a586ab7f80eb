"""Checkpoints made to do harm: harmless tensors, and a configuration that fairseq would evaluate.

A payload makes a file. They are tried through every way a checkpoint is opened, and each once with
the check taken away, to see that it would have run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
from unittest import mock

import pytest
import torch
from fairseq import checkpoint_utils
from helpers import commands
from helpers.checkpoints import crafted, payload, refused
from helpers.scripts import SCRIPTS, run

from fairseq_vat.cli.main import main
from fairseq_vat.hub.loading import load_model
from fairseq_vat.models.vat_transformer import VATModel


def wav2vec2(cfg, text):
    cfg["model"] = {"_name": "wav2vec2", "conv_feature_layers": text}


def fconv_lm(cfg, text):
    cfg["model"] = {"_name": "fconv_lm", "decoder_layers": text, "decoder_attention": "False"}


def fconv_self_att(cfg, text):
    cfg["model"] = {"_name": "fconv_self_att", "pretrained": text}


def unnamed(cfg, text):
    """fairseq then takes the name from the only key."""
    cfg["model"] = {"wav2vec2": {"conv_feature_layers": text}}


def ctc(cfg, text):
    cfg["criterion"] = {"_name": "ctc", "wer_args": text}


CLASSES = [wav2vec2, fconv_lm, fconv_self_att, unnamed, ctc]


def _restore(data, path, folder):
    commands.train(data, folder / "run", "--restore-file", path)


def _resume(data, path, folder):
    (folder / "resumed").mkdir(exist_ok=True)
    (folder / "resumed" / "checkpoint_last.pt").write_bytes(path.read_bytes())
    commands.train(data, folder / "resumed")


ROUTES = {
    "generate": lambda data, path, folder: commands.generate(data, path),
    "validate": lambda data, path, folder: commands.validate(data, path),
    "interactive": lambda data, path, folder: commands.interactive(data, path, b"w1\n"),
    "load_model": lambda data, path, folder: load_model(path, data),
    "from_pretrained": lambda data, path, folder: VATModel.from_pretrained(
        folder, path.name, str(data)
    ),
    "restore": _restore,
    "resume": _resume,
    "finetune": lambda data, path, folder: commands.train(
        data, folder / "run", "--finetune-from-model", path
    ),
}


# every way with two of the classes, every class in three ways
PAIRS = [(route, CLASSES[(n + k) % 5]) for n, route in enumerate(ROUTES) for k in (0, 2)]


@pytest.mark.parametrize(("route", "change"), PAIRS)
def test_another_class_runs_nothing(route, change, good, data_dir, tmp_path, marker):
    path = crafted(good, tmp_path, change, payload(marker))
    line = refused(ROUTES[route], data_dir, path, tmp_path)
    assert not marker.exists()
    file = tmp_path / "resumed" / "checkpoint_last.pt" if route == "resume" else path
    assert line.startswith(f"checkpoint {file} is refused: it is of architecture")
    assert "one of this plugin's architectures is needed" in line


@pytest.mark.parametrize("change", CLASSES)
def test_without_the_check_it_would_have_run(change, good, data_dir, tmp_path, marker):
    path = crafted(good, tmp_path, change, payload(marker))
    unchecked = mock.patch.object(checkpoint_utils.torch, "check")
    with unchecked, contextlib.suppress(Exception):
        commands.validate(data_dir, path)
    assert marker.exists()


@pytest.mark.parametrize("change", CLASSES)
def test_the_plugin_s_own_command_runs_nothing(change, good, data_dir, tmp_path, marker, capsys):
    path = crafted(good, tmp_path, change, payload(marker))
    assert main(["evaluate", str(data_dir), "--path", str(path)]) == 1
    assert not marker.exists()
    error = capsys.readouterr().err
    assert f"checkpoint {path} is refused" in error.splitlines()[-1]
    assert "Traceback" not in error


def test_each_of_an_ensemble_is_checked(good, checkpoint, data_dir, tmp_path, marker):
    path = crafted(good, tmp_path, wav2vec2, payload(marker))
    for command in (commands.generate, lambda *args: commands.interactive(*args, b"w1\n")):
        line = refused(command, data_dir, f"{checkpoint}:{path}")
        assert line.startswith(f"checkpoint {path} is refused: it is of architecture 'wav2vec2'")
    assert not marker.exists()


def test_a_language_model_beside_is_checked(good, checkpoint, data_dir, tmp_path, marker):
    path = crafted(good, tmp_path, fconv_lm, payload(marker))
    line = refused(commands.generate, data_dir, checkpoint, "--lm-path", path)
    assert f"checkpoint {path} is refused" in line
    assert not marker.exists()


@pytest.mark.parametrize("route", ROUTES)
def test_old_args_are_refused(route, good, data_dir, tmp_path, marker):
    args = argparse.Namespace(arch="wav2vec2", conv_feature_layers=payload(marker))
    path = tmp_path / "old.pt"
    torch.save({**good, "cfg": None, "args": args}, path)
    line = refused(ROUTES[route], data_dir, path, tmp_path)
    assert line.endswith("is of fairseq's old kind (args), which no checkpoint of this plugin has")
    assert not marker.exists()


@pytest.mark.parametrize("route", ROUTES)
def test_the_environment_can_not_turn_pickles_on(
    route, good, data_dir, tmp_path, marker, monkeypatch
):
    class Pickled:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "pickled.pt"
    torch.save({**good, "extra_state": Pickled()}, path)
    line = refused(ROUTES[route], data_dir, path, tmp_path)
    assert "is refused: it is not a torch checkpoint, or holds objects other than" in line
    assert not marker.exists()
    torch.load(path)
    assert marker.exists()


def test_the_shell_recipe_runs_nothing(good, data_dir, tmp_path, marker):
    """Neither what a checkpoint holds nor what files and arguments are called."""
    folder = tmp_path / "$(touch ran)`touch ran`; touch ran;'"
    data = shutil.copytree(data_dir, folder)
    path = crafted(good, folder, wav2vec2, payload(marker))
    (folder / "model").touch()
    script = (SCRIPTS / "sample.sh", path, data, folder / "model")
    flags = ("--", "--cpu", "--latent-seed", "1", "--gen-subset", "$(touch ran)")
    done = run(*script, 1, *flags, cwd=tmp_path, stdin="$(touch ran)\n")
    assert done.returncode == 1 and not done.stdout
    assert f"fairseq_vat: error: checkpoint {path} is refused: it is of archi" in done.stderr
    for number in ("a[$(touch ran)]", "1; touch ran", "-1"):
        done = run(*script, number, cwd=tmp_path)
        assert done.returncode == 1 and "K must be a number from 1" in done.stderr
    assert not marker.exists() and not (tmp_path / "ran").exists()


def test_overrides_are_literals(checkpoint, data_dir, marker):
    text = f"{{'word_dropout': {payload(marker)}}}"
    line = refused(commands.validate, data_dir, checkpoint, "--model-overrides", text)
    assert line.startswith("--model-overrides must be a dictionary of plain values")
    assert not marker.exists()
    commands.validate(data_dir, checkpoint, "--model-overrides", "{'word_dropout': 0.5}")
