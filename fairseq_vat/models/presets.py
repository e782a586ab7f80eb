"""Named architectures for ``--arch``: what differs from the configuration's defaults.

configs/model/*.yaml holds the same for fairseq-hydra-train, which knows no architectures; a test
keeps the two equal.
"""

from argparse import Namespace
from typing import Any

from fairseq.models import register_model_architecture

from fairseq_vat.models import vat_transformer


def _both(**values: Any) -> dict[str, Any]:
    return {
        f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in values.items()
    }


# VAE-Transformer paper, table 1 and section 4: two layers, width 128, dropout 0.1 for every system.
# Its numbers of parameters (table 8) have room for three separate tables of 30,522 x 128.
_PAPER = {
    "latent_level": "sentence",
    "latent_dim": 64,
    "share_all_embeddings": False,
    **_both(layers=2),
}
_TRANSFORMER = {
    **_PAPER,
    "activation_fn": "gelu",
    **_both(attention_heads=2, embed_dim=128, ffn_embed_dim=512),
}
# table 8's wider systems: the recurrent ones keep embeddings of 128, which is the only width that
# gives its LSTM 48,315,450 parameters
_WIDE_TRANSFORMER = _both(embed_dim=1024)
_WIDE_RECURRENT = _both(hidden_size=1024)

PRESETS: dict[str, dict[str, Any]] = {
    "vat_transformer_tiny": {
        "latent_dim": 16,
        **_both(layers=2, embed_dim=32, ffn_embed_dim=64, attention_heads=2),
    },
    "vat_transformer_base": {
        "latent_dim": 512,
        **_both(layers=6, embed_dim=512, ffn_embed_dim=2048),
    },
    "vae_transformer": _TRANSFORMER,
    "vae_transformer_1024": {**_TRANSFORMER, **_WIDE_TRANSFORMER},
    "vae_gpt2": {
        **_TRANSFORMER,
        "decoder_type": "gpt2",
        "attention_dropout": 0.1,  # GPT-2's own
        "encoder_embed_dim": 768,
        "encoder_ffn_embed_dim": 3072,
        "encoder_attention_heads": 12,
    },
    "transformer_decoder_lm": {**_TRANSFORMER, "encoder_type": "none"},
    "transformer_decoder_lm_1024": {**_TRANSFORMER, **_WIDE_TRANSFORMER, "encoder_type": "none"},
}
for _cell in ("lstm", "gru"):
    _recurrent = {**_PAPER, "decoder_type": _cell}
    for _suffix, _width in (("", {}), ("_1024", _WIDE_RECURRENT)):
        PRESETS[f"vae_{_cell}{_suffix}"] = {**_recurrent, "encoder_type": _cell, **_width}
        PRESETS[f"{_cell}_decoder_lm{_suffix}"] = {**_recurrent, "encoder_type": "none", **_width}


def _register(name: str, values: dict[str, Any]) -> None:
    @register_model_architecture(vat_transformer.NAME, name)
    def architecture(args: Namespace) -> None:
        for key, value in values.items():
            if not hasattr(args, key):
                setattr(args, key, value)


for _name, _values in PRESETS.items():
    _register(_name, _values)
