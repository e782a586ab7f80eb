"""The diagonal Gaussian posterior: one implementation for every architecture and tool.

Shape legend: ``...`` any leading shape (tokens x sentences at token level), L latent width.
Nothing here knows of fairseq.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# exp(10) = 22,026 and so is the largest variance; the standard deviation is at most 148 and a
# draw at most about 1,000, all far below half precision's 65,504.  exp(-20 / 2) = 4.5e-5 is still
# above half precision's smallest subnormal, 6e-8, so a posterior can be as good as certain.
LOG_VARIANCE_MIN = -20.0
LOG_VARIANCE_MAX = 10.0


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

    def kl(self, prior_std: float = 1.0) -> Tensor:
        """KL(q || N(0, prior_std^2 I)) of every dimension, (..., L), in nats.

        With unit noise this is the VAT paper's equation (6), with its sign turned: the sum over
        the last dimension is the KL of one latent, and never negative.

        Args:
            prior_std: the prior's *standard deviation*; must be > 0.
        """
        check_prior_std(prior_std)
        log_ratio = self.logvar - 2.0 * math.log(prior_std)
        scaled_mean = self.mean / prior_std
        # expm1 keeps the digits that exp(x) - 1 would lose near the prior, where KL is tiny
        return 0.5 * (scaled_mean * scaled_mean + torch.expm1(log_ratio) - log_ratio)

    def penalty(self, prior_std: float, noise_std: float = 1.0) -> Tensor:
        """VAT paper, equation (6), of every dimension, (..., L), in nats: what training adds.

        1/2 [(mean^2 + sigma^2) / s^2 - 1 - log sigma^2 + log s^2] with the sigma of the network's
        output, of which this distribution of z has noise_std times as much. It is a KL of z only
        with unit noise; else z isn't N(mean, sigma^2), and this is neither a KL to a Gaussian
        prior nor a bound on one (docs/measures.md). It is 0 where z is N(0, p^2), p =
        `latent_prior_std`, and nowhere else.

        Args:
            prior_std: s; must be > 0.
            noise_std: standard deviation of the noise e' in z = mean + sigma e'.
        """
        return (self if noise_std == 1.0 else self.with_noise(1.0 / noise_std)).kl(prior_std)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of z in every dimension, (..., L), in nats."""
        deviation = (z - self.mean) * torch.exp(-self.logvar / 2)
        return -0.5 * (deviation * deviation + self.logvar + math.log(2.0 * math.pi))


def latent_prior_std(prior_std: float, noise_std: float) -> float:
    """Standard deviation p of z's prior N(0, p^2 I): noise_std s, so s with unit noise, else s^2.

    Here equation (6) is 0 exactly where z's distribution is the prior, and for s <= 1

        penalty <= KL(q || N(0, p^2 I)) <= penalty / s^2

    since the two differ in the means' term alone: mean^2 / 2s^2 against mean^2 / 2s^4.
    """
    check_prior_std(prior_std)
    return noise_std * prior_std


def check_prior_std(prior_std: float) -> None:
    """Raise ValueError unless the prior's standard deviation is finite and positive."""
    if not (prior_std > 0 and math.isfinite(prior_std)):
        raise ValueError(f"the prior's standard deviation must be > 0, not {prior_std}")


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
