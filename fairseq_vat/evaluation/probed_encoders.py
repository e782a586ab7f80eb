"""Encoders that `probing` takes sentence vectors from: a checkpoint's, and Hugging Face's.

Shape legend: N sentences, B of a batch, C width of a vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from fairseq.data import data_utils
from torch import Tensor, nn

from fairseq_vat.files import sha256
from fairseq_vat.hub.huggingface import HuggingFaceEncoder
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.latent.pooling import pool


class ProbedEncoder(Protocol):
    """An encoder and N sentences, which are called by their numbers.

    Attributes:
        name: for people.
        key: tells it from others among saved runs.
        lr_flag: where its learning rate comes from.
        width: C.
        module: what is trained in fine-tuning; it isn't changed.
        lengths: of the sentences, in tokens.
        unknown_share: of all tokens, those it doesn't know.
    """

    name: str
    key: str
    lr_flag: str
    width: int
    module: nn.Module
    lengths: list[int]
    unknown_share: float

    def embed(self, poolings: Sequence[str]) -> dict[str, Tensor]:
        """All sentences' vectors by pooling, (N, C), where the model is."""

    def vectors(self, module: nn.Module, numbers_B: Tensor, pooling: str) -> Tensor:
        """Some sentences' vectors from a copy of `module`, (B, C), with gradients."""


class CheckpointEncoder:
    """A checkpoint's pooled posterior means: see `ProbedEncoder`.

    Args:
        vat: the model.
        pieces: the sentences in subwords.
    """

    name, key, lr_flag = "checkpoint", "", "--lr"

    def __init__(self, vat: VATHubInterface, pieces: Sequence[str]):
        # what it reads are pieces already
        self.vat = VATHubInterface(vat.cfg, vat.task, vat.model, bpe=None)
        self.pieces = pieces
        self.module = vat.model.encoder
        self.width = vat.model.encoder.latent_dim
        self.latent_level = vat.model.encoder.latent_level

    def embed(self, poolings: Sequence[str]) -> dict[str, Tensor]:
        """All sentences' vectors by pooling, (N, C), where the model is."""
        found = self.vat.embed_posteriors(self.pieces, poolings)
        return {name: found[name].mean.to(self.vat.device) for name in found}

    @cached_property
    def sources(self) -> dict[int, Tensor]:
        """Every sentence's tokens as the hub makes them: start token, cut to the positions."""
        found = {}
        for sample in self.vat.batches(self.pieces):
            net_input = sample["net_input"]
            lengths = net_input["src_lengths"].tolist()
            rows = zip(sample["id"].tolist(), net_input["src_tokens"].cpu(), lengths, strict=True)
            found.update({number: row[:length] for number, row, length in rows})
        return found

    @property
    def lengths(self) -> list[int]:
        """In tokens."""
        return [len(self.sources[number]) for number in range(len(self.sources))]

    @property
    def unknown_share(self) -> float:
        """Of all pieces, those the dictionary doesn't have."""
        tokens = torch.cat([self.vat.binarize(sentence)[:-1] for sentence in self.pieces])
        return tokens.eq(self.vat.task.source_dictionary.unk()).double().mean().item()

    def vectors(self, module: nn.Module, numbers_B: Tensor, pooling: str) -> Tensor:
        """Some sentences' vectors from a copy of the encoder, (B, C), with gradients."""
        sources = [self.sources[number] for number in numbers_B.tolist()]
        padding = self.vat.task.source_dictionary.pad()
        src_tokens = data_utils.collate_tokens(sources, padding, left_pad=False)
        src_lengths = torch.tensor([len(source) for source in sources])
        out = module(src_tokens.to(self.vat.device), src_lengths.to(self.vat.device))
        return pool(module.posterior(out), out["encoder_padding_mask"][0], pooling).mean


class PretrainedEncoder:
    """A Hugging Face encoder's pooled output: see `ProbedEncoder`.

    Args:
        name: for people.
        encoder: the model and its tokenizer.
        sentences: N of them.
        seconds: the second ones of pairs, which the tokenizer joins to them.
    """

    lr_flag = "--hf-lr"

    def __init__(
        self,
        name: str,
        encoder: HuggingFaceEncoder,
        sentences: Sequence[str],
        seconds: Sequence[str] | None = None,
    ):
        self.name, self.encoder = name, encoder
        self.pieces = encoder.subwords(sentences, seconds)
        self.types = None if seconds is None else encoder.token_types(sentences, seconds)
        self.module = encoder.model
        self.width = encoder.width

    @cached_property
    def key(self) -> str:
        """Its folder and a digest of what is in it."""
        digest = hashlib.sha256()
        for path in sorted(Path(self.encoder.directory).iterdir()):
            if path.is_file():
                digest.update(f"{path.name} {sha256(path)}\n".encode())
        return f"{self.encoder.directory} {digest.hexdigest()[:12]}, "

    @property
    def lengths(self) -> list[int]:
        """In pieces, special ones included."""
        return [len(sentence) for sentence in self.pieces]

    @property
    def unknown_share(self) -> float:
        """Of all pieces, special ones included, those its tokenizer doesn't know."""
        return int(self.encoder.unknown(self.pieces).sum()) / max(1, sum(self.lengths))

    def embed(self, poolings: Sequence[str]) -> dict[str, Tensor]:
        """All sentences' vectors by pooling, (N, C), where the model is."""
        found = self.encoder.embed(self.pieces, poolings, self.types)
        return {name: torch.from_numpy(found[name]).to(self.encoder.device) for name in found}

    def vectors(self, module: nn.Module, numbers_B: Tensor, pooling: str) -> Tensor:
        """Some sentences' vectors from a copy of the model, (B, C), with gradients."""
        rows = numbers_B.tolist()
        return self.encoder.vectors(module, *self.some(rows))[pooling]

    def some(self, rows: Sequence[int]) -> tuple[list[Any], list[Any] | None]:
        """Pieces and token types of some sentences."""
        types = None if self.types is None else [self.types[row] for row in rows]
        return [self.pieces[row] for row in rows], types
