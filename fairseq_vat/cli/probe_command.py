"""``fairseq-vat probe``: classification on sentence vectors, as in the VAT paper's table 5."""

import argparse
import math
from typing import Any

from fairseq_vat.cli.checkpoint import (
    add_checkpoint_arguments,
    add_hf_argument,
    load_encoders,
    load_hf,
    load_hub,
    warn_of_encoders,
)
from fairseq_vat.cli.flags import above, add_list, add_number, at_least
from fairseq_vat.cli.probe_tables import probe_tables, relatedness_tables
from fairseq_vat.cli.tables import add_output_flags, show
from fairseq_vat.cli.terminal import quiet, warn_of_labelled
from fairseq_vat.errors import VATError
from fairseq_vat.evaluation import ACTIVATIONS, MODES
from fairseq_vat.latent.choices import POOLINGS

_FILES = ("train", "valid", "test")
# of classifiers of labels
_NOT_OF_RELATEDNESS = (
    *("pairs", "save", "hidden", "activation"),
    *("epochs", "batch_size", "lr", "hf_lr"),
)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "probe",
        help="train classifiers on a checkpoint's sentence vectors, extracted or fine-tuned",
        description="Trains classifiers on pooled posterior means and prints accuracies with their "
        "spread, and the most frequent label's beside them: the protocol of the VAT paper's table "
        "5 (docs/probe.md).  Files hold label<TAB>sentence or, with --pairs, "
        "label<TAB>sentence<TAB>sentence; plain, .gz or .xz.  The checkpoint isn't changed.",
    )
    add_checkpoint_arguments(parser)
    parser.add_argument("--train", metavar="FILE", help="labelled sentences to learn from")
    parser.add_argument("--valid", metavar="FILE", help="default: a tenth of --train")
    parser.add_argument("--test", metavar="FILE", help="default: none, nothing is tested")
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
    text = "vectors as they are, or the encoder trained with the classifier (default: features)"
    add_list(parser, "--mode", text, choices=MODES, default=["features"])
    text = "with a latent for every token: the start token's, their mean or sum (default: mean)"
    add_list(parser, "--pooling", text, choices=POOLINGS, default=["mean"])
    at_least_1 = at_least(1)
    text = "runs, with the seeds 1 to N (default: 5, with --cv 1)"
    add_number(parser, "--seeds", text, kind=at_least_1)
    add_number(parser, "--folds", "of --cv (default: 10)", kind=at_least(2))
    text = "train and test only the first N of them (default: all)"
    add_number(parser, "--max-folds", text, kind=at_least_1)
    text = "width of the dense layer; 0: none (default: the latents')"
    add_number(parser, "--hidden", text, kind=at_least(0))
    parser.add_argument(
        "--activation",
        choices=ACTIVATIONS,
        default=ACTIVATIONS[0],
        help="of the dense layer (default: %(default)s, as SentEval's)",
    )
    add_number(parser, "--epochs", "epochs of fine-tuning", 5, at_least_1)
    add_number(parser, "--batch-size", "sentences an update of fine-tuning", 32, at_least_1)
    add_number(parser, "--lr", "learning rate of fine-tuning", 1e-3, above(0), "LR")
    add_number(parser, "--hf-lr", "the same for --hf's encoders", 2e-5, above(0), "LR")
    parser.add_argument(
        "--save", metavar="FILE", help="keep finished runs in this .json, and go on from it"
    )
    add_output_flags(parser)
    unset = {name: parser.get_default(name) for name in _NOT_OF_RELATEDNESS}
    parser.set_defaults(run=run, unset=unset)


def run(args: argparse.Namespace) -> None:
    _check(args)
    found = _relatedness(args) if args.relatedness else _probe(args)
    tables = relatedness_tables if args.relatedness else probe_tables
    show(args, {"data": args.data, **found}, tables)


def _probe(args: argparse.Namespace) -> dict[str, Any]:
    with quiet():
        from fairseq_vat.evaluation.classifier import Training
        from fairseq_vat.evaluation.labelled import LabelledFiles
        from fairseq_vat.evaluation.probe import probe
        from fairseq_vat.evaluation.probed_encoders import encoders_of

        paths = {name: getattr(args, name) for name in (*_FILES, "cv")}
        paths = {name: path for name, path in paths.items() if path is not None}
        files = LabelledFiles.read(paths, 2 if args.pairs else 1)
        vat = load_hub(args)
        beside = load_hf(args.hf, vat.device)
        files = files.in_subwords(vat)
        warn_of_labelled(files)
        columns = zip(*(line.sentences for line in files.all_lines), strict=True)
        encoders = encoders_of(vat, args.path, files.all_pieces, beside, *map(list, columns))
        warn_of_encoders(encoders, ", ".join(paths.values()))
        return probe(
            *(encoders, files, args.mode, args.pooling),
            seeds=args.seeds or (5 if args.cv is None else 1),
            folds=args.folds or 10,
            max_folds=args.max_folds,
            hidden=args.hidden,
            activation=args.activation,
            fine_tuning=Training(args.epochs, args.batch_size, args.lr),
            hf_lr=args.hf_lr,
            save=args.save,
        )


def _relatedness(args: argparse.Namespace) -> dict[str, Any]:
    from fairseq_vat.text.columns import read_pairs

    least, most = args.grades or (1, 5)
    pairs = {name: read_pairs(getattr(args, name)) for name in _FILES}
    for name, some in pairs.items():
        low, high = (end(pair.score for pair in some) for end in (min, max))
        # SentEval's grades begin at 1 for STS-B too, whose scores begin at 0
        if low < least - 1 or high > most:
            raise VATError(
                f"{getattr(args, name)}: scores from {low:g} to {high:g} don't fit the grades "
                f"{least} to {most}; give --grades {math.floor(low)} {math.ceil(high)}"
            )
    with quiet():
        from fairseq_vat.evaluation.relatedness import relatedness
        from fairseq_vat.evaluation.sts import sentences_of

        sentences = sentences_of([pair for some in pairs.values() for pair in some])
        encoders = load_encoders(args, sentences)
        warn_of_encoders(encoders, args.train)
        return relatedness(
            *(encoders, sentences, pairs, args.pooling, (least, most), args.seeds or 5)
        )


def _check(args: argparse.Namespace) -> None:
    """Flags that don't go together."""
    if (args.train is None) == (args.cv is None):
        raise VATError("give --train, with --valid and --test where there are any, or else --cv")
    for name in ("valid", "test"):
        if args.cv is not None and getattr(args, name) is not None:
            raise VATError(f"--{name} goes with --train; --cv splits its file itself")
    for name in ("folds", "max_folds"):
        if args.cv is None and getattr(args, name) is not None:
            raise VATError(f"--{name.replace('_', '-')} goes with --cv")
    if not args.relatedness:
        if args.grades is not None:
            raise VATError("--grades goes with --relatedness")
        return
    if args.cv is not None or None in (args.valid, args.test):
        raise VATError("--relatedness: give --train, --valid and --test")
    if "finetune" in args.mode:
        raise VATError("--mode finetune: --relatedness is learned from features alone")
    for name, default in args.unset.items():
        if getattr(args, name) != default:
            raise VATError(f"--{name.replace('_', '-')} doesn't go with --relatedness")
    if args.grades is not None and args.grades[0] >= args.grades[1]:
        raise VATError(f"--grades {args.grades[0]} {args.grades[1]}: the first must be the smaller")
