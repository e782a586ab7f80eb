"""Sums and differences of latents.

Shape legend: N sentences, P latents of a sentence (its source positions at token level, 1 at
sentence level), L latent width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.hub.decoding import LatentDecoding


class LatentArithmetic(LatentDecoding):
    """Sums and differences of latents, for `VATHubInterface`."""

    def arithmetic(
        self,
        a: Sequence[str],
        b: Sequence[str],
        c: Sequence[str],
        pooling: str = "mean",
        beam: int = 5,
        **generation: Any,
    ) -> list[str]:
        """a - b + c, decoded: what b is to a, to c.

        With one latent a sentence it is z(a) - z(b) + z(c). With a latent for every token, a's
        latents are each shifted by the difference of the pooled latents of c and b: a keeps its
        length and its words' order.

        Args:
            pooling: ``mean``, ``sum`` or ``start``, of b's and c's latents.

        Raises:
            VATError: for another pooling, and ``start`` of a model without start tokens.
            ValueError: for lists of different lengths.
        """
        if not len(a) == len(b) == len(c):
            raise ValueError(f"{len(a)}, {len(b)} and {len(c)} sentences: as many of each, please")
        shift_NL = torch.from_numpy(self.embed(c, pooling) - self.embed(b, pooling))
        pairs = zip(self.posteriors(a), shift_NL, strict=True)
        return self.decode([x.mean + shift for x, shift in pairs], beam, **generation)

    def direction(
        self, source: Sequence[str], target: Sequence[str], pooling: str = "mean"
    ) -> np.ndarray:
        """From sentences with one attribute to sentences with another, (L,).

        The mean of the target's pooled latents minus the mean of the source's, each sentence
        counting the same, in double precision: an attribute vector (Larsen et al. 2016,
        Autoencoding beyond pixels).

        Args:
            pooling: ``mean``, ``sum`` or ``start``, of a sentence's latents.

        Raises:
            VATError: for no sentences, another pooling, and ``start`` of a model without start
                tokens.
        """
        if not len(source) or not len(target):
            raise VATError("a direction needs a sentence of each attribute at least")
        means = [self.embed(lines, pooling).mean(0, dtype=float) for lines in (source, target)]
        return means[1] - means[0]

    def shift(
        self,
        sentences: Sequence[str],
        direction: np.ndarray | Tensor,
        scale: float = 1.0,
        beam: int = 5,
        **generation: Any,
    ) -> list[str]:
        """Sentences moved along a direction, decoded.

        ``scale * direction`` is added to every latent of a sentence: with a latent for every token
        to each of them, so that their mean moves by it and the sentence keeps its length and its
        words' order.

        Args:
            scale: its factor; 0 reconstructs, below 0 goes the other way.

        Raises:
            VATError: for a direction of another shape, or with values that aren't finite.
        """
        step_L = scale * torch.as_tensor(direction).float()
        width = self.model.encoder.latent_dim
        if step_L.shape != (width,):
            raise VATError(
                f"a direction of shape {tuple(step_L.shape)}: the model needs ({width},)"
            )
        return self.decode(
            [x.mean + step_L for x in self.posteriors(sentences)], beam, **generation
        )
