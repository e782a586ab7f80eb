"""``fairseq-vat probe``: classification on sentence vectors, as in the VAT paper's table 5."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from fairseq_vat.cli.checkpoint import add_checkpoint_arguments, load_hub
from fairseq_vat.cli.hf import add_hf_argument, load_hf
from fairseq_vat.cli.labelled_input import (
    labels_of,
    spread,
    with_sentences,
)
from fairseq_vat.cli.probe_encoders import described, encoders_of, poolings_of
from fairseq_vat.cli.probe_table import table
from fairseq_vat.cli.quiet import quiet
from fairseq_vat.errors import VATError

if TYPE_CHECKING:
    from torch import Tensor

    from fairseq_vat.evaluation.folds import Split
    from fairseq_vat.evaluation.probed_encoders import ProbedEncoder
    from fairseq_vat.evaluation.probing import Examples

MODES = ("features", "finetune")
_POOLINGS = ("start", "mean", "sum")
_FILES = ("train", "valid", "test")
_ACTIVATIONS = ("sigmoid", "tanh", "relu")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add ``probe``."""
    parser = subparsers.add_parser(
        "probe",
        help="train classifiers on a checkpoint's sentence vectors, extracted or fine-tuned",
        description="Trains classifiers on pooled posterior means and prints accuracies with their "
        "spread, and the most frequent label's beside them: the protocol of the VAT paper's table "
        "5 (docs/probe.md).  Files hold label<TAB>sentence or, with --pairs, "
        "label<TAB>sentence<TAB>sentence; plain, .gz or .xz.  The checkpoint isn't changed.",
    )
    add_checkpoint_arguments(parser)
    parser.add_argument("--train", metavar="FILE")
    parser.add_argument("--valid", metavar="FILE", help="default: a tenth of --train")
    parser.add_argument("--test", metavar="FILE")
    parser.add_argument("--cv", metavar="FILE", help="cross-validation on one file instead")
    parser.add_argument(
        "--pairs", action="store_true", help="two sentences a line, joined by the symbol </s>"
    )
    parser.add_argument(
        "--relatedness",
        action="store_true",
        help="files hold score<TAB>sentence<TAB>sentence, and what is learned is the score, as "
        "SentEval does on SICK-R and STS-B; --train, --valid and --test are needed",
    )
    parser.add_argument(
        "--grades",
        type=int,
        nargs=2,
        metavar=("LEAST", "MOST"),
        help="of --relatedness: scores become shares of these whole numbers (default: 1 5)",
    )
    add_hf_argument(parser)
    parser.add_argument(
        "--mode",
        nargs="+",
        choices=MODES,
        default=["features"],
        help="vectors as they are, or the encoder trained with the classifier (default: features)",
    )
    parser.add_argument(
        "--pooling",
        nargs="+",
        choices=_POOLINGS,
        default=["mean"],
        help="with a latent for every token: the start token's, their mean, or their sum "
        "(default: mean)",
    )
    _add_int(parser, "--seeds", "runs, with the seeds 1 to N (default: 5, with --cv 1)")
    _add_int(parser, "--folds", "of --cv (default: 10)")
    _add_int(parser, "--max-folds", "train and test only the first N of them (default: all)")
    _add_int(parser, "--hidden", "width of the dense layer; 0: none (default: the latents')")
    parser.add_argument(
        "--activation",
        choices=_ACTIVATIONS,
        default="sigmoid",
        help="of the dense layer (default: %(default)s, as SentEval's)",
    )
    _add_int(parser, "--epochs", "of fine-tuning (default: 5)", default=5)
    _add_int(parser, "--batch-size", "sentences an update of it (default: 32)", default=32)
    parser.add_argument("--lr", type=float, default=1e-3, help="of it (default: %(default)s)")
    parser.add_argument(
        "--hf-lr", type=float, default=2e-5, help="of it, of --hf's (default: %(default)s)"
    )
    parser.add_argument(
        "--save", metavar="FILE", help="keep finished runs in this .json, and go on from it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def _add_int(
    parser: argparse.ArgumentParser, flag: str, text: str, default: int | None = None
) -> None:
    parser.add_argument(flag, type=int, metavar="N", help=text, default=default)


def run(args: argparse.Namespace) -> None:
    """Read, train, print."""
    _check(args)
    if args.relatedness:
        from fairseq_vat.cli import probe_relatedness

        probe_relatedness.run(args)
        return
    from fairseq_vat.cli import probe_data
    from fairseq_vat.text.labelled import read_labelled, read_labelled_pairs

    paths = {name: path for name in (*_FILES, "cv") if (path := getattr(args, name)) is not None}
    read = read_labelled_pairs if args.pairs else read_labelled
    lines = {name: read(path) for name, path in paths.items()}
    labels_of(paths, lines)  # what is wrong with them is said before the model is read
    given = {name: len(some) for name, some in lines.items()}
    with quiet():
        vat = load_hub(args)
        beside = load_hf(args.hf, vat.device)
        poolings = poolings_of(args, vat)
        pieces = {}
        for name, path in paths.items():
            lines[name], pieces[name] = with_sentences(path, vat, lines[name])
        labels = labels_of(paths, lines)
        examples = probe_data.examples_of(lines, labels, pieces)
        splits = probe_data.splits_of(args, examples)
        columns = list(zip(*(line[1:-1] for some in lines.values() for line in some), strict=True))
        encoders = encoders_of(vat, beside, examples.pieces, columns, ", ".join(paths.values()))
        hidden = [e.width if args.hidden is None else args.hidden for e in encoders]
        results = _train(args, encoders, poolings, hidden, examples, splits)
    found = {
        **described(args, vat, encoders),
        "pairs": args.pairs,
        "labels": Counter(sorted(line.label for line in next(iter(lines.values())))),
        "examples": {name: len(some) for name, some in lines.items()},
        "left_out": {name: given[name] - len(some) for name, some in lines.items()},
        "seeds": len(splits),
        "folds": args.folds if args.cv else None,
        "folds_run": len(splits[1]) if args.cv else None,
        "hidden": hidden[0],
        "hf_hidden": hidden[1:],
        "activation": args.activation if any(hidden) else None,
        "finetune": {name: getattr(args, name) for name in ("epochs", "batch_size", "lr", "hf_lr")},
        "results": results,
        "majority": _majority(examples, splits),
    }
    print(json.dumps(found, ensure_ascii=False, allow_nan=False) if args.json else table(found))


