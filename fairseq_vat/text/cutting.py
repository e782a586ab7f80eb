"""Sentences cut to a number of tokens, their ends kept.

Shape legend: T tokens of a sentence.
"""

from typing import Any

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset
from torch import Tensor


def cut(tokens_T: Tensor, room: int) -> Tensor:
    """The first ``room - 1`` tokens and the last, which is the end of sentence; (min(T, room),)."""
    if len(tokens_T) <= room:
        return tokens_T
    return torch.cat((tokens_T[: room - 1], tokens_T[-1:]))


class CutDataset(BaseWrapperDataset):
    """Every sentence through `cut`.

    fairseq's StripTokenDataset, TruncateDataset and AppendTokenDataset would cut alike, but count
    a token too many for every sentence that isn't cut: stripping leaves the sizes as they are.

    Args:
        room: tokens that are kept, the end among them.
    """

    def __init__(self, dataset: Any, room: int):
        super().__init__(dataset)
        self.room = room
        self._sizes = np.minimum(dataset.sizes, room)

    def __getitem__(self, index: int) -> Tensor:
        return cut(self.dataset[index], self.room)

    @property
    def sizes(self) -> np.ndarray:
        return self._sizes

    def num_tokens(self, index: int) -> int:
        return self._sizes[index]

    def size(self, index: int) -> int:
        return self._sizes[index]
