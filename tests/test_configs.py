"""The Hydra configurations: they compose, they train, and they say what flags and paper say."""

from __future__ import annotations

import itertools
import math
import re
import shlex
from pathlib import Path
from typing import Any

import hydra.experimental
import pytest
import torch
from fairseq import options, tasks
from fairseq.dataclass import utils as dataclass_utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.optim import FairseqOptimizer
from fairseq.optim.lr_scheduler.cosine_lr_scheduler import CosineLRSchedule
from fairseq.optim.lr_scheduler.inverse_square_root_schedule import InverseSquareRootSchedule
from helpers import commands
from helpers.configs import CONFIGS, EXPERIMENTS, composed, hydra_train, no_hydra, train
from helpers.scripts import ROOT
from omegaconf import DictConfig, OmegaConf

from fairseq_vat.criterions.config import TokenKLCrossEntropyConfig, annealing_of
from fairseq_vat.errors import VATError

MODELS = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))
DEMO_LAYERS = {"encoder_layers": 2, "decoder_layers": 2}  # whatever the model's
PRESETS = sorted(
    name
    for name, model in ARCH_MODEL_REGISTRY.items()
    if model.__module__.startswith("fairseq_vat.")
)


def parsed(*flags: str) -> DictConfig:
    """What `fairseq-train` trains with."""
    parser = options.get_training_parser()
    with no_hydra():
        return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, list(flags)))


def plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_composes(name: str):
    cfg = composed(name, "task.data=nowhere")
    assert cfg.model._name in ARCH_MODEL_REGISTRY
    assert cfg.task._name == "variational_lm"
    assert cfg.criterion._name == "token_kl_cross_entropy"
    # what the file leaves out is there
    assert cfg.criterion.label_smoothing == 0.0
    assert cfg.model.max_source_positions == cfg.task.max_source_positions
    assert cfg.dataset.required_batch_size_multiple == 1  # no epoch leaves a sentence out


# every model once and every experiment more than once: composing each with each takes a minute
@pytest.mark.parametrize(
    ("model", "experiment"), zip(MODELS, itertools.cycle(EXPERIMENTS), strict=False)
)
def test_models_fit_experiments(model: str, experiment: str):
    cfg = composed(experiment, "task.data=nowhere", f"model={model}")
    written = OmegaConf.load(CONFIGS / "model" / f"{model}.yaml")
    layers = written if experiment != "demo" else {**written, **DEMO_LAYERS}
    assert {key: cfg.model[key] for key in written} == layers


def test_every_preset_has_its_file():
    assert PRESETS == MODELS


@pytest.mark.parametrize("name", PRESETS)
def test_preset_and_file_are_the_same_model(name: str, data_dir: Path):
    flags = [str(data_dir), "--user-dir", commands.PLUGIN, "--task", "variational_lm"]
    flags += ["--max-source-positions", "256", "--max-target-positions", "256", "--seed", "1"]
    flags += ["--criterion", "token_kl_cross_entropy", "--truncate"]
    flags += ["--latent-noise", "prior"]  # the experiment's
    by_flag = parsed(*flags, "--arch", name)
    by_file = composed("vat_wmt19", f"task.data={data_dir}", f"model={name}")
    fields = [plain(cfg.model) for cfg in (by_flag, by_file)]
    for one in fields:
        one.pop("_name")  # the preset's own name in one, the model's in the other
    assert fields[0] == fields[1]

    if by_flag.model.decoder_type == "gpt2":  # its shape is in a directory that isn't here
        return
    task = tasks.setup_task(by_file.task)
    with torch.device("meta"):  # shapes alone
        models = [task.build_model(cfg.model) for cfg in (by_flag, by_file)]
    shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in models]
    assert shapes[0] == shapes[1]


def demo_command() -> list[str]:
    """The arguments of scripts/demo.sh's `fairseq-train`."""
    script = (ROOT / "scripts" / "demo.sh").read_text(encoding="utf-8")
    max_update = re.search(r"^max_update=\$\{MAX_UPDATE:-(\d+)\}$", script, re.MULTILINE)[1]
    command = re.search(r"^run fairseq-train ((?:.*\\\n)*.*)$", script, re.MULTILINE)[1]
    for variable, value in {
        '"${device[@]}"': "--cpu",
        '"${precision_flags[@]}"': "",  # the machine's
        "$max_update": max_update,
        "$plugin": commands.PLUGIN,
        "$demo": "demo",
    }.items():
        command = command.replace(variable, value)
    assert "$" not in command
    return shlex.split(command.replace("\\\n", " "))


def test_demo_trains_as_its_script_does():
    script = plain(parsed(*demo_command()))
    hydra = plain(
        composed(
            "demo",
            "task.data=demo/data-bin",
            "common.cpu=true",
            "checkpoint.save_dir=demo/checkpoints",
        )
    )
    script["common"]["log_file"] = None  # Hydra keeps a log of its own
    script["model"]["_name"] = "vat_transformer"
    for section, values in script.items():
        if isinstance(values, dict) and section != "scoring":  # training scores nothing
            found = hydra.get(section) or {}
            differing = {
                key: f"{value} in scripts/demo.sh, {found.get(key)} in configs/demo.yaml"
                for key, value in values.items()
                if found.get(key) != value
            }
            assert not differing, section


