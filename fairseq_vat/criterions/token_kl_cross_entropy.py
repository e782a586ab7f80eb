"""Reconstruction plus weighted KL: the loss of every variational architecture.

Shape legend: P latents of a sentence, B sentences, L latent width.
"""

import math
from typing import Any

import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics
from torch import Tensor

from fairseq_vat.criterions.config import (
    FreeBitsPer,
    KLReduction,
    TokenKLCrossEntropyConfig,
    ValidLatents,
    annealing_of,
    check_config,
)
from fairseq_vat.errors import VATError
from fairseq_vat.latent.gaussian import DiagonalGaussian
from fairseq_vat.latent.prior import Prior
from fairseq_vat.measures.active_units import THRESHOLD, count_active_units

# Seed of validation's latents: always the same, so that validation repeats.
VALIDATION_SEED = 0


@register_criterion("token_kl_cross_entropy", dataclass=TokenKLCrossEntropyConfig)
class TokenKLCrossEntropy(FairseqCriterion):
    """Sum of -log p over target tokens + w(update) * kl_weight * sum of KL over latents.

    VAT paper, equation (5), with equation (6) for the KL to the scaled prior (a penalty that is no
    KL, with the model's ``--latent-noise prior``); VAE-Transformer paper, equation (8).  Divided
    by fairseq's sample size: target tokens, or sentences with ``--sentence-avg``.  Padding never
    contributes, and no term of a sentence depends on the sentences it is batched with.
    """

    def __init__(self, cfg: TokenKLCrossEntropyConfig, task: Any):
        super().__init__(task)
        self.prior = Prior(cfg.prior_std)
        check_config(cfg)
        self.cfg = cfg
        self.annealing = annealing_of(cfg)
        self.seed = task.cfg.seed

    @classmethod
    def build_criterion(cls, cfg: TokenKLCrossEntropyConfig, task: Any) -> "TokenKLCrossEntropy":
        return cls(cfg, task)

    def forward(self, model: Any, sample: dict[str, Any], reduce: bool = True) -> tuple:
        """Loss, sample size and what to log, for one batch.

        The KL weight and the training noise come from the model's update number, which the
        trainer sets at every update and restores with a checkpoint.
        """
        update = model.num_updates
        training = model.training
        from_mean = not training and self.cfg.valid_latents == ValidLatents.mean
        _, extra = model(
            **sample["net_input"],
            latent_seed=None if from_mean else self._latent_seed(training, update),
            target=sample["target"],
            label_smoothing=self.cfg.label_smoothing,
            count_correct=self.cfg.report_accuracy and not training,
        )
        likelihood = extra["likelihood"]
        loss = likelihood.loss
        sample_size = sample["target"].size(0) if self.cfg.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": loss.detach(),
            "nll_loss": likelihood.nll,
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
        }
        if extra["posterior"] is not None:  # else a language model: the likelihood is all there is
            kl_weight = self.cfg.kl_weight * self.annealing.weight(update)
            keep_PB = ~extra["latent_padding_mask"].t()
            noise = self._checked(extra["prior_noise"])
            penalty_PBL = self.prior.penalty(extra["posterior"], noise) * keep_PB.unsqueeze(-1)
            loss = loss + kl_weight * self._bounded(penalty_PBL, keep_PB)
            prior = self.prior.of_latents(noise)
            kl = penalty_PBL.detach().sum()
            if noise is not None:
                logging_output["penalty"] = kl
                with torch.no_grad():
                    kl = (prior.kl(extra["posterior"]) * keep_PB.unsqueeze(-1)).sum()
            logging_output.update(
                loss=loss.detach(),
                kl=kl,
                # fairseq sums logging outputs over workers and batches, hence weight x tokens
                kl_weight=kl_weight * sample["ntokens"],
                from_mean=int(from_mean) * sample["ntokens"],
                prior_std=prior.std * sample["ntokens"],
                **_latent_sums(extra["posterior"], keep_PB),
            )
            if not training:
                logging_output["nll_prior"] = self._nll_prior(model, sample, prior)
        if likelihood.n_correct is not None:
            logging_output["n_correct"] = likelihood.n_correct
        return loss, sample_size, logging_output

    def _latent_seed(self, training: bool, update: int) -> int:
        # every update draws anew; a resumed run draws what the stopped one would have drawn
        if not training:
            return VALIDATION_SEED
        # 64 bits: 24 of the seed, its other 8, and 32 of the update
        return (self.seed << 40) + (self.seed >> 24 << 32) + update + 1

    def _checked(self, noise: Prior | None) -> Prior | None:
        if noise not in (None, self.prior):
            raise VATError(
                f"the model's prior_std {noise.std} isn't the criterion's {self.prior.std}: "
                "give the criterion's alone"
            )
        return noise

    @torch.no_grad()
    def _nll_prior(self, model: Any, sample: dict[str, Any], prior: Prior) -> Tensor:
        """nll of the batch from latents of the prior, a scalar, by the noise of validation."""
        net_input = sample["net_input"]
        out = model.encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])
        drawn = model.encoder.draw_prior(out, prior, VALIDATION_SEED)
        nll_B = model.sentence_nll(drawn, net_input["prev_output_tokens"], sample["target"])
        return nll_B.sum()

    def _bounded(self, kl_PBL: Tensor, keep_PB: Tensor) -> Tensor:
        """The loss's KL term, with free bits and reduction applied; a scalar."""
        width = kl_PBL.size(-1)
        if self.cfg.free_bits > 0:
            if self.cfg.free_bits_per == FreeBitsPer.dimension:
                kl_PBL = kl_PBL.clamp(min=self.cfg.free_bits) * keep_PB.unsqueeze(-1)
            else:
                kl_PB = kl_PBL.sum(dim=-1).clamp(min=self.cfg.free_bits)
                kl_PBL = (kl_PB * keep_PB).unsqueeze(-1)
        kl = kl_PBL.sum()
        return kl / width if self.cfg.kl_reduction == KLReduction.mean else kl

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log the numbers of docs/measures.md, aggregated over workers and batches."""

        def total(key: str) -> Any:
            return sum(log.get(key, 0) for log in logging_outputs)

        sample_size, ntokens = total("sample_size"), total("ntokens")
        bits = math.log(2)
        metrics.log_scalar("loss", total("loss") / sample_size / bits, sample_size, round=3)
        metrics.log_scalar("nll_loss", total("nll_loss") / ntokens / bits, ntokens, round=3)
        # float(): in single precision 2^x is infinite from 128 bits on, less than an untrained KL
        metrics.log_derived("ppl", lambda m: utils.get_perplexity(float(m["nll_loss"].avg)))
        if any("n_correct" in log for log in logging_outputs):
            metrics.log_scalar("accuracy", 100.0 * total("n_correct") / ntokens, ntokens, round=3)
        if not any("kl" in log for log in logging_outputs):  # a language model
            return
        latents = total("latents")
        metrics.log_scalar("kl_loss", total("kl") / ntokens / bits, ntokens, round=3)
        metrics.log_scalar("kl_nats", total("kl") / latents, latents, round=3)
        if any("penalty" in log for log in logging_outputs):
            metrics.log_scalar("penalty_nats", total("penalty") / latents, latents, round=3)
        metrics.log_scalar("kl_weight", total("kl_weight") / ntokens, ntokens, round=6)
        if total("from_mean") == 0:
            metrics.log_derived(
                "elbo_ppl",
                lambda m: utils.get_perplexity(float(m["nll_loss"].avg + m["kl_loss"].avg)),
            )
        else:
            # decoding from the mean bounds nothing: say so, and give no ELBO
            metrics.log_scalar("from_mean", 1, priority=25)
        if any("nll_prior" in log for log in logging_outputs):  # validation
            gain = total("nll_prior") - total("nll_loss")
            metrics.log_scalar("latent_gain", gain / ntokens / bits, ntokens, round=4)
        sums = (latents, total("latent_mean_sum"), total("latent_mean_square_sum"))
        log_active_units(*sums, prior_std=float(total("prior_std") / ntokens))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def _latent_sums(posterior: DiagonalGaussian, keep_PB: Tensor) -> dict[str, Tensor]:
    """Sums over latents from which their variance follows, in double: they grow over an epoch."""
    mean_PBL = posterior.mean.detach() * keep_PB.unsqueeze(-1)
    mean_PBL = mean_PBL.double()
    return {
        "latents": keep_PB.sum(),
        "latent_mean_sum": mean_PBL.sum(dim=(0, 1)),
        "latent_mean_square_sum": (mean_PBL * mean_PBL).sum(dim=(0, 1)),
    }


def log_active_units(
    latents: Tensor, sums_L: Tensor, square_sums_L: Tensor, prior_std: float
) -> None:
    """Log the sums, hidden from the log by their underscore, and what is derived from them.

    Hidden as well: the units at the smaller threshold, for the verdict that none is active.

    The names hold the width: one of fairseq's aggregators lives as long as the process, and
    would otherwise add up the sums of runs of different widths.
    """
    names = [f"_{name}_{len(sums_L)}" for name in ("latents", "mean_sum", "mean_square_sum")]
    for name, value in zip(names, (latents, sums_L, square_sums_L), strict=True):
        metrics.log_scalar_sum(name, value)

    def active_units(meters: Any, threshold: float = THRESHOLD) -> float:
        sums = (torch.as_tensor(meters[name].sum) for name in names)
        return float(count_active_units(*sums, threshold))

    def most_active_units(meters: Any) -> float:
        if meters[names[0]].sum < 2:  # one latent has no variance: nothing is known
            return float(len(sums_L))
        return active_units(meters, THRESHOLD * min(1.0, prior_std**2))

    metrics.log_derived("active_units", active_units)
    metrics.log_derived("_most_active_units", most_active_units)
