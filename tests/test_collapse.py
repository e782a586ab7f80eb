"""The verdict that a posterior has collapsed, and the warning."""

from __future__ import annotations

import pytest
import torch
from fairseq.logging import metrics
from helpers import commands

from fairseq_vat.criterions import token_kl_cross_entropy as criterion
from fairseq_vat.measures import collapse


def _warning(kl=3.0, mi=0.5, gain=0.2, active=3, scaled=3, latents=100):
    return collapse.warning(
        {
            "latents": latents,
            "kl_nats": kl,
            "mi": {"paired": mi},
            "latent_gain": {"share": gain},
            "active_units": {"count": active},
            "active_units_scaled": {"count": scaled},
        }
    )


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ({"kl": 0.004, "mi": 0.001}, "0.004 nats of KL per latent, under 0.1"),
        ({"active": 0, "scaled": 0}, "no active unit"),
        ({"kl": 0.316, "mi": 0.3, "gain": 0.004, "active": 0, "scaled": 5}, "by 0.4% against"),
        ({"gain": -0.02}, "own latents lower the nll by -2.0% against latents of the prior"),
        ({"mi": 0.02}, "0.020 nats of mutual information, under 0.1"),
    ],
)
def test_collapse_is_named_with_what_to_try(figures, reason):
    told = _warning(**figures)
    for word in (reason, "--kl-weight", "annealing", "--free-bits", "--word-dropout"):
        assert word in told
    assert "\n" not in told


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"active": 0, "scaled": 2},  # a narrow prior
        {"gain": None},  # the prior's latents have no nll to lower
        {"kl": 0.0, "gain": 0.0, "latents": 1},
        {"kl": None, "latents": None},  # a language model
    ],
)
def test_no_warning(figures):
    assert _warning(**figures) is None


VALIDATIONS = ("--validate-interval-updates", "20", "--dropout", "0", "--no-save")


def test_a_training_that_collapses_says_so_once(data_dir, tmp_path):
    flags = ("--kl-weight", "20", "--max-update", "62")
    log = commands.train(data_dir, tmp_path, *VALIDATIONS, *flags)
    assert len(commands.stats(log)) >= 3
    (line,) = (line for line in log.splitlines() if "has collapsed" in line)
    assert "| WARNING |" in line and "--kl-weight" in line and "--free-bits" in line
    assert abs(float(commands.stats(log)[-1]["latent_gain"])) < 0.05


def test_before_the_annealing_began_nothing_is_said(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(collapse, "reason", lambda **figures: "made up")
    flags = (*VALIDATIONS, "--validate-interval-updates", "2", "--max-update", "6")
    flags = (*flags, "--kl-annealing", "linear", "--kl-annealing-updates")
    log = commands.train(data_dir, tmp_path, *flags, "70")
    assert "has collapsed" not in log
    log = commands.train(data_dir, tmp_path, *flags, "60")
    (line,) = (line for line in log.splitlines() if "has collapsed" in line)
    assert "update 6: " in line  # a tenth of the weight


def test_a_training_that_uses_its_latents_is_not_warned(data_dir, checkpoint, tmp_path):
    flags = ("--kl-weight", "0.01", "--max-update", "152", "--validate-interval-updates", "152")
    flags = (*flags, "--validate-after-updates", "152", "--restore-file", checkpoint)
    log = commands.train(data_dir, tmp_path, *VALIDATIONS, *flags)
    assert "has collapsed" not in log
    assert float(commands.stats(log)[-1]["latent_gain"]) > 0.5


def test_one_latent_has_no_variance_and_so_no_verdict():
    sums = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    for latents, expected in ((1, 3.0), (2, 0.0)):
        with metrics.aggregate(new_root=True) as meters:
            criterion.log_active_units(torch.tensor(latents), sums, sums**2 / latents, 0.4)
        assert meters.get_smoothed_value("_most_active_units") == expected


def test_a_training_that_is_never_validated_is_warned_by_its_log(data_dir, tmp_path):
    flags = ("--kl-weight", "20", "--max-update", "62", "--disable-validation", "--dropout", "0")
    log = commands.train(data_dir, tmp_path, *flags, "--no-save")
    (line,) = (line for line in log.splitlines() if "has collapsed" in line)
    assert "| WARNING |" in line and "--prior-std" in line
    figures = commands.updates(log)[int(line.partition("update ")[2].partition(":")[0])]
    assert float(figures["kl_nats"]) < collapse.NATS or float(figures["active_units"]) == 0
