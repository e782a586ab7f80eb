"""Checkpoints made to do harm: harmless tensors, and a configuration that fairseq would evaluate.

A payload makes a file. Each is tried through every way a checkpoint is opened, and once with the
check taken away, to see that it would have run.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import math
import os
from unittest import mock

import commands
import pytest
import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.registry import REGISTRIES
from omegaconf import OmegaConf
from test_configs import EXPERIMENTS, composed

from fairseq_vat import hub
from fairseq_vat.checkpoint_check import check_checkpoint
from fairseq_vat.cli.main import main
from fairseq_vat.errors import VATError, explain
from fairseq_vat.models.presets import PRESETS
from fairseq_vat.models.vat_transformer import VATModel


@pytest.fixture(scope="module")
def good(checkpoint):
    """The content of a checkpoint of this plugin."""
    return torch.load(checkpoint, weights_only=True)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "it ran"


def payload(marker):
    return f"[__import__('pathlib').Path({str(marker)!r}).touch()]"


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
    "load_model": lambda data, path, folder: hub.load_model(path, data),
    "from_pretrained": lambda data, path, folder: VATModel.from_pretrained(
        folder, path.name, str(data)
    ),
    "restore": _restore,
    "resume": _resume,
    "finetune": lambda data, path, folder: commands.train(
        data, folder / "run", "--finetune-from-model", path
    ),
}


def crafted(good, folder, change, *args, name="crafted.pt"):
    """A file with the good checkpoint's content, its configuration changed."""
    state = dict(good, cfg=copy.deepcopy(good["cfg"]))
    change(state["cfg"], *args)
    path = folder / name
    torch.save(state, path)
    return path


def refused(call, *args):
    """The one line that a user sees."""
    with pytest.raises(Exception) as caught:
        call(*args)
    line = explain(caught.value, caught.value.__traceback__)
    assert line is not None and "\n" not in line
    return line


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("change", CLASSES)
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
    unchecked = mock.patch("fairseq_vat.checkpoint_check.check_checkpoint")
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


@pytest.mark.parametrize("name", ["adam_betas", "adamax_betas", "adafactor_eps", "lamb_betas"])
def test_what_fairseq_evaluates_of_an_optimizer(name, good, data_dir, tmp_path, marker):
    for section in ({"_name": "adam", name: payload(marker)}, {"groups": {"a": {name: "f()"}}}):
        path = crafted(good, tmp_path, lambda cfg, new: cfg.update(optimizer=new), section)
        line = refused(commands.train, data_dir, tmp_path / "run", "--restore-file", path)
        assert line.startswith(f"checkpoint {path} is refused: cfg.optimizer.")
        assert f"{name} is " in line and line.endswith("must be numbers")
    assert not marker.exists()


PRIOR = ("criterion", "prior_std")


