"""Which examples a classifier is trained, chosen and tested on.

Shape legend: N examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# where a set has no validation part, one example of so many of the training part is held out
HELD_OUT = 10


@dataclass(frozen=True)
class Split:
    """Numbers of the examples of each part, (examples of the part,) int64, from 0.

    Attributes:
        train: for training.
        valid: for choosing the epoch and what else is to be chosen.
        test: only measured; None where there is none.
    """

    train: Tensor
    valid: Tensor
    test: Tensor | None


def stratified_folds(labels_N: Tensor, folds: int, generator: torch.Generator) -> list[Tensor]:
    """The examples' numbers in parts of the same size and the same shares of labels.

    Label by label, each shuffled, the examples are dealt out in turn. So every example is in one
    fold, and neither the folds' sizes nor their counts of a label differ by more than one.

    Args:
        labels_N: (N,) int64.
        folds: how many, from 2 to N.
        generator: of the shuffling.
    """
    if not 2 <= folds <= len(labels_N):
        raise ValueError(f"{folds} folds of {len(labels_N)} examples")
    shuffled_N = torch.randperm(len(labels_N), generator=generator)
    dealt_N = shuffled_N[labels_N[shuffled_N].argsort(stable=True)]
    return [dealt_N[fold::folds].sort().values for fold in range(folds)]


def hold_out(
    labels_N: Tensor, numbers: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Take a tenth of some examples for validation, stratified: (the rest, the tenth).

    Of two examples of a label one at least stays.

    Args:
        labels_N: (N,) of all examples.
        numbers: of those to take from; 2 at least.
        generator: of the choice.
    """
    folds = min(HELD_OUT, len(numbers))
    tenth = stratified_folds(labels_N[numbers], folds, generator)[0]
    stays = torch.ones(len(numbers), dtype=torch.bool)
    stays[tenth] = False
    return numbers[stays], numbers[tenth]


def cross_validation(labels_N: Tensor, folds: int, seed: int) -> list[Split]:
    """Each fold in turn is the test part; a tenth of the others is for validation.

    SentEval (Conneau and Kiela 2018) takes stratified folds too, and inside them each of ten parts
    in turn for validation; here it is one.

    Args:
        labels_N: (N,) int64.
        folds: from 2 to N.
        seed: of the shuffling; another seed gives other folds.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = stratified_folds(labels_N, folds, generator)
    splits = []
    for number, test in enumerate(parts):
        others = torch.cat(parts[:number] + parts[number + 1 :]).sort().values
        splits.append(Split(*hold_out(labels_N, others, generator), test))
    return splits
