"""The configuration of every architecture: which encoder, which decoder, which latent level."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq import utils
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II

from fairseq_vat.errors import VATError
from fairseq_vat.hardware import PRECISIONS
from fairseq_vat.latent.choices import LATENT_NOISES
from fairseq_vat.latent.prior import Prior
from fairseq_vat.models.latent_encoder import LATENT_LEVELS

ENCODER_TYPES = ("transformer", "lstm", "gru", "none")
DECODER_TYPES = ("transformer", "lstm", "gru", "gpt2")
# they have no attention, so they can't look at one latent a token
RECURRENT = ("lstm", "gru")


def option(default: Any, text: str) -> Any:
    """A field of a configuration, and so a flag of fairseq's commands."""
    return field(default=default, metadata={"help": text})


def check_values(cfg: Any, names: Iterable[str], holds: Callable[[Any], bool], wanted: str) -> None:
    """Raise `VATError` for a value of another kind than `wanted`, naming its flag."""
    for name in names:
        if not holds(value := getattr(cfg, name)):
            raise VATError(f"--{name.replace('_', '-')} must be {wanted}, not {value}")


@dataclass
class VATTransformerConfig(FairseqDataclass):
    """Flat, with fairseq's flag names: nested Transformer configs can't be set from flags.

    Defaults are the VAT paper's (section 4 and appendix A).  What belongs to another kind of
    encoder or decoder than the one chosen is ignored.
    """

    encoder_type: ChoiceEnum(ENCODER_TYPES) = option(
        "transformer", "what reads; none makes a language model"
    )
    decoder_type: ChoiceEnum(DECODER_TYPES) = option("transformer", "what writes")
    latent_level: ChoiceEnum(LATENT_LEVELS) = option(
        "token",
        "a latent for every source token, or one for the sentence (of the start token's output, "
        "or of a recurrent encoder's final states)",
    )
    latent_noise: ChoiceEnum(LATENT_NOISES) = option(
        "unit",
        "what sigma is multiplied with in z = mu + sigma e': unit noise, or noise of the prior's "
        "standard deviation, e' ~ N(0, s^2 I), s being --prior-std (VAT paper, below equation 6)",
    )
    word_dropout: float = option(
        0.0, "probability of replacing a token of the decoder's input by <unk> in training"
    )
    encoder_hidden_size: int = option(
        128, "width of each direction of a recurrent encoder's states"
    )
    decoder_hidden_size: int = option(128, "width of a recurrent decoder's states")
    gpt2_dir: Optional[str] = option(
        None, "directory of the pre-trained GPT-2, for --decoder-type gpt2"
    )
    gpt2_config: Optional[str] = option(
        None, "GPT-2's configuration as JSON; taken from --gpt2-dir and kept in the checkpoint"
    )
    activation_fn: ChoiceEnum(utils.get_available_activation_fns()) = option(
        "relu", "activation function to use"
    )
    dropout: float = option(0.1, "dropout probability")
    attention_dropout: float = option(0.0, "dropout probability for attention weights")
    activation_dropout: float = option(0.0, "dropout probability after activation in FFN")
    latent_dim: int = option(128, "width of a latent, apart from the model's width")
    encoder_embed_path: Optional[str] = option(None, "path to pre-trained encoder embedding")
    encoder_embed_dim: int = option(128, "encoder embedding dimension")
    encoder_ffn_embed_dim: int = option(512, "encoder embedding dimension for FFN")
    encoder_layers: int = option(4, "number of encoder layers")
    encoder_attention_heads: int = option(8, "number of encoder attention heads")
    encoder_normalize_before: bool = option(False, "layernorm before each encoder block")
    encoder_learned_pos: bool = option(False, "learned positional embeddings in the encoder")
    encoder_layerdrop: float = option(0.0, "LayerDrop probability for the encoder")
    encoder_layers_to_keep: Optional[str] = option(
        None, "which encoder layers to keep when pruning, as a comma-separated list"
    )
    decoder_embed_path: Optional[str] = option(None, "path to pre-trained decoder embedding")
    decoder_embed_dim: int = option(128, "decoder embedding dimension")
    decoder_ffn_embed_dim: int = option(512, "decoder embedding dimension for FFN")
    decoder_layers: int = option(4, "number of decoder layers")
    decoder_attention_heads: int = option(8, "number of decoder attention heads")
    decoder_normalize_before: bool = option(False, "layernorm before each decoder block")
    decoder_learned_pos: bool = option(False, "learned positional embeddings in the decoder")
    decoder_layerdrop: float = option(0.0, "LayerDrop probability for the decoder")
    decoder_layers_to_keep: Optional[str] = option(
        None, "which decoder layers to keep when pruning, as a comma-separated list"
    )
    no_decoder_final_norm: bool = option(
        False, "no layernorm after the last decoder block (with --decoder-normalize-before)"
    )
    share_all_embeddings: bool = option(
        True, "share encoder, decoder and output embeddings (--no-share-all-embeddings: don't)"
    )
    share_decoder_input_output_embed: bool = option(
        False, "share decoder input and output embeddings (with --no-share-all-embeddings)"
    )
    no_token_positional_embeddings: bool = option(False, "no positional embeddings")
    layernorm_embedding: bool = option(False, "add layernorm to embedding")
    no_scale_embedding: bool = option(False, "don't scale embeddings")
    cross_self_attention: bool = option(
        False, "decoder attends to itself and to the latents at once; needs equal widths"
    )
    no_latent_attention: bool = option(
        False,
        "add a linear map of the sentence's latent in every decoder layer in place of attention to "
        "it, which over one latent is such a map; at --latent-level sentence",
    )
    checkpoint_activations: bool = option(
        False, "recompute activations in the backward pass to save memory"
    )
    offload_activations: bool = option(
        False, "checkpoint activations and keep them on the CPU; sets --checkpoint-activations"
    )
    quant_noise_pq: float = option(0.0, "iterative PQ quantization noise at training time")
    quant_noise_pq_block_size: int = option(8, "block size of quantization noise")
    quant_noise_scalar: float = option(0.0, "scalar quantization noise at training time")
    min_params_to_wrap: int = option(
        int(1e8), "minimum parameters of a layer to be wrapped by --ddp-backend=fully_sharded"
    )
    precision: ChoiceEnum(PRECISIONS) = option(
        "float32",
        "of the matrix products in training; bfloat16 leaves parameters, optimizer, checkpoints "
        "and validation in single precision",
    )
    emulate_bfloat16: bool = option(
        False, "--precision bfloat16 also on a CPU that has no instructions for it (slow)"
    )
    max_source_positions: int = II("task.max_source_positions")
    max_target_positions: int = II("task.max_target_positions")
    # kept with the model, so that generation reads sentences as training did
    start_token: bool = II("task.start_token")
    # the criterion's, where it has one: the noise of --latent-noise prior stays with the model
    prior_std: Optional[float] = II("oc.select:criterion.prior_std,null")


_DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "word_dropout")
_SHARES = ("encoder_layerdrop", "decoder_layerdrop", "quant_noise_pq", "quant_noise_scalar")
_COUNTS = ("embed_dim", "ffn_embed_dim", "layers", "attention_heads")


def check_config(cfg: Any) -> None:
    """Raise `VATError` for parts that don't fit each other, naming the flags."""
    _check_parts(cfg)
    _check_widths(cfg)


def _check_parts(cfg: Any) -> None:
    for side in ("encoder", "decoder"):
        kept = getattr(cfg, f"{side}_layers_to_keep")
        if kept and not re.fullmatch(r"[0-9]{1,6}(,[0-9]{1,6})*", kept):
            raise VATError(
                f"--{side}-layers-to-keep must be numbers of layers separated by commas, not "
                f"{kept[:60]!r}"
            )
        layers = getattr(cfg, f"{side}_layers")
        if kept and max(map(int, kept.split(","))) >= layers:
            raise VATError(
                f"--{side}-layers-to-keep {kept}: must be numbers from 0 to {layers - 1}, the "
                f"last of --{side}-layers {layers}"
            )
    check_values(cfg, _DROPOUTS, lambda x: 0 <= x < 1, "from 0 to below 1")
    if cfg.precision == "bfloat16" and (cfg.checkpoint_activations or cfg.offload_activations):
        raise VATError(
            "--precision bfloat16 can't be combined with --checkpoint-activations or "
            "--offload-activations: fairseq would recompute the activations in single precision"
        )
    check_values(cfg, _SHARES, lambda x: 0 <= x <= 1, "from 0 to 1")
    if cfg.quant_noise_scalar > 0:
        raise VATError(
            "--quant-noise-scalar: fairseq's needs a GPU, and leaves out the output layer here; "
            "--quant-noise-pq is the other kind"
        )
    if cfg.encoder_type == "none":
        if cfg.decoder_type == "gpt2":
            raise VATError("--encoder-type none: a language model can't have --decoder-type gpt2")
        if cfg.decoder_type == "transformer" and cfg.cross_self_attention:
            raise VATError("--encoder-type none: --cross-self-attention needs latents to attend to")
        return
    if cfg.latent_noise == "prior":
        if cfg.prior_std is None:
            raise VATError(
                "--latent-noise prior needs --prior-std, and --criterion token_kl_cross_entropy"
            )
        prior = Prior(cfg.prior_std)
        prior.of_latents(prior)  # raises for one that is too small or large
    if cfg.latent_level == "token" and cfg.decoder_type in RECURRENT:
        raise VATError(
            f"--latent-level token: --decoder-type {cfg.decoder_type} has no attention to look at "
            "a latent for every token; give --latent-level sentence, or another decoder"
        )
    if cfg.latent_level == "sentence" and cfg.encoder_type == "transformer" and not cfg.start_token:
        raise VATError(
            "--no-start-token: at --latent-level sentence a Transformer encoder's latent is made "
            "of the start token's output; leave the start token in"
        )
    if cfg.decoder_type != "gpt2" and cfg.gpt2_dir:
        raise VATError(
            f"--gpt2-dir {cfg.gpt2_dir}: --decoder-type {cfg.decoder_type} has no GPT-2; give "
            "--decoder-type gpt2, or an architecture with one"
        )
    if cfg.no_latent_attention and (
        cfg.latent_level != "sentence"
        or cfg.decoder_type != "transformer"
        or cfg.cross_self_attention
    ):
        raise VATError(
            "--no-latent-attention needs --latent-level sentence and --decoder-type transformer, "
            "without --cross-self-attention"
        )
    if cfg.decoder_type == "gpt2" and not (cfg.gpt2_dir or cfg.gpt2_config):
        raise VATError("--decoder-type gpt2 needs --gpt2-dir, the directory of a GPT-2 model")


