"""Tab-separated files: labelled sentences, labelled pairs, pairs with people's scores.

Plain, ``.gz`` or ``.xz``. Quotes are characters like any other. Empty lines are left out; bytes
that aren't UTF-8 become U+FFFD.
"""

import logging
import math
import os
from pathlib import Path
from typing import NamedTuple

from fairseq_vat.errors import VATError
from fairseq_vat.text.lines import clean_line, decode_line, read_raw_lines

logger = logging.getLogger(__name__)

_SENTENCES = {1: ("sentence",), 2: ("first sentence", "second sentence")}


class LabelledLine(NamedTuple):
    """A label and one sentence or two."""

    label: str
    sentences: tuple[str, ...]  # cleaned; CR and MPQA have empty ones
    line: int  # its number in the file, from 1


class ScoredPair(NamedTuple):
    """Two sentences and how much alike people find them."""

    score: float
    first: str
    second: str


def read_labelled(path: str | os.PathLike, sentences: int = 1) -> list[LabelledLine]:
    """Read lines of ``label<TAB>sentence``, or of a label and two sentences."""
    rows = read_columns(path, ("label", *_SENTENCES[sentences]), empty_sentences=True)
    return [LabelledLine(label, tuple(some), number) for number, (label, *some) in rows]


def read_pairs(path: str | os.PathLike) -> list[ScoredPair]:
    """Read lines of ``score<TAB>sentence<TAB>sentence``.

    Raises:
        VATError: as `read_columns`, and for a score that isn't a finite number.
    """
    rows = read_columns(path, ("score", *_SENTENCES[2]))
    return [ScoredPair(_score(row[0], f"{path}:{number}"), *row[1:]) for number, row in rows]


def read_task(path: str | os.PathLike) -> dict[str, list[ScoredPair]]:
    """The subsets of a task by name: a folder's ``.tsv`` files, in the names' order; or a file.

    Raises:
        VATError: for a path that isn't there, a folder that has no such file, and as `read_pairs`.
    """
    path = Path(path)
    if path.is_file():
        return {path.stem: read_pairs(path)}
    if not path.is_dir():
        raise VATError(f"{path} doesn't exist; give a folder of .tsv files, or a file")
    ends = (".tsv", ".tsv.gz", ".tsv.xz")
    paths = sorted(one for one in path.iterdir() if one.name.endswith(ends) and one.is_file())
    if not paths:
        form = "score<TAB>sentence<TAB>sentence"
        raise VATError(f"{path} has no .tsv file; each line of one must be {form}")
    return {path.stem: read_pairs(path) for path in paths}


def read_columns(
    path: str | os.PathLike, names: tuple[str, ...], empty_sentences: bool = False
) -> list[tuple[int, list[str]]]:
    """The lines' numbers, from 1, and columns, the first stripped and the others cleaned.

    Args:
        names: of the columns, for errors; the last word of each stands for it in the form of a
            line.

    Raises:
        VATError: for a line of more or fewer columns or with an empty one that may not be, and for
            a file that holds none.
    """
    form = "<TAB>".join(name.split()[-1] for name in names)
    rows, replaced = [], []
    for number, raw in enumerate(read_raw_lines(path), start=1):
        line = decode_line(raw)
        if "\ufffd" in line and b"\xef\xbf\xbd" not in raw:
            replaced.append(number)
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) != len(names):
            what = "no TAB" if len(columns) == 1 else f"{len(columns)} columns"
            raise VATError(f"{path}:{number}: {what}; each line must be {form}")
        columns = [columns[0].strip(), *map(clean_line, columns[1:])]
        needed = columns[:1] if empty_sentences else columns
        if "" in needed:
            empty = names[needed.index("")]
            raise VATError(f"{path}:{number}: the {empty} is empty; each line must be {form}")
        rows.append((number, columns))
    if not rows:
        raise VATError(f"{path} holds no line; each must be {form}")
    if replaced:
        logger.warning(
            f"{path}: {len(replaced):,} lines aren't UTF-8, line {replaced[0]} the first: what "
            "isn't became U+FFFD; convert it, such as with iconv -f latin1 -t utf-8"
        )
    return rows


def _score(text: str, where: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        form = "score<TAB>sentence<TAB>sentence"
        raise VATError(f"{where}: the score {text[:40]!r} is no number; each line must be {form}")
    return score
