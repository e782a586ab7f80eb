"""Labelled sentences: files of ``label<TAB>sentence``, and of pairs of sentences."""

from __future__ import annotations

import os
from typing import NamedTuple

from fairseq_vat.errors import VATError
from fairseq_vat.text import clean_line, decode_line, read_raw_lines


class LabelledSentence(NamedTuple):
    """One line of a file.

    Attributes:
        label: any text.
        sentence: cleaned, never empty.
        line: its number in the file, from 1.
    """

    label: str
    sentence: str
    line: int


class LabelledPair(NamedTuple):
    """One line of a file of pairs.

    Attributes:
        label: any text.
        first: cleaned, never empty.
        second: cleaned, never empty.
        line: its number in the file, from 1.
    """

    label: str
    first: str
    second: str
    line: int


def read_labelled(path: str | os.PathLike) -> list[LabelledSentence]:
    """Read a file of ``label<TAB>sentence`` lines, plain, ``.gz`` or ``.xz``.

    Quotes are characters like any other. Empty lines are left out; bytes that aren't UTF-8 become
    U+FFFD.

    Raises:
        VATError: for a line without a label or without a sentence, for one of more columns, and
            for a file that holds none.
    """
    rows = _read(path, ("label", "sentence"))
    return [LabelledSentence(*columns, number) for number, columns in rows]


def read_labelled_pairs(path: str | os.PathLike) -> list[LabelledPair]:
    """Read a file of ``label<TAB>sentence<TAB>sentence`` lines, otherwise as `read_labelled`."""
    rows = _read(path, ("label", "first sentence", "second sentence"))
    return [LabelledPair(*columns, number) for number, columns in rows]


def _read(path: str | os.PathLike, names: tuple[str, ...]) -> list[tuple[int, list[str]]]:
    """The lines' numbers and columns, the first stripped and the others cleaned."""
    form = "<TAB>".join(name.split()[-1] for name in names)
    found = []
    for number, raw in enumerate(read_raw_lines(path), start=1):
        line = decode_line(raw)
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) != len(names):
            what = "no TAB" if len(columns) == 1 else f"{len(columns)} columns"
            raise VATError(f"{path}:{number}: {what}; each line must be {form}")
        columns = [columns[0].strip(), *map(clean_line, columns[1:])]
        if "" in columns:
            raise VATError(f"{path}:{number}: the {names[columns.index('')]} is empty")
        found.append((number, columns))
    if not found:
        raise VATError(f"{path} holds no line; each must be {form}")
    return found
