"""The diagonal Gaussian posterior: one implementation for every architecture and tool.

Shape legend: ``...`` any leading shape (tokens x sentences at token level), L latent width, P
latents of a sentence (its tokens, or 1 at sentence level), B sentences.
Nothing here knows of fairseq.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.latent.choices import POOLINGS

# exp(10) = 22,026 and so is the largest variance; the standard deviation is at most 148 and a
# draw at most about 1,000, all far below half precision's 65,504.  exp(-20 / 2) = 4.5e-5 is still
# above half precision's smallest subnormal, 6e-8, so a posterior can be as good as certain.
LOG_VARIANCE_MIN = -20.0
LOG_VARIANCE_MAX = 10.0

# names in an encoder's output of a posterior's tensors, (P, B, L) each
PACKED = ("latent_mean", "latent_logvar")


@dataclass(frozen=True)
class DiagonalGaussian:
    """q(z | x) = N(mean, diag(exp(logvar))), as the VAT paper's section 3 has it.

    Build it with `from_outputs`, which bounds the log-variance and leaves half precision.

    Attributes:
        mean: (..., L).
        logvar: (..., L), natural logarithm of the variance.
    """

    mean: Tensor
    logvar: Tensor

    @classmethod
    def from_outputs(cls, mean: Tensor, logvar: Tensor) -> DiagonalGaussian:
        """A Gaussian from a network's raw outputs, in at least single precision.

        The log-variance is cut to [`LOG_VARIANCE_MIN`, `LOG_VARIANCE_MAX`] here, before anything
        exponentiates it, so that neither the draw nor the KL overflows in half precision.
        Beyond a bound the gradient is zero: nothing pushes such a dimension further out, and only
        the layers below can bring it back. Training stays far inside.
        """
        mean, logvar = _at_least_single(mean), _at_least_single(logvar)
        return cls(mean, logvar.clamp(LOG_VARIANCE_MIN, LOG_VARIANCE_MAX))

    @classmethod
    def unpack(cls, encoder_out: dict[str, list[Tensor]]) -> DiagonalGaussian:
        """The posterior that `pack` put into an encoder's output, whatever else is there."""
        return cls(*(encoder_out[name][0] for name in PACKED))

    def pack(self) -> dict[str, list[Tensor]]:
        """Both tensors as fairseq's encoders give theirs: `PACKED` names them."""
        return dict(zip(PACKED, ([self.mean], [self.logvar]), strict=True))

    def map(self, function: Callable[[Tensor], Tensor]) -> DiagonalGaussian:
        """What a function that moves, casts or selects makes of either tensor."""
        return DiagonalGaussian(function(self.mean), function(self.logvar))

    @property
    def std(self) -> Tensor:
        """Standard deviation, (..., L)."""
        return torch.exp(self.logvar / 2)

    def with_noise(self, noise_std: float) -> DiagonalGaussian:
        """N(mean, (noise_std sigma)^2) of N(mean, sigma^2): z = mean + sigma e', e' that wide."""
        return DiagonalGaussian(self.mean, self.logvar + 2.0 * math.log(noise_std))

    def sample(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Reparameterised draw mean + temperature * std * noise, (..., L).

        Args:
            noise: standard normal, broadcastable to (..., L).
            temperature: factor on the standard deviation; 0 gives the mean.
        """
        return self.mean + temperature * self.std * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of z in every dimension, (..., L), in nats."""
        deviation = (z - self.mean) * torch.exp(-self.logvar / 2)
        return -0.5 * (deviation * deviation + self.logvar + math.log(2.0 * math.pi))


def _at_least_single(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class Latents(NamedTuple):
    """The posteriors of N sentences, on the CPU.

    Attributes:
        mean: (N, P, L); 0 where there is no latent.
        logvar: (N, P, L), natural logarithm of the variance of z as it is drawn, whatever the
            noise; 0 where there is no latent.
        mask: (N, P), true where there is a latent, false where a shorter sentence is padded. The
            start token and the end of sentence have latents as the words between them have.
    """

    mean: Tensor
    logvar: Tensor
    mask: Tensor


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
