"""What ``fairseq-preprocess --only-source`` left behind, and what it should have.

fairseq believes an index (.idx) file: sizes that aren't so end in a traceback, or make batches
without end. Here they are compared with the files first.
"""

import hashlib
import io
import itertools
import logging
import os
import struct
from dataclasses import dataclass
from glob import glob
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import ConcatDataset, Dictionary, indexed_dataset

from fairseq_vat.errors import VATError
from fairseq_vat.text.subword_files import SubwordFiles, is_plain

logger = logging.getLogger(__name__)


def first_data_directory(data: str) -> str:
    """The first of one or more data directories, separated by colons.

    Raises:
        VATError: if one isn't there, or the first has no dictionary, saying why.
    """
    paths = utils.split_paths(data) or [""]
    missing = [path for path in paths if not os.path.isdir(path)]
    path = (missing or paths)[0]
    if missing:
        several = f" (a colon separates several, and {data!r} has one)" if len(paths) > 1 else ""
        raise VATError(
            f"data directory {path!r} doesn't exist{several}; make it with fairseq-preprocess"
        )
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


def load_dictionary(data: str) -> Dictionary:
    """The dictionary of the (first) data directory."""
    path = os.path.join(first_data_directory(data), "dict.txt")
    try:
        dictionary = Dictionary.load(path)
        if dictionary.count and min(dictionary.count) < 0:
            number = dictionary.count.index(min(dictionary.count))
            raise ValueError(f"{dictionary[number]!r} has a count of {dictionary.count[number]}")
        return dictionary
    except Exception as error:  # of what kind depends on what is wrong
        reason = " ".join(str(error).split())[:200]
        raise VATError(f"{path} is no dictionary of fairseq-preprocess ({reason})") from None


def load_sentences(path: str, dictionary: Dictionary, combine: bool = False) -> Any:
    """fairseq's dataset of a split, or None if there is none.

    Args:
        path: without .bin and .idx.
        combine: also the parts that have a number behind `path`.

    Raises:
        VATError: for an index that doesn't fit its .bin file, and for a .bin file with words that
            the dictionary doesn't have.
    """
    parts: list[Any] = []
    for number in itertools.count():
        prefix = f"{path}{number or ''}"
        if not indexed_dataset.IndexedDataset.exists(prefix) or (parts and not combine):
            break
        # fairseq's load_indexed_dataset would take other files of the same name for text or for
        # proteins, and hand the path to a shell
        kind = _check_index(prefix, len(dictionary))
        part = indexed_dataset.make_dataset(
            prefix, impl=kind, fix_lua_indexing=True, dictionary=dictionary
        )
        logger.info(f"loaded {len(part):,} examples from: {prefix}")
        parts.append(part)
    return ConcatDataset(parts) if len(parts) > 1 else (parts or [None])[0]


def load_split(folder: str, split: str, dictionary: Dictionary, combine: bool = False) -> Any:
    """`load_sentences` of a split that has to be there, with a sentence at least."""
    path = os.path.join(folder, split)
    sentences = load_sentences(path, dictionary, combine)
    if sentences is not None and len(sentences) > 0:
        return sentences
    if sentences is not None:
        raise VATError(f"{path}.bin holds no sentence")
    if glob(f"{path}.*-*.*.bin"):
        raise VATError(
            f"{path} was preprocessed as a pair of languages: run fairseq-preprocess again with "
            "--only-source"
        )
    splits = sorted(os.path.basename(name)[:-4] for name in glob(os.path.join(folder, "*.idx")))
    raise VATError(
        f"no {path}.bin and .idx; {folder} has {', '.join(splits) or 'no binarised text'}"
    )


_AT_ONCE = 1 << 24  # tokens looked at together
_MMAP, _CACHED = b"MMIDIDX\x00\x00", b"TNTIDX\x00\x00"


def _check_index(prefix: str, types: int) -> str:
    """fairseq's name for the kind of an index.

    Raises:
        VATError: unless its every sentence lies in its .bin file, in known words.
    """
    index, tokens = f"{prefix}.idx", f"{prefix}.bin"
    try:
        name, sizes_N, starts_N, kind = _read_index(index)
        width = kind.itemsize
    except (KeyError, ValueError, OverflowError, struct.error):
        raise VATError(
            f"{index} can't be used: it is no index of fairseq-preprocess (--dataset-impl mmap or "
            "cached), or is cut off or damaged; binarise the text again"
        ) from None
    room = os.path.getsize(tokens) // width
    bad_N = (sizes_N < 1) | (sizes_N > room) | (starts_N < 0) | (starts_N > room - sizes_N)
    if bad_N.any():
        number = int(bad_N.argmax())
        raise VATError(
            f"{index} can't be used: its sentence {number + 1} has {sizes_N[number]} tokens from "
            f"{starts_N[number]} on, and {tokens} has {room}; binarise the text again"
        )
    if room:
        _check_tokens(np.memmap(tokens, kind, "r", shape=room), tokens, types)
    return name


def _check_tokens(tokens_T: np.ndarray, path: str, types: int) -> None:
    """Raise `VATError` for numbers that the dictionary doesn't have: it is of another text."""
    for first in range(0, len(tokens_T), _AT_ONCE):
        part = tokens_T[first : first + _AT_ONCE]
        least, largest = int(part.min()), int(part.max())
        if least < 0 or largest >= types:
            wrong = least if least < 0 else largest
            raise VATError(
                f"{path} holds token {wrong}, and dict.txt has {types} types: they aren't of one "
                "fairseq-preprocess, or are damaged; binarise the text again"
            )