@pytest.fixture(scope="module")
def hydra_runs(
    data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[int, str], tuple[int, str]]:
    """A short training and a mistake, each a process of its own, at once."""
    folder = tmp_path_factory.mktemp("hydra")
    right = hydra_train(
        *(folder / "right", "model=vat_transformer_tiny", f"task.data={data_dir}"),
        *("optimization.max_update=3", "common.log_interval=1"),
    )
    wrong = hydra_train(folder / "wrong", f"task.data={data_dir}", "criterion.prior_std=-1")
    return folder, right.wait(), wrong.wait()


def test_hydra_trains(hydra_runs):
    folder, (status, output), _ = hydra_runs
    assert status == 0, output
    assert list(commands.updates(output)) == [1, 2, 3]
    shape = commands.parameters(folder / "right" / "checkpoint_last.pt")["encoder.head.mean.weight"]
    assert shape.shape == (16, 32)
    assert (folder / "right" / ".hydra" / "config.yaml").exists()


def test_a_run_of_hydra_generates(hydra_runs, data_dir: Path):
    checkpoint = hydra_runs[0] / "right" / "checkpoint_last.pt"
    output = commands.generate(data_dir, checkpoint, "--latent-sampling")
    assert len(commands.hypotheses(output)) == 20


def test_a_mistake_under_hydra_is_one_line(hydra_runs):
    _, _, (status, output) = hydra_runs
    assert status != 0
    assert "Traceback" not in output and "HYDRA_FULL_ERROR" not in output
    lines = [line for line in output.splitlines() if "prior-std" in line]
    assert lines == [lines[0]] and lines[0].startswith("fairseq_vat: error: ")
    assert "must be a standard deviation above 0, not -1" in lines[0]


@pytest.mark.parametrize(
    ("name", "sentences", "positions", "lr"),
    [
        ("vae_transformer_ptb", 42_068, 64, 1e-3),
        ("vae_transformer_sst2", 6_920, 64, 1e-4),
        ("vae_transformer_air", 9_000, 64, 1e-4),
        ("vae_transformer_wikitext2", 20_000, 256, 1e-3),
        ("vae_gpt2_ptb", 42_068, 64, 1e-3),
        ("vae_gpt2_sst2", 6_920, 64, 1e-4),
    ],
)
def test_vae_transformer_is_the_papers(name: str, sentences: int, positions: int, lr: float):
    epoch = math.ceil(sentences / 32)
    counts = [f"lr_scheduler.lr_period_updates={10 * epoch}"]
    counts += [f"criterion.kl_annealing_updates={50 * epoch}"]
    asks = name in ("vae_transformer_air", "vae_transformer_wikitext2")
    cfg = composed(name, "task.data=nowhere", *(counts if asks else []))
    model, criterion = cfg.model, cfg.criterion
    decoder = "gpt2" if "gpt2" in name else "transformer"
    assert (model.encoder_type, model.decoder_type) == ("transformer", decoder)
    assert (model.latent_level, model.latent_dim) == ("sentence", 64)
    assert (cfg.task.max_source_positions, cfg.task.max_target_positions) == (positions, positions)
    assert cfg.task.truncate and cfg.task.start_token
    assert (cfg.dataset.batch_size, cfg.dataset.max_tokens) == (32, None)
    assert (cfg.optimization.max_epoch, cfg.optimization.max_update) == (50, 0)
    assert criterion.prior_std == 1.0
    assert (criterion.kl_weight, criterion.kl_reduction) == (1.0, "sum")
    assert (criterion.kl_annealing, criterion.kl_annealing_updates) == ("cyclic", 50 * epoch)
    assert (criterion.kl_annealing_cycles, criterion.kl_annealing_ratio) == (5, 0.5)
    optimizer = cfg.optimizer
    assert (optimizer._name, optimizer.weight_decay) == ("fused_adam", 0.1)
    assert optimizer.adam_betas == "(0.9, 0.999)"
    scheduler = OmegaConf.merge(cfg.lr_scheduler, {"lr": cfg.optimization.lr})
    assert scheduler._name == "cosine"
    schedule = CosineLRSchedule(scheduler, KeepsRate())
    for restart in range(0, 50, 10):
        first, last = restart * epoch, (restart + 10) * epoch - 1
        assert schedule.step_update(first) == pytest.approx(lr)
        assert schedule.step_update(first + 5 * epoch) == pytest.approx((lr + 1e-7) / 2)
        assert schedule.step_update(last) == pytest.approx(1e-7, rel=0.2)


@pytest.mark.parametrize("data", ["air", "wikitext2"])
def test_unknown_splits_ask_for_their_number_of_updates(data: str, data_dir: Path):
    cfg = composed(f"vae_transformer_{data}", f"task.data={data_dir}")
    task = tasks.setup_task(cfg.task)
    with pytest.raises(VATError, match="cyclic needs the number of updates"):
        task.build_criterion(cfg.criterion)


