"""Encoders that `probe` and `sts` take sentence vectors from: a checkpoint's, and Hugging Face's.

Shape legend: N sentences, B of a batch, C width of a vector.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from fairseq.data import data_utils
from torch import Tensor, nn

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.texts import count_pieces, share_of
from fairseq_vat.files import sha256
from fairseq_vat.hub.huggingface import HuggingFaceEncoder
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.latent.choices import POOLINGS
from fairseq_vat.latent.gaussian import pool


class ProbedEncoder(ABC):
    """An encoder and N sentences, which are called by their numbers."""

    name: str
    path: str
    key: str  # tells it from others among saved runs
    lr_flag: str
    updates: int | None  # of the checkpoint's training; None for another
    # ``sentence`` where it has one vector a sentence, and ``token`` where that is pooled
    latent_level: str
    width: int
    module: nn.Module  # what is trained in fine-tuning; it isn't changed
    # of each sentence, how many pieces it has and how many of them are unknown
    counts: list[tuple[int, int]]
    lengths: list[int]  # of the sentences, in tokens

    @property
    def unknown_share(self) -> float:
        """Of all pieces, those it doesn't know."""
        return share_of(self.counts)

    def poolings(self, asked: Sequence[str] | None) -> list[str]:
        """What to measure of the poolings asked for; None: of all."""
        return list(dict.fromkeys(asked or POOLINGS))

    @abstractmethod
    def embed(self, poolings: Sequence[str]) -> dict[str, Tensor]:
        """All sentences' vectors by pooling, (N, C), where the model is."""

    @abstractmethod
    def vectors(self, module: nn.Module, numbers_B: Tensor, pooling: str) -> Tensor:
        """Some sentences' vectors from a copy of `module`, (B, C), with gradients."""


class CheckpointEncoder(ProbedEncoder):
    """A checkpoint's pooled posterior means: see `ProbedEncoder`."""

    name, key, lr_flag = "checkpoint", "", "--lr"

    def __init__(self, vat: VATHubInterface, pieces: Sequence[str], path: str = ""):
        # what it reads are pieces already
        self.vat = VATHubInterface(vat.cfg, vat.task, vat.model, bpe=None)
        self.pieces, self.path = pieces, path
        self.module = vat.model.encoder
        self.width = vat.model.encoder.latent_dim
        self.latent_level = str(vat.model.encoder.latent_level)
        self.updates = vat.model.num_updates
        self.counts = count_pieces(vat, pieces)

    def poolings(self, asked: Sequence[str] | None) -> list[str]:
        """What to measure; of one latent a sentence all poolings are the same."""
        if self.latent_level != "token":
            return ["mean"]
        if not self.vat.task.start_token:
            if asked is None:
                return [name for name in POOLINGS if name != "start"]
            if "start" in asked:
                raise VATError("--pooling start: the model was trained with --no-start-token")
        return super().poolings(asked)

    def embed(self, poolings: Sequence[str]) -> dict[str, Tensor]:
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

    @cached_property
    def lengths(self) -> list[int]:
        return [len(self.sources[number]) for number in range(len(self.sources))]

    def vectors(self, module: nn.Module, numbers_B: Tensor, pooling: str) -> Tensor:
        sources = [self.sources[number] for number in numbers_B.tolist()]
        padding = self.vat.task.source_dictionary.pad()
        src_tokens = data_utils.collate_tokens(sources, padding, left_pad=False)
        src_lengths = torch.tensor([len(source) for source in sources])
        out = module(src_tokens.to(self.vat.device), src_lengths.to(self.vat.device))
        return pool(module.posterior(out), out["encoder_padding_mask"][0], pooling).mean


class PretrainedEncoder(ProbedEncoder):
    """A Hugging Face encoder's pooled output: see `ProbedEncoder`.

    Args:
        seconds: the second ones of pairs, which the tokenizer joins to them.
    """

    lr_flag, latent_level, updates = "--hf-lr", "token", None

    def __init__(
        self,
        name: str,
        encoder: HuggingFaceEncoder,
        sentences: Sequence[str],
        seconds: Sequence[str] | None = None,
    ):
        self.name, self.path, self.encoder = name, encoder.directory, encoder
        self.pieces = encoder.subwords(sentences, seconds)
        self.types = None if seconds is None else encoder.token_types(sentences, seconds)
        self.module = encoder.model
        self.width = encoder.width
        self.lengths = [len(sentence) for sentence in self.pieces]  # special ones included
        unknown = encoder.unknown(self.pieces).tolist()
        self.counts = list(zip(self.lengths, unknown, strict=True))

    @cached_property
    def key(self) -> str:
        """Its folder, and a digest of what is in it and of its own pieces of the sentences."""
        digest = hashlib.sha256(repr((self.pieces, self.types)).encode())
        for path in sorted(Path(self.path).iterdir()):
            if path.is_file():
                digest.update(f"{path.name} {sha256(path)}\n".encode())
        return f"{self.path} {digest.hexdigest()[:12]}, "

    def embed(self, poolings: Sequence[str]) -> dict[str, Tensor]:
        found = self.encoder.embed(self.pieces, poolings, self.types)
        return {name: torch.from_numpy(found[name]).to(self.encoder.device) for name in found}

    def vectors(self, module: nn.Module, numbers_B: Tensor, pooling: str) -> Tensor:
        rows = numbers_B.tolist()
        types = None if self.types is None else [self.types[row] for row in rows]
        return self.encoder.vectors(module, [self.pieces[row] for row in rows], types)[pooling]


def encoders_of(
    vat: VATHubInterface,
    path: str,
    pieces: Sequence[str],
    beside: Mapping[str, HuggingFaceEncoder],
    *sentences: Sequence[str],
) -> list[ProbedEncoder]:
    """The checkpoint's encoder, and those beside it by their names.

    Args:
        pieces: the sentences, or pairs joined, in its subwords.
        *sentences: the sentences as they are, or the first ones and the second ones.
    """
    others = [PretrainedEncoder(name, encoder, *sentences) for name, encoder in beside.items()]
    return [CheckpointEncoder(vat, pieces, path), *others]


def described(encoders: Sequence[ProbedEncoder]) -> dict[str, Any]:
    """The checkpoint, and the encoders beside it, for JSON."""
    first, *others = encoders
    return {
        "checkpoint": first.path,
        "updates": first.updates,
        "latent_level": first.latent_level,
        "unknown_share": first.unknown_share,
        "hf": [
            {name: getattr(encoder, name) for name in ("name", "path", "width", "unknown_share")}
            for encoder in others
        ],
    }
