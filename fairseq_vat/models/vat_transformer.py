"""The Variational Auto-Transformer: fairseq's Transformer with a latent for every source token.

Shape legend: T source positions, S target positions, B sentences, C model width, L latent width,
V vocabulary.
"""

import argparse
import copy
from argparse import Namespace
from dataclasses import dataclass, field, fields
from typing import Any, Optional

from fairseq import utils
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.models import register_model, register_model_architecture
from fairseq.models.transformer import (
    TransformerConfig,
    TransformerDecoderBase,
    TransformerEncoderBase,
    TransformerModelBase,
)
from omegaconf import II
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.likelihood import token_likelihood
from fairseq_vat.models.latent_encoder import LatentEncoder


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class VATTransformerConfig(FairseqDataclass):
    """Flat, with fairseq's flag names: nested Transformer configs can't be set from flags.

    Defaults are the VAT paper's (section 4 and appendix A).
    """

    activation_fn: ChoiceEnum(utils.get_available_activation_fns()) = _option(
        "relu", "activation function to use"
    )
    dropout: float = _option(0.1, "dropout probability")
    attention_dropout: float = _option(0.0, "dropout probability for attention weights")
    activation_dropout: float = _option(0.0, "dropout probability after activation in FFN")
    latent_dim: int = _option(128, "width of a token's latent, apart from the model's width")
    encoder_embed_path: Optional[str] = _option(None, "path to pre-trained encoder embedding")
    encoder_embed_dim: int = _option(128, "encoder embedding dimension")
    encoder_ffn_embed_dim: int = _option(512, "encoder embedding dimension for FFN")
    encoder_layers: int = _option(4, "number of encoder layers")
    encoder_attention_heads: int = _option(8, "number of encoder attention heads")
    encoder_normalize_before: bool = _option(False, "layernorm before each encoder block")
    encoder_learned_pos: bool = _option(False, "learned positional embeddings in the encoder")
    encoder_layerdrop: float = _option(0.0, "LayerDrop probability for the encoder")
    encoder_layers_to_keep: Optional[str] = _option(
        None, "which encoder layers to keep when pruning, as a comma-separated list"
    )
    decoder_embed_path: Optional[str] = _option(None, "path to pre-trained decoder embedding")
    decoder_embed_dim: int = _option(128, "decoder embedding dimension")
    decoder_ffn_embed_dim: int = _option(512, "decoder embedding dimension for FFN")
    decoder_layers: int = _option(4, "number of decoder layers")
    decoder_attention_heads: int = _option(8, "number of decoder attention heads")
    decoder_normalize_before: bool = _option(False, "layernorm before each decoder block")
    decoder_learned_pos: bool = _option(False, "learned positional embeddings in the decoder")
    decoder_layerdrop: float = _option(0.0, "LayerDrop probability for the decoder")
    decoder_layers_to_keep: Optional[str] = _option(
        None, "which decoder layers to keep when pruning, as a comma-separated list"
    )
    no_decoder_final_norm: bool = _option(
        False, "no layernorm after the last decoder block (with --decoder-normalize-before)"
    )
    share_all_embeddings: bool = _option(
        True, "share encoder, decoder and output embeddings (--no-share-all-embeddings: don't)"
    )
    share_decoder_input_output_embed: bool = _option(
        False, "share decoder input and output embeddings (with --no-share-all-embeddings)"
    )
    no_token_positional_embeddings: bool = _option(False, "no positional embeddings")
    layernorm_embedding: bool = _option(False, "add layernorm to embedding")
    no_scale_embedding: bool = _option(False, "don't scale embeddings")
    cross_self_attention: bool = _option(
        False, "decoder attends to itself and to the latents at once; needs equal widths"
    )
    checkpoint_activations: bool = _option(
        False, "recompute activations in the backward pass to save memory"
    )
    offload_activations: bool = _option(
        False, "checkpoint activations and keep them on the CPU; sets --checkpoint-activations"
    )
    quant_noise_pq: float = _option(0.0, "iterative PQ quantization noise at training time")
    quant_noise_pq_block_size: int = _option(8, "block size of quantization noise")
    quant_noise_scalar: float = _option(0.0, "scalar quantization noise at training time")
    min_params_to_wrap: int = _option(
        int(1e8), "minimum parameters of a layer to be wrapped by --ddp-backend=fully_sharded"
    )
    max_source_positions: int = II("task.max_source_positions")
    max_target_positions: int = II("task.max_target_positions")
    # kept with the model, so that generation reads sentences as training did
    start_token: bool = II("task.start_token")


