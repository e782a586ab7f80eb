"""``fairseq-vat tokenize``: text to sentencepiece pieces and fairseq's dictionary."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

from fairseq_vat.errors import VATError

_SPLITS = ("train", "valid", "test")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add ``tokenize``."""
    parser = subparsers.add_parser(
        "tokenize",
        help="train sentencepiece and write pieces and dict.txt for fairseq-preprocess",
        description="Cleans the text, trains a sentencepiece unigram model on the training text "
        "and writes DIR/sentencepiece.model, DIR/{train,valid,test}.pieces and DIR/dict.txt.  "
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
    parser.add_argument(
        "--sentencepiece-model", metavar="MODEL", help="use this model and don't train one"
    )
    parser.add_argument(
        "--character-coverage",
        type=float,
        default=0.9995,
        metavar="SHARE",
        help="share of the training text's characters that get a piece, the others being unknown; "
        "ASCII characters always get one.  More than the default is worth its place where "
        "accented letters or curly quotes matter (default: %(default)s)",
    )
    parser.add_argument(
        "--max-pieces", type=int, metavar="N", help="drop sentences of more than N pieces"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Make what is missing or out of date in the folder."""
    from fairseq_vat import files, subwords

    if not 0 < args.character_coverage <= 1:
        raise VATError(f"--character-coverage {args.character_coverage}: must be in (0, 1]")
    if args.max_pieces is not None and args.max_pieces < 1:
        raise VATError(f"--max-pieces {args.max_pieces}: must be at least 1")
    out = Path(args.out)
    sources = {name: getattr(args, name) for name in _SPLITS}
    digests = {name: files.sha256(path) for name, path in sources.items()}
    model_path = _model(args, out, digests["train"])
    model = subwords.load_model(model_path)
    size = len(subwords.dictionary_pieces(model)) + len(subwords.SPECIALS)
    if args.vocab_size not in (None, size):
        raise VATError(
            f"--vocab-size {args.vocab_size}: {args.sentencepiece_model} makes a dictionary of "
            f"{size}; leave --vocab-size out or give {size}"
        )

    # Written last: a folder that has it is whole.
    note = out / "tokenize.json"
    made_from = {
        "sha256": digests,
        "model_sha256": files.sha256(model_path),
        "max_pieces": args.max_pieces,
    }
    if _is_done(out, files.read_json(note), made_from):
        print(f"{out}: up to date, nothing to do")
        return
    note.unlink(missing_ok=True)

    counts: Counter[str] = Counter()
    splits = {}
    for name, source in sources.items():
        report = subwords.encode_file(
            model, source, out / f"{name}.pieces", max_pieces=args.max_pieces
        )
        _print_report(name, source, report, args.max_pieces)
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
        }
    subwords.write_dictionary(model, counts, out / "dict.txt")
    files.write_json(note, {"made_from": made_from, "dictionary": size, "splits": splits})
    print(f"{out / 'dict.txt'}: {size:,} symbols for fairseq, its 4 special ones included")


def _model(args: argparse.Namespace, out: Path, train_sha256: str) -> Path:
    """The folder's model: the given one copied, the one that is there, or a new one."""
    from fairseq_vat import files, subwords

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


def _is_done(out: Path, note: object, made_from: dict) -> bool:
    names = ["dict.txt", *(f"{name}.pieces" for name in _SPLITS)]
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
