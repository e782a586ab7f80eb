"""Interpolation between two points of latent space: pure functions of tensors.

Shape legend: P, Q latents of two sentences, M the larger of both, L latent width, S steps.
"""

import torch
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.latent.choices import INTERPOLATION_METHODS

# below this sine of the angle between two vectors, the great circle is taken as the straight line
_PARALLEL = 1e-4


def pad_latents(latents_PL: Tensor, length: int) -> Tensor:
    """A sentence's latents made `length` long by repeating the last: (M, L).

    The last latent is the end of sentence's. Zeros, the prior's mean, would be the other choice;
    but no position of a sentence is decoded from them in training, while more of the end of
    sentence says nothing new (docs/latent-space.md has measured what either changes).

    Raises:
        ValueError: if there are more than `length` latents, or none.
    """
    if not 0 < len(latents_PL) <= length:
        raise ValueError(f"{len(latents_PL)} latents can't be padded to {length}")
    return torch.cat((latents_PL, latents_PL[-1:].expand(length - len(latents_PL), -1)))


def interpolate(
    first_PL: Tensor, second_QL: Tensor, steps: int, method: str = "linear"
) -> list[Tensor]:
    """Latent sequences from one sentence to another, S tensors of (M, L), both ends included.

    Position by position, as in the VAT paper's section 5 ("token-wise linear interpolation between
    the two latent representations padded to the same length"). The ends are the sentences' own
    latents, without padding, so that they are decoded as ever.

    Args:
        steps: S, at least 2.
        method: ``linear``, (1 - t) a + t b; or ``spherical``, along the great circle: the latents
            of a Gaussian lie near a sphere, and the middle of a straight line lies inside it
            (White 2016, "Sampling Generative Networks").

    Raises:
        VATError: for fewer than 2 steps or another method.
    """
    if steps < 2:
        raise VATError(f"{steps} steps: give at least 2, the two sentences themselves")
    if method not in INTERPOLATION_METHODS:
        raise VATError(f"method {method!r}: must be {' or '.join(INTERPOLATION_METHODS)}")
    length = max(len(first_PL), len(second_QL))
    a_ML, b_ML = pad_latents(first_PL, length), pad_latents(second_QL, length)
    between = linear if method == "linear" else spherical
    inner = [between(a_ML, b_ML, step / (steps - 1)) for step in range(1, steps - 1)]
    return [first_PL, *inner, second_QL]


def linear(a: Tensor, b: Tensor, t: float) -> Tensor:
    """(1 - t) a + t b."""
    return torch.lerp(a, b, t)


def spherical(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Between a and b, (..., L), along the great circle of their directions.

    The direction turns evenly from a's to b's, and the length goes evenly from a's to b's.
    Where the circle isn't defined (a vector is 0, or both point the same or opposite ways), the
    straight line.
    """
    dtype = a.dtype
    a, b = a.double(), b.double()  # near opposite directions single precision loses the angle
    length_a, length_b = (x.norm(dim=-1, keepdim=True) for x in (a, b))
    tiny = torch.finfo(a.dtype).tiny
    unit_a, unit_b = a / length_a.clamp_min(tiny), b / length_b.clamp_min(tiny)
    angle = (unit_a * unit_b).sum(dim=-1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    defined = (sine > _PARALLEL) & (length_a > 0) & (length_b > 0)
    safe = torch.where(defined, sine, torch.ones_like(sine))
    direction = (((1 - t) * angle).sin() * unit_a + (t * angle).sin() * unit_b) / safe
    between = torch.lerp(length_a, length_b, t) * direction
    return torch.where(defined, between, linear(a, b, t)).to(dtype)
