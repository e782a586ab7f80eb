"""A trained model's posteriors and logits, sentence by sentence, for tests that measure by hand.

Sentences are read from the text with the dictionary's file, one at a time and so without padding:
nothing here goes through fairseq's data sets or the plugin's measures.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import log_softmax

from fairseq_vat.measures.isotropy import SelfSimilaritySums, TypeSimilarity, unit_vectors
from fairseq_vat.models.vat_transformer import VATModel

BOS, EOS = 0, 2


class Posterior(NamedTuple):
    """Of one sentence: (P, L) in double precision."""

    mean: np.ndarray
    std: np.ndarray


class Oracle:
    """The model and the lines of a text file."""

    def __init__(self, level: str, noise_std: float, data: Path, checkpoint: Path, text: Path):
        self.noise_std = noise_std  # of e' in z = mu + sigma e'
        self.level, self.data, self.checkpoint, self.text = level, data, checkpoint, text
        self.lines = text.read_text(encoding="utf-8").splitlines()
        entries = (data / "dict.txt").read_text(encoding="utf-8").splitlines()
        self.index = {line.rsplit(" ", 1)[0]: number for number, line in enumerate(entries, 4)}
        self.model = VATModel.from_pretrained(
            checkpoint.parent, data_name_or_path=str(data), device="cpu"
        ).model

    def target(self, line: str) -> list[int]:
        return [*(self.index[word] for word in line.split()), EOS]

    @torch.no_grad()
    def encoded(self, line: str) -> dict:
        return self.model.encoder(torch.tensor([[BOS, *self.target(line)]]))

    def posterior(self, line: str) -> Posterior:
        """The distribution of z; its deviation by the layer's weights, without the plugin."""
        mean = self.encoded(line)["latent_mean"][0][:, 0].double().numpy()
        layer, x = self.model.encoder.head.logvar, self.layer(line)[: len(mean)]
        weight, bias = (w.detach().double().numpy() for w in (layer.weight, layer.bias))
        return Posterior(mean, self.noise_std * np.exp((x @ weight.T + bias) / 2))

    def layer(self, line: str) -> np.ndarray:
        """The encoder's last layer, (T, C)."""
        with torch.no_grad():
            out = self.model.encoder.body(torch.tensor([[BOS, *self.target(line)]]))
        return out["encoder_out"][0][:, 0].double().numpy()

    def draw(self, line: str, seed: int, number: int) -> np.ndarray:
        """z, (P, L): the model's own draw, as it is what the measures are taken of."""
        return self.model.encoder.draw(self.encoded(line), seed, number)["encoder_out"][0][
            :, 0
        ].numpy()

    @torch.no_grad()
    def nll(self, line: str, z: np.ndarray) -> float:
        """-log p(x | z) in nats, by log-softmax of the decoder's logits."""
        target = self.target(line)
        memory = torch.from_numpy(z).float()[:, None]
        # teacher forcing: fairseq's decoder starts from the end of sentence
        previous = torch.tensor([[EOS, *target[:-1]]])
        mask = torch.zeros(1, len(memory), dtype=torch.bool)
        encoder_out = {"encoder_out": [memory], "encoder_padding_mask": [mask]}
        logits = self.model.decoder(previous, encoder_out=encoder_out)[0][0].double().numpy()
        return -log_softmax(logits, axis=-1)[np.arange(len(target)), target].sum()


def self_similarity(
    vectors_NC: torch.Tensor, types_N: torch.Tensor, sentences_N: torch.Tensor
) -> TypeSimilarity:
    """Of each type in two sentences or more, all tokens in one batch."""
    sums = SelfSimilaritySums()
    sums.add(unit_vectors(vectors_NC), types_N, sentences_N)
    return sums.result()