@pytest.mark.parametrize(
    ("section", "name", "value", "reason"),
    [
        ("lr_scheduler", "update2lr", "f()", "must be numbers"),
        ("lr_scheduler", "warmup_updates", "f()", "must be an integer"),
        ("optimization", "lr", ["f()"], r"must be typing.List\[float\]"),
        ("optimization", "lr", "f()", r"must be typing.List\[float\]"),
        ("common", "user_dir", "${oc.env:HOME}", "an interpolation"),
        ("task", "data", "${oc.env:HOME}", "an interpolation"),
        ("bpe", "sentencepiece_model", "${oc.env:HOME}", "an interpolation"),
        ("model", "dropout", "0.1", "must be a finite number"),
        ("model", "dropout", math.nan, "must be a finite number"),
        ("model", "dropout", 1.5, "--dropout must be from 0 to below 1, not 1.5"),
        ("model", "encoder_layers", 2.5, "must be an integer"),
        ("model", "encoder_layers", True, "must be an integer"),
        ("model", "encoder_layers", 0, "--encoder-layers must be at least 1, not 0"),
        ("model", "encoder_type", "f()", "must be one of transformer, lstm, gru, none"),
        ("model", "activation_fn", "__import__", "must be one of relu, "),
        ("model", "encoder_layers_to_keep", "f()", "--encoder-layers-to-keep"),
        ("model", "start_token", 1, "must be true or false"),
        ("model", "gpt2_dir", {"a": 1}, "must be text or None"),
        ("model", "conv_feature_layers", "[]", "doesn't know, 'conv_feature_layers'"),
        ("task", "max_source_positions", 2, "--max-source-positions must be at least 3"),
        ("task", "latent_temperature", math.inf, "must be a finite number"),
        ("task", "log_isotropy", -1, "--log-isotropy must be"),
        ("task", "unheard_of", 1, "doesn't know, 'unheard_of'"),
        (*PRIOR, math.nan, "must be a finite number"),
        (*PRIOR, math.inf, "must be a finite number"),
        (*PRIOR, -0.4, "--prior-std must be a standard deviation above 0"),
        (*PRIOR, 0, "--prior-std must be a standard deviation above 0"),
        (*PRIOR, None, "must be a finite number"),
        ("criterion", "kl_annealing", "f", "must be one of "),
        ("criterion", "label_smoothing", 1.0, "--label-smoothing must be from 0"),
    ],
)
def test_a_value_of_a_wrong_type_or_out_of_range(
    section, name, value, reason, good, data_dir, tmp_path
):
    def change(cfg):
        cfg[section] = {**(cfg.get(section) or {"_name": "manual"}), name: value}

    path = crafted(good, tmp_path, change)
    with pytest.raises(VATError, match=reason) as caught:
        hub.load_model(path, data_dir)
    assert str(caught.value).startswith(f"checkpoint {path} is refused: ")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("model", {"a": "text"}, "model: 'a' is no tensor"),
        ("optimizer_history", "text", "optimizer_history is 'text', no list"),
        ("optimizer_history", [{"num_updates": "1"}], "num_updates is '1', no number"),
        ("extra_state", [], r"extra_state is \[\], no dict"),
        ("extra_state", {"a": OmegaConf.create({"b": "${oc.env:HOME}"})}, "holds a DictConfig"),
        ("extra_state", {"a": [argparse.Namespace()]}, "holds a Namespace"),
        ("task_state", {"dictionary": 1}, "dictionary is 1, no fingerprint"),
    ],
)
def test_what_is_beside_the_configuration(name, value, reason, good, data_dir, tmp_path):
    path = tmp_path / "crafted.pt"
    torch.save({**good, name: value}, path)
    for call in (hub.load_model, lambda path, data: commands.generate(data, path)):
        assert refused(call, path, data_dir).startswith(f"checkpoint {path} is refused: ")
    with pytest.raises(VATError, match=reason):
        hub.load_model(path, data_dir)


@pytest.mark.parametrize("part", ["cfg", "extra_state"])
def test_data_that_holds_itself(part, good, data_dir, tmp_path):
    state = dict(good, **{part: dict(good[part])})
    state[part]["again"] = state[part]
    path = tmp_path / "endless.pt"
    torch.save(state, path)
    assert "nested without end" in refused(hub.load_model, path, data_dir)


def test_a_configuration_that_is_no_plain_data(good, data_dir, tmp_path):
    for cfg in (OmegaConf.create(good["cfg"]), [1], "text"):
        path = tmp_path / "crafted.pt"
        torch.save({**good, "cfg": cfg}, path)
        assert "holds no model and configuration" in refused(hub.load_model, path, data_dir)
    model = argparse.Namespace(**good["cfg"]["model"])
    path = crafted(good, tmp_path, lambda cfg: cfg.update(model=model))
    assert "cfg.model is Namespace(" in refused(hub.load_model, path, data_dir)


def test_no_file_that_a_checkpoint_names_is_opened(good, data_dir, tmp_path):
    def change(cfg):
        cfg["model"] |= {"encoder_embed_path": str(tmp_path / "none"), "gpt2_dir": str(tmp_path)}

    loaded = hub.load_model(crafted(good, tmp_path, change), data_dir)
    assert loaded.cfg.model.encoder_embed_path is None and loaded.cfg.model.gpt2_dir is None


