"""Active units (Burda et al. 2016): how many latent dimensions a posterior uses."""

import torch
from torch import Tensor

# the threshold of Burda et al. (2016), vae-lagging-encoder and Optimus, whatever the prior
THRESHOLD = 0.01


def mean_variance(count: int | Tensor, sums_L: Tensor, square_sums_L: Tensor) -> Tensor:
    """Variance over latents of the posterior mean, (L,), with n - 1 in the denominator.

    Args:
        count: number of latents; padding doesn't count.
        sums_L: sum of the means, (L,), in double precision.
    """
    count = torch.as_tensor(count, dtype=torch.float64, device=sums_L.device)
    spread_L = square_sums_L - sums_L * sums_L / count
    return spread_L.clamp(min=0) / (count - 1).clamp(min=1)


def count_active_units(
    count: int | Tensor, sums_L: Tensor, square_sums_L: Tensor, threshold: float = THRESHOLD
) -> int:
    """How many dimensions have a `mean_variance` of at least `threshold`."""
    return int((mean_variance(count, sums_L, square_sums_L) >= threshold).sum())
