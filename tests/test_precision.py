"""``--precision bfloat16``: training's products in bfloat16, all that is kept in single precision.

On a CPU without instructions for bfloat16 these tests take torch's emulation.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fairseq import options
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from fairseq.optim.amp_optimizer import AMPOptimizer
from fairseq_cli import preprocess as fairseq_preprocess
from helpers import commands, gpt2
from helpers.configs import hydra_train
from helpers.distributed import train_with_two
from helpers.models import batch, build
from helpers.runs import assert_same_end
from helpers.systems import LANGUAGE_MODELS, SYSTEMS, TINY
from torch import nn

from fairseq_vat import hardware
from fairseq_vat.cli import main as cli
from fairseq_vat.errors import VATError
from fairseq_vat.models import precision
from fairseq_vat.models.vat_transformer import VATModel
from fairseq_vat.optim.fused_adam import FusedAdam
from fairseq_vat.tasks.aggressive import Step, keep_gradients

BF16 = ["--precision", "bfloat16", "--emulate-bfloat16"]
FLOAT32 = ["--precision", "float32"]
# one of each kind of part
TRAINED = {
    name: flags
    for name, flags in {**SYSTEMS, **LANGUAGE_MODELS}.items()
    if name in ("transformer-transformer-token", "lstm-lstm-sentence", "gru-lm")
}
WARNING = "--precision bfloat16: this CPU has no instructions for it"


@pytest.mark.parametrize("kind", [FairseqAdam, FusedAdam])
@pytest.mark.parametrize("overflow", [False, True])
def test_amp_divides_gradients_by_the_scale_once(kind: type, overflow: bool):
    """And an overflow takes no step, nor one of gradients that aggressive training leaves out."""
    model = nn.Module()
    model.encoder, model.decoder = nn.Linear(2, 2), nn.Linear(2, 2)
    before = model.encoder.weight.detach().clone()
    adam = kind(FairseqAdamConfig(adam_betas="(0.9, 0.98)", lr=[0.1]), list(model.parameters()))
    common = SimpleNamespace(fp16_init_scale=1, amp_scale_window=None, min_loss_scale=1e-4)

    class Scaled(AMPOptimizer):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)  # torch.cuda's does nothing here

    optimizer = Scaled(SimpleNamespace(optimizer=None, common=common), None, adam)
    optimizer.scaler.scale(sum(parameter.sum() for parameter in model.parameters())).backward()
    if overflow:
        model.decoder.weight.grad.fill_(math.inf)
    optimizer.clip_grad_norm(0.0)
    keep_gradients(optimizer, model, Step.encoder)
    optimizer.step()
    assert (model.encoder.weight.grad == 1).all()
    assert torch.equal(model.encoder.weight, before) == overflow
    assert optimizer.scaler.get_scale() == (2.0**15 if overflow else 2.0**16)


def vector(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in parameters.values()])


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    """2-norm of the difference over the norm of `other`."""
    return float((one - other).norm() / other.norm())


def with_precision(checkpoint: Path, name: str, copy: Path) -> Path:
    """The same checkpoint but for the precision it says it was trained in."""
    state = torch.load(checkpoint, weights_only=True)
    assert state["cfg"]["model"]["precision"] != name
    state["cfg"]["model"]["precision"] = name
    copy.parent.mkdir(exist_ok=True)
    torch.save(state, copy)
    return copy


# A training step of every architecture


@pytest.fixture(scope="module")
def gpt2_data(text_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The toy text in a small GPT-2's vocabulary, and the flags of a model on it."""
    folder = tmp_path_factory.mktemp("gpt2")
    gpt2.save(folder / "small")
    files = [f"--{split}={text_dir / split}" for split in ("train", "valid", "test")]
    out = str(folder / "corpus")
    assert cli.main(["tokenize", *files, "--output", out, "--gpt2", str(folder / "small")]) == 0
    flags = ["--only-source", "--srcdict", f"{out}/dict.txt", "--destdir", f"{out}/data-bin"]
    flags += ["--testpref", f"{out}/test.pieces", "--trainpref", f"{out}/train.pieces"]
    fairseq_preprocess.main(options.get_preprocessing_parser().parse_args(flags))
    model = ["--arch", "vae_gpt2", "--gpt2-dir", str(folder / "small"), *TINY]
    model += ["--encoder-attention-heads", "2", "--attention-dropout", "0"]
    return folder / "corpus/data-bin", model


