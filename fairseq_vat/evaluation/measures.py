"""Every measure of a model over a set of sentences: one pass over batches, then the figures.

What is measured is kept by sentence and put in the data set's order, and latents' noise belongs to
the sentence, so that no figure depends on how sentences were batched.

Shape legend: P latents of a sentence, B sentences of a batch, N latents of the data set, L latent
width, K draws, S target positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fairseq_vat.evaluation import active_units, importance_weighting
from fairseq_vat.evaluation.mutual_information import (
    MutualInformation,
    mutual_information,
    mutual_information_over_batches,
)

# below these a model ignores its latents: nats of KL per latent, and of mutual information
COLLAPSED = 0.1


@dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    Attributes:
        prior_std: s of the prior N(0, s^2 I).
        samples: draws over which the nll from samples is averaged.
        iw_samples: K of the importance-weighted bound; 0 leaves it out.
        seed: of the draws, and of the choice of latents where there are more than `mi_latents`.
        mi_batch: sentences a batch of mutual information.
        mi_latents: mutual information over the whole set takes at most so many latents.
    """

    prior_std: float
    samples: int = 1
    iw_samples: int = 50
    seed: int = 1
    mi_batch: int = 32
    mi_latents: int = 20000


@dataclass
class Measured:
    """By sentence, in the data set's order; nats in double precision. Empty for what doesn't apply.

    Attributes:
        nll: -log p(x | z) with z at the mean; a language model's is -log p(x).
        nll_samples: its mean over draws.
        kl: summed over a sentence's latents.
        iw_nll, ess: importance-weighted bound and effective sample size.
        means, logvars, draws: each (P, L), without padding, on the CPU; draw number 0.
    """

    nll: list[float] = field(default_factory=list)
    nll_samples: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
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
    for batch in batches:
        columns = _measure_batch(model, batch, settings)
        for row, number in enumerate(batch["id"].tolist()):
            by_number[number] = {name: column[row] for name, column in columns.items()}
        progress(batch["id"].numel())
    measured = Measured()
    for _, values in sorted(by_number.items()):
        for name, value in values.items():
            getattr(measured, name).append(value)
    return measured


