"""Scored pairs of sentences: files of ``score<TAB>s1<TAB>s2``, and folders of them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

from fairseq_vat.errors import VATError
from fairseq_vat.text.tab_separated import read_columns

_COLUMNS = "score<TAB>sentence<TAB>sentence"


class ScoredPair(NamedTuple):
    """One line of a file.

    Attributes:
        score: people's, any finite number.
        first: a sentence, cleaned, never empty.
        second: likewise.
    """

    score: float
    first: str
    second: str


def read_task(path: str | os.PathLike) -> dict[str, list[ScoredPair]]:
    """The subsets of a task by name: every ``*.tsv`` of a folder, in the names' order; or a file.

    Raises:
        VATError: for a path that isn't there, a folder that has no such file, and as `read_pairs`.
    """
    path = Path(path)
    if path.is_file():
        return {path.stem: read_pairs(path)}
    if not path.is_dir():
        raise VATError(f"{path} doesn't exist; give a folder of .tsv files, or a file")
    paths = sorted(path for path in path.glob("*.tsv") if path.is_file())
    if not paths:
        raise VATError(f"{path} has no .tsv file; each line of one must be {_COLUMNS}")
    return {path.stem: read_pairs(path) for path in paths}


def read_pairs(path: str | os.PathLike) -> list[ScoredPair]:
    """Read a file of ``score<TAB>s1<TAB>s2`` lines, as `read_columns` does.

    Raises:
        VATError: as `read_columns`, and for a score that isn't a finite number.
    """
    rows = read_columns(path, ("score", "first sentence", "second sentence"))
    return [
        ScoredPair(_score(score, f"{path}:{number}"), first, second)
        for number, (score, first, second) in rows
    ]


def _score(text: str, where: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise VATError(
            f"{where}: the score {text[:40]!r} is no number; each line must be {_COLUMNS}"
        )
    return score