def test_a_checkpoint_of_an_older_version_has_fewer_settings(good, data_dir, tmp_path):
    def change(cfg):
        for section, name in (
            *(("model", "word_dropout"), ("model", "start_token"), ("task", "log_isotropy")),
            ("criterion", "free_bits_per"),
        ):
            del cfg[section][name]

    loaded = hub.load_model(crafted(good, tmp_path, change), data_dir)
    assert loaded.task.start_token
    assert loaded.cfg.model.word_dropout == 0 and loaded.cfg.criterion.free_bits_per == "latent"


def test_settings_of_another_fairseq_are_let_be(good, data_dir, tmp_path):
    def change(cfg):
        cfg["common"]["of_another_release"] = "text (1)"
        cfg["job_logging_cfg"] = {"version": 1, "formatters": {"simple": {"format": "[%(x)s]"}}}
        cfg["optimizer"] = argparse.Namespace(adafactor_eps="(1e-30, 1e-3)", save_dir="runs (2)")

    hub.load_model(crafted(good, tmp_path, change), data_dir)


def test_overrides_are_literals(checkpoint, data_dir, marker):
    text = f"{{'word_dropout': {payload(marker)}}}"
    line = refused(commands.validate, data_dir, checkpoint, "--model-overrides", text)
    assert line.startswith("--model-overrides must be a dictionary of plain values")
    assert not marker.exists()
    commands.validate(data_dir, checkpoint, "--model-overrides", "{'word_dropout': 0.5}")


def test_the_message_stays_short_and_on_one_line(good):
    state = dict(good, cfg=copy.deepcopy(good["cfg"]))
    state["cfg"]["model"]["dropout"] = "a\nb" * 1000
    with pytest.raises(VATError) as caught:
        check_checkpoint("x.pt", state)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def saved(*flags):
    """What a checkpoint of a training with these flags says of itself."""
    parser = options.get_training_parser()
    args = options.parse_args_and_arch(parser, ["data-bin", *commands.TRAIN_FLAGS, *flags])
    cfg = convert_namespace_to_omegaconf(args)
    return {"model": {}, "cfg": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)}


@pytest.mark.parametrize("arch", PRESETS)
def test_every_architecture_passes(arch):
    state = saved("--arch", arch)
    if arch == "vae_gpt2":
        state["cfg"]["model"]["gpt2_config"] = "{}"
    before = copy.deepcopy(state["cfg"])
    check_checkpoint("x.pt", state)
    assert state["cfg"] == before


@pytest.mark.parametrize("kind", ["optimizer", "lr_scheduler", "bpe", "tokenizer", "scoring"])
def test_all_that_a_training_can_be_combined_with_passes(kind):
    needed = {
        "cosine": ["--max-update", "9"],
        "triangular": ["--max-lr", "1"],
        "tri_stage": ["--max-update", "9", "--phase-ratio", "(0.1, 0.4, 0.5)"],
        "polynomial_decay": ["--total-num-update", "9"],
        "manual": ["--update2lr", "{1: 0.1}"],
        "adam": ["--adam-betas", "(0.9, 0.98)"],
    }
    # fairseq-train can't be given other subwords and tokenizers than those with a dataclass
    registry = "registry" if kind in ("optimizer", "lr_scheduler") else "dataclass_registry"
    for name in REGISTRIES[kind][registry]:
        flag = f"--{kind.replace('_', '-')}"
        check_checkpoint("x.pt", saved(flag, name, *needed.get(name, [])))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_hydra_composes_passes(name):
    needed = ["criterion.kl_annealing_updates=9"]  # where the configuration leaves it to be given
    cfg = OmegaConf.to_container(composed(name, "task.data=data-bin", *needed), resolve=True)
    check_checkpoint("x.pt", {"model": {}, "cfg": cfg})
