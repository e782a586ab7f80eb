"""Text files to files of pieces and fairseq's dictionary, in a folder that is only made once."""

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fairseq_vat import files
from fairseq_vat.errors import VATError
from fairseq_vat.text import subwords
from fairseq_vat.text import wordpiece as wordpiece_files
from fairseq_vat.text.lines import read_lines

SPLITS = ("train", "valid", "test")
# a text of N words gets the largest power of two up to 8 sqrt(N), within these
SMALLEST_VOCABULARY, LARGEST_VOCABULARY = 256, 32768
DEFAULT_CHARACTER_COVERAGE = 0.9995
_GPT2_FILES = ("vocab.json", "merges.txt")
Tell = Callable[[str], object]


def tokenize(
    texts: Mapping[str, str | os.PathLike],
    out: str | os.PathLike,
    *,
    vocab_size: int | None = None,
    sentencepiece_model: str | os.PathLike | None = None,
    gpt2: str | os.PathLike | None = None,
    wordpiece: str | os.PathLike | None = None,
    train_wordpiece: int | None = None,
    drop_unused: bool = False,
    character_coverage: float | None = None,
    max_pieces: int | None = None,
    tell: Tell = lambda line: None,
    warn: Tell = lambda line: None,
) -> dict[str, Any]:
    """Make what is missing or out of date in the folder.

    Args:
        texts: the file of each of `SPLITS`, a sentence a line; plain, ``.gz`` or ``.xz``.
        out: the folder: ``dict.txt``, ``SPLIT.pieces``, and ``sentencepiece.model``, GPT-2's
            ``vocab.json`` and ``merges.txt``, or WordPiece's ``vocab.txt``.
        vocab_size: length of fairseq's dictionary, its four special symbols included; None takes
            one that fits the text, or that of what is given.
        drop_unused: keep of the WordPiece vocabulary what the texts use.
        character_coverage: as for `train_sentencepiece`; None takes `DEFAULT_CHARACTER_COVERAGE`.
        tell: is given a line about each step.
        warn: is given a line for each text with the word ``<unk>`` in it.

    Returns:
        what ``tokenize.json`` holds: ``made_from``, ``dictionary``, its length, and ``splits``.

    Raises:
        VATError: for files that aren't what they should be, and a text that nothing is left of.
    """
    out = Path(out)
    for name in SPLITS:
        if Path(texts[name]).is_fifo():
            raise VATError(f"--{name} {texts[name]}: is a pipe; give a file, which is read twice")
    digests = {name: files.sha256(texts[name]) for name in SPLITS}
    lock = partial(files.lock_folder, out, files.OTHER_RUN)  # makes it
    if drop_unused and not wordpiece:
        raise VATError("--drop-unused: only of --wordpiece; the other vocabularies fit the text")
    if wordpiece or train_wordpiece:
        if character_coverage is not None:
            raise VATError("--character-coverage is sentencepiece's; leave it out for WordPiece")
        path = out / "vocab.txt"
        lock()
        if wordpiece:
            _given_wordpiece(wordpiece, path, texts if drop_unused else {}, digests, tell)
        else:
            made_from = {"size": train_wordpiece, "train_sha256": digests["train"]}
            _trained_wordpiece(texts["train"], path, made_from, tell)
        vocabulary = wordpiece_files.WordpieceVocabulary(path)
        origin, digest = wordpiece or path, {"wordpiece_sha256": files.sha256(path)}
    elif gpt2:
        if character_coverage is not None:
            raise VATError("--character-coverage: --gpt2 has a piece for every byte; leave it out")
        from fairseq_vat.text.gpt2_vocabulary import GPT2Vocabulary  # here, as it loads fairseq

        vocabulary = GPT2Vocabulary(gpt2)
        lock()
        origin, digest = gpt2, {"gpt2_sha256": vocabulary.digest()}
    else:
        lock()
        if sentencepiece_model:
            if character_coverage is not None:
                raise VATError("--character-coverage is of a new model's training; leave it out")
            path = _copied_model(sentencepiece_model, out)
        else:
            model_made_from = {
                "vocab_size": vocab_size,
                "character_coverage": character_coverage or DEFAULT_CHARACTER_COVERAGE,
                "train_sha256": digests["train"],
            }
            path = _trained_model(texts["train"], out, model_made_from, tell)
        vocabulary = subwords.SentencepieceVocabulary(path)
        origin, digest = sentencepiece_model, {"model_sha256": files.sha256(path)}
    size = len(vocabulary.symbols) + len(subwords.SPECIALS)
    if vocab_size not in (None, size):
        raise VATError(
            f"--vocab-size {vocab_size}: {origin} makes a dictionary of {size}; leave --vocab-size "
            f"out or give {size}"
        )

    # Written last: a folder that has it is whole.
    note = out / "tokenize.json"
    made_from = {"sha256": digests, **digest, "max_pieces": max_pieces}
    written = ["dict.txt", *(f"{name}.pieces" for name in SPLITS), *(_GPT2_FILES if gpt2 else ())]
    there = files.read_json(note)
    if (
        isinstance(there, dict)
        and there.get("made_from") == made_from
        and all((out / name).exists() for name in written)
    ):
        tell(f"{out}: up to date, nothing to do")
        return there
    note.unlink(missing_ok=True)

    reports = {}
    for name in SPLITS:
        destination = out / f"{name}.pieces"
        report = subwords.encode_file(vocabulary, texts[name], destination, max_pieces=max_pieces)
        tell(f"{name}: {texts[name]}: {report.cleaning}")
        tell(f"{name}: {_written(report, max_pieces)}")
        if report.unk_words:
            word, count = subwords.UNK_WORD, len(vocabulary.encode([subwords.UNK_WORD])[0])
            how = "a piece of its own"
            if count > 1:
                how = f"cut into {count} pieces, since the vocabulary has none for it"
            warn(f"{name}: {texts[name]}: the word {word} {report.unk_words:,} times: {how}")
        if not report.sentences:
            raise VATError(
                f"--{name} {texts[name]}: no sentence is left; see the counts above for the reason"
            )
        reports[name] = report
    # what the model knows of valid and test must not enter the counts
    subwords.write_dictionary(vocabulary.symbols, reports["train"].counts, out / "dict.txt")
    if gpt2:
        vocabulary.write(*(out / name for name in _GPT2_FILES))
    splits = {name: _figures(report) for name, report in reports.items()}
    value = {"made_from": made_from, "dictionary": size, "splits": splits}
    files.write_json(note, value)
    tell(f"{out / 'dict.txt'}: {size:,} symbols for fairseq, its 4 special ones included")
    return value


