"""``fairseq-vat report``: one self-contained HTML page about a checkpoint."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fairseq_vat.cli.checkpoint import add_checkpoint_arguments, load_hub
from fairseq_vat.cli.quiet import quiet
from fairseq_vat.errors import VATError

if TYPE_CHECKING:
    from fairseq_vat.evaluation.training_log import Record

_LEAST = {"sentences": 2, "examples": 2, "samples": 1, "steps": 2, "beam": 1}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add ``report``."""
    parser = subparsers.add_parser(
        "report",
        help="one self-contained HTML page about a checkpoint",
        description="Writes a page with the learning curves, the KL of each latent dimension, "
        "isotropy, a map of sentences, reconstructions, samples and interpolations.  Pictures are "
        "inside and nothing is loaded from elsewhere: the file can be mailed and read on a phone.",
    )
    add_checkpoint_arguments(parser)
    parser.add_argument("--output", metavar="FILE", required=True, help="the page, such as a.html")
    parser.add_argument(
        "--gen-subset",
        default="valid",
        metavar="SPLIT",
        help="where sentences are taken from (default: %(default)s)",
    )
    parser.add_argument("--text", metavar="FILE", help="take them from a text file instead")
    parser.add_argument(
        "--train-log",
        metavar="FILE",
        help="of the training (default: train.log beside the checkpoint, if there is one)",
    )
    for name, default, text in (
        ("sentences", 500, "sentences measured, reconstructed and mapped, evenly spaced"),
        ("examples", 8, "sentences shown"),
        ("samples", 4, "draws of each example"),
        ("steps", 6, "sentences of an interpolation, both ends included"),
        ("beam", 5, "width of the beam search"),
        ("seed", 1, "of all draws"),
    ):
        help_text = f"{text} (default: %(default)s)"
        parser.add_argument(f"--{name}", type=int, metavar="N", default=default, help=help_text)
    parser.add_argument(
        "--prior-std",
        type=float,
        metavar="S",
        help="standard deviation of the latents' prior (default: the training's)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Load, measure and decode, write."""
    _check(args)
    records, log_note = _log(args)
    with quiet():
        from tqdm import tqdm

        from fairseq_vat.files import atomic_path
        from fairseq_vat.hub.loading import prior_of
        from fairseq_vat.report import page
        from fairseq_vat.report.gather import ReportSettings, gather
        from fairseq_vat.report.sentences import read_subset, read_text

        vat = load_hub(args, truncate=False)  # sentences are shown, so whole ones
        settings = ReportSettings(
            prior_std=prior_of(vat.cfg, vat.model, args.prior_std).std,
            examples=args.examples,
            samples=args.samples,
            steps=args.steps,
            beam=args.beam,
            seed=args.seed,
        )
        if args.text is not None:
            sentences = read_text(vat, args.text, args.sentences)
        else:
            sentences = read_subset(vat, args.gen_subset, args.sentences)
        # disable=None: where standard error is no terminal
        with tqdm(bar_format="{desc} [{elapsed}]", leave=False, disable=None) as bar:
            report = gather(vat, sentences, settings, bar.set_description_str)
        text = page.build(report, args.path, records, log_note)
        with atomic_path(args.output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(args.output)


def _check(args: argparse.Namespace) -> None:
    for name, least in _LEAST.items():
        value = getattr(args, name)
        if value < least:
            raise VATError(f"--{name} {value}: must be at least {least}")
    if args.prior_std is not None and not 0 < args.prior_std < math.inf:
        raise VATError(f"--prior-std {args.prior_std}: must be a standard deviation above 0")
    output = Path(args.output)
    if output.is_dir():
        raise VATError(f"--output {output} is a folder; give the name of a file in it")
    # now, and not after minutes of work
    there = next(folder for folder in output.absolute().parents if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise VATError(f"--output {output}: nothing can be written in {there}")


def _log(args: argparse.Namespace) -> tuple[list[Record] | None, str]:
    """The log's records, and for the page where they are from or why there are none.

    One that was asked for has to be right; one that merely lies there may be anything.
    """
    if args.train_log is not None:
        return _read_log(args.train_log), f"From {args.train_log}."
    path = Path(args.path).parent / "train.log"
    if path.is_file():
        try:
            return _read_log(path), f"From {path}."
        except VATError as error:
            return None, str(error)
    return None, (
        f"There is no {path.name} beside the checkpoint; --train-log names one elsewhere "
        "(fairseq-train --log-file FILE --log-format simple)."
    )


def _read_log(path: str | Path) -> list[Record]:
    from fairseq_vat.evaluation.training_log import read_training_log

    records = read_training_log(path)
    if not any({"kl_nats", "kl_weight", "nll_loss"} <= r.stats.keys() for r in records):
        raise VATError(
            f"{path} has no nll_loss, kl_nats and kl_weight: it is not of a run with "
            "--criterion token_kl_cross_entropy"
        )
    return records