@pytest.mark.parametrize("name", [*SYSTEMS, *LANGUAGE_MODELS, "gpt2"])
def test_a_step_in_bfloat16_is_near_the_one_in_single_precision(name, data_dir, request):
    if name == "gpt2":
        data, flags = request.getfixturevalue("gpt2_data")
    else:
        data, flags = data_dir, [*{**SYSTEMS, **LANGUAGE_MODELS}[name], *TINY]
    gradients, losses = [], []
    for more in (FLOAT32, BF16):
        task, model, criterion = build(data, *flags, *more)
        model.train()
        loss, sample_size, _ = criterion(model, batch(task, list(range(8))))
        (loss / sample_size).backward()
        losses.append(loss.item())
        found = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
        assert all(grad.dtype == torch.float32 for grad in found.values())
        gradients.append(found)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert all(p.dtype == torch.float32 for p in model.parameters())
    moved = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert len(moved) > len(before) / 2
    # bfloat16 keeps 8 bits: a factor is off by 2^-9 at most, and errors that are independent
    # of each other, as they go through layers, stay of the order of a per cent
    single, half = map(vector, gradients)
    assert gradients[0].keys() == gradients[1].keys()
    assert torch.cosine_similarity(single, half, dim=0) > 0.999
    assert 1e-4 < relative(half, single) < 0.05  # and it was bfloat16
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


# Runs


@pytest.fixture(scope="module", params=TRAINED.values(), ids=TRAINED.keys())
def runs(request, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A system's training in one folder for each name, going on where the folder's last ended."""
    folder = tmp_path_factory.mktemp("runs")
    always = [*request.param, *TINY, "--dropout", "0.2", "--log-interval", "1"]
    always += ["--lr-scheduler", "inverse_sqrt", "--warmup-updates", "5", "--disable-validation"]

    def run(name: str, updates: int, *flags: str) -> tuple[Path, str]:
        save_dir = folder / name
        log = commands.train(data_dir, save_dir, *always, *flags, "--max-update", str(updates))
        return save_dir / "checkpoint_last.pt", log

    return run


def test_a_resumed_run_is_the_run_that_was_never_stopped(runs):
    whole, _ = runs("whole", 12, *BF16)
    runs("stopped", 5, *BF16)
    again, log = runs("stopped", 12, *BF16)
    assert list(commands.updates(log)) == list(range(6, 13))
    assert_same_end(again.parent, whole.parent)


def test_precision_can_change_where_a_run_is_resumed(runs):
    for first, then in ((FLOAT32, BF16), (BF16, FLOAT32)):
        begun, _ = runs(f"begun-{first[1]}", 4, *first)
        ends = {}
        for more in (first, then):
            shutil.copytree(begun.parent, begun.parent.parent / f"{first[1]}-{more[1]}")
            end, log = runs(f"{first[1]}-{more[1]}", 8, *more)
            assert list(commands.updates(log)) == [5, 6, 7, 8]
            state = torch.load(end, weights_only=True)
            kept = [*state["model"].values()]
            for entry in state["last_optimizer_state"]["state"].values():
                kept += [x for x in entry.values() if isinstance(x, torch.Tensor)]
            assert {x.dtype for x in kept if x.is_floating_point()} == {torch.float32}
            assert state["cfg"]["model"]["precision"] == more[1]
            ends[more[1]] = vector(state["model"])
        start = vector(commands.parameters(begun))
        assert 0 < relative(ends[then[1]] - start, ends[first[1]] - start) < 0.2


# What is measured


@pytest.fixture(scope="module")
def trained(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A checkpoint of a run in bfloat16, the same saying float32, and the run's log."""
    folder = tmp_path_factory.mktemp("trained")
    log = commands.train(data_dir, folder, *BF16, "--max-update", "12")
    checkpoint = folder / "checkpoint_last.pt"
    return checkpoint, with_precision(checkpoint, "float32", folder / "single/c.pt"), log


def test_validation_is_in_single_precision(data_dir, trained):
    task, half, criterion = build(data_dir, "--dropout", "0", *BF16)
    _, single, _ = build(data_dir, "--dropout", "0")
    single.load_state_dict(half.state_dict())
    sample = batch(task, list(range(6)))
    losses = []
    for model in (half.eval(), single.eval()):
        with torch.no_grad():
            losses.append(criterion(model, sample)[0])
    assert torch.equal(*losses)
    with torch.no_grad():
        assert not torch.equal(criterion(half.train(), sample)[0], losses[0])

    checkpoint, as_single, log = trained
    (at_the_end,) = commands.stats(log)
    for path in (checkpoint, as_single):
        (again,) = commands.stats(commands.validate(data_dir, path))
        for name in ("loss", "nll_loss", "kl_loss", "kl_nats", "active_units"):
            assert again[name] == at_the_end[name], name


@pytest.mark.parametrize("command", ["evaluate", "isotropy"])
def test_commands_measure_in_single_precision(command, data_dir, text_dir, trained, capsys):
    flags = {
        "evaluate": ["--gen-subset", "test", "--iw-samples", "2", "--no-bleu"],
        "isotropy": ["--text", str(text_dir / "test")],
    }[command]
    found = []
    for path in trained[:2]:
        capsys.readouterr()
        where = [command, str(data_dir), "--path", str(path), "--cpu", "--json"]
        assert cli.main([*where, *flags]) == 0
        found.append(json.loads(capsys.readouterr().out.replace(str(path), "PATH")))
    assert found[0] == found[1]


def test_embeddings_are_in_single_precision(data_dir, trained):
    half, single = (
        VATModel.from_pretrained(path.parent, path.name, str(data_dir), device="cpu")
        for path in trained[:2]
    )
    lines = ["w1 w2 w3", "w9", "w4 w4"]
    embeddings = half.embed(lines)
    assert embeddings.dtype == np.float32
    assert np.array_equal(embeddings, single.embed(lines))
    for one, other in zip(half.encode(lines), single.encode(lines), strict=True):
        assert torch.equal(one, other)


# Machines


def test_a_cpu_without_bfloat16_trains_in_single_precision(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: False)
    ends, logs = {}, {}
    for name, flags in {
        "single": FLOAT32,
        "asked": BF16[:2],
        "emulated": BF16,
    }.items():
        logs[name] = commands.train(data_dir, tmp_path / name, *flags, "--max-update", "5")
        ends[name] = vector(commands.parameters(tmp_path / name / "checkpoint_last.pt"))
    assert [log.count(WARNING) for log in logs.values()] == [0, 1, 0]
    assert torch.equal(ends["asked"], ends["single"])
    assert not torch.equal(ends["emulated"], ends["single"])


@pytest.mark.parametrize(
    ("cuda", "on_cuda", "on_cpu", "expected"),
    [
        (False, False, False, "float32"),
        (False, False, True, "bfloat16"),
        (True, False, True, "float32"),
        (True, True, False, "bfloat16"),
    ],
)
def test_recipes_prefer_what_is_fast(cuda, on_cuda, on_cpu, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **kwargs: on_cuda)
    monkeypatch.setattr(hardware, "cpu_has_bfloat16", lambda: on_cpu)
    assert hardware.preferred_precision() == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--fp16", "--fp16-no-flatten-grads"],
            r"can't be combined with --fp16, .* one of the two",
        ),
        (["--checkpoint-activations"], r"can't be combined with --checkpoint-activations"),
    ],
)
def test_what_it_does_not_go_with_is_named(flags, message, data_dir, tmp_path):
    with pytest.raises(VATError, match=message) as error:
        commands.train(data_dir, tmp_path, *BF16, *flags, "--max-update", "2")
    assert "\n" not in str(error.value)


