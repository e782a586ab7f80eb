"""The sentences of a data set that are measured: their batches and their sizes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from fairseq import utils

from fairseq_vat.errors import VATError
from fairseq_vat.tasks.data_directory import load_sentences
from fairseq_vat.text.pieces import Pieces, to_text


class Subset:
    """The first sentences of a split, in the data set's order, blank lines left out.

    fairseq-preprocess keeps a blank line as a sentence of its end alone.

    Attributes:
        blank: lines that were left out, among the sentences and before them.

    Raises:
        VATError: if there is no such split, it has nothing but blank lines, or a sentence is
            longer than the model's positions.
    """

    def __init__(self, task: Any, split: str, first: int | None = None):
        self._task, self._split = task, split
        task.load_dataset(split)
        self.dataset = task.dataset(split)
        self.dictionary = task.target_dictionary
        sentences = np.flatnonzero(self.dataset.tgt_sizes > 1)
        self.numbers = sentences[:first]
        if len(self) == 0:
            raise VATError(f"--gen-subset {split}: it has nothing but blank lines")
        seen = len(self.dataset) if len(self) == len(sentences) else int(self.numbers[-1]) + 1
        self.blank = seen - len(self)
        _, too_long = self.dataset.filter_indices_by_size(self.numbers, task.max_positions())
        if too_long:
            raise VATError(
                f"--gen-subset {split}: {len(too_long):,} of {len(self):,} sentences are longer "
                f"than the model's {task.max_positions()} source and target positions: give "
                "--truncate to cut them"
            )
        self._lengths = self.dataset.num_tokens_vec(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def cut(self) -> int:
        """Sentences that ``--truncate`` cut; an uncut one's size is that of its file."""
        folder = utils.split_paths(self._task.cfg.data)[0]
        # kept in a variable: the sizes lie in its mapped file, which closes with it
        whole = load_sentences(f"{folder}/{self._split}", self.dictionary)
        return int((whole.sizes > self.dataset.tgt_sizes)[self.numbers].sum())

    @property
    def tokens(self) -> int:
        """Target tokens, each sentence's end counted."""
        return int(self.dataset.tgt_sizes[self.numbers].sum())

    @property
    def longest(self) -> int:
        """Tokens of the longest sentence, its end counted, its start not."""
        return int(self.dataset.tgt_sizes[self.numbers].max())

    def words(self, pieces: Pieces) -> int:
        """Words that white space separates once pieces are joined (see `pieces.to_text`).

        A sentence without one still counts as a word: it has an end to be predicted.
        """
        sentences = (self.dataset[number]["target"] for number in self.numbers)
        return sum(
            max(1, len(to_text(tokens_S, self.dictionary, pieces).split()))
            for tokens_S in sentences
        )

    def batches(
        self,
        max_tokens: int | None,
        max_sentences: int | None,
        device: torch.device,
        first: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """fairseq's batches of sentences of like length, longest first, on the device.

        Raises:
            VATError: if a sentence alone is longer than `max_tokens`.
        """
        numbers, lengths = self.numbers[:first], self._lengths[:first]
        if max_tokens is not None and lengths.max() > max_tokens:
            raise VATError(
                f"--max-tokens {max_tokens}: the longest sentence has {lengths.max()}; give that "
                "many or more"
            )
        # longest first: what doesn't fit into memory shows at once
        ordered = numbers[np.argsort(-lengths, kind="stable")]
        for batch in self.dataset.batch_by_size(ordered, max_tokens, max_sentences):
            sample = self.dataset.collater([self.dataset[number] for number in batch])
            yield utils.apply_to_sample(lambda x: x.to(device), sample)
