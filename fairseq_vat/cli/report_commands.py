"""``fairseq-vat report`` and ``plot``: a page about a checkpoint, figures from a log."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fairseq_vat.cli.checkpoint import add_checkpoint_arguments, load_hub
from fairseq_vat.cli.flags import above, add_list, add_number, at_least, seed
from fairseq_vat.cli.terminal import quiet
from fairseq_vat.errors import VATError
from fairseq_vat.pretrained import path_of

if TYPE_CHECKING:
    from fairseq_vat.evaluation.training_log import Record


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "plot",
        help="draw learning curves and the KL weight of one or several trainings",
        description="Draws DIR/learning_curves.png (reconstruction, KL, weighted KL and KL weight "
        "by update, train and valid) and DIR/annealing.png (KL weight). Several trainings are "
        "drawn into the same pictures, a colour each.",
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="the log of fairseq-train --log-file LOG --log-format simple (or json), its "
        "metrics.jsonl, or the folder of either",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        required=True,
        help="made if it is not there; a file that ends in .png, .pdf or .svg is the learning "
        "curves alone",
    )
    add_list(
        parser, "--labels", "of the runs (default: what tells their paths apart)", metavar="LABEL"
    )
    parser.add_argument(
        "--format", choices=("png", "pdf", "svg"), help="of the pictures in DIR (default: png)"
    )
    parser.add_argument(
        "--kl-only", action="store_true", help="leave the reconstruction out of the curves"
    )
    parser.set_defaults(run=_plot)

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
        metavar="SPLIT",
        help="of the data, where sentences are taken from (default: valid)",
    )
    parser.add_argument(
        *("--input", "--text"),
        dest="text",
        metavar="FILE",
        help="take them from a text file instead",
    )
    parser.add_argument(
        "--train-log",
        metavar="FILE",
        help="of the training (default: train.log or metrics.jsonl beside the checkpoint)",
    )
    add = partial(add_number, parser)
    two, one = at_least(2), at_least(1)
    add("--sentences", "sentences measured, reconstructed and mapped, evenly spaced", 500, two)
    add("--examples", "sentences shown", 8, two)
    add("--samples", "draws of each example", 4, one)
    add("--steps", "sentences of an interpolation, both ends included", 6, two)
    add("--beam", "width of the beam search", 5, one)
    add("--seed", "of all draws", 1, seed)
    add(
        "--prior-std",
        "standard deviation of the latents' prior (default: the training's)",
        kind=above(0),
        metavar="S",
    )
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> None:
    if args.data is None and args.text is None:
        raise VATError("--data or --input is needed: a data directory, or a text file")
    if args.text is not None and args.gen_subset is not None:
        raise VATError("--gen-subset is of --data: give it or --input")
    _check(args)
    records, log_note = find_log(args)
    with quiet():
        from tqdm import tqdm

        from fairseq_vat.files import atomic_path
        from fairseq_vat.hub.loading import prior_of
        from fairseq_vat.report import page
        from fairseq_vat.report.gather import ReportSettings, gather
        from fairseq_vat.report.sentences import read_subset, read_text

        vat = load_hub(args, truncate=False)  # sentences are shown, so whole ones
        names = ("examples", "samples", "steps", "beam", "seed")
        prior_std = prior_of(vat.cfg, vat.model, args.prior_std).std
        settings = ReportSettings(prior_std, **{name: getattr(args, name) for name in names})
        if args.text is not None:
            sentences = read_text(vat, args.text, args.sentences)
        else:
            sentences = read_subset(vat, args.gen_subset or "valid", args.sentences)
        # disable=None: where standard error is no terminal
        with tqdm(bar_format="{desc} [{elapsed}]", leave=False, disable=None) as bar:
            report = gather(vat, sentences, settings, bar.set_description_str)
        text = page.build(report, args.path, records, log_note)
        with atomic_path(args.output) as temporary:
            # a folder's name may be no UTF-8
            temporary.write_text(text, encoding="utf-8", errors="replace")
    print(args.output)


def _check(args: argparse.Namespace) -> None:
    output = Path(args.output)
    if output.is_dir():
        raise VATError(f"--output {output} is a folder; give the name of a file in it")
    # now, and not after minutes of work
    there = next(folder for folder in output.absolute().parents if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise VATError(f"--output {output}: nothing can be written in {there}")


def find_log(args: argparse.Namespace) -> tuple[list[Record] | None, str]:
    """The log's records, and for the page where they are from or why there are none.

    One that was asked for has to be right; one that merely lies there may be anything.
    """
    if args.train_log is not None:
        return _read_log(args.train_log), f"From {args.train_log}."
    model = Path(path_of(args.path))
    folder = model if model.is_dir() else model.parent
    path = folder / "train.log"
    path = path if path.is_file() else folder / "metrics.jsonl"
    if path.is_file():
        try:
            return _read_log(path), f"From {path}."
        except VATError as error:
            return None, str(error)
    return None, (
        "There is no train.log or metrics.jsonl beside the checkpoint; --train-log names one "
        "elsewhere (fairseq-train --log-file FILE --log-format simple)."
    )


def _read_log(path: str | Path) -> list[Record]:
    from fairseq_vat.evaluation.training_log import read_training_log

    records = read_training_log(path)
    trained = (record.stats.keys() for record in records if record.kind != "valid")
    if not any({"kl_nats", "kl_weight", "nll_loss"} <= names for names in trained):
        raise VATError(
            f"{path} has no nll_loss, kl_nats and kl_weight of updates: it is of a language model, "
            "or of a run without --criterion token_kl_cross_entropy"
        )
    return records


_OTHER_PICTURES = ("jpg", "jpeg", "gif", "bmp", "eps", "ps", "tif", "tiff", "webp")


def _plot(args: argparse.Namespace) -> None:
    """Draw both figures, or the one that `--output` is."""
    labels = _labels(args.runs, args.labels)
    output = Path(args.output)
    alone = output.suffix.lstrip(".").lower() if not output.is_dir() else ""
    if alone in _OTHER_PICTURES:
        raise VATError(f"--output {output}: must end in .png, .pdf or .svg, or be a folder")
    if alone in ("png", "pdf", "svg") and args.format not in (None, alone):
        raise VATError(f"--output {output} is no {args.format}, as --format has it; give one alone")
    from fairseq_vat.report import plots

    runs = {label: _read_log(run) for label, run in zip(labels, args.runs, strict=True)}
    one = len(runs) == 1
    # of one run the curves have other colours: train and valid
    curves = plots.learning_curves if one else plots.compare_learning_curves
    shown = next(iter(runs.values())) if one else runs
    if alone in plots.FORMATS:
        curves(shown, output, kl_only=args.kl_only)
        print(output)
        return
    suffix = args.format or "png"
    curves(shown, output / f"learning_curves.{suffix}", kl_only=args.kl_only)
    print(output / f"learning_curves.{suffix}")
    plots.compare_annealing(runs, output / f"annealing.{suffix}")
    print(output / f"annealing.{suffix}")


def _without_suffix(log: Path) -> Path:
    """A folder's name may end like one: ``z0.5``."""
    return log.with_suffix("") if log.suffix in (".log", ".jsonl", ".json", ".txt") else log


def _labels(runs: list[str], given: list[str] | None) -> list[str]:
    """Those given, or the shortest ends of the paths that tell the runs apart."""
    if given is not None and len(given) != len(runs):
        raise VATError(f"--labels: {len(given)} for {len(runs)} runs; give each its own")
    paths = [Path(run).absolute() for run in runs]
    paths = [
        path.parent if path.name in ("train.log", "metrics.jsonl") else _without_suffix(path)
        for path in paths
    ]
    labels = given or ["/".join(path.parts[-1:]) for path in paths]
    depth = 1
    while given is None and len(set(labels)) < len(set(paths)):
        depth += 1
        labels = ["/".join(path.parts[-depth:]) for path in paths]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise VATError(f"{twice} is the name of two runs; give --labels, each its own")
    return labels
