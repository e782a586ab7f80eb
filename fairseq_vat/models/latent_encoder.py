"""From an encoder's output to latents: the part that every variational architecture shares.

Shape legend: T source positions, P latents of a sentence (T at token level, 1 at sentence level),
B sentences, C model width, L latent width, K draws.
"""

import torch
from fairseq.models import FairseqEncoder
from fairseq.models.transformer import TransformerEncoderBase
from torch import Tensor, nn

from fairseq_vat.latent import noise
from fairseq_vat.latent.gaussian import PACKED, DiagonalGaussian
from fairseq_vat.latent.prior import Prior

EncoderOut = dict[str, list[Tensor]]

# where a model has its latents: one for every source token, or one for the sentence
LATENT_LEVELS = ("token", "sentence")


class GaussianHead(nn.Module):
    """Two parallel linear layers: mean and log-variance (VAT paper, section 3).

    Args:
        noise_std: standard deviation of the noise that sigma is multiplied with.
    """

    def __init__(self, input_dim: int, latent_dim: int, noise_std: float = 1.0):
        super().__init__()
        self.noise_std = noise_std
        self.mean = nn.Linear(input_dim, latent_dim)
        self.logvar = nn.Linear(input_dim, latent_dim)
        for layer in (self.mean, self.logvar):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> DiagonalGaussian:
        """(..., C) to the distribution of z over (..., L), in single precision under autocast."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.mean.weight.dtype)
            outputs = DiagonalGaussian.from_outputs(self.mean(x), self.logvar(x))
        return outputs if self.noise_std == 1.0 else outputs.with_noise(self.noise_std)


class LatentEncoder(FairseqEncoder):
    """A fairseq encoder followed by a `GaussianHead`; its output is the decoder's memory.

    `forward` leaves the latents at their mean; `draw` is the one place where they are drawn.
    At token level every source position has a latent (VAT paper, figure 1). At sentence level
    there is one: of the start token's output (VAE-Transformer paper, figure 6), or of the
    ``sentence_out`` that a recurrent body gives.

    Args:
        body: any encoder that returns fairseq's dictionary with ``encoder_out`` (T x B x C) and
            ``encoder_padding_mask`` (B x T), and perhaps ``sentence_out`` (B x C).
        prior_noise: the prior that noise is drawn from (``--latent-noise prior``); None for unit
            noise.
    """

    def __init__(
        self,
        body: FairseqEncoder,
        input_dim: int,
        latent_dim: int,
        latent_level: str = "token",
        prior_noise: Prior | None = None,
    ):
        super().__init__(body.dictionary)
        assert latent_level in LATENT_LEVELS
        self.body = body
        self.prior_noise = prior_noise
        self.head = GaussianHead(input_dim, latent_dim, self.noise_std)
        self.latent_dim = latent_dim
        self.latent_level = latent_level

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise e' in z = mean + sigma e'."""
        return 1.0 if self.prior_noise is None else self.prior_noise.std

    def forward(self, src_tokens: Tensor, src_lengths: Tensor | None = None) -> EncoderOut:
        """Encode and keep every latent at its mean.

        Args:
            src_tokens: (B, T), padded on the right.
            src_lengths: (B,); not needed by a Transformer.

        Returns:
            lists of one tensor each, as fairseq's encoders do: ``encoder_out`` (P, B, L), the
            decoder's memory; ``encoder_padding_mask`` (B, P), true at padding; ``latent_mean``
            and ``latent_logvar`` (P, B, L), of z as it is drawn; ``latent_key`` (B,), the
            sentences' noise keys.
        """
        x_PBC, mask_BP = self._latent_inputs(self.body(src_tokens, src_lengths=src_lengths))
        posterior = self.head(x_PBC)
        return {
            **as_memory(posterior.mean.to(x_PBC.dtype), mask_BP),
            **posterior.pack(),
            "latent_key": [noise.sentence_keys(src_tokens, self.dictionary.pad())],
        }

    def layers_and_posterior(
        self, src_tokens: Tensor, src_lengths: Tensor | None = None
    ) -> tuple[list[Tensor], DiagonalGaussian]:
        """What every layer of the body gives, (T, B, C) each, and q(z | x), (P, B, L).

        Of a Transformer the first is the embeddings' output; a recurrent body has its output only.
        The last is what the latents are made of.
        """
        is_transformer = isinstance(self.body, TransformerEncoderBase)
        every = {"return_all_hiddens": True} if is_transformer else {}
        out = self.body(src_tokens, src_lengths=src_lengths, **every)
        # in place of the last state, which lacks the norm that ends --encoder-normalize-before
        layers = [*out.get("encoder_states", [])[:-1], out["encoder_out"][0]]
        return layers, self.head(self._latent_inputs(out)[0])

    def _latent_inputs(self, out: EncoderOut) -> tuple[Tensor, Tensor]:
        """What the latents are made of, (P, B, C), and which of it is padding, (B, P)."""
        x_TBC, mask_BT = out["encoder_out"][0], out["encoder_padding_mask"][0]
        if self.latent_level == "token":
            return x_TBC, mask_BT
        x_1BC = out["sentence_out"][0].unsqueeze(0) if "sentence_out" in out else x_TBC[:1]
        return x_1BC, torch.zeros_like(mask_BT[:, :1])

    @staticmethod
    def posterior(encoder_out: EncoderOut) -> DiagonalGaussian:
        """q(z | x), (P, B, L): the distribution that z is drawn from, whatever the noise."""
        return DiagonalGaussian.unpack(encoder_out)

    def draw(
        self,
        encoder_out: EncoderOut,
        seed: int,
        number: int = 0,
        temperature: float = 1.0,
        positions_BP: Tensor | None = None,
    ) -> EncoderOut:
        """The same sentences with latents drawn from the posterior.

        Args:
            number: number of the draw; with the seed and the sentence it fixes the noise.
            positions_BP: (B, P), true where a latent is to be drawn; the others stay at their
                mean. None draws all.
        """
        posterior = self.posterior(encoder_out)
        length, _, width = posterior.mean.shape
        noise_PBL = noise.normal(encoder_out["latent_key"][0], length, width, seed, number)
        z_PBL = posterior.sample(noise_PBL.to(posterior.mean.dtype), temperature)
        if positions_BP is not None:
            z_PBL = torch.where(positions_BP.t().unsqueeze(-1), z_PBL, posterior.mean)
        return {**encoder_out, "encoder_out": [z_PBL.to(encoder_out["encoder_out"][0].dtype)]}

    def draw_prior(
        self, encoder_out: EncoderOut, prior: Prior, seed: int, number: int = 0
    ) -> EncoderOut:
        """Latents drawn from z's own `prior` in place of the sentences' posteriors.

        The noise is that of `draw`, so that a posterior equal to the prior gives the same latents.
        """
        prior_PBL = prior.like(self.posterior(encoder_out).mean)
        return self.draw({**encoder_out, **prior_PBL.pack()}, seed, number)

    def reorder_encoder_out(self, encoder_out: EncoderOut, new_order: Tensor) -> EncoderOut:
        """Select and repeat sentences (fairseq's beam search calls this)."""
        # sentences are the second dimension of what is P x B x L and the first of the rest
        second = {"encoder_out", *PACKED}
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
    memory_PBKL = torch.stack([out["encoder_out"][0] for out in draws], dim=2)
    mask_BP = draws[0]["encoder_padding_mask"][0]
    return as_memory(memory_PBKL.flatten(1, 2), mask_BP.repeat_interleave(len(draws), dim=0))


def as_memory(latents_PBL: Tensor, mask_BP: Tensor) -> EncoderOut:
    """Latents as fairseq's decoders and generators take an encoder's output."""
    nothing = ("encoder_embedding", "encoder_states", "src_tokens", "src_lengths")
    return {
        "encoder_out": [latents_PBL],
        "encoder_padding_mask": [mask_BP],
        **{name: [] for name in nothing},
    }
