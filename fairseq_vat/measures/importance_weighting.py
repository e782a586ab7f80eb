"""The importance-weighted bound on log p(x) (Burda et al. 2016), and how far to trust it.

Shape legend: P latents of a sentence, B sentences, L latent width, K draws.
"""

import math

import torch
from torch import Tensor

from fairseq_vat.latent.gaussian import DiagonalGaussian
from fairseq_vat.latent.prior import Prior


def log_weights(
    nll_B: Tensor, posterior: DiagonalGaussian, z_PBL: Tensor, keep_PB: Tensor, prior: Prior
) -> Tensor:
    """log w = log p(x | z) + log p(z) - log q(z | x) of one draw a sentence, (B,), in nats.

    A sentence's latent is all that belongs to it: at token level the densities of its positions
    are added up.

    Args:
        nll_B: -log p(x | z), summed over a sentence's tokens.
        keep_PB: false at padding.
    """
    z_PBL = z_PBL.double()
    # sums over a sentence's positions grow to thousands of nats, of which the weight is the rest
    posterior = posterior.map(Tensor.double)
    log_ratio_PB = (prior.log_prob(z_PBL) - posterior.log_prob(z_PBL)).sum(dim=-1)
    return log_ratio_PB.masked_fill(~keep_PB, 0).sum(dim=0) - nll_B.double()


def importance_weighted_nll(log_weights_KB: Tensor) -> Tensor:
    """-(logsumexp_k log w - log K), (B,), in nats: an upper bound of -log p(x), tighter with K.

    Burda et al. (2016), equation (8).  With K = 1 it is one draw's negative ELBO.
    """
    draws = log_weights_KB.size(0)
    return math.log(draws) - torch.logsumexp(log_weights_KB.double(), dim=0)


def effective_sample_size(log_weights_KB: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2, (B,), from 1 (one draw has all the weight) to K (all weigh the same).

    Kong (1992).  Where it is near 1 the bound rests on a single draw and is loose.
    """
    log_weights_KB = log_weights_KB.double()
    return torch.exp(
        2 * torch.logsumexp(log_weights_KB, dim=0) - torch.logsumexp(2 * log_weights_KB, dim=0)
    )
