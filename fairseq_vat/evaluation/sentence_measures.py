"""What is measured of every sentence of a set, in one pass over batches.

What is measured is kept by sentence and put in the data set's order, and latents' noise belongs to
the sentence, so that no figure depends on how sentences were batched.  A sentence that is in the
set again draws noise of its own, as a measure over the set takes draws to be independent.

Shape legend: P latents of a sentence, B sentences of a batch, N latents of the data set, L latent
width, K draws, D draws for mutual information, S target positions.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.latent import noise
from fairseq_vat.latent.prior import Prior
from fairseq_vat.measures import importance_weighting


@dataclass(frozen=True)
class EvaluationSettings:
    """What to measure, and how."""

    prior_std: float  # of the latents' prior N(0, prior_std^2 I)
    samples: int = 1  # draws over which the nll from samples, and from the prior, is averaged
    iw_samples: int = 50  # K of the importance-weighted bound; 0 leaves it out
    # of the draws, and of the choice of latents where there are more than `mi_latents`
    seed: int = 1
    mi_draws: int = 5
    mi_batch: int = 32
    mi_latents: int = 20000  # mutual information over the whole set takes at most so many latents


@dataclass
class Measured:
    """By sentence, in the data set's order; nats in double precision; empty what doesn't apply."""

    # -log p(x | z) with z at the mean; a language model's is -log p(x)
    nll: list[float] = field(default_factory=list)
    nll_samples: list[float] = field(default_factory=list)  # its mean over draws
    # the same with the latents drawn from the prior, by the same noise
    nll_prior: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)  # summed over a sentence's latents
    # equation (6) summed likewise, where it is no KL of z: with noise of the prior's
    penalty: list[float] = field(default_factory=list)
    # iw_nll, ess: importance-weighted bound and effective sample size
    iw_nll: list[float] = field(default_factory=list)
    ess: list[float] = field(default_factory=list)
    # means, logvars, draws: (P, L), (P, L), (D, P, L), without padding, on the CPU
    means: list[Tensor] = field(default_factory=list)
    logvars: list[Tensor] = field(default_factory=list)
    draws: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def measure(
    model: Any,
    batches: Iterable[dict[str, Any]],
    settings: EvaluationSettings,
    progress: Callable[[int], None] = lambda sentences: None,
) -> Measured:
    """Go through the batches, in whatever order they come.

    Args:
        batches: fairseq's batches, on the model's device; their ``id`` is the sentence's number.

    Raises:
        VATError: for latents or likelihoods that aren't finite.
    """
    by_number: dict[int, dict[str, Any]] = {}
    seen: dict[int, list[int]] = {}  # by its key, the numbers under which a sentence came
    for batch in batches:
        columns = _measure_batch(model, batch, settings, seen)
        for what, name in (("latents", "means"), ("latents", "logvars"), ("likelihoods", "nll")):
            if not all(torch.as_tensor(x).isfinite().all() for x in columns.get(name, ())):
                raise VATError(
                    f"the checkpoint's {what} are not finite: its training has diverged; take an "
                    "earlier checkpoint"
                )
        for row, number in enumerate(batch["id"].tolist()):
            by_number[number] = {name: column[row] for name, column in columns.items()}
        progress(batch["id"].numel())
    for numbers in seen.values():  # noise goes by the order of the set, not by that of batches
        values = [by_number[number] for number in numbers]
        by_number.update(zip(sorted(numbers), values, strict=True))
    measured = Measured()
    for _, values in sorted(by_number.items()):
        for name, value in values.items():
            getattr(measured, name).append(value)
    return measured


def _measure_batch(
    model: Any, batch: dict[str, Any], settings: EvaluationSettings, seen: dict[int, list[int]]
) -> dict[str, list[Any]]:
    net_input, target_BS = batch["net_input"], batch["target"]
    prev_BS = net_input["prev_output_tokens"]
    if not model.has_latents:
        return {"nll": model.sentence_nll(None, prev_BS, target_BS).tolist()}
    encoder = model.encoder
    out = encoder(net_input["src_tokens"], net_input["src_lengths"])
    out = {**out, "latent_key": [_keys(out["latent_key"][0], batch["id"], seen)]}
    posterior, prior = encoder.posterior(out), Prior(settings.prior_std)
    keep_PB = ~out["encoder_padding_mask"][0].t()

    def by_sentence(x_PBL: Tensor) -> Tensor:
        return x_PBL.double().sum(dim=-1).masked_fill(~keep_PB, 0).sum(dim=0)

    columns = {
        "nll": model.sentence_nll(out, prev_BS, target_BS),
        "kl": by_sentence(prior.kl(posterior)),
    }
    if encoder.prior_noise is not None:
        s = encoder.prior_noise  # the training's, whatever prior is measured against
        columns["penalty"] = by_sentence(s.penalty(posterior, s))
    nlls, prior_nlls, log_weights, draws = [], [], [], []
    decoded = max(settings.samples, settings.iw_samples)
    for number in range(max(decoded, settings.mi_draws)):
        drawn = encoder.draw(out, settings.seed, number)
        z_PBL = drawn["encoder_out"][0]
        if number < settings.mi_draws:
            draws.append(_without_padding(z_PBL, keep_PB))
        if number >= decoded:
            continue
        nll_B = model.sentence_nll(drawn, prev_BS, target_BS)
        if number < settings.samples:
            nlls.append(nll_B)
            other = encoder.draw_prior(out, prior, settings.seed, number)
            prior_nlls.append(model.sentence_nll(other, prev_BS, target_BS))
        if number < settings.iw_samples:
            log_weights.append(
                importance_weighting.log_weights(nll_B, posterior, z_PBL, keep_PB, prior)
            )
    columns["nll_samples"] = torch.stack(nlls).mean(dim=0)
    columns["nll_prior"] = torch.stack(prior_nlls).mean(dim=0)
    if log_weights:
        weights_KB = torch.stack(log_weights)
        columns["iw_nll"] = importance_weighting.importance_weighted_nll(weights_KB)
        columns["ess"] = importance_weighting.effective_sample_size(weights_KB)
    return {
        **{name: column.tolist() for name, column in columns.items()},
        "means": _without_padding(posterior.mean, keep_PB),
        "logvars": _without_padding(posterior.logvar, keep_PB),
        "draws": [torch.stack(of_sentence) for of_sentence in zip(*draws, strict=True)],
    }


def _keys(keys_B: Tensor, numbers_B: Tensor, seen: dict[int, list[int]]) -> Tensor:
    """Keys of the sentences' noise, (B,), other ones for what `seen` has; it is kept up."""
    repeats = []
    for key, number in zip(keys_B.tolist(), numbers_B.tolist(), strict=True):
        before = seen.setdefault(key, [])
        repeats.append(len(before))
        before.append(number)
    return noise.repeated_keys(keys_B, torch.tensor(repeats, device=keys_B.device))


def _without_padding(x_PBL: Tensor, keep_PB: Tensor) -> list[Tensor]:
    x_BPL, keep_BP = x_PBL.transpose(0, 1).cpu(), keep_PB.t().cpu()
    return [x_PL[keep_P].clone() for x_PL, keep_P in zip(x_BPL, keep_BP, strict=True)]
