"""A sum of nats over a data set, as it is reported: per sentence, word and token."""

from __future__ import annotations

import math


def spread_of(total: float, sentences: int, words: int, tokens: int) -> dict[str, float | None]:
    """A sum of nats per sentence, word and token, and what fairseq makes of it."""
    return {
        "per_sentence": total / sentences,
        "per_word": total / words,
        "per_token": total / tokens,
        "bits_per_token": total / tokens / math.log(2),
        "ppl_per_word": _perplexity(total / words),
        "ppl_per_token": _perplexity(total / tokens),
    }


def without_perplexity(spread: dict[str, float | None] | None) -> dict[str, float | None] | None:
    """exp(KL) is no perplexity of anything, nor is exp(penalty)."""
    return spread and {name: x for name, x in spread.items() if not name.startswith("ppl")}


def _perplexity(nats: float) -> float | None:
    """exp(nats); None where double precision has no number so large."""
    return math.exp(nats) if nats < 700 else None
