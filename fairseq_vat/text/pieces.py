"""A dictionary's entries, joined into words.

Shape legend: S target positions.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairseq_vat.errors import VATError

if TYPE_CHECKING:
    from torch import Tensor

# sentencepiece's beginning of a word, WordPiece's inside of one, subword-nmt's end of a piece
_MARKED = re.compile(r"(?:^| )(?:\u2581|##\w)|@@(?: |$)")
# what fairseq's --remove-bpe knows, BERT's, and GPT-2's, whose entries are token numbers
PIECE_KINDS = ("none", "sentencepiece", "subword_nmt", "wordpiece", "gpt2")


class Pieces:
    """How a dictionary's entries are joined into words.

    Args:
        gpt2_vocabulary: the vocab.json that belongs to the numbers; for ``gpt2`` only.
    """

    def __init__(self, kind: str, gpt2_vocabulary: Path | None = None):
        self.kind = kind
        if kind == "gpt2":
            if gpt2_vocabulary is None:
                raise VATError("--remove-bpe gpt2 needs --gpt2-encoder-json, GPT-2's vocab.json")
            from fairseq.data.encoders.gpt2_bpe_utils import Encoder

            try:
                vocabulary = json.loads(gpt2_vocabulary.read_text(encoding="utf-8"))
            except ValueError:
                vocabulary = None
            if not isinstance(vocabulary, dict) or {*map(type, vocabulary.values())} - {int}:
                raise VATError(
                    f"--gpt2-encoder-json {gpt2_vocabulary} is not GPT-2's vocab.json, an object "
                    "with a number for every token"
                )
            self._gpt2, self._path = Encoder(vocabulary, bpe_merges=[]), gpt2_vocabulary

    @classmethod
    def of(cls, dictionary: Any, gpt2_vocabulary: Path | None = None) -> Pieces:
        """What the entries look like; GPT-2's numbers can be told only with their vocabulary."""
        kind = _kind_of(dictionary)
        if kind == "gpt2" and gpt2_vocabulary is None:
            kind = "none"
        pieces = cls(kind, gpt2_vocabulary)
        pieces.check(dictionary)
        return pieces

    def check(self, dictionary: Any) -> None:
        """Raise `VATError` where GPT-2's numbers of a dictionary aren't all in their vocabulary."""
        if self.kind == "gpt2":
            numbers = [int(symbol) for symbol in dictionary.symbols if symbol.isdecimal()]
            missing = [number for number in numbers if number not in self._gpt2.decoder]
            if missing:
                raise VATError(
                    f"--gpt2-encoder-json {self._path} has no token {missing[0]}, which the "
                    "dictionary has: give the vocab.json of the training"
                )

    @property
    def bleu_tokenizer(self) -> str:
        """sacrebleu's for joined pieces: words of a dictionary are tokens already."""
        return "none" if self.kind == "none" else "13a"

    def join(self, line: str) -> str:
        """A line of pieces, with spaces between them, as text."""
        if self.kind == "wordpiece":
            return line.replace(" ##", "")
        if self.kind != "gpt2":
            from fairseq.data.data_utils import post_process

            return post_process(line, self.kind)
        pieces = [int(piece) if piece.isdecimal() else piece for piece in line.split()]
        return self._gpt2.decode(pieces).strip()


def in_pieces(lines: Sequence[str]) -> bool:
    """Whether most lines look like subwords that nobody has joined."""
    lines = [line for line in lines if line.strip()]
    marked = [line for line in lines if _MARKED.search(line) or line.replace(" ", "").isdecimal()]
    return 2 * len(marked) > len(lines)


def _kind_of(dictionary: Any) -> str:
    """What the entries look like: GPT-2's are numbers, also where words would be."""
    symbols = dictionary.symbols[dictionary.nspecial :]
    symbols = [symbol for symbol in symbols if not symbol.startswith("madeupword")]
    if any(symbol.startswith("\u2581") for symbol in symbols):
        return "sentencepiece"
    if any(symbol.endswith("@@") for symbol in symbols):
        return "subword_nmt"
    if any(symbol.startswith("##") and symbol != "##" for symbol in symbols):
        return "wordpiece"
    return "gpt2" if symbols and all(symbol.isdecimal() for symbol in symbols) else "none"


def check_subwords(lines: Sequence[str], dictionary: Any) -> None:
    """Raise `VATError` for lines that aren't in the dictionary's subwords.

    A sentence of sentencepiece's begins with its mark of a word, GPT-2's tokens are numbers, and
    WordPiece's are all in the dictionary. Raw text would be read as unknown words, and answered
    with an invention.
    """
    firsts = [line.split(maxsplit=1)[0] for line in lines if line.strip()]
    kind = _kind_of(dictionary)
    if kind == "sentencepiece":
        fit = all(first.startswith(("\u2581", "<unk>")) for first in firsts)
        wanted = "sentencepiece subwords: give --sentencepiece-model"
    elif kind == "gpt2":
        fit = all(first.isdecimal() for first in firsts)
        wanted = "GPT-2's tokens: give --gpt2-encoder-json and --gpt2-vocab-bpe"
    elif kind == "wordpiece":
        # the end of a sentence stands between the two of a pair
        known = {"[UNK]", "<unk>", dictionary.eos_word, *dictionary.symbols[dictionary.nspecial :]}
        fit = all(known.issuperset(line.split()) for line in lines)
        wanted = "WordPiece: give --bpe bert --bpe-vocab-file"
    else:
        return
    if not fit:
        raise VATError(f"the dictionary has {wanted}, the model of the training")


def find_gpt2_vocabulary(data: str | os.PathLike) -> Path | None:
    """The vocab.json in or around a data directory, where `tokenize` leaves it, if there is one.

    Args:
        data: its path; empty where the model is all that there is.
    """
    if not data:
        return None
    paths = (place / "vocab.json" for place in (Path(data), Path(data).parent))
    return next((path for path in paths if path.is_file()), None)


def to_text(tokens_S: Tensor, dictionary: Any, pieces: Pieces, escape_unk: bool = False) -> str:
    """A sentence's text, its pieces joined.

    Args:
        tokens_S: indices; padding and the sentence's two ends are left out.
        escape_unk: write ``<<unk>>`` for the unknown, as fairseq does in references: an output's
            ``<unk>`` then never counts as right.
    """
    tokens_S = tokens_S[tokens_S.ne(dictionary.pad())]
    return pieces.join(dictionary.string(tokens_S, escape_unk=escape_unk))