@register_model("vat_transformer", dataclass=VATTransformerConfig)
class VATModel(TransformerModelBase):
    """Transformer encoder, a Gaussian latent for every source position, Transformer decoder.

    The latents z (T x B x L) are the memory of the decoder's cross-attention, in place of the
    encoder's output (VAT paper, figure 1).
    """

    def __init__(self, cfg: TransformerConfig, encoder: LatentEncoder, decoder: Any):
        super().__init__(cfg, encoder, decoder)
        self.num_updates = 0

    @classmethod
    def add_args(cls, parser: argparse.ArgumentParser) -> None:
        """Flags without defaults, so that ``--arch`` presets apply and flags win over them."""
        # ahead of the generated flags: a flag that is true by default needs its --no- form
        parser.add_argument(
            "--share-all-embeddings",
            action=argparse.BooleanOptionalAction,
            default=argparse.SUPPRESS,
            help="share encoder, decoder and output embeddings (default)",
        )
        gen_parser_from_dataclass(parser, VATTransformerConfig(), delete_default=True)

    @classmethod
    def build_model(cls, cfg: VATTransformerConfig, task: Any) -> "VATModel":
        """A new model; raises `VATError` where widths don't fit each other."""
        _check_widths(cfg)
        names = [f.name for f in fields(VATTransformerConfig) if not f.name.startswith("_")]
        flat = Namespace(**{name: getattr(cfg, name) for name in names})
        # else TransformerConfig's own 512 leaks into the decoder's input and output
        flat.decoder_input_dim = flat.decoder_output_dim = flat.decoder_embed_dim
        return super().build_model(TransformerConfig.from_namespace(flat), task)

    @classmethod
    def build_encoder(cls, cfg: TransformerConfig, src_dict: Any, embed_tokens: Any) -> Any:
        body = TransformerEncoderBase(cfg, src_dict, embed_tokens)
        return LatentEncoder(body, cfg.encoder.embed_dim, cfg.latent_dim)

    @classmethod
    def build_decoder(cls, cfg: TransformerConfig, tgt_dict: Any, embed_tokens: Any) -> Any:
        # cross-attention takes the width of its keys and values from the encoder's: here the
        # latents', so no layer is needed between latent and decoder
        cfg = copy.deepcopy(cfg)
        cfg.encoder.embed_dim = cfg.latent_dim
        return TransformerDecoderBase(cfg, tgt_dict, embed_tokens)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None,
        prev_output_tokens: Tensor,
        latent_seed: int | None = None,
        target: Tensor | None = None,
        label_smoothing: float = 0.0,
        count_correct: bool = False,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Reconstruct sentences through their latents.

        Args:
            src_tokens: (B, T).
            src_lengths: (B,), as fairseq passes it.
            prev_output_tokens: (B, S), for teacher forcing.
            latent_seed: seed of the latents' noise; None decodes from the mean.
            target: (B, S); if given, the likelihood is taken here and no logits are returned.
                The output layer then works inside this forward, where every kind of
                distributed wrapper sees it, and the (B S x V) logits never need to exist.
            label_smoothing: epsilon, with `target`.
            count_correct: also count correct tokens, with `target` and gradients off.

        Returns:
            logits (B, S, V), or None with `target`; and a dictionary with ``posterior``
            (a `DiagonalGaussian`, T x B x L), ``latent_padding_mask`` (B, T) and, with `target`,
            ``likelihood`` (a `TokenLikelihood`).
        """
        encoder_out = self.encoder(src_tokens, src_lengths=src_lengths)
        extra = {
            "posterior": self.encoder.posterior(encoder_out),
            "latent_padding_mask": encoder_out["encoder_padding_mask"][0],
        }
        if latent_seed is not None:
            encoder_out = self.encoder.draw(encoder_out, latent_seed)
        x, decoder_extra = self.decoder(
            prev_output_tokens,
            encoder_out=encoder_out,
            features_only=target is not None,
            # nobody looks at attention weights beside a likelihood; -1 is no layer
            alignment_layer=None if target is None else -1,
        )
        extra.update(decoder_extra)
        if target is None:
            return x, extra
        extra["likelihood"] = token_likelihood(
            x.flatten(0, 1),
            self.decoder.output_projection.weight,
            target.flatten(),
            self.decoder.padding_idx,
            label_smoothing,
            count_correct,
        )
        return None, extra

    def set_num_updates(self, num_updates: int) -> None:
        """Called by the trainer at every update, and when a checkpoint is loaded."""
        super().set_num_updates(num_updates)
        self.num_updates = num_updates

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """As fairseq's, with a clear line where the dictionary isn't the checkpoint's."""
        key = "encoder.body.embed_tokens.weight"
        if key in state_dict and len(state_dict[key]) != len(self.encoder.dictionary):
            raise VATError(
                f"the checkpoint was trained with a dictionary of {len(state_dict[key])} entries "
                f"but the data directory's dict.txt has {len(self.encoder.dictionary)}: give the "
                "data directory that the model was trained on, or one with its dict.txt"
            )
        return super().load_state_dict(state_dict, *args, **kwargs)