def _copied_model(given: str | os.PathLike, out: Path) -> Path:
    path = out / "sentencepiece.model"
    subwords.load_model(given)
    if not (path.exists() and path.read_bytes() == Path(given).read_bytes()):
        (out / "sentencepiece.json").unlink(missing_ok=True)
        files.copy_whole(given, path)
    return path


def _trained_model(
    text: str | os.PathLike, out: Path, made_from: dict[str, Any], tell: Tell
) -> Path:
    """The one that is there, or a new one."""
    path, note = out / "sentencepiece.model", out / "sentencepiece.json"
    if path.exists() and files.read_json(note) == made_from:
        tell(f"{path}: there already, from the same text")
        return path
    note.unlink(missing_ok=True)
    size = made_from["vocab_size"] or fitting_vocab_size(text)
    train = partial(
        subwords.train_sentencepiece,
        *(text, path.with_suffix("")),
        character_coverage=made_from["character_coverage"],
    )
    tell(f"{path}: training with {size:,} symbols on {text} ...")
    needed = 0
    while True:  # too small at most once, and too large at most once
        try:
            train(vocab_size=size)
            break
        except subwords.VocabularyTooSmallError as error:
            if made_from["vocab_size"] is not None:
                raise
            needed = error.needed
            size = 2 ** math.ceil(math.log2(2 * needed))  # as many again or more for what they make
            tell(f"{path}: the text's characters take {needed:,}: training with {size:,} ...")
        except subwords.VocabularyTooLargeError as error:
            if made_from["vocab_size"] is not None:
                raise
            eights = error.largest // 8 * 8
            size = eights if eights >= max(64, needed) else error.largest
            tell(f"{path}: the text has subwords for {size:,}: training with that ...")
    files.write_json(note, made_from)
    return path


def _given_wordpiece(
    given: str | os.PathLike,
    path: Path,
    texts: Mapping[str, str | os.PathLike],
    digests: Mapping[str, str],
    tell: Tell,
) -> None:
    """A copy, of what the texts use of it where there are any."""
    wordpiece_files.check_wordpiece(given)
    note = path.with_name("wordpiece.json")
    if not texts:
        note.unlink(missing_ok=True)
        files.copy_whole(given, path)
        return
    made_from = {"used_of": files.sha256(given), "sha256": digests}
    if path.exists() and files.read_json(note) == made_from:
        return
    note.unlink(missing_ok=True)
    tell(f"{path}: what the texts use of {given} ...")
    wordpiece_files.keep_used(given, texts.values(), path)
    files.write_json(note, made_from)


def _trained_wordpiece(
    text: str | os.PathLike, path: Path, made_from: dict[str, Any], tell: Tell
) -> None:
    """The one that is there, or a new one."""
    note = path.with_name("wordpiece.json")
    if path.exists() and files.read_json(note) == made_from:
        tell(f"{path}: there already, from the same text")
        return
    note.unlink(missing_ok=True)
    tell(f"{path}: training with {made_from['size']:,} pieces on {text} ...")
    wordpiece_files.train_wordpiece(text, path, made_from["size"])
    files.write_json(note, made_from)


def fitting_vocab_size(text: str | os.PathLike) -> int:
    """A size of vocabulary for a text: a power of two that grows with the root of its words."""
    words = sum(len(line.split()) for line in read_lines(text))
    fitting = 2 ** int(math.log2(max(1, 8 * math.sqrt(words))))
    return min(max(SMALLEST_VOCABULARY, fitting), LARGEST_VOCABULARY)


def _figures(report: subwords.EncodingReport) -> dict[str, int]:
    names = ("sentences", "too_long", "vanished", "unknown", "unk_words")
    figures = {name: getattr(report, name) for name in names}
    return {**vars(report.cleaning), **figures, "pieces": report.counts.total()}


def _written(report: subwords.EncodingReport, max_pieces: int | None) -> str:
    total = report.counts.total()
    parts = [f"{report.sentences:,} sentences written", f"{total:,} pieces"]
    if total:
        parts.append(f"{report.unknown / total:.3%} of them unknown")
    if max_pieces is not None:
        parts.append(f"{report.too_long:,} sentences of more than {max_pieces} pieces dropped")
    if report.vanished:
        parts.append(f"{report.vanished:,} dropped that normalisation left nothing of")
    return ", ".join(parts)
