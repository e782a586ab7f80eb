"""Figures of texts: how far they agree with others, how much of one a dictionary doesn't have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fairseq_vat.text.pieces import in_pieces

if TYPE_CHECKING:
    from fairseq_vat.hub.interface import VATHubInterface

# of the characters that nobody uses
_NEVER_RIGHT = "\ue000"
BLEUS = {"bleu": "BLEU", "bleu_of_pieces": "BLEU of pieces"}
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


def bleu_of(figures: Mapping[str, Any]) -> tuple[str, float]:
    """Name and value of the BLEU in `bleu_figures`."""
    return next((name, figures[key]) for key, name in BLEUS.items() if key in figures)


def unknown_share(vat: VATHubInterface, pieces: Sequence[str]) -> float:
    """Share of all pieces that the model's dictionary doesn't have; 0 of none."""
    return share_of(count_pieces(vat, pieces))


def bleu_figures(
    outputs: Sequence[str], references: Sequence[str], tokenize: str = "13a"
) -> dict[str, Any]:
    """Corpus BLEU of outputs, and how many equal their reference.

    Args:
        references: with ``<<unk>>``, fairseq's, for what is unknown: nothing is right there.
        tokenize: sacrebleu's: ``13a`` for text; ``none`` for words that are tokens already.

    Returns:
        ``bleu`` (0 to 100), or ``bleu_of_pieces`` where the references are subwords that nobody
        has joined (which are then the tokens), ``exact_match`` (a share), ``sentences``, and
        sacrebleu's ``signature``, which says how it was measured.
    """
    from sacrebleu.metrics import BLEU  # here, because it takes long to import

    of_pieces = in_pieces(references)
    # sacrebleu's 13a would take the unk out of fairseq's two marks, and it would be right
    references_for_bleu = [line.replace("<<unk>>", _NEVER_RIGHT) for line in references]
    # force: text of a corpus that was tokenised before looks to sacrebleu like a mistake
    metric = BLEU(tokenize="none" if of_pieces else tokenize, force=True)
    score = metric.corpus_score(outputs, [references_for_bleu]).score
    pairs = zip(outputs, references, strict=True)
    return {
        "bleu_of_pieces" if of_pieces else "bleu": score,
        "exact_match": sum(output == reference for output, reference in pairs) / len(outputs),
        "sentences": len(outputs),
        "signature": str(metric.get_signature()),
    }
