"""Labelled sentences: files of ``label<TAB>sentence``."""

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


def read_labelled(path: str | os.PathLike) -> list[LabelledSentence]:
    """Read a file of ``label<TAB>sentence`` lines, plain, ``.gz`` or ``.xz``.

    Quotes are characters like any other. Empty lines are left out; bytes that aren't UTF-8 become
    U+FFFD.

    Raises:
        VATError: for a line without a label or without a sentence, for one of more columns, and
            for a file that holds none.
    """
    found = []
    for number, raw in enumerate(read_raw_lines(path), start=1):
        line = decode_line(raw)
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) != 2:
            what = "no TAB" if len(columns) == 1 else f"{len(columns)} columns"
            raise VATError(f"{path}:{number}: {what}; each line must be label<TAB>sentence")
        label, sentence = columns[0].strip(), clean_line(columns[1])
        if not label or not sentence:
            raise VATError(f"{path}:{number}: the {'sentence' if label else 'label'} is empty")
        found.append(LabelledSentence(label, sentence, number))
    if not found:
        raise VATError(f"{path} holds no line; each must be label<TAB>sentence")
    return found
