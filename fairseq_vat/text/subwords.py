"""Sentencepiece for fairseq: train a unigram model, encode text, write fairseq's dictionary."""

from __future__ import annotations

import io
import itertools
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import sentencepiece
from tqdm import tqdm

from fairseq_vat.errors import VATError
from fairseq_vat.files import atomic_path
from fairseq_vat.text.lines import CleaningReport, read_lines

if TYPE_CHECKING:
    from fairseq_vat.text.gpt2_vocabulary import GPT2Vocabulary

# fairseq's Dictionary puts these before the entries of dict.txt.  The model reserves the same
# four names, so the model's size is the dictionary's, and no learned piece can be called one.
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
# In texts of a closed vocabulary (PTB, WikiText-2) it stands for rare words: a word like any other,
# and not what the dictionary doesn't know.  A piece of its own keeps it whole, is predicted like
# other pieces, and decodes to the word wherever the model is used.
UNK_WORD = "<unk>"
_UNK_PIECE = "\u2581" + UNK_WORD

# The thread count takes part in the result (sums are grouped by thread), so it is fixed: the same
# text gives the same model on every machine.
_THREADS = 4
_BATCH = 2000
_LONGEST = 1 << 16  # bytes of a line


@dataclass
class EncodingReport:
    """What `encode_file` did with one file."""

    cleaning: CleaningReport = field(default_factory=CleaningReport)
    sentences: int = 0
    too_long: int = 0  # sentences dropped for having more pieces than allowed
    vanished: int = 0  # sentences dropped because nothing is left of them after normalisation
    unknown: int = 0  # pieces written that the model does not know
    unk_words: int = 0  # how often the word ``<unk>`` stands in the sentences written
    counts: Counter[str] = field(default_factory=Counter)


class VocabularyTooLargeError(VATError):
    """A vocabulary that a text has not enough subwords for."""

    def __init__(self, message: str, largest: int):
        super().__init__(message)
        self.largest = largest


class VocabularyTooSmallError(VATError):
    """A vocabulary that has not enough subwords for a text's characters."""

    def __init__(self, message: str, needed: int):
        super().__init__(message)
        self.needed = needed


def load_model(path: str | os.PathLike) -> sentencepiece.SentencePieceProcessor:
    """Load a sentencepiece model, or say in one line why it can't be."""
    data = Path(path).read_bytes()
    try:
        # An empty proto would be taken for "no model given" and accepted.
        return sentencepiece.SentencePieceProcessor(model_proto=data or b"\0")
    except RuntimeError as error:
        raise VATError(
            f"{path} is not a sentencepiece model; give the .model file, not the .vocab"
        ) from error


def train_sentencepiece(
    train_txt: str | os.PathLike,
    model_prefix: str | os.PathLike,
    vocab_size: int,
    *,
    character_coverage: float = 0.9995,
    input_sentence_size: int = 1_000_000,
    seed: int = 1,
) -> Path:
    """Train a unigram model on a text file and return the model's path.

    ``vocab_size`` is the length of fairseq's dictionary, its four special symbols included: 32768
    gives ``len(Dictionary) == 32768``.

    Text is normalised by sentencepiece's ``nmt_nfkc``, in training and wherever the model is used:
    ligatures, full-width and decomposed letters and odd spaces share one piece with the plain form,
    at the price that decoded text is the normalised sentence and not its bytes (an ellipsis comes
    back as three dots, and U+FFFD as a space).  There is no byte fallback: characters beyond the
    coverage are ``<unk>``, as in the rest of fairseq, and not up to four pieces with a latent each.
    If the text has the word ``<unk>``, that is a piece of its own, ``▁<unk>``.

    Args:
        train_txt: the text, a sentence a line (plain, ``.gz`` or ``.xz``); it is cleaned here.
        character_coverage: share of the text's characters that get a piece; the ASCII characters
            in it always do.
        input_sentence_size: train on a random sample of this many sentences where there are more.
    """
    count, characters, has_unk = _survey(train_txt)
    if count == 0:
        raise VATError(
            f"{train_txt} has no line with text of up to {_LONGEST:,} bytes to train sentencepiece "
            "on: a sentence a line, lines end with \\n"
        )
    proto = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sample(train_txt, count, input_sentence_size, seed),
            model_writer=proto,
            model_type="unigram",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            # In a text of few questions a question mark falls below the coverage.
            **({"required_chars": characters} if characters else {}),
            **({"user_defined_symbols": [_UNK_PIECE]} if has_unk else {}),
            normalization_rule_name="nmt_nfkc",
            byte_fallback=False,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            unk_piece="<unk>",
            bos_piece="<s>",
            eos_piece="</s>",
            pad_piece="<pad>",
            # Longer lines are left out without a word; the default, 4192 bytes, is one paragraph.
            max_sentence_length=_LONGEST,
            num_threads=_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explained(str(error), train_txt, vocab_size) from error
    path = Path(f"{os.fspath(model_prefix)}.model")
    with atomic_path(path) as temporary:
        temporary.write_bytes(proto.getvalue())
    return path


