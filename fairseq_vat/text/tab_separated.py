"""Files of lines with tabs between their columns, the last of which are sentences."""

from __future__ import annotations

import os

from fairseq_vat.errors import VATError
from fairseq_vat.text.lines import clean_line, decode_line, read_raw_lines


def read_columns(
    path: str | os.PathLike, names: tuple[str, ...], empty_sentences: bool = False
) -> list[tuple[int, list[str]]]:
    """The lines' numbers, from 1, and columns, the first stripped and the others cleaned.

    Plain, ``.gz`` or ``.xz``. Quotes are characters like any other. Empty lines are left out; bytes
    that aren't UTF-8 become U+FFFD.

    Args:
        path: the file.
        names: of the columns, for errors; the last word of each stands for it in the form of a
            line.
        empty_sentences: whether the columns after the first may be empty.

    Raises:
        VATError: for a line of more or fewer columns or with an empty one that may not be, and for
            a file that holds none.
    """
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
        needed = columns[:1] if empty_sentences else columns
        if "" in needed:
            empty = names[needed.index("")]
            raise VATError(f"{path}:{number}: the {empty} is empty; each line must be {form}")
        found.append((number, columns))
    if not found:
        raise VATError(f"{path} holds no line; each must be {form}")
    return found