_COUNTS = ("embed_dim", "ffn_embed_dim", "layers", "attention_heads")


def _check_widths(cfg: VATTransformerConfig) -> None:
    sides = [f"{side}_{what}" for side in ("encoder", "decoder") for what in _COUNTS]
    for flag in ("latent_dim", *sides):
        if getattr(cfg, flag) < 1:
            name = flag.replace("_", "-")
            raise VATError(f"--{name} must be at least 1, not {getattr(cfg, flag)}")
    for side in ("encoder", "decoder"):
        width, heads = getattr(cfg, f"{side}_embed_dim"), getattr(cfg, f"{side}_attention_heads")
        if width % heads:
            raise VATError(
                f"--{side}-embed-dim {width} can't be divided by --{side}-attention-heads {heads}"
            )
    if cfg.cross_self_attention and cfg.latent_dim != cfg.decoder_embed_dim:
        raise VATError(
            f"--latent-dim {cfg.latent_dim} doesn't fit: --cross-self-attention needs latents as "
            f"wide as --decoder-embed-dim {cfg.decoder_embed_dim}"
        )
    if cfg.share_all_embeddings and cfg.encoder_embed_dim != cfg.decoder_embed_dim:
        raise VATError(
            f"--encoder-embed-dim {cfg.encoder_embed_dim} and --decoder-embed-dim "
            f"{cfg.decoder_embed_dim} differ, so they can't share embeddings: make them equal, or "
            "give --no-share-all-embeddings"
        )


# Presets: what differs from the configuration's defaults, which are `vat_transformer` itself.
# configs/model/*.yaml holds the same for fairseq-hydra-train, which knows no architectures; a
# test keeps the two equal.
PRESETS: dict[str, dict[str, Any]] = {
    "vat_transformer_tiny": {
        "latent_dim": 16,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 64,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_embed_dim": 32,
        "decoder_ffn_embed_dim": 64,
        "decoder_layers": 2,
        "decoder_attention_heads": 2,
    },
    "vat_transformer_base": {
        "latent_dim": 512,
        "encoder_embed_dim": 512,
        "encoder_ffn_embed_dim": 2048,
        "encoder_layers": 6,
        "decoder_embed_dim": 512,
        "decoder_ffn_embed_dim": 2048,
        "decoder_layers": 6,
    },
}


def _register_preset(name: str, values: dict[str, Any]) -> None:
    @register_model_architecture("vat_transformer", name)
    def architecture(args: Namespace) -> None:
        for key, value in values.items():
            if not hasattr(args, key):
                setattr(args, key, value)


for _name, _values in PRESETS.items():
    _register_preset(_name, _values)