def _survey(path: str | os.PathLike) -> tuple[int, str, bool]:
    """How many lines a text has, which visible ASCII characters, and if it has the word <unk>.

    None, where all are too long to train on.
    """
    count, has_unk, fits = 0, False, False
    characters: set[str] = set()
    for line in read_lines(path):
        count += 1
        fits = fits or len(line.encode()) <= _LONGEST
        characters.update(line)
        has_unk = has_unk or UNK_WORD in line.split()
    visible = sorted(c for c in characters if c.isascii() and not c.isspace())
    return count * fits, "".join(visible), has_unk


def _sample(path: str | os.PathLike, count: int, size: int, seed: int) -> Iterator[str]:
    """Up to ``size`` of a text's ``count`` lines.

    sentencepiece can sample by itself, but draws another sample in every process, whatever its
    seed.
    """
    if count <= size:
        return read_lines(path)
    chosen = set(random.Random(seed).sample(range(count), size))
    return (line for number, line in enumerate(read_lines(path)) if number in chosen)


def _explained(message: str, train_txt: str | os.PathLike, vocab_size: int) -> VATError:
    flag = f"--vocab-size {vocab_size}"
    if found := re.search(r"too high.*?value <= (\d+)", message):
        largest = int(found[1])
        eights = f", or {largest // 8 * 8} for a multiple of 8" if largest % 8 else ""
        text = f"{flag} is too large for {train_txt}: the largest that works is {largest}{eights}"
        return VocabularyTooLargeError(text, largest)
    if found := re.search(r"required_chars\. \d+ vs (\d+)", message):
        text = f"{flag} is too small for {train_txt}: its characters alone need {found[1]}"
        return VocabularyTooSmallError(text, int(found[1]))
    return VATError(
        f"sentencepiece can't be trained on {train_txt} with {vocab_size} pieces: {message}"
    )


class SentencepieceVocabulary:
    """A sentencepiece model, as text is encoded with it for fairseq.

    Attributes:
        symbols: the pieces that go into fairseq's dictionary, in the model's order: all but
            sentencepiece's own symbols, for which fairseq has its own.
    """

    def __init__(self, path: str | os.PathLike):
        self._model = model = load_model(path)
        begins = model.encode("a", out_type=str)[:1]
        if not "".join(begins).startswith("\u2581"):
            raise VATError(
                f"{path}: its sentences don't begin with \u2581 (add_dummy_prefix, "
                "treat_whitespace_as_suffix), which tells pieces from text; train it without these"
            )
        ids = range(model.get_piece_size())
        ordinary = (i for i in ids if not (model.is_control(i) or model.is_unknown(i)))
        pieces = map(model.id_to_piece, ordinary)
        self.symbols = [piece for piece in pieces if piece not in SPECIALS]

    def encode(self, lines: list[str]) -> list[list[str]]:
        """The pieces of every line."""
        return self._model.encode(lines, out_type=str)


def write_dictionary(symbols: Iterable[str], counts: Counter[str], path: str | os.PathLike) -> None:
    """Write fairseq's ``dict.txt``: a symbol and its count a line.

    The order is the vocabulary's, and not that of the counts: a piece then has the same index with
    every text that is encoded with it, and checkpoints stay usable.
    """
    with atomic_path(path) as temporary:
        lines = (f"{symbol} {counts[symbol]}\n" for symbol in symbols)
        temporary.write_text("".join(lines), encoding="utf-8", newline="\n")


def encode_file(
    vocabulary: SentencepieceVocabulary | GPT2Vocabulary,
    src_txt: str | os.PathLike,
    dst: str | os.PathLike,
    *,
    max_pieces: int | None = None,
    report_every: int = 200_000,
) -> EncodingReport:
    """Write the sentences of a text file as space-separated pieces, a sentence a line.

    Args:
        src_txt: the text, a sentence a line (plain, ``.gz`` or ``.xz``); it is cleaned here.
        max_pieces: leave out (and count) sentences of more pieces; the end-of-sentence symbol,
            which fairseq adds, is not counted.
    """
    report = EncodingReport()
    lines = _with_progress(read_lines(src_txt, report.cleaning), src_txt, report_every)
    with atomic_path(dst) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as out:
        while batch := list(itertools.islice(lines, _BATCH)):
            for line, pieces in zip(batch, vocabulary.encode(batch), strict=True):
                if not pieces:
                    report.vanished += 1
                elif max_pieces is not None and len(pieces) > max_pieces:
                    report.too_long += 1
                else:
                    report.sentences += 1
                    report.counts.update(pieces)
                    report.unk_words += line.split().count(UNK_WORD)
                    out.write(" ".join(pieces) + "\n")
    known = set(vocabulary.symbols)
    report.unknown = sum(n for piece, n in report.counts.items() if piece not in known)
    return report


def _with_progress(lines: Iterable[str], path: str | os.PathLike, every: int) -> Iterator[str]:
    name = Path(path).name
    if sys.stderr.isatty():
        yield from tqdm(lines, desc=name, unit=" sentences", unit_scale=True, leave=False)
        return
    for number, line in enumerate(lines, start=1):
        yield line
        if number % every == 0:
            print(f"{name}: {number:,} sentences", file=sys.stderr, flush=True)
