"""``fairseq-vat tokenize``: text to pieces of a vocabulary and fairseq's dictionary."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fairseq_vat.errors import VATError

_SPLITS = ("train", "valid", "test")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add ``tokenize``."""
    parser = subparsers.add_parser(
        "tokenize",
        help="train sentencepiece and write pieces and dict.txt for fairseq-preprocess",
        description="Cleans the text, trains a sentencepiece unigram model on the training text "
        "and writes DIR/sentencepiece.model, DIR/{train,valid,test}.pieces and DIR/dict.txt.  "
        "With --gpt2 the vocabulary is GPT-2's, and DIR/vocab.json and DIR/merges.txt are written "
        "for fairseq's --bpe gpt2.  "
        "The word <unk> in the training text, as PTB and WikiText-2 have it, is a piece of its own "
        "(not with --gpt2).  "
        "What is there already, from the same text and options, is not made again.",
    )
    for name in _SPLITS:
        parser.add_argument(
            f"--{name}", metavar="FILE", required=True, help="a sentence a line; plain, .gz or .xz"
        )
    parser.add_argument("--out", metavar="DIR", required=True)
    parser.add_argument(
        "--vocab-size",
        type=int,
        metavar="N",
        help="length of fairseq's dictionary, its four special symbols included; a multiple of 8 "
        "is best on GPUs (default: 32768)",
    )
    given = parser.add_mutually_exclusive_group()
    given.add_argument(
        "--sentencepiece-model", metavar="MODEL", help="use this model and don't train one"
    )
    given.add_argument(
        "--gpt2", metavar="DIR", help="use the byte-level vocabulary of this GPT-2 directory"
    )
    parser.add_argument(
        "--character-coverage",
        type=float,
        metavar="SHARE",
        help="share of the training text's characters that get a piece, the others being unknown; "
        "ASCII characters always get one.  More than the default is worth its place where "
        "accented letters or curly quotes matter (default: 0.9995)",
    )
    parser.add_argument(
        "--max-pieces", type=int, metavar="N", help="drop sentences of more than N pieces"
    )
    parser.set_defaults(run=run)


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
    origin: str | None
    made_from: dict[str, str]
    encode: Callable[[list[str]], list[list[str]]]
    encode_file: Callable[..., Any]
    write_dictionary: Callable[[Counter[str], Path], None]
    write_files: Callable[[], None] = lambda: None
    files: tuple[str, ...] = ()


def run(args: argparse.Namespace) -> None:
    """Make what is missing or out of date in the folder."""
    from fairseq_vat import files

    if args.max_pieces is not None and args.max_pieces < 1:
        raise VATError(f"--max-pieces {args.max_pieces}: must be at least 1")
    out = Path(args.out)
    sources = {name: getattr(args, name) for name in _SPLITS}
    digests = {name: files.sha256(path) for name, path in sources.items()}
    vocabulary = _gpt2(args, out) if args.gpt2 else _sentencepiece(args, out, digests["train"])
    size = vocabulary.size
    if args.vocab_size not in (None, size):
        raise VATError(
            f"--vocab-size {args.vocab_size}: {vocabulary.origin} makes a dictionary of {size}; "
            f"leave --vocab-size out or give {size}"
        )

    # Written last: a folder that has it is whole.
    note = out / "tokenize.json"
    made_from = {"sha256": digests, **vocabulary.made_from, "max_pieces": args.max_pieces}
    if _is_done(out, files.read_json(note), made_from, vocabulary.files):
        print(f"{out}: up to date, nothing to do")
        return
    note.unlink(missing_ok=True)

    counts: Counter[str] = Counter()
    splits = {}
    for name, source in sources.items():
        report = vocabulary.encode_file(source, out / f"{name}.pieces", max_pieces=args.max_pieces)
        _print_report(name, source, report, args.max_pieces)
        if report.unk_words:
            _tell_unk(name, source, report.unk_words, vocabulary)
        if not report.sentences:
            raise VATError(
                f"--{name} {source}: no sentence is left; see the counts above for the reason"
            )
        if name == "train":  # what the model knows of valid and test must not enter the counts
            counts = report.counts
        splits[name] = {
            **report.cleaning.as_dict(),
            "sentences": report.sentences,
            "pieces": report.counts.total(),
            "too_long": report.too_long,
            "vanished": report.vanished,
            "unknown": report.unknown,
            "unk_words": report.unk_words,
        }
    vocabulary.write_dictionary(counts, out / "dict.txt")
    vocabulary.write_files()
    files.write_json(note, {"made_from": made_from, "dictionary": size, "splits": splits})
    print(f"{out / 'dict.txt'}: {size:,} symbols for fairseq, its 4 special ones included")


