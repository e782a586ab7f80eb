"""One vector for a sentence out of its latents.

Shape legend: P latents of a sentence (its tokens, or 1 at sentence level), B sentences, L latent
width.
"""

from operator import itemgetter

import torch
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.latent.choices import POOLINGS
from fairseq_vat.latent.gaussian import DiagonalGaussian


def check_pooling(pooling: str) -> None:
    """Raise `VATError` for another pooling than `POOLINGS`."""
    if pooling not in POOLINGS:
        raise VATError(f"pooling {pooling!r}: must be one of {', '.join(POOLINGS)}")


def pool(posterior: DiagonalGaussian, padding_mask_BP: Tensor, pooling: str) -> DiagonalGaussian:
    """The distribution of a sentence's mean, sum or first latent, (B, L).

    A sentence's latents are independent Gaussians, so their sum is the Gaussian whose mean and
    variance are the sums of theirs, and their mean the same scaled: a draw of the result is
    distributed as the pooled draws are. Its mean is the pooled mean (VAT paper, section 6: "mean",
    "sum" and "start"). Of a single latent all three are the latent itself.

    Args:
        padding_mask_BP: true at padding, which counts nowhere; every other position counts, the
            start token and the end of sentence too.
        pooling: one of `POOLINGS`; ``start`` is the first latent.
    """
    check_pooling(pooling)
    if pooling == "start":
        return posterior.map(itemgetter(0))
    padding_PB1 = padding_mask_BP.t().unsqueeze(-1)
    mean_BL = posterior.mean.masked_fill(padding_PB1, 0).sum(dim=0)
    logvar_BL = posterior.logvar.masked_fill(padding_PB1, -torch.inf).logsumexp(dim=0)
    if pooling == "mean":
        count_B1 = (~padding_PB1).sum(dim=0)
        mean_BL, logvar_BL = mean_BL / count_B1, logvar_BL - 2 * count_B1.log()
    return DiagonalGaussian(mean_BL, logvar_BL)
