"""Scored pairs of sentences: folders of files of ``score<TAB>s1<TAB>s2``."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

from fairseq_vat.errors import VATError
from fairseq_vat.text import clean_line, decode_line, read_raw_lines

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


def read_task(folder: str | os.PathLike) -> dict[str, list[ScoredPair]]:
    """The subsets of a task by name: every ``*.tsv`` of a folder, in the names' order.

    Raises:
        VATError: for a folder that isn't there or has no such file, and as `read_pairs`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "doesn't exist"
        raise VATError(f"{folder} {what}; give a folder of .tsv files")
    paths = sorted(path for path in folder.glob("*.tsv") if path.is_file())
    if not paths:
        raise VATError(f"{folder} has no .tsv file; each line of one must be {_COLUMNS}")
    return {path.stem: read_pairs(path) for path in paths}


def read_pairs(path: str | os.PathLike) -> list[ScoredPair]:
    """Read a file of ``score<TAB>s1<TAB>s2`` lines, split at TABs: quotes are ordinary characters.

    Empty lines are left out; bytes that aren't UTF-8 become U+FFFD.

    Raises:
        VATError: for a line of more or fewer columns, an empty sentence, a score that isn't a
            finite number, and a file that holds none.
    """
    found = []
    for number, raw in enumerate(read_raw_lines(path), start=1):
        line = decode_line(raw)
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) != 3:
            what = "no TAB" if len(columns) == 1 else f"{len(columns)} columns"
            raise VATError(f"{path}:{number}: {what}; each line must be {_COLUMNS}")
        first, second = clean_line(columns[1]), clean_line(columns[2])
        if not first or not second:
            raise VATError(f"{path}:{number}: a sentence is empty; each line must be {_COLUMNS}")
        found.append(ScoredPair(_score(columns[0], f"{path}:{number}"), first, second))
    if not found:
        raise VATError(f"{path} holds no pair; each line must be {_COLUMNS}")
    return found


def _score(text: str, where: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise VATError(
            f"{where}: the score {text.strip()[:40]!r} is no number; each line must be {_COLUMNS}"
        )
    return score
