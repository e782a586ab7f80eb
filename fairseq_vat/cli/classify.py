"""``fairseq-vat classify``: a linear classifier on the latents of a model that stays as it is."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from typing import Any

from fairseq_vat.cli.checkpoint import add_checkpoint_arguments, load_hub
from fairseq_vat.cli.labelled_input import (
    label_shares,
    labels_of,
    spread,
    unknown_share,
    warn_of_unknown,
    with_sentences,
)
from fairseq_vat.cli.quiet import quiet
from fairseq_vat.errors import VATError

_SPLITS = ("train", "valid", "test")
# whether features are standardized; the rest is in evaluation/linear_probe.py
_PROTOCOLS = {"converged": True, "paper": False}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add ``classify``."""
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
        parser.add_argument(f"--{name}", metavar="FILE", required=True)
    parser.add_argument(
        "--protocol",
        choices=tuple(_PROTOCOLS),
        default="converged",
        help="train until the validation loss has stopped falling, or as the VAE-Transformer "
        "paper does, a fixed number of epochs at a low rate; the defaults below are theirs in "
        "this order (default: %(default)s)",
    )
    parser.add_argument(
        "--latents",
        choices=("mean", "sample"),
        default="mean",
        help="classify the posterior's mean, or draws from it, new ones in every epoch "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--pooling",
        choices=("mean", "sum", "start"),
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
    parser.add_argument("--lr", type=float, help="at the start (default: 1e-2, 1e-4)")
    for flag, default, shown, text in (
        ("--epochs", None, "500, 20", "through the training file, at most"),
        ("--batch-size", 32, "32", "sentences an update"),
        ("--seeds", 5, "5", "classifiers trained, with the seeds 1 to N"),
    ):
        parser.add_argument(
            flag, type=int, default=default, metavar="N", help=f"{text} (default: {shown})"
        )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read, encode, train, print."""
    from fairseq_vat.text.labelled import read_labelled

    for name in ("epochs", "batch_size", "seeds"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise VATError(f"--{name.replace('_', '-')} {value}: must be at least 1")
    if args.lr is not None and not 0 < args.lr < math.inf:
        raise VATError(f"--lr {args.lr}: must be above 0")
    if args.standardize is None:
        args.standardize = _PROTOCOLS[args.protocol]
    lines = {name: read_labelled(getattr(args, name)) for name in _SPLITS}
    paths = {name: getattr(args, name) for name in _SPLITS}
    labels_of(paths, lines)  # what is wrong with them is said before the model is read
    given = {name: len(some) for name, some in lines.items()}
    shares = {}
    with quiet():
        vat = load_hub(args)
        for name in _SPLITS:
            lines[name], pieces = with_sentences(paths[name], vat, lines[name])
            shares[name] = unknown_share(vat, pieces)
        found = _measure(args, vat, lines, labels_of(paths, lines))
    found["unknown_share"] = shares
    found["left_out"] = {name: given[name] - len(lines[name]) for name in _SPLITS}
    warn_of_unknown(args.train, shares["train"])
    if args.json:
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
    else:
        _print_table(found)


def _measure(
    args: argparse.Namespace, vat: Any, lines: dict[str, list], labels: list[str]
) -> dict[str, Any]:
    import torch
    from tqdm import tqdm

    from fairseq_vat.evaluation import linear_probe
    from fairseq_vat.evaluation.logistic_regression import C, logistic_regression

    index = {label: number for number, label in enumerate(labels)}
    splits = {
        name: linear_probe.Examples(
            vat.embed_posterior([line.sentence for line in lines[name]], args.pooling),
            torch.tensor([index[line.label] for line in lines[name]]),
        )
        for name in _SPLITS
    }
    if args.standardize:
        splits = linear_probe.standardized(splits)
    given = {"epochs": args.epochs, "lr": args.lr, "batch_size": args.batch_size}
    settings = replace(
        linear_probe.PAPER if args.protocol == "paper" else linear_probe.CONVERGED,
        drawn=args.latents == "sample",
        **{name: value for name, value in given.items() if value is not None},
    )
    seeds = range(1, args.seeds + 1)
    with tqdm(unit=" epochs", leave=False, disable=None) as progress:
        results = [
            linear_probe.train_probe(splits, len(labels), settings, seed, progress.update)
            for seed in seeds
        ]
    nothing = linear_probe.without_features(splits, len(labels))
    regression = logistic_regression(splits, settings.drawn)
    counts = torch.bincount(splits["train"].labels).tolist()
    token_level = vat.model.encoder.latent_level == "token"
    return {
        "checkpoint": args.path,
        "updates": vat.model.num_updates,
        "data": args.data,
        "latent_level": str(vat.model.encoder.latent_level),
        "protocol": args.protocol,
        "latents": args.latents,
        "pooling": args.pooling if token_level else None,
        "standardized": args.standardize,
        "width": vat.model.encoder.latent_dim,
        "labels": dict(zip(labels, counts, strict=True)),
        "examples": {name: len(lines[name]) for name in _SPLITS},
        "lr": settings.lr,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "seeds": args.seeds,
        "kept_epochs": [result.epoch for result in results],
        "trained_epochs": [result.epochs for result in results],
        "converged": [result.converged for result in results],
        "classifier": {
            name: _spread([result.scores[name] for result in results]) for name in _SPLITS
        },
        "logistic_regression": {
            "C": C,
            "standardized": True,
            "converged": regression.converged,
            "iterations": regression.iterations,
            **{name: vars(regression.scores[name]) for name in _SPLITS},
        },
        "without_latents": {name: vars(nothing[name]) for name in _SPLITS},
    }


def _spread(scores: list) -> dict[str, float | None]:
    """Both figures over seeds."""
    figures = ("loss", "accuracy")
    return {
        key: value
        for name in figures
        for key, value in spread(name, [getattr(score, name) for score in scores]).items()
    }


def _print_table(found: dict[str, Any]) -> None:
    what = "drawn latents" if found["latents"] == "sample" else "means of the latents"
    if found["pooling"] is not None:
        what += {"mean": ", averaged over tokens", "sum": ", summed over tokens"}.get(
            found["pooling"], " of start tokens"
        )
    if found["standardized"]:
        what += ", standardized"
    examples = ", ".join(f"{found['examples'][name]:,} {name}" for name in _SPLITS)
    print(f"{found['checkpoint']}: {found['updates']:,} updates")
    print(f"sentences: {examples}; training labels: {label_shares(found['labels'])}")
    print(
        f"features: {what}, width {found['width']}; {found['unknown_share']['train']:.1%} of the "
        "pieces unknown"
    )
    print(f"classifier: protocol {found['protocol']}; {_training(found)}\n")
    loss = "BCE" if len(found["labels"]) == 2 else "CE"
    print(f"{'':22}" + "".join(f"{name:>30}" for name in _SPLITS))
    print(f"{'':22}" + f"{loss + ', nats':>15}{'accuracy, %':>15}" * len(_SPLITS))
    for title, key in (
        ("classifier", "classifier"),
        ("logistic regression", "logistic_regression"),
        ("most frequent label", "without_latents"),
    ):
        print(f"{title:22}" + "".join(_cells(found[key][name]) for name in _SPLITS))
    if not found["logistic_regression"]["converged"]:
        print("\nthe logistic regression had not converged after the iterations it was given")


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


def _cells(score: dict[str, float | None]) -> str:
    cells = []
    for name, form in (("loss", ".3f"), ("accuracy", ".1f")):
        deviation = score.get(f"{name}_std")
        cells.append(format(score[name], form))
        if deviation is not None:
            cells[-1] += f" ± {deviation:{form}}"
    return "".join(f"{cell:>15}" for cell in cells)
