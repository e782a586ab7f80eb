"""The flags of `token_kl_cross_entropy`, and what is wrong with their values."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Optional

from fairseq.dataclass import FairseqDataclass
from omegaconf import II

from fairseq_vat.latent.annealing import DEFAULT_UPDATES, Annealing, Schedule
from fairseq_vat.models.config import check_values, option


class KLReduction(Enum):
    sum = "sum"
    mean = "mean"


class FreeBitsPer(Enum):
    latent = "latent"
    dimension = "dimension"


class ValidLatents(Enum):
    sample = "sample"
    mean = "mean"


@dataclass
class TokenKLCrossEntropyConfig(FairseqDataclass):
    prior_std: float = option(0.4, "s: standard deviation of the prior N(0, s^2 I), above 0")
    kl_weight: float = option(0.1, "constant factor on the KL, on top of the annealing")
    kl_reduction: KLReduction = option(
        KLReduction.sum,
        "KL of a latent in the loss: sum over its dimensions (equation 6), or their "
        "mean (the sum / latent width, a far smaller weight); what is reported is the sum",
    )
    kl_annealing: Schedule = option(Schedule.logistic, "schedule of the KL weight")
    kl_annealing_updates: int = option(
        0, "number of updates the schedule spans (logistic: 4000 if not given)"
    )
    kl_annealing_cycles: int = option(5, "cyclic: number of cycles M in the span")
    kl_annealing_ratio: float = option(0.5, "cyclic: share R of a cycle spent rising, from 0 to 1")
    kl_annealing_init: Optional[float] = option(
        None, "logistic: weight at update 0 (default: 0.00025, without a slope)"
    )
    kl_annealing_slope: Optional[float] = option(
        None, "logistic: slope k about the span's middle, in place of a first weight"
    )
    free_bits: float = option(
        0.0, "nats of KL that cost nothing: the loss is bounded from below there"
    )
    free_bits_per: FreeBitsPer = option(
        FreeBitsPer.latent, "bound the KL of each latent, or of each dimension of a latent"
    )
    label_smoothing: float = option(0.0, "epsilon for label smoothing, 0 means no label smoothing")
    valid_latents: ValidLatents = option(
        ValidLatents.sample,
        "validation decodes from latents drawn with a fixed seed (only then is "
        "nll + KL the negative ELBO), or from their mean",
    )
    report_accuracy: bool = option(False, "report next-token accuracy in validation")
    sentence_avg: bool = II("optimization.sentence_avg")


def annealing_of(cfg: TokenKLCrossEntropyConfig) -> Annealing:
    """The schedule; raises `VATError` for a number that doesn't fit it."""
    schedule = Schedule(cfg.kl_annealing)
    updates = DEFAULT_UPDATES if schedule == Schedule.logistic else 0
    return Annealing(
        schedule,
        cfg.kl_annealing_updates or updates,
        cfg.kl_annealing_cycles,
        cfg.kl_annealing_ratio,
        cfg.kl_annealing_init,
        cfg.kl_annealing_slope,
    )


def check_config(cfg: TokenKLCrossEntropyConfig) -> None:
    """Raise `VATError` for a weight out of range, naming the flag."""
    check_values(cfg, ("kl_weight", "free_bits"), lambda x: 0 <= x < math.inf, "0 or above")
    check_values(cfg, ("label_smoothing",), lambda x: 0 <= x < 1, "from 0 to below 1")
