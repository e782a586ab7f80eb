"""Random sentences of forty words."""

from __future__ import annotations

import random

WORDS = [f"w{i}" for i in range(40)]


def sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(2, 9))) for _ in range(count)]
