"""From an encoder's output to latents: the part that every variational architecture shares.

Shape legend: T source positions, B sentences, C model width, L latent width, K draws.
"""

from __future__ import annotations

import torch
from fairseq.models import FairseqEncoder
from torch import Tensor, nn

from fairseq_vat import noise
from fairseq_vat.latent import DiagonalGaussian

EncoderOut = dict[str, list[Tensor]]


class GaussianHead(nn.Module):
    """Two parallel linear layers: mean and log-variance (VAT paper, section 3)."""

    def __init__(self, input_dim: int, latent_dim: int):
        super().__init__()
        self.mean = nn.Linear(input_dim, latent_dim)
        self.logvar = nn.Linear(input_dim, latent_dim)
        for layer in (self.mean, self.logvar):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> DiagonalGaussian:
        """(..., C) to a Gaussian over (..., L)."""
        return DiagonalGaussian.from_outputs(self.mean(x), self.logvar(x))


class LatentEncoder(FairseqEncoder):
    """A fairseq encoder followed by a `GaussianHead`; its output is the decoder's memory.

    `forward` leaves the latents at their mean; `draw` is the one place where they are drawn.

    Args:
        body: any encoder that returns fairseq's dictionary with ``encoder_out`` (T x B x C) and
            ``encoder_padding_mask`` (B x T).
        input_dim: C.
        latent_dim: L.
    """

    def __init__(self, body: FairseqEncoder, input_dim: int, latent_dim: int):
        super().__init__(body.dictionary)
        self.body = body
        self.head = GaussianHead(input_dim, latent_dim)
        self.latent_dim = latent_dim

    def forward(self, src_tokens: Tensor, src_lengths: Tensor | None = None) -> EncoderOut:
        """Encode and keep every latent at its mean.

        Args:
            src_tokens: (B, T), padded on the right.
            src_lengths: unused; fairseq passes it.

        Returns:
            lists of one tensor each, as fairseq's encoders do: ``encoder_out`` (T, B, L), the
            decoder's memory; ``encoder_padding_mask`` (B, T), true at padding; ``latent_mean``
            and ``latent_logvar`` (T, B, L); ``latent_key`` (B,), the sentences' noise keys.
        """
        out = self.body(src_tokens, src_lengths=src_lengths)
        x_TBC = out["encoder_out"][0]
        posterior = self.head(x_TBC)
        return {
            "encoder_out": [posterior.mean.to(x_TBC.dtype)],
            "encoder_padding_mask": out["encoder_padding_mask"],
            "latent_mean": [posterior.mean],
            "latent_logvar": [posterior.logvar],
            "latent_key": [noise.sentence_keys(src_tokens, self.dictionary.pad())],
            "encoder_embedding": [],
            "encoder_states": [],
            "src_tokens": [],
            "src_lengths": [],
        }

    @staticmethod
    def posterior(encoder_out: EncoderOut) -> DiagonalGaussian:
        """q(z | x), (T, B, L)."""
        return DiagonalGaussian(encoder_out["latent_mean"][0], encoder_out["latent_logvar"][0])

    def draw(
        self, encoder_out: EncoderOut, seed: int, number: int = 0, temperature: float = 1.0
    ) -> EncoderOut:
        """The same sentences with latents drawn from the posterior.

        Args:
            encoder_out: from `forward`.
            seed: seed of the noise.
            number: number of the draw; with the seed and the sentence it fixes the noise.
            temperature: factor on the posterior's standard deviation.
        """
        posterior = self.posterior(encoder_out)
        length, _, width = posterior.mean.shape
        noise_TBL = noise.normal(encoder_out["latent_key"][0], length, width, seed, number)
        z_TBL = posterior.sample(noise_TBL.to(posterior.mean.dtype), temperature)
        return {**encoder_out, "encoder_out": [z_TBL.to(encoder_out["encoder_out"][0].dtype)]}

    def reorder_encoder_out(self, encoder_out: EncoderOut, new_order: Tensor) -> EncoderOut:
        """Select and repeat sentences (fairseq's beam search calls this)."""
        # sentences are the second dimension of what is T x B x L and the first of the rest
        second = {"encoder_out", "latent_mean", "latent_logvar"}
        return {
            name: [x.index_select(1 if name in second else 0, new_order) for x in tensors]
            for name, tensors in encoder_out.items()
        }

    def max_positions(self) -> int:
        """Longest source, start token and end of sentence included."""
        return self.body.max_positions()


def join_draws(draws: list[EncoderOut]) -> EncoderOut:
    """K encoder outputs of B sentences as one of B * K rows: a sentence's draws side by side.

    Statistics of the posterior are left behind: decoding needs the memory and its mask alone.
    """
    memory_TBKL = torch.stack([out["encoder_out"][0] for out in draws], dim=2)
    mask_BT = draws[0]["encoder_padding_mask"][0]
    return {
        "encoder_out": [memory_TBKL.flatten(1, 2)],
        "encoder_padding_mask": [mask_BT.repeat_interleave(len(draws), dim=0)],
        "encoder_embedding": [],
        "encoder_states": [],
        "src_tokens": [],
        "src_lengths": [],
    }
