"""What a checkpoint's configuration may say: everything a training wrote, and nothing else."""

from __future__ import annotations

import argparse
import collections
import copy
import itertools
import math

import pytest
import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.registry import REGISTRIES
from helpers import commands
from helpers.checkpoints import crafted, payload, refused
from helpers.configs import EXPERIMENTS, composed
from omegaconf import OmegaConf

from fairseq_vat.errors import VATError
from fairseq_vat.hub.loading import load_model
from fairseq_vat.models.presets import PRESETS
from fairseq_vat.tasks.checkpoint_check import check_checkpoint


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
        ("model", "encoder_layerdrop", -0.1, "--encoder-layerdrop must be from 0 to 1"),
        ("model", "quant_noise_pq", 1.5, "--quant-noise-pq must be from 0 to 1"),
        ("model", "quant_noise_scalar", 0.1, "--quant-noise-scalar: fairseq's needs a GPU"),
        ("model", "quant_noise_pq_block_size", 0, "--quant-noise-pq-block-size must be at least"),
        ("model", "max_source_positions", -1, "--max-source-positions must be at least 1"),
        ("model", "encoder_layers", 2.5, "must be an integer"),
        ("model", "encoder_layers", True, "must be an integer"),
        ("model", "encoder_layers", 0, "--encoder-layers must be at least 1, not 0"),
        ("model", "encoder_type", "f()", "must be one of transformer, lstm, gru, none"),
        ("model", "activation_fn", "__import__", "must be one of relu, "),
        ("model", "encoder_layers_to_keep", "f()", "--encoder-layers-to-keep"),
        ("model", "start_token", 1, "must be true or false"),
        ("model", "gpt2_dir", {"a": 1}, "must be text or None"),
        ("model", "latent_noise", "wide", "must be one of unit, prior"),
        ("model", "prior_std", "0.4", "must be a finite number or None"),
        ("model", "prior_std", "${oc.select:criterion.prior_std,null}", "an interpolation"),
        ("criterion", "kl_annealing_slope", math.inf, "must be a finite number or None"),
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
        load_model(path, data_dir)
    assert str(caught.value).startswith(f"checkpoint {path} is refused: ")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("model", {"a": "text"}, "model: 'a' is no tensor"),
        ("model", {"a": torch.zeros(1, dtype=torch.complex64)}, "model: 'a' holds complex"),
        ("optimizer_history", "text", "optimizer_history is 'text', no list"),
        ("optimizer_history", [{"num_updates": "1"}], "num_updates is '1', no number"),
        ("extra_state", [], r"extra_state is \[\], no dict"),
        ("extra_state", {"a": OmegaConf.create({"b": "${oc.env:HOME}"})}, "holds a DictConfig"),
        ("extra_state", {"a": [argparse.Namespace()]}, "holds a Namespace"),
        ("task_state", {"dictionary": 1}, "dictionary is 1, no fingerprint"),
        ("task_state", {"lengths": torch.ones(3).to_sparse()}, "task_state is no plain tensor"),
        ("task_state", {"lengths": torch.ones(3, device="meta")}, "task_state is no plain tensor"),
        (
            "last_optimizer_state",
            {"state": {0: {"momentum_buffer": torch.ones(3).to_sparse()}}},
            "last_optimizer_state is no plain tensor",
        ),
        (
            "extra_state",
            {"metrics": {"train_inner": [(0, "$(touch ran)", "AverageMeter", {})]}},
            r"extra_state: '\$\(touch ran\)' is no figure's name",
        ),
    ],
)
def test_what_is_beside_the_configuration(name, value, reason, good, data_dir, tmp_path):
    path = tmp_path / "crafted.pt"
    torch.save({**good, name: value}, path)
    for call in (load_model, lambda path, data: commands.generate(data, path)):
        assert refused(call, path, data_dir).startswith(f"checkpoint {path} is refused: ")
    with pytest.raises(VATError, match=reason):
        load_model(path, data_dir)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        # as long as 10^13 numbers, in a file of a few bytes
        ("lengths", torch.ones(1, dtype=torch.int64).expand(10**13), "lengths of sentences"),
        ("lengths", torch.ones(3, dtype=torch.complex64), "lengths of sentences"),
        ("symbols", "\ud800 1\n", "dictionary"),
        ("subwords", {"bpe": "bert", "files": {"a": torch.ones(1).expand(10**13)}}, "subwords"),
    ],
)
def test_a_vocabulary_that_can_not_be_read(name, value, told, good, tmp_path):
    path = tmp_path / "crafted.pt"
    torch.save({**good, "task_state": {**good["task_state"], name: value}}, path)
    line = refused(load_model, path)
    assert line.startswith(f"the checkpoint's {told} ") and "can't be read" in line


@pytest.mark.parametrize("part", ["model", "extra_state", "common"])
def test_a_dictionary_that_hides_what_it_holds(part, good, data_dir, tmp_path):
    """Its own attribute stands before the method of the same name."""
    state = {**good, "cfg": dict(good["cfg"])}
    where = state["cfg"] if part == "common" else state
    where[part] = collections.OrderedDict(where[part])
    where[part].items = where[part].values = collections.OrderedDict  # a class: it can be called
    path = tmp_path / "crafted.pt"
    torch.save(state, path)
    assert "holds a dictionary with the attribute " in refused(load_model, path, data_dir)
    whole = collections.OrderedDict(good)
    whole.get = collections.OrderedDict
    torch.save(whole, path)
    assert "it holds a dictionary with the attribute 'get'" in refused(load_model, path, data_dir)


