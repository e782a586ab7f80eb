"""Labelled sentences: files of ``label<TAB>sentence``, and of pairs of sentences."""

from __future__ import annotations

import os
from typing import NamedTuple

from fairseq_vat.text.tab_separated import read_columns


class LabelledSentence(NamedTuple):
    """One line of a file.

    Attributes:
        label: any text.
        sentence: cleaned; CR and MPQA have empty ones.
        line: its number in the file, from 1.
    """

    label: str
    sentence: str
    line: int


class LabelledPair(NamedTuple):
    """One line of a file of pairs.

    Attributes:
        label: any text.
        first: cleaned, may be empty.
        second: cleaned, may be empty.
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
        VATError: for a line without a label or without a TAB, for one of more columns, and for a
            file that holds none.
    """
    rows = read_columns(path, ("label", "sentence"), empty_sentences=True)
    return [LabelledSentence(*columns, number) for number, columns in rows]


def read_labelled_pairs(path: str | os.PathLike) -> list[LabelledPair]:
    """Read a file of ``label<TAB>sentence<TAB>sentence`` lines, otherwise as `read_labelled`."""
    names = ("label", "first sentence", "second sentence")
    rows = read_columns(path, names, empty_sentences=True)
    return [LabelledPair(*columns, number) for number, columns in rows]
