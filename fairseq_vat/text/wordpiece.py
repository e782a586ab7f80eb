"""WordPiece, BERT's subwords, for fairseq: train a vocabulary, encode text.

Text becomes pieces by fairseq's own ``--bpe bert``, so generation needs nothing of ours: lower
case, no accents, punctuation marks apart, and then the longest pieces from the left, those inside a
word after ``##``.
"""

import itertools
import os
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from fairseq_vat.errors import VATError
from fairseq_vat.files import atomic_path
from fairseq_vat.text.lines import read_lines

# fairseq's <pad>, <unk>, <s> and </s> stand for these, so that a dictionary is as long as vocab.txt
_FOR_FAIRSEQ = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_SPECIALS = (*_FOR_FAIRSEQ, "[MASK]")
# BERT's
_LARGEST_ALPHABET = 1000
_BATCH = 1000


class WordpieceVocabulary:
    """A ``vocab.txt``, as text is encoded with it for fairseq.

    Attributes:
        symbols: the pieces that go into fairseq's dictionary, in the file's order: all but the four
            for which fairseq has its own.

    Raises:
        VATError: for a file that isn't a WordPiece vocabulary of lower-case pieces, and without
            transformers.
    """

    def __init__(self, path: str | os.PathLike):
        check_wordpiece(path)
        from fairseq.data.encoders.hf_bert_bpe import BertBPE

        try:
            self._bpe = BertBPE(Namespace(bpe_vocab_file=os.fspath(path), bpe_cased=False))
        except ImportError as error:
            raise VATError("--wordpiece needs transformers: pip install transformers") from error
        self.symbols = [piece for piece in _read(path) if piece not in _FOR_FAIRSEQ]

    def encode(self, lines: list[str]) -> list[list[str]]:
        """The pieces of every line, ``[UNK]`` among them, which fairseq reads as unknown."""
        return [self._bpe.encode(line).split() for line in lines]


def check_wordpiece(path: str | os.PathLike) -> None:
    """Raise `VATError` for a file that isn't a WordPiece vocabulary that can be used here."""
    if not os.path.isfile(path):
        raise VATError(f"{path}: there is no such file; give WordPiece's vocab.txt")
    pieces = _read(path)
    if missing := sorted(set(_FOR_FAIRSEQ) - set(pieces)):
        raise VATError(f"{path} is no WordPiece vocabulary: it has no {', '.join(missing)}")
    if len(set(pieces)) < len(pieces) or any(len(piece.split()) != 1 for piece in pieces):
        raise VATError(f"{path}: every line must be another piece, without spaces")
    if clash := sorted({"<s>", "<pad>", "</s>", "<unk>"} & set(pieces)):
        raise VATError(f"{path} has {', '.join(clash)}, which are fairseq's own; leave them out")
    capital = (piece for piece in pieces if piece[0] != "[" and piece != piece.lower())
    if piece := next(capital, None):
        raise VATError(f"{path} has the piece {piece!r}; text is lower-cased: give an uncased one")


def _read(path: str | os.PathLike) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise VATError(f"{path} isn't UTF-8; give WordPiece's vocab.txt") from None
    return text.removesuffix("\n").split("\n")


def keep_used(
    given: str | os.PathLike, texts: Iterable[str | os.PathLike], path: str | os.PathLike
) -> None:
    """Write a vocabulary's ``vocab.txt`` without the pieces that none of the texts uses.

    The texts' pieces stay the same: what is longest from the left in all of them is so in fewer. A
    word without pieces can get some, where a longer one that led nowhere is gone.

    Args:
        given: the whole one.
        texts: a sentence a line (plain, ``.gz`` or ``.xz``); they are cleaned here.
    """
    vocabulary, used = WordpieceVocabulary(given), set(_SPECIALS)
    for text in texts:
        lines = read_lines(text)
        while batch := list(itertools.islice(lines, _BATCH)):
            for pieces in vocabulary.encode(batch):
                used.update(pieces)
    _write(path, (piece for piece in _read(given) if piece in used))


def train_wordpiece(train_txt: str | os.PathLike, path: str | os.PathLike, vocab_size: int) -> None:
    """Train WordPiece on a text file, and write its ``vocab.txt``.

    The tokenizers library's trainer numbers pieces in the order of a hash table, and breaks ties by
    the numbers. Here what it begins with has its order, so that the same text gives the same file.

    Args:
        train_txt: the text, a sentence a line (plain, ``.gz`` or ``.xz``); it is cleaned here.
        vocab_size: its lines, fewer where the text has fewer pieces; those of fairseq's dictionary.

    Raises:
        VATError: for a text without a line, a size below that of the alphabet, and without the
            tokenizers library.
    """
    try:
        from tokenizers import BertWordPieceTokenizer
    except ImportError as error:
        raise VATError("--train-wordpiece needs tokenizers: pip install tokenizers") from error
    tokenizer = BertWordPieceTokenizer()
    words: Counter[str] = Counter()
    for line in read_lines(train_txt):
        line = tokenizer.normalizer.normalize_str(line)
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(line))
    if not words:
        raise VATError(f"{train_txt} has no line with text to train WordPiece on")
    counts: Counter[str] = Counter()
    for word, count in words.items():
        counts.update({letter: count * word.count(letter) for letter in set(word)})
    # a word's first letters are its alphabet, and every later one is a piece with ## before it
    alphabet = sorted(sorted(counts, key=lambda c: (-counts[c], c))[:_LARGEST_ALPHABET])
    inside = set(alphabet).intersection(letter for word in words for letter in word[1:])
    first = [*_SPECIALS, *(f"##{letter}" for letter in sorted(inside))]
    if vocab_size < len(first) + len(alphabet):
        needed = len(first) + len(alphabet)
        raise VATError(
            f"--train-wordpiece {vocab_size} is too small for {train_txt}: its characters alone "
            f"need {needed}"
        )
    tokenizer.train_from_iterator(
        read_lines(train_txt),
        vocab_size=vocab_size,
        special_tokens=first,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    pieces = tokenizer.get_vocab()
    _write(path, sorted(pieces, key=pieces.get))


def _write(path: str | os.PathLike, pieces: Iterable[str]) -> None:
    with atomic_path(path) as temporary:
        text = "".join(f"{piece}\n" for piece in pieces)
        temporary.write_text(text, encoding="utf-8", newline="\n")