def _measure_batch(model: Any, batch: dict[str, Any], settings: Settings) -> dict[str, list[Any]]:
    net_input, target_BS = batch["net_input"], batch["target"]
    prev_BS = net_input["prev_output_tokens"]
    if not model.has_latents:
        return {"nll": model.sentence_nll(None, prev_BS, target_BS).tolist()}
    encoder = model.encoder
    out = encoder(net_input["src_tokens"], net_input["src_lengths"])
    posterior = encoder.posterior(out)
    keep_PB = ~out["encoder_padding_mask"][0].t()
    kl_PB = posterior.kl(settings.prior_std).double().sum(dim=-1)
    columns = {
        "nll": model.sentence_nll(out, prev_BS, target_BS),
        "kl": kl_PB.masked_fill(~keep_PB, 0).sum(dim=0),
    }
    nlls, log_weights = [], []
    for number in range(max(settings.samples, settings.iw_samples)):
        drawn = encoder.draw(out, settings.seed, number)
        z_PBL = drawn["encoder_out"][0]
        if number == 0:
            draws_PBL = z_PBL
        nll_B = model.sentence_nll(drawn, prev_BS, target_BS)
        if number < settings.samples:
            nlls.append(nll_B)
        if number < settings.iw_samples:
            log_weights.append(
                importance_weighting.log_weights(
                    nll_B, posterior, z_PBL, keep_PB, settings.prior_std
                )
            )
    columns["nll_samples"] = torch.stack(nlls).mean(dim=0)
    if log_weights:
        weights_KB = torch.stack(log_weights)
        columns["iw_nll"] = importance_weighting.importance_weighted_nll(weights_KB)
        columns["ess"] = importance_weighting.effective_sample_size(weights_KB)
    latents = {"means": posterior.mean, "logvars": posterior.logvar, "draws": draws_PBL}
    return {
        **{name: column.tolist() for name, column in columns.items()},
        **{name: _without_padding(x_PBL, keep_PB) for name, x_PBL in latents.items()},
    }


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
        plain numbers, nested: ``nll``, ``nll_mean``, ``nll_samples``, ``kl``, ``neg_elbo`` and
        ``iw_nll`` each as `_spread` has it.
    """

    def spread(*columns: list[float]) -> dict[str, float | None] | None:
        if not all(columns):
            return None
        total = math.fsum(math.fsum(column) for column in columns)
        return _spread(total, len(columns[0]), words, tokens)

    has_latents = bool(measured.kl)
    found: dict[str, Any] = {
        "nll": None if has_latents else spread(measured.nll),
        "nll_mean": spread(measured.nll) if has_latents else None,
        "nll_samples": spread(measured.nll_samples),
        "kl": _without_perplexity(spread(measured.kl)),
        "neg_elbo": spread(measured.nll_samples, measured.kl),
        "iw_nll": spread(measured.iw_nll),
        "samples": settings.samples if has_latents else None,
        "iw_samples": settings.iw_samples if has_latents else None,
        "ess": _ess(measured.ess),
        "latents": None,
        "kl_nats": None,
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
    latents_NL = [
        torch.cat(parts).to(device) for parts in (measured.means, measured.logvars, measured.draws)
    ]
    mean_NL = latents_NL[0].double()
    kl_nats = math.fsum(measured.kl) / len(mean_NL)
    over_batches = mutual_information_over_batches(*latents_NL, counts, settings.mi_batch)
    whole = mutual_information(*_chosen(latents_NL, settings))
    sums = (len(mean_NL), mean_NL.sum(dim=0), mean_NL.square().sum(dim=0))

    def active(threshold: float) -> dict[str, Any]:
        count = active_units.count_active_units(*sums, threshold)
        return {"count": count, "of": mean_NL.size(1), "threshold": threshold}

    return {
        "latents": len(mean_NL),
        "kl_nats": kl_nats,
        "mi_batches": _mi(over_batches) | {"batch_sentences": min(settings.mi_batch, len(counts))},
        "mi": _mi(whole),
        "marginal_kl": kl_nats - whole.nats,
        "active_units": active(active_units.THRESHOLD),
        "active_units_scaled": active(active_units.THRESHOLD * settings.prior_std**2),
    }


def _chosen(latents_NL: list[Tensor], settings: Settings) -> list[Tensor]:
    """At most `mi_latents` of the latents, by chance but always the same ones."""
    count = len(latents_NL[0])
    if count <= settings.mi_latents:
        return latents_NL
    generator = torch.Generator().manual_seed(settings.seed)
    chosen = torch.randperm(count, generator=generator)[: settings.mi_latents].sort().values
    return [x_NL[chosen.to(x_NL.device)] for x_NL in latents_NL]


def _spread(total: float, sentences: int, words: int, tokens: int) -> dict[str, float | None]:
    """A sum of nats per sentence, word and token, and what fairseq makes of it."""
    return {
        "per_sentence": total / sentences,
        "per_word": total / words,
        "per_token": total / tokens,
        "bits_per_token": total / tokens / math.log(2),
        "ppl_per_word": _perplexity(total / words),
        "ppl_per_token": _perplexity(total / tokens),
    }


def _without_perplexity(spread: dict[str, float | None] | None) -> dict[str, float | None] | None:
    """exp(KL) is no perplexity of anything."""
    return spread and {name: x for name, x in spread.items() if not name.startswith("ppl")}


def _perplexity(nats: float) -> float | None:
    """exp(nats); None where double precision has no number so large."""
    return math.exp(nats) if nats < 700 else None


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


def _mi(found: MutualInformation) -> dict[str, Any]:
    return {
        "nats": found.nats,
        "paired": found.paired,
        "ceiling": found.ceiling,
        "latents": found.latents,
        "batches": found.batches,
    }


def collapse_warning(found: dict[str, Any]) -> str | None:
    """One line for a model that ignores its latents, with what to try; else None.

    Args:
        found: from `figures`.
    """
    if not found["latents"] or found["latents"] < 2:  # of one latent nothing can be said
        return None
    kl, mi = found["kl_nats"], found["mi"]["paired"]
    if kl < COLLAPSED and mi < COLLAPSED:
        why = f"{kl:.3f} nats of KL per latent, {mi:.3f} of mutual information"
    elif not (found["active_units"]["count"] or found["active_units_scaled"]["count"]):
        why = "no active unit"
    else:
        return None
    return (
        f"the posterior has collapsed ({why}): the decoder ignores the latents; try KL annealing "
        "(--kl-annealing cyclic), --free-bits, a smaller --kl-weight or --word-dropout"
    )