def _sentencepiece(args: argparse.Namespace, out: Path, train_sha256: str) -> _Vocabulary:
    from fairseq_vat import files
    from fairseq_vat.text import subwords

    if args.character_coverage is None:
        args.character_coverage = 0.9995
    if not 0 < args.character_coverage <= 1:
        raise VATError(f"--character-coverage {args.character_coverage}: must be in (0, 1]")
    model_path = _model(args, out, train_sha256)
    model = subwords.load_model(model_path)
    return _Vocabulary(
        len(subwords.dictionary_pieces(model)) + len(subwords.SPECIALS),
        args.sentencepiece_model,
        {"model_sha256": files.sha256(model_path)},
        partial(model.encode, out_type=str),
        partial(subwords.encode_file, model),
        partial(subwords.write_dictionary, model),
    )


def _gpt2(args: argparse.Namespace, out: Path) -> _Vocabulary:
    from fairseq_vat.text import subwords
    from fairseq_vat.text.gpt2_vocabulary import GPT2Vocabulary

    if args.character_coverage is not None:
        raise VATError("--character-coverage: --gpt2 has a piece for every byte; leave it out")
    vocabulary = GPT2Vocabulary(args.gpt2)
    files = ("vocab.json", "merges.txt")
    return _Vocabulary(
        len(vocabulary.symbols) + len(subwords.SPECIALS),
        args.gpt2,
        {"gpt2_sha256": vocabulary.digest()},
        vocabulary.encode,
        partial(subwords.write_pieces, vocabulary.encode),
        vocabulary.write_dictionary,
        partial(vocabulary.write, *(out / name for name in files)),
        files,
    )


def _model(args: argparse.Namespace, out: Path, train_sha256: str) -> Path:
    """The folder's model: the given one copied, the one that is there, or a new one."""
    from fairseq_vat import files
    from fairseq_vat.text import subwords

    path = out / "sentencepiece.model"
    note = out / "sentencepiece.json"
    if args.sentencepiece_model:
        data = Path(args.sentencepiece_model).read_bytes()
        subwords.load_model(args.sentencepiece_model)
        if not (path.exists() and path.read_bytes() == data):
            with files.atomic_path(path) as temporary:
                temporary.write_bytes(data)
            note.unlink(missing_ok=True)
        return path
    if args.vocab_size is None:
        args.vocab_size = 32768
    made_from = {
        "vocab_size": args.vocab_size,
        "character_coverage": args.character_coverage,
        "train_sha256": train_sha256,
    }
    if path.exists() and files.read_json(note) == made_from:
        print(f"{path}: there already, with {args.vocab_size:,} symbols from the same text")
        return path
    print(f"{path}: training with {args.vocab_size:,} symbols on {args.train} ...", flush=True)
    note.unlink(missing_ok=True)
    subwords.train_sentencepiece(
        args.train,
        os.fspath(out / "sentencepiece"),
        args.vocab_size,
        character_coverage=args.character_coverage,
    )
    files.write_json(note, made_from)
    return path


def _is_done(out: Path, note: object, made_from: dict, further: tuple[str, ...]) -> bool:
    names = ["dict.txt", *further, *(f"{name}.pieces" for name in _SPLITS)]
    return (
        isinstance(note, dict)
        and note.get("made_from") == made_from
        and all((out / name).exists() for name in names)
    )


def _print_report(name: str, source: str, report, max_pieces: int | None) -> None:
    print(f"{name}: {source}: {report.cleaning}")
    total = report.counts.total()
    parts = [f"{report.sentences:,} sentences written", f"{total:,} pieces"]
    if total:
        parts.append(f"{report.unknown / total:.3%} of them unknown")
    if max_pieces is not None:
        parts.append(f"{report.too_long:,} sentences of more than {max_pieces} pieces dropped")
    if report.vanished:
        parts.append(f"{report.vanished:,} dropped that normalisation left nothing of")
    print(f"{name}: {', '.join(parts)}", flush=True)


def _tell_unk(name: str, source: str, count: int, vocabulary: _Vocabulary) -> None:
    """What became of the word <unk>, on standard error."""
    from fairseq_vat.text.subwords import UNK_WORD

    pieces = len(vocabulary.encode([UNK_WORD])[0])
    how = "a piece of its own"
    if pieces > 1:
        how = f"cut into {pieces} pieces, since the vocabulary has none for it"
    print(f"{name}: {source}: the word {UNK_WORD} {count:,} times: {how}", file=sys.stderr)