def _read_index(path: str) -> tuple[str, np.ndarray, np.ndarray, np.dtype]:
    """Its kind, length and start of every sentence, in tokens, and a token's type.

    The two kinds of fairseq's `indexed_dataset`: MMapIndexedDataset and IndexedCachedDataset.
    """
    content = np.memmap(path, np.uint8, "r")
    head = content[:64].tobytes()
    if head.startswith(_MMAP):
        name = "mmap"
        version, code, count = struct.unpack_from("<QBQ", head, len(_MMAP))
        kind = np.dtype(indexed_dataset._code_to_dtype[code])
        width = kind.itemsize
        offset = len(_MMAP) + struct.calcsize("<QBQ")
        sizes_N = np.frombuffer(content, np.int32, count, offset)
        bytes_N = np.frombuffer(content, np.int64, count, offset + sizes_N.nbytes)
        starts_N = bytes_N // width
        consistent = version == 1 and not (bytes_N % width).any()
    elif head.startswith(_CACHED):
        name = "cached"
        version, code, width, count, total = struct.unpack_from("<QQQQQ", head, len(_CACHED))
        offset = len(_CACHED) + struct.calcsize("<QQQQQ")
        dims = np.frombuffer(content, np.int64, count + 1, offset)
        ends = np.frombuffer(content, np.int64, count + 1, offset + dims.nbytes)
        sizes_N = np.frombuffer(content, np.int64, total, offset + 2 * dims.nbytes)
        starts_N = ends[:-1]
        kind = np.dtype(indexed_dataset._code_to_dtype[code])
        consistent = (
            (version, total, ends[0]) == (1, count, 0)
            and width == kind.itemsize
            and np.array_equal(dims, np.arange(count + 1))
            and np.array_equal(np.diff(ends), sizes_N)
        )
    else:
        consistent = False
    if not (consistent and np.issubdtype(kind, np.integer)):
        raise ValueError(path)
    return name, sizes_N.astype(np.int64), starts_N, kind


def fingerprint(dictionary: Dictionary) -> str:
    """The dictionary's size and a hash of its symbols in their order."""
    digest = hashlib.sha256("\n".join(dictionary.symbols).encode()).hexdigest()
    return f"{len(dictionary)} {digest}"


def check_dictionary(state: dict[str, Any], dictionary: Dictionary, data: str) -> None:
    """Raise `VATError` unless a checkpoint was trained with the dictionary.

    Where it has the same words with other counts, which decide nothing, it is warned of.

    Args:
        state: the checkpoint's ``task_state``; one of an early version says nothing.
    """
    trained_with = state.get("dictionary", fingerprint(dictionary))
    path = os.path.join(utils.split_paths(data)[0], "dict.txt")
    if trained_with != fingerprint(dictionary):
        raise VATError(
            f"{path} is not the dictionary the "
            f"checkpoint was trained with ({trained_with.split()[0]} types then, "
            f"{len(dictionary)} now): give the data directory of the training, or binarise with "
            "its dict.txt (fairseq-preprocess --srcdict)"
        )
    if data and state.get("symbols", _text_of(dictionary)) != _text_of(dictionary):
        logger.warning(
            f"{path} has other counts of words than the training's: it is edited, or of other text"
        )


def _text_of(dictionary: Dictionary) -> str:
    """What dict.txt holds."""
    text = io.StringIO()
    dictionary.save(text)
    return text.getvalue()


def vocabulary_state(dictionary: Dictionary, data: str, sizes_N: np.ndarray) -> dict[str, Any]:
    """What a checkpoint keeps, so that it needs no data directory: symbols, subwords, lengths.

    Args:
        data: the dictionary's data directory, which may say how its text became tokens.
        sizes_N: tokens of each of its sentences, the end counted.
    """
    subwords = SubwordFiles.read(data)
    # of sentences of 0, 1, ... tokens how many there are
    state = {"symbols": _text_of(dictionary), "lengths": torch.from_numpy(np.bincount(sizes_N))}
    return state if subwords is None else {**state, "subwords": subwords.state()}


@dataclass(frozen=True)
class Vocabulary:
    """What a checkpoint keeps of its training's data directory."""

    dictionary: Dictionary
    subwords: SubwordFiles | None  # how text becomes them, where the data said it
    lengths: torch.Tensor  # of sentences of 0, 1, ... tokens how many there were


def vocabulary_of(state: dict[str, Any]) -> Vocabulary | None:
    """What `vocabulary_state` put into a checkpoint; None for one of an earlier version."""
    if "symbols" not in state:
        return None
    try:
        dictionary = Dictionary.load(io.StringIO(state["symbols"]))
        told = fingerprint(dictionary)
    except Exception as error:  # of what kind depends on what is wrong
        reason = " ".join(str(error).split())[:200]
        raise VATError(f"the checkpoint's dictionary can't be read ({reason})") from None
    if told != state.get("dictionary"):
        raise VATError("the checkpoint's dictionary isn't the one that it was trained with")
    lengths, subwords = state.get("lengths"), state.get("subwords")
    if not (is_plain(lengths, torch.int64) and lengths.sum() > 0):
        raise VATError("the checkpoint's lengths of sentences can't be read")
    files = None if subwords is None else SubwordFiles.from_state(subwords)
    return Vocabulary(dictionary, files, lengths)
