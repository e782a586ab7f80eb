"""Every measure of a model over a set of sentences: one pass over batches, then the figures.

What is measured is kept by sentence and put in the data set's order, and latents' noise belongs to
the sentence, so that no figure depends on how sentences were batched.  A sentence that is in the
set again draws noise of its own, as a measure over the set takes draws to be independent.

Shape legend: P latents of a sentence, B sentences of a batch, N latents of the data set, L latent
width, K draws, D draws for mutual information, S target positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fairseq_vat.latent import noise
from fairseq_vat.latent.prior import Prior
from fairseq_vat.measures import active_units, importance_weighting
from fairseq_vat.measures.mutual_information import (
    choose_latents,
    mutual_information,
    mutual_information_over_batches,
    over_draws,
)
from fairseq_vat.measures.spread import spread_of, without_perplexity


@dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    Attributes:
        prior_std: of the latents' prior N(0, prior_std^2 I).
        samples: draws over which the nll from samples, and from the prior, is averaged.
        iw_samples: K of the importance-weighted bound; 0 leaves it out.
        seed: of the draws, and of the choice of latents where there are more than `mi_latents`.
        mi_draws: D, draws over which mutual information is averaged.
        mi_batch: sentences a batch of mutual information.
        mi_latents: mutual information over the whole set takes at most so many latents.
    """

    prior_std: float
    samples: int = 1
    iw_samples: int = 50
    seed: int = 1
    mi_draws: int = 5
    mi_batch: int = 32
    mi_latents: int = 20000


@dataclass
class Measured:
    """By sentence, in the data set's order; nats in double precision. Empty for what doesn't apply.

    Attributes:
        nll: -log p(x | z) with z at the mean; a language model's is -log p(x).
        nll_samples: its mean over draws.
        nll_prior: the same with the latents drawn from the prior, by the same noise.
        kl: summed over a sentence's latents.
        penalty: equation (6) summed likewise, where it is no KL of z: with noise of the prior's.
        iw_nll, ess: importance-weighted bound and effective sample size.
        means, logvars, draws: (P, L), (P, L), (D, P, L), without padding, on the CPU.
    """

    nll: list[float] = field(default_factory=list)
    nll_samples: list[float] = field(default_factory=list)
    nll_prior: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    penalty: list[float] = field(default_factory=list)
    iw_nll: list[float] = field(default_factory=list)
    ess: list[float] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)
    logvars: list[Tensor] = field(default_factory=list)
    draws: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def measure(
    model: Any,
    batches: Iterable[dict[str, Any]],
    settings: Settings,
    progress: Callable[[int], None] = lambda sentences: None,
) -> Measured:
    """Go through the batches, in whatever order they come.

    Args:
        model: in evaluation mode, with latents or a language model.
        batches: fairseq's batches, on the model's device; their ``id`` is the sentence's number.
        settings: what to measure.
        progress: told the number of sentences after each batch.
    """
    by_number: dict[int, dict[str, Any]] = {}
    seen: dict[int, list[int]] = {}  # by its key, the numbers under which a sentence came
    for batch in batches:
        columns = _measure_batch(model, batch, settings, seen)
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
    model: Any, batch: dict[str, Any], settings: Settings, seen: dict[int, list[int]]
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


