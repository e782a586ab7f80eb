"""How much of a text a model's dictionary doesn't have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairseq_vat.hub.interface import VATHubInterface

# with a larger share of unknown pieces a text's subwords can't be the model's
MOST_UNKNOWN = 0.2


def count_pieces(vat: VATHubInterface, pieces: Sequence[str]) -> list[tuple[int, int]]:
    """Of every sentence in subwords: how many pieces, and how many of them are unknown."""
    unk = vat.task.source_dictionary.unk()
    tokens = (vat.binarize(sentence)[:-1] for sentence in pieces)
    return [(len(sentence), int(sentence.eq(unk).sum())) for sentence in tokens]


def share_of(counts: Sequence[tuple[int, int]]) -> float:
    """Share of all pieces that are unknown, from `count_pieces`; 0 of none."""
    return sum(unknown for _, unknown in counts) / max(1, sum(total for total, _ in counts))


def unknown_share(vat: VATHubInterface, pieces: Sequence[str]) -> float:
    """Share of all pieces that the model's dictionary doesn't have; 0 of none."""
    return share_of(count_pieces(vat, pieces))
