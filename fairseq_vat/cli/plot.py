"""``fairseq-vat plot``: figures from a training log."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add ``plot``."""
    parser = subparsers.add_parser(
        "plot",
        help="draw learning curves and the KL weight from a training log",
        description="Reads the log of 'fairseq-train --log-file LOG --log-format json' (or simple) "
        "and draws DIR/learning_curves.png (reconstruction, KL, weighted KL and KL weight by "
        "update, train and valid) and DIR/annealing.png (KL weight).",
    )
    parser.add_argument("log", metavar="LOG")
    parser.add_argument("--out", metavar="DIR", required=True)
    parser.add_argument(
        "--kl-only", action="store_true", help="leave the reconstruction out of the curves"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Draw both figures."""
    from fairseq_vat.evaluation.training_log import read_training_log
    from fairseq_vat.report import plots

    records = read_training_log(args.log)
    out = Path(args.out)
    plots.learning_curves(records, out / "learning_curves.png", kl_only=args.kl_only)
    print(out / "learning_curves.png")
    plots.annealing(records, out / "annealing.png")
    print(out / "annealing.png")
