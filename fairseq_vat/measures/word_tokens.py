"""Which tokens of a batch are measured as words, and one of each sentence by lot.

Shape legend: B sentences, T source positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fairseq_vat.latent import noise


def words_of(tokens_BT: Tensor, dictionary: Any) -> Tensor:
    """Which tokens are words, (B, T): all but padding, start token and end of sentence.

    Args:
        tokens_BT: token indices.
        dictionary: fairseq's, for the indices of the three.
    """
    others = (dictionary.pad(), dictionary.bos(), dictionary.eos())
    return torch.stack([tokens_BT.ne(symbol) for symbol in others]).all(dim=0)


def random_words(tokens_BT: Tensor, dictionary: Any, seed: int) -> Tensor:
    """One word of each sentence that has one, (B, T).

    The lot is a hash of the seed and the sentence's tokens: it falls the same whatever the sentence
    is batched with, and on whichever process.

    Args:
        tokens_BT: token indices, padded on the right.
        dictionary: as for `words_of`.
        seed: any integer.
    """
    word_BT = words_of(tokens_BT, dictionary)
    keys_B = noise.sentence_keys(tokens_BT, dictionary.pad())
    lots_BT = noise.normal(keys_B, tokens_BT.size(1), 1, seed)[:, :, 0].t()
    chosen_B = lots_BT.masked_fill(~word_BT, -torch.inf).argmax(dim=1)
    chosen_BT = torch.zeros_like(word_BT).scatter_(1, chosen_B.unsqueeze(1), True)
    return chosen_BT & word_BT
