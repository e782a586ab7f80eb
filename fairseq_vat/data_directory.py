"""What ``fairseq-preprocess --only-source`` left behind, and what it should have."""

from __future__ import annotations

import hashlib
import os
from glob import glob

from fairseq import utils
from fairseq.data import Dictionary

from fairseq_vat.errors import VATError


def first_data_directory(data: str) -> str:
    """The first of one or more data directories, separated by colons.

    Raises:
        VATError: if it isn't there, or has no dictionary, saying why.
    """
    paths = utils.split_paths(data)
    path = paths[0] if paths else ""
    if not os.path.isdir(path):
        raise VATError(f"data directory {path!r} doesn't exist; make it with fairseq-preprocess")
    if os.path.isfile(os.path.join(path, "dict.txt")):
        return path
    if glob(os.path.join(path, "dict.*.txt")):
        raise VATError(
            f"{path} was preprocessed as a pair of languages (it has dict.LANG.txt, no dict.txt): "
            "run fairseq-preprocess again with --only-source"
        )
    raise VATError(
        f"{path} has no dict.txt: it must be the --destdir of fairseq-preprocess --only-source"
    )


def why_no_split(path: str, split: str) -> str:
    """A line that says why a split can't be loaded, and what is there instead."""
    where = os.path.join(path, split)
    if glob(f"{where}.*-*.*.bin"):
        return (
            f"{where} was preprocessed as a pair of languages: run fairseq-preprocess again with "
            "--only-source"
        )
    found = sorted(os.path.basename(name)[:-4] for name in glob(os.path.join(path, "*.idx")))
    return f"no {where}.bin and .idx; {path} has {', '.join(found) or 'no binarised text'}"


def fingerprint(dictionary: Dictionary) -> str:
    """The dictionary's size and a hash of its symbols in their order."""
    digest = hashlib.sha256("\n".join(dictionary.symbols).encode()).hexdigest()
    return f"{len(dictionary)} {digest}"