def figures(
    measured: Measured, tokens: int, words: int, settings: Settings, device: Any = "cpu"
) -> dict[str, Any]:
    """The figures of docs/measures.md; None where one doesn't apply.

    Args:
        measured: from `measure`.
        tokens: target tokens of the set, ends of sentences counted.
        words: words of the set.
        settings: what was measured.
        device: where mutual information is computed.

    Returns:
        plain numbers, nested: ``nll``, ``nll_mean``, ``nll_samples``, ``nll_prior``, ``kl``,
        ``penalty``, ``neg_elbo`` and ``iw_nll`` each as `spread.spread_of` has it.
    """

    def spread(*columns: list[float]) -> dict[str, float | None] | None:
        if not all(columns):
            return None
        total = math.fsum(math.fsum(column) for column in columns)
        return spread_of(total, len(columns[0]), words, tokens)

    has_latents = bool(measured.kl)
    found: dict[str, Any] = {
        "nll": None if has_latents else spread(measured.nll),
        "nll_mean": spread(measured.nll) if has_latents else None,
        "nll_samples": spread(measured.nll_samples),
        "nll_prior": spread(measured.nll_prior),
        "kl": without_perplexity(spread(measured.kl)),
        "penalty": without_perplexity(spread(measured.penalty)),
        "neg_elbo": spread(measured.nll_samples, measured.kl),
        "iw_nll": spread(measured.iw_nll),
        "samples": settings.samples if has_latents else None,
        "iw_samples": settings.iw_samples if has_latents else None,
        "ess": _ess(measured.ess),
        "latent_gain": _latent_gain(measured, tokens) if has_latents else None,
        "latents": None,
        "kl_nats": None,
        "penalty_nats": None,
        "least_kl_prior_std": None,
        "mi_batches": None,
        "mi": None,
        "marginal_kl": None,
        "active_units": None,
        "active_units_scaled": None,
    }
    if has_latents:
        found.update(_latent_figures(measured, settings, device))
    return found


def _latent_figures(measured: Measured, settings: Settings, device: Any) -> dict[str, Any]:
    counts = [len(mean_PL) for mean_PL in measured.means]
    posteriors = [torch.cat(parts).to(device) for parts in (measured.means, measured.logvars)]
    mean_NL = posteriors[0].double()
    kl_nats = math.fsum(measured.kl) / len(mean_NL)
    draws_DNL = torch.cat(measured.draws, dim=1).to(device)
    mi_batches = over_draws(
        mutual_information_over_batches(*posteriors, z_NL, counts, settings.mi_batch)
        for z_NL in draws_DNL
    )
    generator = torch.Generator().manual_seed(settings.seed)
    mi = over_draws(
        mutual_information(*choose_latents([*posteriors, z_NL], settings.mi_latents, generator))
        for z_NL in draws_DNL
    )
    square = mean_NL.square().mean() + posteriors[1].double().exp().mean()
    sums = (len(mean_NL), mean_NL.sum(dim=0), mean_NL.square().sum(dim=0))

    def active(threshold: float) -> dict[str, Any]:
        count = active_units.count_active_units(*sums, threshold)
        return {"count": count, "of": mean_NL.size(1), "threshold": threshold}

    return {
        "latents": len(mean_NL),
        "kl_nats": kl_nats,
        "penalty_nats": math.fsum(measured.penalty) / len(mean_NL) if measured.penalty else None,
        # the mean of KL(q || N(0, p^2 I)) is least at the p^2 that z^2 has on average
        "least_kl_prior_std": math.sqrt(square),
        "mi_batches": mi_batches | {"batch_sentences": min(settings.mi_batch, len(counts))},
        "mi": mi,
        "marginal_kl": kl_nats - mi["paired"],
        "active_units": active(active_units.THRESHOLD),
        "active_units_scaled": active(active_units.THRESHOLD * settings.prior_std**2),
    }


def _ess(ess: list[float]) -> dict[str, float] | None:
    if not ess:
        return None
    ess_B = torch.tensor(ess, dtype=torch.float64)
    return {
        "mean": float(ess_B.mean()),
        "median": float(ess_B.quantile(0.5)),
        "percentile_5": float(ess_B.quantile(0.05)),
        "min": float(ess_B.min()),
    }


def _latent_gain(measured: Measured, tokens: int) -> dict[str, float | None]:
    """How much lower the nll is from a sentence's own latents than from the prior's."""
    prior = math.fsum(measured.nll_prior)
    gain = prior - math.fsum(measured.nll_samples)
    return {
        "per_token": gain / tokens,
        "bits_per_token": gain / tokens / math.log(2),
        "share": gain / prior if prior > 0 else None,
    }
