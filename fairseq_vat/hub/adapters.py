"""A checkpoint as the sentence encoder of SentEval, which needn't be installed.

sentence-transformers and MTEB: `fairseq_vat.hub.sentence_transformers`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fairseq_vat.hub.interface import VATHubInterface

# what SentEval's own examples put in the place of a sentence without words
_EMPTY = "."


def senteval(
    vat: VATHubInterface, pooling: str = "mean", join: Callable[[Sequence[str]], str] = " ".join
) -> tuple[Callable[[Any, Any], None], Callable[[Any, Sequence[Sequence[str]]], np.ndarray]]:
    """The functions ``prepare(params, samples)`` and ``batcher(params, batch)`` of SentEval.

    A batch is a list of sentences that are lists of words; the batcher gives one vector a
    sentence, (N, L). A sentence without words is read as a full stop, as in SentEval's examples.

    Args:
        pooling: ``mean``, ``sum`` or ``start``, as for `VATHubInterface.embed`.
        join: makes a sentence of its words. SentEval's texts are tokenised; a model of untokenised
            text reads them better with a detokeniser here.
    """

    def prepare(params: Any, samples: Any) -> None:
        """Nothing: the vocabulary is the model's."""

    def batcher(params: Any, batch: Sequence[Sequence[str]]) -> np.ndarray:
        sentences = [join(words) if len(words) else _EMPTY for words in batch]
        return vat.embed(sentences, pooling)

    return prepare, batcher
