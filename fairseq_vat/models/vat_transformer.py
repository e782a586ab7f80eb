"""Every architecture of the plugin: an encoder, latents of one level, a decoder.

The Variational Auto-Transformer has a latent for every source token and Transformers on both sides;
the VAE-Transformer has one latent for the sentence; other encoders and decoders make the baselines,
and no encoder makes a language model.

Shape legend: T source positions, S target positions, P latents of a sentence, B sentences,
C model width, L latent width, V vocabulary, N tokens.
"""

import argparse
from dataclasses import fields
from typing import Any

import torch
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.models import BaseFairseqModel, register_model
from fairseq.models.transformer import (
    TransformerConfig,
    TransformerEncoderBase,
    TransformerModelBase,
)
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.latent.likelihood import token_likelihood, token_nll
from fairseq_vat.latent.prior import Prior
from fairseq_vat.models import gpt2_weights
from fairseq_vat.models.config import RECURRENT, VATTransformerConfig, check_config, check_vectors
from fairseq_vat.models.gpt2_decoder import GPT2Decoder
from fairseq_vat.models.latent_decoder import transformer_decoder
from fairseq_vat.models.latent_encoder import EncoderOut, LatentEncoder
from fairseq_vat.models.precision import TrainingPrecision
from fairseq_vat.models.recurrent import RecurrentDecoder, RecurrentEncoder

NAME = "vat_transformer"


