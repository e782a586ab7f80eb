"""The labelled sentences of ``fairseq-vat probe``, and which are for what."""

from __future__ import annotations

import argparse

import torch

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation import folds
from fairseq_vat.evaluation.folds import Split
from fairseq_vat.evaluation.probing import Examples


def examples_of(
    lines: dict[str, list], labels: list[str], pieces: dict[str, list[str]]
) -> Examples:
    """The lines of all files together, numbered through in the files' order."""
    index = {label: number for number, label in enumerate(labels)}
    numbers, start = {}, 0
    for name in lines:
        numbers[name] = range(start, start + len(lines[name]))
        start += len(lines[name])
    return Examples(
        labels,
        [sentence for name in lines for sentence in pieces[name]],
        torch.tensor([index[line.label] for name in lines for line in lines[name]]),
        numbers,
    )


def splits_of(args: argparse.Namespace, examples: Examples) -> dict[int, list[Split]]:
    """Of every seed: the files' split, or the folds.

    Raises:
        VATError: if there are more folds than lines, or a label is in no training part.
    """
    labels_N = examples.labels_N
    if args.cv is not None and args.folds > len(labels_N):
        raise VATError(f"--folds {args.folds}: {args.cv} has only {len(labels_N)} lines")
    splits: dict[int, list[Split]] = {}
    for seed in range(1, args.seeds + 1):
        if args.cv is not None:
            splits[seed] = folds.cross_validation(labels_N, args.folds, seed)[: args.max_folds]
        else:
            splits[seed] = [_fixed_split(examples, seed)]
        for split in splits[seed]:
            _check_labels(args, examples, split)
    return splits


def _fixed_split(examples: Examples, seed: int) -> Split:
    numbers = {name: torch.tensor(list(some)) for name, some in examples.numbers.items()}
    train, valid = numbers["train"], numbers.get("valid")
    if valid is None:
        generator = torch.Generator().manual_seed(seed)
        train, valid = folds.hold_out(examples.labels_N, train, generator)
    return Split(train, valid, numbers.get("test"))


def _check_labels(args: argparse.Namespace, examples: Examples, split: Split) -> None:
    missing = set(examples.labels_N.tolist()) - set(examples.labels_N[split.train].tolist())
    if missing:
        number = min(missing)
        way_out = "fewer --folds" if args.cv is not None else "a file with --valid"
        raise VATError(
            f"{args.cv or args.train}: label {examples.labels[number]!r} has too few lines: a part "
            f"for training has none of it; give it more lines, or give {way_out}"
        )
