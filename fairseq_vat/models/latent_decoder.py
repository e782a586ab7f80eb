"""fairseq's Transformer decoder over latents, with attention to them or without.

Shape legend: P latents of a sentence, S target positions, B sentences, L latent width,
C the decoder's width.
"""

import copy
from typing import Any

from fairseq.models.transformer import TransformerDecoderBase
from torch import Tensor, nn


def transformer_decoder(cfg: Any, dictionary: Any, embed_tokens: Any) -> TransformerDecoderBase:
    """A decoder whose cross-attention, or what stands in its place, is as wide as the latents."""
    has_latents = cfg.encoder_type != "none"
    # cross-attention takes the width of its keys and values from the encoder's: here the
    # latents', so no layer is needed between latent and decoder
    cfg = copy.deepcopy(cfg)
    cfg.encoder.embed_dim = cfg.latent_dim
    decoder = TransformerDecoderBase(cfg, dictionary, embed_tokens, no_encoder_attn=not has_latents)
    if has_latents and cfg.no_latent_attention:
        for layer in decoder.layers.children():  # iteration would leave out what LayerDrop drops
            layer.encoder_attn = LatentAddition(cfg.latent_dim, cfg.decoder.embed_dim)
    return decoder


class LatentAddition(nn.Module):
    """A linear layer of a sentence's one latent, in the place of a layer's cross-attention.

    A softmax over one key is always 1, so attention to one latent is out_proj(v_proj(z)) at every
    target position: a linear map of z, whatever the query. This is that map, in one matrix.
    """

    def __init__(self, latent_dim: int, width: int):
        super().__init__()
        self.linear = nn.Linear(latent_dim, width)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, query: Tensor, key: Tensor, **unused: Any) -> tuple[Tensor, None]:
        """As fairseq's attention: (S, B, C) of queries and (1, B, L) of latents to (S, B, C)."""
        return self.linear(key).expand_as(query), None