@register_model(NAME, dataclass=VATTransformerConfig)
class VATModel(BaseFairseqModel):
    """Encoder, Gaussian latents, and a decoder that sees the sentence through them alone.

    The latents z (P x B x L) are the memory of the decoder's cross-attention, in place of the
    encoder's output (VAT paper, figure 1; VAE-Transformer paper, figure 6), or enter a recurrent
    decoder's initial state and every step (Bowman et al. 2016).

    Args:
        cfg: fairseq's nested configuration, with the plugin's own fields beside.
        encoder: None makes a language model, which has no attribute ``encoder`` then: this is how
            fairseq's generator tells.
    """

    def __init__(self, cfg: TransformerConfig, encoder: LatentEncoder | None, decoder: Any):
        super().__init__()
        self.cfg = cfg
        if encoder is not None:
            self.encoder = encoder
        self.decoder = decoder
        self.num_updates = 0
        self.precision = TrainingPrecision(cfg.precision, cfg.emulate_bfloat16)

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
    def from_pretrained(cls, model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """A checkpoint in Python; see `fairseq_vat.hub.interface.from_pretrained`."""
        from fairseq_vat.hub.interface import from_pretrained  # late: the hub knows the models

        return from_pretrained(model_name_or_path, *args, **kwargs)

    @classmethod
    def build_model(cls, cfg: VATTransformerConfig, task: Any) -> "VATModel":
        """A new model; raises `VATError` where parts or widths don't fit each other."""
        check_config(cfg)
        nested = _nested(cfg)
        dictionary = task.source_dictionary
        encoder_embed, decoder_embed = _embeddings(nested, dictionary)
        encoder = None
        if nested.encoder_type != "none":
            body, width = _encoder(nested, dictionary, encoder_embed)
            noise = Prior(nested.prior_std) if nested.latent_noise == "prior" else None
            encoder = LatentEncoder(body, width, nested.latent_dim, nested.latent_level, noise)
        return cls(nested, encoder, _decoder(nested, dictionary, decoder_embed))

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None = None,
        prev_output_tokens: Tensor | None = None,
        latent_seed: int | None = None,
        target: Tensor | None = None,
        label_smoothing: float = 0.0,
        count_correct: bool = False,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Reconstruct sentences through their latents.

        Args:
            src_tokens: (B, T).
            prev_output_tokens: (B, S), for teacher forcing; None: `src_tokens` (``--lm-path``).
            latent_seed: seed of the latents' noise; None decodes from the mean.
            target: (B, S); if given, the likelihood is taken here and no logits are returned.
                The output layer then works inside this forward, where every kind of
                distributed wrapper sees it, and the (B S x V) logits never need to exist.
            count_correct: also count correct tokens, with `target` and gradients off.

        Returns:
            logits (B, S, V), or None with `target`; and a dictionary with ``posterior``
            (of z, a `DiagonalGaussian`, P x B x L), ``latent_padding_mask`` (B, P), both None for
            a language model, ``prior_noise`` (the encoder's), and, with `target`, ``likelihood``
            (a `TokenLikelihood`).
        """
        encoder_out, extra = None, {"posterior": None, "latent_padding_mask": None}
        previous_BS = src_tokens if prev_output_tokens is None else prev_output_tokens
        with self.precision.forward(self):
            if self.has_latents:
                encoder_out = self.encoder(src_tokens, src_lengths=src_lengths)
                extra["posterior"] = self.encoder.posterior(encoder_out)
                extra["latent_padding_mask"] = encoder_out["encoder_padding_mask"][0]
                extra["prior_noise"] = self.encoder.prior_noise
                if latent_seed is not None:
                    encoder_out = self.encoder.draw(encoder_out, latent_seed)
            x, decoder_extra = self.decoder(
                self._with_dropped_words(previous_BS),
                encoder_out=encoder_out,
                features_only=target is not None,
                # nobody looks at attention weights beside a likelihood; -1 is no layer
                alignment_layer=None if target is None else -1,
            )
            extra.update(decoder_extra)
            if target is None:
                return x, extra
            scored = x.flatten(0, 1), *self._scoring(target)
            extra["likelihood"] = token_likelihood(*scored, label_smoothing, count_correct)
        return None, extra

    @torch.no_grad()
    def sentence_nll(
        self, encoder_out: EncoderOut | None, prev_output_tokens: Tensor, target: Tensor
    ) -> Tensor:
        """-log p(x | z) of each sentence in nats, (B,) in double precision.

        Args:
            encoder_out: from `LatentEncoder`, at the mean or drawn; None for a language model.
            prev_output_tokens: (B, S).
            target: (B, S); padding counts nothing.
        """
        x_BSC, _ = self.decoder(
            prev_output_tokens, encoder_out=encoder_out, features_only=True, alignment_layer=-1
        )
        nll_N = token_nll(x_BSC.flatten(0, 1), *self._scoring(target))
        return nll_N.view(target.shape).double().sum(dim=1)

    @property
    def has_latents(self) -> bool:
        """False for a language model."""
        return hasattr(self, "encoder")

    def _scoring(self, target: Tensor) -> tuple[Tensor, Tensor, int]:
        """Output weight (V, C), targets (N,) as its rows, and the row number of padding."""
        if hasattr(self.decoder, "scoring"):
            return self.decoder.scoring(target.flatten())
        weight_VC = self.decoder.output_projection.weight
        return weight_VC, target.flatten(), self.decoder.dictionary.pad()

    def _with_dropped_words(self, tokens_BS: Tensor) -> Tensor:
        """Word dropout (Bowman et al. 2016, section 3): <unk> for some, never for the first."""
        if not (self.training and self.cfg.word_dropout > 0):
            return tokens_BS
        dictionary = self.decoder.dictionary
        dropped_BS = torch.rand(tokens_BS.shape, device=tokens_BS.device) < self.cfg.word_dropout
        dropped_BS &= tokens_BS.ne(dictionary.pad())
        dropped_BS[:, 0] = False
        return tokens_BS.masked_fill(dropped_BS, dictionary.unk())

    def configuration(self) -> dict[str, str]:
        """What a checkpoint's configuration must hold beside the flags that were given."""
        config = getattr(self.decoder, "config_json", None)
        return {} if config is None else {"gpt2_config": config}

    def max_positions(self) -> tuple[int, int]:
        """Longest source and target."""
        source = self.encoder.max_positions() if self.has_latents else self.cfg.max_source_positions
        return source, self.decoder.max_positions()

    def max_decoder_positions(self) -> int:
        return self.decoder.max_positions()

    def set_num_updates(self, num_updates: int) -> None:
        """Called by the trainer at every update, and when a checkpoint is loaded."""
        super().set_num_updates(num_updates)
        self.num_updates = num_updates

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """As fairseq's, with a clear line where the checkpoint is of another model."""
        entries = len(self.decoder.dictionary)
        for side in ("encoder.body", "decoder"):
            table = state_dict.get(f"{side}.embed_tokens.weight")
            if table is not None and len(table) != entries:
                raise VATError(
                    f"the checkpoint was trained with a dictionary of {len(table)} entries but "
                    f"the data directory's dict.txt has {entries}: give the data directory that "
                    "the model was trained on, or one with its dict.txt"
                )
        try:
            return super().load_state_dict(state_dict, *args, **kwargs)
        except RuntimeError as error:
            differences = " ".join(str(error).split()).partition(": ")[2]
            raise VATError(
                "the checkpoint holds another architecture than the one asked for, give the "
                f"--arch and the model flags it was trained with ({differences[:150]} ...)"
            ) from None


def _nested(cfg: Any) -> TransformerConfig:
    """fairseq's nested configuration with all of our flat one's fields beside."""
    names = [f.name for f in fields(VATTransformerConfig) if not f.name.startswith("_")]
    flat = argparse.Namespace(**{name: getattr(cfg, name) for name in names})
    # else TransformerConfig's own 512 leaks into the decoder's input and output
    flat.decoder_input_dim = flat.decoder_output_dim = flat.decoder_embed_dim
    # what fairseq's build_model would do
    flat.share_decoder_input_output_embed |= flat.share_all_embeddings
    flat.checkpoint_activations |= flat.offload_activations
    nested = TransformerConfig.from_namespace(flat)
    sides = {"encoder": nested.encoder, "decoder": nested.decoder}
    pruned = {n: s for n, s in sides.items() if getattr(cfg, f"{n}_type") == "transformer"}
    for name, side in pruned.items():
        if side.layers_to_keep:
            side.layers = len(side.layers_to_keep.split(","))
        elif any(other.layers_to_keep for other in pruned.values()):
            every = ",".join(map(str, range(side.layers)))  # all would be dropped by fairseq
            raise VATError(f"--{name}-layers-to-keep is needed beside the other: {every} keeps all")
    return nested


def _embeddings(cfg: Any, dictionary: Any) -> tuple[Any, Any]:
    def table(side: Any) -> Any:
        check_vectors(side.embed_path, dictionary)
        return TransformerModelBase.build_embedding(
            cfg, dictionary, side.embed_dim, side.embed_path
        )

    has_encoder, has_decoder = cfg.encoder_type != "none", cfg.decoder_type != "gpt2"
    encoder = table(cfg.encoder) if has_encoder else None
    if has_encoder and has_decoder and cfg.share_all_embeddings:
        if cfg.decoder.embed_path not in (None, cfg.encoder.embed_path):
            raise VATError("--decoder-embed-path: shared embeddings come from one file")
        return encoder, encoder
    return encoder, table(cfg.decoder) if has_decoder else None


def _encoder(cfg: Any, dictionary: Any, embed_tokens: Any) -> tuple[Any, int]:
    """The encoder and the width of its output."""
    if cfg.encoder_type == "transformer":
        return TransformerEncoderBase(cfg, dictionary, embed_tokens), cfg.encoder.embed_dim
    body = RecurrentEncoder(
        cfg.encoder_type,
        dictionary,
        embed_tokens,
        cfg.encoder_hidden_size,
        cfg.encoder.layers,
        cfg.dropout,
        cfg.max_source_positions,
    )
    return body, body.output_dim


def _decoder(cfg: Any, dictionary: Any, embed_tokens: Any) -> Any:
    has_latents = cfg.encoder_type != "none"
    if cfg.decoder_type in RECURRENT:
        return RecurrentDecoder(
            cfg.decoder_type,
            dictionary,
            embed_tokens,
            cfg.decoder_hidden_size,
            cfg.decoder.layers,
            cfg.dropout,
            cfg.max_target_positions,
            latent_dim=cfg.latent_dim if has_latents else 0,
            share_embed=cfg.share_decoder_input_output_embed,
        )
    if cfg.decoder_type == "gpt2":
        names = ("dropout", "attention_dropout", "checkpoint_activations")
        training = {name: getattr(cfg, name) for name in names}
        # a checkpoint has both: it brings the weights, and only the shape is needed then
        if cfg.gpt2_config:
            gpt2 = gpt2_weights.fresh(cfg.gpt2_config, **training)
        else:
            gpt2 = gpt2_weights.pretrained(cfg.gpt2_dir, **training)
        return GPT2Decoder(dictionary, gpt2, cfg.latent_dim)
    return transformer_decoder(cfg, dictionary, embed_tokens)
