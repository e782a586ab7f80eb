"""The kinds of encoder, decoder and latent level, as flags; each tiny."""

from __future__ import annotations

from typing import Any

import pytest

PAD, EOS, UNK = 1, 2, 3
TINY = [
    *["--encoder-embed-dim", "16", "--decoder-embed-dim", "16"],
    *["--encoder-hidden-size", "16", "--decoder-hidden-size", "16"],
    *["--encoder-ffn-embed-dim", "32", "--decoder-ffn-embed-dim", "32"],
    *["--latent-dim", "8", "--dropout", "0"],
]
# a GPT-2 has tests of its own
SYSTEMS = {
    f"{encoder}-{decoder}-{level}": [
        *["--arch", "vae_transformer", "--encoder-type", encoder, "--decoder-type", decoder],
        *["--latent-level", level],
    ]
    for encoder in ("transformer", "lstm", "gru")
    for decoder, level in [
        ("transformer", "token"),
        ("transformer", "sentence"),
        ("lstm", "sentence"),
        ("gru", "sentence"),
    ]
}
SYSTEMS["transformer-addition-sentence"] = [
    *["--arch", "vae_transformer", "--no-latent-attention", "--latent-level", "sentence"]
]
LANGUAGE_MODELS = {
    f"{cell}-lm": ["--arch", f"{cell}_decoder_lm"] for cell in ("transformer", "lstm", "gru")
}


def each(systems: dict[str, list[str]]) -> Any:
    return pytest.mark.parametrize("flags", systems.values(), ids=systems.keys())
