"""A small GPT-2 and its byte-level vocabulary, made and saved by the tests themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.data.encoders.gpt2_bpe_utils import bytes_to_unicode

from fairseq_vat.compat.packages import import_transformers
from fairseq_vat.models import gpt2_weights
from fairseq_vat.models.gpt2_decoder import GPT2Decoder

MERGES = ["Ġ w", "t h", "th e", "Ġ c", "a t", "Ġc at", "i s", "Ġ is"]


def vocabulary() -> dict[str, int]:
    """256 bytes, the merged tokens and the end of text."""
    symbols = [*bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in MERGES)]
    return {symbol: i for i, symbol in enumerate([*symbols, "<|endoftext|>"])}


END = len(vocabulary()) - 1


def save(directory: Path, **changes: Any) -> Path:
    """Save a GPT-2 of 2 layers as its authors' release is laid out; changes are configuration's."""
    pytest.importorskip("transformers")
    transformers = import_transformers("gpt2")
    vocab = vocabulary()
    end = vocab["<|endoftext|>"]
    config = transformers.GPT2Config(
        **{
            "vocab_size": len(vocab),
            "n_positions": 40,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 2,
            "bos_token_id": end,
            "eos_token_id": end,
            **changes,
        }
    )
    torch.manual_seed(2)
    gpt2 = transformers.GPT2LMHeadModel(config)
    for parameter in gpt2.parameters():  # its own initialisation makes all logits alike
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    gpt2.save_pretrained(directory)
    (directory / "vocab.json").write_text(json.dumps(vocab))
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")
    return directory


def dictionary(ids: Iterable[int] = range(END), *more: str) -> Dictionary:
    """GPT-2 ids as words, all but the end of text unless said otherwise."""
    made = Dictionary()
    for symbol in [*map(str, ids), *more]:
        made.add_symbol(symbol)
    return made


def pretrained_decoder(
    directory: Path, entries: Dictionary, latent_dim: int, **training: Any
) -> GPT2Decoder:
    """A decoder with a directory's weights."""
    return GPT2Decoder(entries, gpt2_weights.pretrained(directory, **training), latent_dim)
