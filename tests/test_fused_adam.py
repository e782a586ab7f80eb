"""`--optimizer fused_adam` takes the steps of fairseq's `adam`, and is resumed as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from helpers import commands
from helpers.runs import assert_same_end, state

from fairseq_vat.errors import VATError
from fairseq_vat.optim.fused_adam import FusedAdam

FLAGS = [
    *["--optimizer", "fused_adam", "--weight-decay", "0.1", "--clip-norm", "1.0"],
    *["--adam-betas", "(0.9, 0.98)", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "10"],
]


def _stepped(kind: type[FairseqAdam], betas: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    parameter = torch.nn.Parameter(torch.randn(50, 8, generator=generator).double())
    # with no epsilon to speak of: the two add it before and after the bias is corrected
    cfg = FairseqAdamConfig(
        adam_betas=betas, adam_eps=1e-12, weight_decay=0.1, lr=[0.01], tpu=False
    )
    optimizer = kind(cfg, [parameter])
    for update in range(40):
        parameter.grad = torch.randn(50, 8, generator=generator).double() + 0.5
        optimizer.set_lr(0.01 / (1 + update))
        optimizer.step(scale=2.0)
    return parameter.detach()


@pytest.mark.parametrize("betas", ["(0.9, 0.999)", "(0.9, 0.98)"])
def test_steps_are_those_of_fairseqs_adam(betas: str):
    ours, fairseqs = _stepped(FusedAdam, betas), _stepped(FairseqAdam, betas)
    torch.testing.assert_close(ours, fairseqs, atol=1e-7, rtol=0)
    other = _stepped(FusedAdam, "(0.8, 0.9)")
    assert (ours - other).abs().max() > 1e-3  # steps that differ would be seen


def test_betas_may_be_whole_numbers():
    torch.testing.assert_close(
        _stepped(FusedAdam, "(0, 0.98)"), _stepped(FairseqAdam, "(0, 0.98)"), atol=1e-7, rtol=0
    )


def test_a_stopped_run_ends_as_one_that_never_stopped(data_dir: Path, tmp_path: Path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    commands.train(data_dir, whole, *FLAGS, "--max-update", "12")
    commands.train(data_dir, stopped, *FLAGS, "--max-update", "5")
    commands.train(data_dir, stopped, *FLAGS, "--max-update", "12")
    assert_same_end(whole, stopped)
    history = state(whole / "checkpoint_last.pt")["optimizer_history"]
    assert history[-1]["optimizer_name"] == "FusedAdam"


@pytest.mark.parametrize("moment", [torch.ones(4), torch.ones(1).expand(10**6)])
def test_moments_of_another_shape_are_refused(moment, data_dir: Path, tmp_path: Path):
    """The kernel writes as many numbers as the parameter has, whatever room there is."""
    commands.train(data_dir, tmp_path, *FLAGS, "--max-update", "2")
    path = tmp_path / "checkpoint_last.pt"
    saved = state(path)
    saved["last_optimizer_state"]["state"][0]["exp_avg"] = moment
    torch.save(saved, path)
    with pytest.raises(VATError, match=r"moments of shape .* it is damaged; --reset-optimizer"):
        commands.train(data_dir, tmp_path, *FLAGS, "--max-update", "4")


def test_another_optimizer_is_refused_in_one_line(data_dir: Path, tmp_path: Path):
    commands.train(data_dir, tmp_path, *FLAGS, "--max-update", "2")
    adam = [*FLAGS, "--optimizer", "adam", "--max-update", "4"]
    with pytest.raises(VATError, match=r"--optimizer adam: .* is of fused_adam"):
        commands.train(data_dir, tmp_path, *adam)
    commands.train(data_dir, tmp_path, *adam, "--reset-optimizer")
    history = state(tmp_path / "checkpoint_last.pt")["optimizer_history"]
    assert [entry["optimizer_name"] for entry in history] == ["FusedAdam", "FairseqAdam"]


def test_half_precision(data_dir: Path, tmp_path: Path):
    """fairseq steps a copy in single precision; a scale of 1 overflows nowhere, as on a GPU."""
    half = [*FLAGS, "--fp16", "--fp16-no-flatten-grads", "--fp16-init-scale", "1"]
    commands.train(data_dir, tmp_path, *half, "--max-update", "2")
    commands.train(data_dir, tmp_path, *half, "--max-update", "4")
    saved = state(tmp_path / "checkpoint_last.pt")["last_optimizer_state"]["state"]
    assert {float(moments["step"]) for moments in saved.values()} == {4.0}
    with pytest.raises(VATError, match="--memory-efficient-fp16 needs another --optimizer"):
        commands.train(data_dir, tmp_path / "more", *FLAGS, "--memory-efficient-fp16")


@pytest.mark.parametrize("name", ["fp16_adam_stats", "use_old_adam"])
def test_what_it_has_not_is_refused(name: str):
    cfg = FairseqAdamConfig(**{name: True}, lr=[0.01], tpu=False)
    with pytest.raises(VATError, match=f"--{name.replace('_', '-')} needs --optimizer adam"):
        FusedAdam(cfg, [torch.nn.Parameter(torch.zeros(1))])
