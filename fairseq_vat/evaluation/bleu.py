"""How far texts agree with others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def bleu_figures(
    outputs: Sequence[str], references: Sequence[str], tokenize: str = "13a"
) -> dict[str, Any]:
    """Corpus BLEU of outputs, and how many equal their reference.

    Args:
        outputs: one at least.
        references: as many.
        tokenize: sacrebleu's: ``13a`` for text; ``none`` for words that are tokens already.

    Returns:
        ``bleu`` (0 to 100), ``exact_match`` (a share), ``sentences``, and sacrebleu's
        ``signature``, which says how it was measured.
    """
    from sacrebleu.metrics import BLEU  # here, because it takes long to import

    # force: text of a corpus that was tokenised before looks to sacrebleu like a mistake
    metric = BLEU(tokenize=tokenize, force=True)
    score = metric.corpus_score(outputs, [references]).score
    pairs = zip(outputs, references, strict=True)
    return {
        "bleu": score,
        "exact_match": sum(output == reference for output, reference in pairs) / len(outputs),
        "sentences": len(outputs),
        "signature": str(metric.get_signature()),
    }
