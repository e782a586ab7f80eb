"""The latents' prior N(0, s^2 I), and what the noise of `--latent-noise` makes of it.

z = mean + sigma e' with unit noise e' ~ N(0, I) (VAT paper, section 2.1), or with e' of the prior
itself, N(0, s^2 I) (below equation (6)); docs/measures.md has what follows. Wherever a noise is
asked for, it is the `Prior` that e' is drawn from, or None for unit noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.latent.gaussian import DiagonalGaussian

# outside, squares and quotients of single precision come to 0 or to infinity
LEAST_STD, LARGEST_STD = 1e-12, 1e12


def check_temperature(temperature: float, flag: str = "--temperature") -> None:
    """Raise `VATError` unless a factor on a standard deviation is above 0 and can be computed with.

    Args:
        temperature: the factor.
        flag: its name.
    """
    if not temperature > 0:
        raise VATError(f"{flag} must be above 0, not {temperature}")
    if temperature > LARGEST_STD:
        raise VATError(f"{flag} must be at most {LARGEST_STD:g}, not {temperature:g}")


@dataclass(frozen=True)
class Prior:
    """N(0, std^2 I).

    Attributes:
        std: s of ``--prior-std``, the *standard deviation*.

    Raises:
        VATError: unless `std` is from `LEAST_STD` to `LARGEST_STD`.
    """

    std: float

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise VATError(f"--prior-std must be a standard deviation above 0, not {self.std}")
        if not LEAST_STD <= self.std <= LARGEST_STD:
            raise VATError(
                f"--prior-std must be from {LEAST_STD:g} to {LARGEST_STD:g}, not {self.std:g}"
            )

    def of_latents(self, noise: Prior | None) -> Prior:
        """z's own prior N(0, p^2 I): p = s with unit noise, else s^2.

        There `penalty` is 0 exactly where z's distribution is this prior, and for s <= 1

            penalty <= KL(q || N(0, p^2 I)) <= penalty / s^2

        since the two differ in the means' term alone: mean^2 / 2s^2 against mean^2 / 2s^4.
        """
        if noise is None:
            return self
        std = noise.std * self.std
        if not LEAST_STD <= std <= LARGEST_STD:
            raise VATError(
                f"--prior-std must be from {math.sqrt(LEAST_STD):g} to {math.sqrt(LARGEST_STD):g} "
                f"with --latent-noise prior, not {self.std:g}"
            )
        return Prior(std)

    def kl(self, posterior: DiagonalGaussian) -> Tensor:
        """KL(q || N(0, std^2 I)) of every dimension, (..., L), in nats.

        With unit noise this is the VAT paper's equation (6), with its sign turned: the sum over
        the last dimension is the KL of one latent, and never negative.
        """
        log_ratio = posterior.logvar - 2.0 * math.log(self.std)
        scaled_mean = posterior.mean / self.std
        # expm1 keeps the digits that exp(x) - 1 would lose near the prior, where KL is tiny
        return 0.5 * (scaled_mean * scaled_mean + torch.expm1(log_ratio) - log_ratio)

    def penalty(self, posterior: DiagonalGaussian, noise: Prior | None) -> Tensor:
        """VAT paper, equation (6), of every dimension, (..., L), in nats: what training adds.

        1/2 [(mean^2 + sigma^2) / s^2 - 1 - log sigma^2 + log s^2] with the sigma of the network's
        output, of which the posterior of z has the noise's deviation times as much. It is a KL of z
        only with unit noise; else z isn't N(mean, sigma^2), and this is neither a KL to a Gaussian
        prior nor a bound on one (docs/measures.md). It is 0 where z is of the prior that
        `of_latents` gives, and nowhere else.
        """
        return self.kl(posterior if noise is None else posterior.with_noise(1.0 / noise.std))

    def like(self, x: Tensor) -> DiagonalGaussian:
        """This prior as a distribution of tensors of x's shape, type and device."""
        return DiagonalGaussian(torch.zeros_like(x), torch.full_like(x, 2.0 * math.log(self.std)))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of z in every dimension, (..., L), in nats."""
        return self.like(z).log_prob(z)

    def sample(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """The draw that belongs to standard normal noise, (..., L): temperature * std * noise."""
        return temperature * self.std * noise