def _train(
    args: argparse.Namespace,
    encoders: list[ProbedEncoder],
    poolings: list[str],
    hidden: list[int],
    examples: Examples,
    splits: dict[int, list[Split]],
) -> list[dict[str, Any]]:
    """Every encoder, mode and pooling: accuracies over runs, and the runs."""
    from fairseq_vat.cli import probe_runs
    from fairseq_vat.evaluation import probing
    from fairseq_vat.evaluation.probe import Training

    checkpoint = encoders[0]
    saved = probe_runs.SavedRuns(args.save, _settings(args, examples, hidden[0]))
    results = []
    for encoder, width in zip(encoders, hidden, strict=True):
        ours = encoder is checkpoint
        some = poolings if ours else list(dict.fromkeys(args.pooling))
        head = probing.Head(width, args.activation)
        training = Training(args.epochs, args.batch_size, args.lr if ours else args.hf_lr)
        work = probing.Probe(encoder, examples, some, head, training)
        for mode in dict.fromkeys(args.mode):
            for pooling in some:
                runs = probe_runs.run_all(work, saved, mode, pooling, splits)
                what = {"encoder": encoder.name, "mode": mode, "pooling": pooling}
                results.append({**what, **_accuracies(runs), "runs": runs})
                if ours and checkpoint.latent_level != "token":
                    results[-1]["pooling"] = None
    return results


def _check(args: argparse.Namespace) -> None:
    """Flags that don't go together, and numbers out of range."""
    if (args.train is None) == (args.cv is None):
        raise VATError("give --train, with --valid and --test where there are any, or else --cv")
    for name in ("valid", "test"):
        if args.cv is not None and getattr(args, name) is not None:
            raise VATError(f"--{name} goes with --train; --cv splits its file itself")
    for name in ("folds", "max_folds"):
        if args.cv is None and getattr(args, name) is not None:
            raise VATError(f"--{name.replace('_', '-')} goes with --cv")
    if args.cv is not None:
        args.folds = 10 if args.folds is None else args.folds
    if args.seeds is None:
        args.seeds = 5 if args.cv is None else 1
    least = {"seeds": 1, "folds": 2, "max_folds": 1, "hidden": 0, "epochs": 1, "batch_size": 1}
    for name, bound in least.items():
        value = getattr(args, name)
        if value is not None and value < bound:
            raise VATError(f"--{name.replace('_', '-')} {value}: must be at least {bound}")
    for name in ("lr", "hf_lr"):
        value = getattr(args, name)
        if not 0 < value < math.inf:
            raise VATError(f"--{name.replace('_', '-')} {value}: must be above 0")
    if args.grades is not None and not args.relatedness:
        raise VATError("--grades goes with --relatedness")


def _settings(args: argparse.Namespace, examples: Examples, hidden: int) -> dict[str, Any]:
    """What `--save` compares."""
    from fairseq_vat.files import sha256

    text = "\n".join(
        f"{label} {pieces}"
        for label, pieces in zip(examples.labels_N.tolist(), examples.pieces, strict=True)
    )
    return {
        "checkpoint": sha256(args.path),
        "sentences or labels": hashlib.sha256(text.encode()).hexdigest(),
        "division into files": {name: len(some) for name, some in examples.numbers.items()},
        "--folds": args.folds,
        "--hidden": hidden,
        "--activation": args.activation,
        "--epochs": args.epochs,
        "--batch-size": args.batch_size,
        "--lr": args.lr,
    }


def _accuracies(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        part: None
        if runs[0][part] is None
        else spread("accuracy", [run[part]["accuracy"] for run in runs])
        for part in ("valid", "test")
    }


def _majority(examples: Examples, splits: dict[int, list[Split]]) -> dict[str, Any]:
    from fairseq_vat.evaluation.linear_probe import majority

    labels_N = examples.labels_N

    def accuracy(split: Split, part: Tensor | None) -> dict[str, float] | None:
        if part is None:
            return None
        score = majority(labels_N[split.train], labels_N[part], len(examples.labels))
        return {"accuracy": score.accuracy}

    return _accuracies(
        [
            {"valid": accuracy(split, split.valid), "test": accuracy(split, split.test)}
            for some in splits.values()
            for split in some
        ]
    )
