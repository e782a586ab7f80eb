"""Text files to files of pieces and fairseq's dictionary, in a folder that is only made once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fairseq_vat import files
from fairseq_vat.errors import VATError
from fairseq_vat.text import subwords

SPLITS = ("train", "valid", "test")
DEFAULT_VOCAB_SIZE = 32768
DEFAULT_CHARACTER_COVERAGE = 0.9995
Tell = Callable[[str], object]


@dataclass
class _Vocabulary:
    """What text is encoded with.

    Attributes:
        size: length of fairseq's dictionary.
        origin: the file or directory that was given, or None where it was made here.
        made_from: digest under its name in tokenize.json.
        encode: lines to the pieces of each.
        encode_file: text file, destination and ``max_pieces`` to an `EncodingReport`.
        write_dictionary: counts and path.
        write_files: writes further files into the folder; and their names.
    """

    size: int
    origin: str | os.PathLike | None
    made_from: dict[str, str]
    encode: Callable[[list[str]], list[list[str]]]
    encode_file: Callable[..., subwords.EncodingReport]
    write_dictionary: Callable[[Counter[str], Path], None]
    write_files: Callable[[], None] = lambda: None
    files: tuple[str, ...] = ()


def tokenize(
    texts: Mapping[str, str | os.PathLike],
    out: str | os.PathLike,
    *,
    vocab_size: int | None = None,
    sentencepiece_model: str | os.PathLike | None = None,
    gpt2: str | os.PathLike | None = None,
    character_coverage: float | None = None,
    max_pieces: int | None = None,
    tell: Tell = lambda line: None,
    warn: Tell = lambda line: None,
) -> dict[str, Any]:
    """Make what is missing or out of date in the folder.

    Args:
        texts: the file of each of `SPLITS`, a sentence a line; plain, ``.gz`` or ``.xz``.
        out: the folder: ``dict.txt``, ``SPLIT.pieces``, and ``sentencepiece.model`` or GPT-2's
            ``vocab.json`` and ``merges.txt``.
        vocab_size: length of fairseq's dictionary, its four special symbols included; None takes
            `DEFAULT_VOCAB_SIZE`, or that of what is given.
        sentencepiece_model: a model to be used; None trains one.
        gpt2: a GPT-2 directory whose vocabulary is used instead.
        character_coverage: as for `train_sentencepiece`; None takes `DEFAULT_CHARACTER_COVERAGE`.
        max_pieces: sentences of more are dropped.
        tell: is given a line about each step.
        warn: is given a line for each text with the word ``<unk>`` in it.

    Returns:
        what ``tokenize.json`` holds: ``made_from``, ``dictionary``, its length, and ``splits``.

    Raises:
        VATError: for files that aren't what they should be, and a text that nothing is left of.
    """
    out = Path(out)
    digests = {name: files.sha256(texts[name]) for name in SPLITS}
    if gpt2:
        if character_coverage is not None:
            raise VATError("--character-coverage: --gpt2 has a piece for every byte; leave it out")
        vocabulary = _gpt2(gpt2, out)
    else:
        made_from = {
            "vocab_size": DEFAULT_VOCAB_SIZE if vocab_size is None else vocab_size,
            "character_coverage": (
                DEFAULT_CHARACTER_COVERAGE if character_coverage is None else character_coverage
            ),
            "train_sha256": digests["train"],
        }
        if sentencepiece_model:
            path = _copied_model(sentencepiece_model, out)
        else:
            path = _trained_model(texts["train"], out, made_from, tell)
        vocabulary = _sentencepiece(path, sentencepiece_model)
    size = vocabulary.size
    if vocab_size not in (None, size):
        raise VATError(
            f"--vocab-size {vocab_size}: {vocabulary.origin} makes a dictionary of {size}; "
            f"leave --vocab-size out or give {size}"
        )

    # Written last: a folder that has it is whole.
    note = out / "tokenize.json"
    made_from = {"sha256": digests, **vocabulary.made_from, "max_pieces": max_pieces}
    there = files.read_json(note)
    if _is_done(out, there, made_from, vocabulary.files):
        tell(f"{out}: up to date, nothing to do")
        return there
    note.unlink(missing_ok=True)

    reports = {}
    for name in SPLITS:
        destination = out / f"{name}.pieces"
        report = vocabulary.encode_file(texts[name], destination, max_pieces=max_pieces)
        tell(f"{name}: {texts[name]}: {report.cleaning}")
        tell(f"{name}: {_written(report, max_pieces)}")
        if report.unk_words:
            warn(f"{name}: {texts[name]}: {_unk_words(report.unk_words, vocabulary)}")
        if not report.sentences:
            raise VATError(
                f"--{name} {texts[name]}: no sentence is left; see the counts above for the reason"
            )
        reports[name] = report
    # what the model knows of valid and test must not enter the counts
    vocabulary.write_dictionary(reports["train"].counts, out / "dict.txt")
    vocabulary.write_files()
    splits = {name: _figures(report) for name, report in reports.items()}
    value = {"made_from": made_from, "dictionary": size, "splits": splits}
    files.write_json(note, value)
    tell(f"{out / 'dict.txt'}: {size:,} symbols for fairseq, its 4 special ones included")
    return value


def _sentencepiece(path: Path, origin: str | os.PathLike | None) -> _Vocabulary:
    model = subwords.load_model(path)
    return _Vocabulary(
        len(subwords.dictionary_pieces(model)) + len(subwords.SPECIALS),
        origin,
        {"model_sha256": files.sha256(path)},
        partial(model.encode, out_type=str),
        partial(subwords.encode_file, model),
        partial(subwords.write_dictionary, model),
    )


def _gpt2(directory: str | os.PathLike, out: Path) -> _Vocabulary:
    from fairseq_vat.text.gpt2_vocabulary import GPT2Vocabulary  # here, because it loads fairseq

    vocabulary = GPT2Vocabulary(directory)
    names = ("vocab.json", "merges.txt")
    return _Vocabulary(
        len(vocabulary.symbols) + len(subwords.SPECIALS),
        directory,
        {"gpt2_sha256": vocabulary.digest()},
        vocabulary.encode,
        partial(subwords.write_pieces, vocabulary.encode),
        vocabulary.write_dictionary,
        partial(vocabulary.write, *(out / name for name in names)),
        names,
    )


def _copied_model(given: str | os.PathLike, out: Path) -> Path:
    path = out / "sentencepiece.model"
    data = Path(given).read_bytes()
    subwords.load_model(given)
    if not (path.exists() and path.read_bytes() == data):
        with files.atomic_path(path) as temporary:
            temporary.write_bytes(data)
        (out / "sentencepiece.json").unlink(missing_ok=True)
    return path


def _trained_model(
    text: str | os.PathLike, out: Path, made_from: dict[str, Any], tell: Tell
) -> Path:
    """The one that is there, or a new one."""
    path, note = out / "sentencepiece.model", out / "sentencepiece.json"
    size = made_from["vocab_size"]
    if path.exists() and files.read_json(note) == made_from:
        tell(f"{path}: there already, with {size:,} symbols from the same text")
        return path
    tell(f"{path}: training with {size:,} symbols on {text} ...")
    note.unlink(missing_ok=True)
    coverage = made_from["character_coverage"]
    subwords.train_sentencepiece(text, path.with_suffix(""), size, character_coverage=coverage)
    files.write_json(note, made_from)
    return path


def _is_done(out: Path, note: object, made_from: dict, further: tuple[str, ...]) -> bool:
    names = ["dict.txt", *further, *(f"{name}.pieces" for name in SPLITS)]
    return (
        isinstance(note, dict)
        and note.get("made_from") == made_from
        and all((out / name).exists() for name in names)
    )


def _figures(report: subwords.EncodingReport) -> dict[str, int]:
    return {
        **report.cleaning.as_dict(),
        "sentences": report.sentences,
        "pieces": report.counts.total(),
        "too_long": report.too_long,
        "vanished": report.vanished,
        "unknown": report.unknown,
        "unk_words": report.unk_words,
    }


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


def _unk_words(count: int, vocabulary: _Vocabulary) -> str:
    """What became of the word <unk>."""
    pieces = len(vocabulary.encode([subwords.UNK_WORD])[0])
    how = "a piece of its own"
    if pieces > 1:
        how = f"cut into {pieces} pieces, since the vocabulary has none for it"
    return f"the word {subwords.UNK_WORD} {count:,} times: {how}"
