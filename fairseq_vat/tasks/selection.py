"""Which latents generation draws: all, those at given positions, or those of marked words.

Shape legend: B sentences, T source positions.
"""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.text.lines import clean_line
from fairseq_vat.text.marks import marked_subwords, parse_marks, read_marked

logger = logging.getLogger(__name__)


class LatentSelection:
    """``--latent-positions`` and ``--latent-marks``, from the flags to a batch.

    Args:
        positions: such as ``3,7-9``; position 1 is the first subword, 0 the start token.
        marks: such as ``[]``, for `fairseq-interactive`.
    """

    def __init__(self, positions: str | None, marks: str | None):
        if positions is not None and marks is not None:
            raise VATError("--latent-positions can't be combined with --latent-marks")
        self._text = positions
        self.positions = None if positions is None else parse_positions(positions)
        self.marks = None if marks is None else parse_marks(marks)
        self._marked: list[list[int]] = []  # subwords, from 0, of the lines read last

    @property
    def flag(self) -> str | None:
        """The flag that was given, for messages."""
        if self.positions is not None:
            return "--latent-positions"
        return None if self.marks is None else "--latent-marks"

    def check_models(self, models: Sequence[Any]) -> None:
        """Raise `VATError` for a model with one latent a sentence: it has no positions."""
        levels = {
            getattr(getattr(model, "encoder", None), "latent_level", None) for model in models
        }
        if self.flag and "sentence" in levels:
            raise VATError(
                f"{self.flag} needs a latent for every token: a model of --latent-level sentence "
                "has one for the whole sentence"
            )

    def check_data(self, lengths: Sequence[int], start_token: bool, what: str) -> None:
        """The same as `check_lengths`, for binarised data, which can't have marks in it."""
        if self.marks is not None:
            raise VATError(
                "--latent-marks is for fairseq-interactive; binarised data takes --latent-positions"
            )
        self.check_lengths(lengths, start_token, what)

    def check_lengths(
        self, lengths: Sequence[int], start_token: bool, what: str, first: int = 0
    ) -> None:
        """Raise `VATError` if a position lies outside a sentence.

        Args:
            lengths: source positions of each sentence, start token and end of sentence included.
        """
        if self.positions is None:
            return
        if not start_token and self.positions[0] == 0:
            raise VATError("--latent-positions 0: the model was trained with --no-start-token")
        for number, length in enumerate(lengths, first):
            subwords = int(length) - 1 - int(start_token)
            if self.positions[-1] > subwords + 1:
                raise VATError(
                    f"--latent-positions {self._text}: {what} {number} has {subwords} subwords "
                    f"(position {subwords + 1} is its end)"
                )

    def read_lines(
        self,
        lines: Sequence[str],
        first: int,
        encode: Callable[[str], str],
        decode: Callable[[str], str],
    ) -> list[str]:
        """Lines of `fairseq-interactive` without their marks, which are kept for `take_marked`.

        A line without marks, or with marks that can't be read, is warned of and will be decoded
        from its mean: one bad line doesn't end a session.
        """
        if self.marks is None:
            return list(lines)
        self._marked, sentences = [], []

        def encode_cleaned(text: str) -> str:
            return encode(clean_line(text))  # two spaces may meet where a mark was

        for number, line in enumerate(lines, first):
            sentence, numbers = line, []
            try:
                marked = read_marked(line, self.marks)
                numbers = marked_subwords(marked, encode_cleaned, decode)
                sentence = clean_line(marked.sentence)
                if line and not numbers:
                    logger.warning(f"line {number} is decoded from the mean: no word is marked")
            except VATError as error:
                logger.warning(f"line {number} is decoded from the mean: {error}")
            sentences.append(sentence)
            self._marked.append(numbers)
        return sentences

    def take_marked(self, lengths: Sequence[int], start_token: bool) -> list[Tensor] | None:
        """A mask (T,) of ones and zeros for each line read last; None without marks.

        fairseq-interactive lets nothing but a dataset's constraints through to inference, so these
        masks travel as such; padding makes zeros of them, which is what is needed.
        """
        marked, self._marked = self._marked, []
        if self.marks is None or len(marked) != len(lengths):
            return None
        masks = []
        for numbers, length in zip(marked, lengths, strict=True):
            mask_T = torch.zeros(length, dtype=torch.long)
            mask_T[[n + start_token for n in numbers if n + start_token < length - 1]] = 1
            masks.append(mask_T)
        return masks

    def into_batch(
        self, sample: dict[str, Any], constraints: Any, padding_idx: int, start_token: bool
    ) -> tuple[dict[str, Any], Any]:
        """The batch with ``latent_positions`` (B, T), true where a latent is to be drawn.

        And the constraints, but for those that `take_marked` made; both unchanged where every
        latent is drawn.
        """
        if self.marks is not None:
            return {**sample, "latent_positions": constraints.bool()}, None
        if self.positions is None:
            return sample, constraints
        tokens_BT = sample["net_input"]["src_tokens"]
        lengths_B = tokens_BT.ne(padding_idx).sum(dim=1)
        self.check_lengths(lengths_B.tolist(), start_token, "sentence")
        drawn_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
        drawn_BT[:, [position - (not start_token) for position in self.positions]] = True
        return {**sample, "latent_positions": drawn_BT}, constraints


def parse_positions(text: str) -> list[int]:
    """Positions from ``3,7-9``, sorted."""
    positions: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part, re.ASCII)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise VATError(
                f"--latent-positions {text}: give positions and ranges, such as 3,7-9; the first "
                "subword is 1"
            )
        positions.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(positions)
