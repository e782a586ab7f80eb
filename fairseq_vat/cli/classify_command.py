"""``fairseq-vat classify``: a linear classifier on the latents of a model that stays as it is."""

import argparse
from collections.abc import Mapping
from typing import Any

from fairseq_vat.cli.checkpoint import add_checkpoint_arguments, load_hub
from fairseq_vat.cli.flags import above, add_number, at_least
from fairseq_vat.cli.tables import MeanAndStd, add_output_flags, prose, show, table
from fairseq_vat.cli.terminal import quiet, warn_of_labelled, warn_of_unknown
from fairseq_vat.evaluation import LATENTS, PROTOCOLS
from fairseq_vat.latent.choices import POOLINGS

_SPLITS = ("train", "valid", "test")
# header and format; the last of the systems is what a classifier that learned nothing comes to
ACCURACY = ("accuracy, %", ".1f")
MAJORITY = ("most frequent label", "majority")
_SYSTEMS = (("classifier", "classifier"), ("logistic regression", "logistic_regression"), MAJORITY)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "classify",
        help="train a linear classifier on a checkpoint's latents and measure it",
        description="Trains a linear classifier on the latents of labelled sentences: the model "
        "stays as it is.  Files hold label<TAB>sentence, with any number of labels; plain, .gz or "
        ".xz.  Prints the cross-entropy in nats and the accuracy on each file, and beside them "
        "those of a logistic regression and of the training file's most frequent label.",
    )
    add_checkpoint_arguments(parser)
    for name in _SPLITS:
        parser.add_argument(f"--{name}", metavar="FILE", required=True, help="label<TAB>sentence")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default=PROTOCOLS[0],
        help="train until the validation loss has stopped falling, or as the VAE-Transformer "
        "paper does, a fixed number of epochs at a low rate; the defaults below are theirs in "
        "this order (default: %(default)s)",
    )
    parser.add_argument(
        "--latents",
        choices=LATENTS,
        default=LATENTS[0],
        help="classify the posterior's mean, or draws from it, new ones in every epoch "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--pooling",
        choices=POOLINGS,
        default="mean",
        help="with a latent for every token: the mean or sum of them, or the start token's; "
        "without meaning where a sentence has one latent (default: %(default)s)",
    )
    parser.add_argument(
        "--standardize",
        action=argparse.BooleanOptionalAction,
        help="shift and scale every dimension to mean 0 and variance 1 on the training file "
        "(default: yes, no)",
    )
    # those that aren't given are the protocol's
    for flag, kind, text in (
        ("--lr", above(0), "learning rate at the start (default: 1e-2, 1e-4)"),
        ("--epochs", at_least(1), "through the training file, at most (default: 500, 20)"),
        ("--batch-size", at_least(1), "sentences an update (default: 32)"),
    ):
        parser.add_argument(flag, type=kind, metavar="N", default=argparse.SUPPRESS, help=text)
    add_number(parser, "--seeds", "classifiers trained, with the seeds 1 to N", 5, at_least(1))
    add_output_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    names = ("protocol", "latents", "pooling", "standardize", "seeds", "lr", "epochs", "batch_size")
    settings = {name: getattr(args, name) for name in names if hasattr(args, name)}
    with quiet():
        from fairseq_vat.evaluation.classify import classify
        from fairseq_vat.evaluation.labelled import LabelledFiles

        files = LabelledFiles.read({name: getattr(args, name) for name in _SPLITS})
        vat = load_hub(args)
        files = files.in_subwords(vat)
        warn_of_labelled(files)
        found = classify(vat, files, **settings)
    found = {"checkpoint": args.path, "data": args.data, **found}
    warn_of_unknown(args.train, found["unknown_share"]["train"])
    show(args, found, _tables)


def label_shares(counts: Mapping[str, int]) -> str:
    """The labels and their shares of the sentences counted, the most frequent first."""
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    more = f" and {len(ordered) - 10} more" if len(ordered) > 10 else ""
    return ", ".join(f"{label} {count / total:.1%}" for label, count in ordered[:10]) + more


def _tables(found: dict[str, Any], style: str) -> str:
    what = "drawn latents" if found["latents"] == "sample" else "means of the latents"
    if found["pooling"] is not None:
        what += {"mean": ", averaged over tokens", "sum": ", summed over tokens"}.get(
            found["pooling"], " of start tokens"
        )
    if found["standardized"]:
        what += ", standardized"
    examples = ", ".join(f"{found['examples'][name]:,} {name}" for name in _SPLITS)
    loss = "BCE" if len(found["labels"]) == 2 else "CE"
    lines = prose(
        style,
        f"{found['checkpoint']}: {found['updates']:,} updates",
        f"sentences: {examples}; training labels: {label_shares(found['labels'])}",
        f"features: {what}, width {found['width']}; {found['unknown_share']['train']:.1%} of the "
        "pieces unknown",
        f"classifier: protocol {found['protocol']}; {_training(found)}\n",
    )
    for figure, head, form in (("loss", f"{loss}, nats", ".3f"), ("accuracy", *ACCURACY)):
        rows = [
            {"name": title, **{name: MeanAndStd.of(found[key][name], figure) for name in _SPLITS}}
            for title, key in _SYSTEMS
        ]
        columns = [("name", head, ""), *((name, name, form) for name in _SPLITS)]
        lines += [table(rows, columns, style), ""]
    lines.pop()
    if not found["logistic_regression"]["converged"]:
        lines += prose(
            style, "\nthe logistic regression had not converged after the iterations it was given"
        )
    return "\n".join(lines)


def _training(found: dict[str, Any]) -> str:
    """Seeds and epochs, and whether it came to an end."""
    kept, trained = (_range(found[name]) for name in ("kept_epochs", "trained_epochs"))
    text = f"seeds: {found['seeds']}; epoch kept: {kept} of {trained}"
    if found["protocol"] == "paper":
        return f"{text}, a fixed number: not trained until it has converged"
    stopped = found["converged"].count(False)
    if stopped:
        return (
            f"{text}; {stopped} of {found['seeds']} had NOT converged: give more --epochs or "
            "another --lr"
        )
    return f"{text}, converged"


def _range(numbers: list[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least}" if least == most else f"{least} to {most}"