def test_hydra_takes_the_precision(data_dir, tmp_path):
    overrides = ["model=vat_transformer_tiny", f"task.data={data_dir}"]
    overrides += ["+model.precision=bfloat16", "+model.emulate_bfloat16=true"]
    overrides += ["optimization.max_update=2", "dataset.num_workers=0"]
    process = hydra_train(tmp_path, *overrides, "dataset.disable_validation=true")
    status, log = process.wait()
    assert status == 0, log
    state = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)
    assert state["cfg"]["model"]["precision"] == "bfloat16"
    assert WARNING not in log


def test_two_processes_train_as_one(data_dir, tmp_path):
    """They make the same gradients of the same batches, and sum them in another order."""
    flags = ["--dropout", "0", "--disable-validation", "--kl-weight", "0.1", "--clip-norm", "1.0"]
    flags += ["--kl-annealing", "logistic", "--kl-annealing-updates", "20"]
    flags += ["--lr-scheduler", "inverse_sqrt", "--warmup-updates", "10", "--max-update", "5"]
    train_with_two(data_dir, tmp_path / "two", *flags, *BF16)
    ends = {"two": commands.parameters(tmp_path / "two/checkpoint_last.pt")}
    for name, more in {"one": BF16, "single": FLOAT32}.items():
        commands.train(data_dir, tmp_path / name, *flags, *more, "--update-freq", "2")
        ends[name] = commands.parameters(tmp_path / name / "checkpoint_last.pt")
    commands.train(data_dir, tmp_path / "start", *flags, "--max-update", "1", "--lr", "1e-12")
    start = vector(commands.parameters(tmp_path / "start/checkpoint_last.pt"))
    moves = {name: vector(end) - start for name, end in ends.items()}
    apart = relative(moves["two"], moves["one"])
    assert apart < 0.01
    assert relative(moves["one"], moves["single"]) > 2 * apart