def test_vae_transformer_trains(data_dir: Path, tmp_path: Path):
    cfg = composed(
        *("vae_transformer_ptb", f"task.data={data_dir}", f"checkpoint.save_dir={tmp_path}"),
        *("common.cpu=true", "common.log_interval=1", "optimization.max_update=2"),
        "dataset.disable_validation=true",
    )
    found = commands.updates(train(cfg))
    assert list(found) == [1, 2]
    assert float(found[2]["lr"]) == pytest.approx(1e-3, rel=1e-3)
    # half of a cycle of 65,750 / 5 updates rises, and the first update is number 0
    assert float(found[1]["kl_weight"]) == 0
    assert float(found[2]["kl_weight"]) == pytest.approx(2 * 5 / 65_750, abs=1e-6)


class KeepsRate(FairseqOptimizer):
    """Keeps the learning rate it is given."""

    def __init__(self) -> None:
        self.lr = 0.0

    def set_lr(self, lr: float) -> None:
        self.lr = lr

    def get_lr(self) -> float:
        return self.lr


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--lr-scheduler", "cosine", "--lr-period-updates", "9", "--optimizer", "fused_adam"),
        ("--arch", "vae_gru", "--update-freq", "2,3", "--save-dir", "a b", "--truncate"),
    ],
)
def test_kept_compositions_are_hydra_s(flags, monkeypatch):
    """The tests' own, which spare each command a third of a second."""
    parser = options.get_training_parser()
    args = options.parse_args_and_arch(parser, ["data-bin", *commands.TRAIN_FLAGS, *flags])
    kept = convert_namespace_to_omegaconf(args)
    monkeypatch.setattr(dataclass_utils, "compose", hydra.experimental.compose)
    monkeypatch.setattr(dataclass_utils, "initialize", hydra.experimental.initialize)
    with no_hydra():
        assert convert_namespace_to_omegaconf(args) == kept


def test_wmt19_is_the_papers():
    cfg = composed("vat_wmt19", "task.data=nowhere")
    model = cfg.model
    assert (model.encoder_layers, model.decoder_layers, model.encoder_attention_heads) == (4, 4, 8)
    assert model.decoder_attention_heads == 8
    assert {model.encoder_embed_dim, model.decoder_embed_dim, model.latent_dim} == {128}
    assert {model.encoder_ffn_embed_dim, model.decoder_ffn_embed_dim} == {512}
    assert model.dropout == 0.1
    assert cfg.task.start_token is True
    assert cfg.dataset.batch_size == 128 and cfg.dataset.max_tokens is None
    assert cfg.optimization.max_epoch == 3 and cfg.optimization.max_update == 0
    criterion = cfg.criterion
    assert (criterion.kl_annealing, criterion.kl_annealing_updates) == ("logistic", 50_000)
    cfg_of_criterion = OmegaConf.merge(TokenKLCrossEntropyConfig, criterion)
    assert annealing_of(cfg_of_criterion).weight(0) == pytest.approx(0.00025)
    assert criterion.prior_std == 0.4
    assert (criterion.kl_weight, criterion.kl_reduction) == (1.0, "sum")
    assert (model.latent_noise, model.prior_std) == ("prior", 0.4)
    assert cfg.optimizer._name == "adam"


def test_wmt19_follows_noam():
    cfg = composed("vat_wmt19", "task.data=nowhere")
    width, warmup = cfg.model.encoder_embed_dim, 50_000
    assert cfg.lr_scheduler.warmup_updates == warmup
    assert cfg.optimization.lr == [pytest.approx((width * warmup) ** -0.5, rel=1e-4)]

    scheduler = OmegaConf.merge(cfg.lr_scheduler, {"lr": cfg.optimization.lr})
    schedule = InverseSquareRootSchedule(scheduler, KeepsRate())
    for update in (1, 1_000, 49_999, 50_000, 50_001, 200_000):
        noam = width**-0.5 * min(update**-0.5, update * warmup**-1.5)
        assert schedule.step_update(update) == pytest.approx(noam, rel=1e-4)


def test_wmt19_trains(data_dir: Path, tmp_path: Path):
    cfg = composed(
        *("vat_wmt19", f"task.data={data_dir}", f"checkpoint.save_dir={tmp_path}"),
        *("common.cpu=true", "common.fp16=false", "common.log_interval=1"),
        "optimization.max_update=2",
    )
    found = commands.updates(train(cfg))
    assert list(found) == [1, 2]
    # w(0), and the peak's share after one update of warm-up
    assert float(found[1]["kl_weight"]) == pytest.approx(0.00025)
    assert float(found[1]["lr"]) == pytest.approx((128 * 50_000) ** -0.5 / 50_000, rel=1e-3)
    assert float(found[2]["loss"]) < 8


def test_the_demo_leaves_no_sentence_out():
    script = (ROOT / "scripts" / "demo.sh").read_text(encoding="utf-8")
    assert script.count("--criterion token_kl_cross_entropy") == 1
    assert script.count("--required-batch-size-multiple 1 ") == 1
