"""Mutual information between sentences and latents, under the posteriors of a data set.

The aggregated posterior of N latents is q(z) = 1/N sum_j q(z | x_j), and

    MI = E log q(z | x) - E log q(z),   one drawn z for each x.

The second term is a logsumexp over all N.  The first is taken at the same draws (paired), or in
closed form, -L/2 log 2 pi - 1/2 sum_i (1 + logvar_i) (unpaired), as in vae-lagging-encoder (He et
al. 2019), T5-VAE and Optimus.  The two differ by the mean over draws of 1/2 (|noise|^2 - L), which
knows nothing of the model and has a standard deviation of sqrt(L / 2N).  No estimate can get far
above log N, whatever the model knows; noise can carry it below 0, and the unpaired one above
log N: nothing is clamped here.

Shape legend: N latents whose z are drawn, M latents that make up q(z), L latent width.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# densities held at a time, in double precision: 32 MB
MAX_DENSITIES = 1 << 22


@dataclass(frozen=True)
class MutualInformation:
    """An estimate in nats."""

    # both terms at the same draws: equal posteriors give 0 and nothing exceeds the ceiling
    paired: float
    unpaired: float  # the first term in closed form. The expectation is the same, the noise larger
    ceiling: float  # log N; the mean of it over batches
    latents: int
    batches: int = 1


def mutual_information(mean_NL: Tensor, logvar_NL: Tensor, z_NL: Tensor) -> MutualInformation:
    """MI over one set of latents, its own aggregated posterior included.

    Time grows with N^2 L; memory with N L, whatever N is.

    Raises:
        ValueError: if there is no latent.
    """
    count, width = mean_NL.shape
    if count == 0:
        raise ValueError("mutual information needs at least one latent")
    own_N, marginal_N = _log_densities(mean_NL.double(), logvar_NL.double(), z_NL.double())
    entropy = 0.5 * (logvar_NL.double().sum(dim=1).mean() + width * (1 + math.log(2 * math.pi)))
    return MutualInformation(
        paired=float((own_N - marginal_N).mean()),
        unpaired=float(-entropy - marginal_N.mean()),
        ceiling=math.log(count),
        latents=count,
    )


def mutual_information_over_batches(
    mean_NL: Tensor,
    logvar_NL: Tensor,
    z_NL: Tensor,
    counts: Sequence[int],
    batch_size: int = 32,
    device: Any = None,
) -> MutualInformation:
    """Mean of the MI of consecutive batches of sentences, each batch its own data set.

    A last batch that isn't full is left out, since its ceiling is another; only where there is
    no full batch at all does it count.

    Args:
        mean_NL: posterior means, sentence after sentence in a fixed order.
        counts: latents of each sentence: all 1 at sentence level, its positions at token level.
        device: where it is computed; None: where the latents are.
    """
    whole = max(len(counts) // batch_size * batch_size, min(batch_size, len(counts)))
    sizes = [sum(counts[first : first + batch_size]) for first in range(0, whole, batch_size)]
    latents = sum(sizes)
    parts = [
        mutual_information(*(x.to(device=device) for x in batch))
        for batch in zip(
            *(x[:latents].split(sizes) for x in (mean_NL, logvar_NL, z_NL)), strict=True
        )
    ]
    means = {
        name: sum(getattr(part, name) for part in parts) / len(parts)
        for name in ("paired", "unpaired", "ceiling")
    }
    return MutualInformation(**means, latents=latents, batches=len(parts))


def choose_latents(
    latents_NL: Sequence[Tensor], most: int, generator: torch.Generator
) -> Sequence[Tensor]:
    """At most `most` rows, by chance and the same ones of each tensor, in their order.

    A generator that goes on gives every draw other rows, so that the spread over draws is also
    that of the choice.
    """
    count = len(latents_NL[0])
    if count <= most:
        return latents_NL
    chosen = torch.randperm(count, generator=generator)[:most].sort().values
    return [x_NL[chosen.to(x_NL.device)] for x_NL in latents_NL]


def over_draws(estimates: Iterable[MutualInformation]) -> dict[str, Any]:
    """Estimates of one quantity, each from latents drawn anew.

    Returns:
        ``paired`` and ``unpaired``, means over draws in nats, each with its ``_std``, the standard
        deviation over draws (n - 1 in the denominator; None for one draw); ``draws``, how many;
        ``ceiling``, ``latents`` and ``batches``, which are the same for every draw.
    """
    found = list(estimates)
    figures: dict[str, Any] = {}
    for name in ("paired", "unpaired"):
        values = [getattr(estimate, name) for estimate in found]
        figures[name] = statistics.fmean(values)
        figures[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
    same = {name: getattr(found[0], name) for name in ("ceiling", "latents", "batches")}
    return {**figures, "draws": len(found), **same}


def _log_densities(mean_ML: Tensor, logvar_ML: Tensor, z_ML: Tensor) -> tuple[Tensor, Tensor]:
    """log q(z_i | x_i) and log q(z_i), both (M,).

    The square (z - mean)^2 / variance is multiplied out, so that all pairs are two matrix
    products and the (M x M x L) differences never exist.  What cancels between the terms is at
    most about mean^2 / variance, 1e10 at the smallest variance there is: double precision keeps
    five digits behind the point, and moving the origin into the middle keeps more.
    """
    origin_L = mean_ML.mean(dim=0)
    mean_ML, z_ML = mean_ML - origin_L, z_ML - origin_L
    precision_ML = torch.exp(-logvar_ML)
    weighted_ML = mean_ML * precision_ML
    constant_M = (mean_ML * weighted_ML + logvar_ML).sum(dim=1)
    constant_M += mean_ML.size(1) * math.log(2 * math.pi)
    count = len(z_ML)
    rows = min(count, max(1, MAX_DENSITIES // count))
    own_M, marginal_M = torch.empty_like(constant_M), torch.empty_like(constant_M)
    # one buffer for all blocks: fresh ones of this size break up the heap, which then grows to
    # many times what is in use
    buffer = mean_ML.new_empty(rows * count)
    for first in range(0, count, rows):
        z_nL = z_ML[first : first + rows]
        block = slice(first, first + len(z_nL))
        log_density_nM = buffer[: len(z_nL) * count].view(len(z_nL), count)
        torch.mm(z_nL * z_nL, precision_ML.t(), out=log_density_nM)
        log_density_nM.addmm_(z_nL, weighted_ML.t(), alpha=-2).add_(constant_M).mul_(-0.5)
        own_M[block] = log_density_nM.diagonal(offset=first)
        largest_n1 = log_density_nM.amax(dim=1, keepdim=True)
        total_n = log_density_nM.sub_(largest_n1).exp_().sum(dim=1)
        marginal_M[block] = largest_n1.squeeze(1) + total_n.log() - math.log(count)
    return own_M, marginal_M