@pytest.mark.parametrize("name", ["../other/train", "/etc/train", "a/../../b"])
def test_a_training_text_elsewhere(name, good, data_dir, tmp_path):
    path = crafted(good, tmp_path, lambda cfg: cfg["task"].update(train_subset=name))
    assert f"cfg.task.train_subset is '{name}'" in refused(load_model, path, data_dir)


def test_what_a_terminal_obeys_is_taken_out(good, tmp_path):
    torch.save({**good, "model": {"\x1b]0;owned\x07w": torch.tensor(torch.inf)}}, tmp_path / "x.pt")
    line = refused(load_model, tmp_path / "x.pt")
    assert "its parameter \ufffd]0;owned\ufffdw holds values that aren't finite" in line


@pytest.mark.parametrize("part", ["cfg", "extra_state"])
def test_data_that_holds_itself(part, good, data_dir, tmp_path):
    state = dict(good, **{part: dict(good[part])})
    state[part]["again"] = state[part]
    path = tmp_path / "endless.pt"
    torch.save(state, path)
    assert "nested without end" in refused(load_model, path, data_dir)


def test_a_configuration_that_is_no_plain_data(good, data_dir, tmp_path):
    for cfg in (OmegaConf.create(good["cfg"]), [1], "text"):
        path = tmp_path / "crafted.pt"
        torch.save({**good, "cfg": cfg}, path)
        assert "holds no model and configuration" in refused(load_model, path, data_dir)
    path = crafted(good, tmp_path, lambda cfg: cfg.update({1: {}}))
    assert "cfg has the key 1, which is no name" in refused(load_model, path, data_dir)
    model = argparse.Namespace(**good["cfg"]["model"])
    path = crafted(good, tmp_path, lambda cfg: cfg.update(model=model))
    assert "cfg.model is Namespace(" in refused(load_model, path, data_dir)


def test_no_file_that_a_checkpoint_names_is_opened(good, data_dir, tmp_path):
    def change(cfg):
        cfg["model"] |= {"encoder_embed_path": str(tmp_path / "none"), "gpt2_dir": str(tmp_path)}

    loaded = load_model(crafted(good, tmp_path, change), data_dir)
    assert loaded.cfg.model.encoder_embed_path is None and loaded.cfg.model.gpt2_dir is None


def test_a_checkpoint_of_an_older_version_has_fewer_settings(good, data_dir, tmp_path):
    def change(cfg):
        for section, name in (
            *(("model", "word_dropout"), ("model", "start_token"), ("task", "log_isotropy")),
            ("criterion", "free_bits_per"),
        ):
            del cfg[section][name]

    loaded = load_model(crafted(good, tmp_path, change), data_dir)
    assert loaded.task.start_token
    assert loaded.cfg.model.word_dropout == 0 and loaded.cfg.criterion.free_bits_per == "latent"


def test_settings_of_another_fairseq_are_let_be(good, data_dir, tmp_path):
    def change(cfg):
        cfg["common"]["of_another_release"] = "text (1)"
        cfg["job_logging_cfg"] = {"version": 1, "formatters": {"simple": {"format": "[%(x)s]"}}}
        cfg["optimizer"] = argparse.Namespace(adafactor_eps="(1e-30, 1e-3)", save_dir="runs (2)")

    load_model(crafted(good, tmp_path, change), data_dir)


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


def test_all_that_a_training_can_be_combined_with_passes():
    needed = {
        "cosine": ["--max-update", "9"],
        "triangular": ["--max-lr", "1"],
        "tri_stage": ["--max-update", "9", "--phase-ratio", "(0.1, 0.4, 0.5)"],
        "polynomial_decay": ["--total-num-update", "9"],
        "manual": ["--update2lr", "{1: 0.1}"],
        "adam": ["--adam-betas", "(0.9, 0.98)"],
    }
    choices = []
    for kind in ("optimizer", "lr_scheduler", "bpe", "tokenizer", "scoring"):
        # fairseq-train can't be given other subwords and tokenizers than those with a dataclass
        registry = "registry" if kind in ("optimizer", "lr_scheduler") else "dataclass_registry"
        flag = f"--{kind.replace('_', '-')}"
        names = REGISTRIES[kind][registry]
        choices.append([[flag, name, *needed.get(name, [])] for name in names])
    # one of each kind at once: each for itself takes three times as long
    for flags in itertools.zip_longest(*choices, fillvalue=[]):
        check_checkpoint("x.pt", saved(*itertools.chain(*flags)))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_hydra_composes_passes(name):
    needed = ["criterion.kl_annealing_updates=9"]  # where the configuration leaves it to be given
    cfg = OmegaConf.to_container(composed(name, "task.data=data-bin", *needed), resolve=True)
    if cfg["model"]["decoder_type"] == "gpt2":
        cfg["model"]["gpt2_config"] = "{}"  # a checkpoint's is in the place of the directory
    check_checkpoint("x.pt", {"model": {}, "cfg": cfg})