def check_vectors(path: Optional[str], dictionary: Any) -> None:
    """Raise `VATError` for a file of word vectors that has none of a word of the dictionary."""
    if path is None:
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        next(file, None)  # how many there are
        if not any(line.split(" ", 1)[0] in dictionary for line in file):
            raise VATError(f"{path} has no vector of a word of the dictionary after its first line")


def _check_widths(cfg: Any) -> None:
    types = {"encoder": cfg.encoder_type, "decoder": cfg.decoder_type}
    counts = [f"{side}_{what}" for side in types for what in _COUNTS]
    widths = ("latent_dim", "encoder_hidden_size", "decoder_hidden_size")
    others = ("max_source_positions", "max_target_positions", "quant_noise_pq_block_size")
    check_values(cfg, (*widths, *counts, *others), lambda x: x >= 1, "at least 1")
    for side in (side for side, kind in types.items() if kind == "transformer"):
        width, heads = getattr(cfg, f"{side}_embed_dim"), getattr(cfg, f"{side}_attention_heads")
        if width % heads:
            raise VATError(
                f"--{side}-embed-dim {width} can't be divided by --{side}-attention-heads {heads}"
            )
    crosses = cfg.decoder_type == "transformer" and cfg.cross_self_attention
    if crosses and cfg.latent_dim != cfg.decoder_embed_dim:
        raise VATError(
            f"--latent-dim {cfg.latent_dim} doesn't fit: --cross-self-attention needs latents as "
            f"wide as --decoder-embed-dim {cfg.decoder_embed_dim}"
        )
    two_tables = cfg.encoder_type != "none" and cfg.decoder_type != "gpt2"
    widths_differ = cfg.encoder_embed_dim != cfg.decoder_embed_dim
    if cfg.share_all_embeddings and two_tables and widths_differ:
        raise VATError(
            f"--encoder-embed-dim {cfg.encoder_embed_dim} and --decoder-embed-dim "
            f"{cfg.decoder_embed_dim} differ, so they can't share embeddings: make them equal, or "
            "give --no-share-all-embeddings"
        )
    shared_output = cfg.share_all_embeddings or cfg.share_decoder_input_output_embed
    widths_differ = cfg.decoder_embed_dim != cfg.decoder_hidden_size
    if cfg.decoder_type in RECURRENT and shared_output and widths_differ:
        raise VATError(
            f"--decoder-embed-dim {cfg.decoder_embed_dim} and --decoder-hidden-size "
            f"{cfg.decoder_hidden_size} differ, so input and output can't share an embedding: "
            "make them equal, or give --no-share-all-embeddings"
        )
