"""Principal components: the plane in which vectors differ most.

Shape legend: N vectors, L their width, K components kept.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Projection(NamedTuple):
    """Vectors in their principal components.

    Attributes:
        coordinates: (N, K), in the vectors' unit, centred.
        explained: (K,), share of the whole variance along each, from 0 to 1; 0 where all vectors
            are equal.
    """

    coordinates: Tensor
    explained: Tensor


def project(vectors_NL: Tensor, components: int = 2) -> Projection:
    """The vectors' first principal components, by a singular value decomposition.

    A component's sign, which is arbitrary, is chosen so that its entry of largest magnitude is
    positive: the same vectors always give the same picture. Components that the vectors don't have
    (fewer vectors or a smaller width than asked for) are 0.

    Args:
        vectors_NL: at least one vector.
        components: K.
    """
    centred_NL = vectors_NL.double() - vectors_NL.double().mean(dim=0)
    _, singular_R, axes_RL = torch.linalg.svd(centred_NL, full_matrices=False)
    largest_R = axes_RL.gather(1, axes_RL.abs().argmax(dim=1, keepdim=True)).squeeze(1)
    axes_RL = axes_RL * torch.where(largest_R < 0, -1.0, 1.0).unsqueeze(1)
    coordinates_NK = vectors_NL.new_zeros(len(vectors_NL), components, dtype=torch.float64)
    explained_K = vectors_NL.new_zeros(components, dtype=torch.float64)
    kept = min(components, len(axes_RL))
    coordinates_NK[:, :kept] = centred_NL @ axes_RL[:kept].t()
    variance = singular_R.square().sum()
    if variance > 0:
        explained_K[:kept] = singular_R[:kept].square() / variance
    return Projection(coordinates_NK, explained_K)
