"""Which examples a classifier is trained, chosen and tested on: stratified parts.

Shape legend: N examples. Parts are numbers of examples, int64, from 0.
"""

import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from fairseq_vat.errors import VATError

# where a set has no validation part, one example of so many of the training part is held out
HELD_OUT = 10


def numbered(sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """The examples of parts that stand one after the other."""
    numbers = torch.arange(sum(sizes.values())).split(list(sizes.values()))
    return dict(zip(sizes, numbers, strict=True))


def stratified_folds(labels_N: Tensor, folds: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Every fold with what is left without it, (the rest, the fold), by scikit-learn.

    Every example is in one fold, and neither the folds' sizes nor their counts of a label differ by
    more than one.

    Args:
        seed: of the shuffling; another seed gives other folds.

    Raises:
        VATError: if no label has so many examples.
    """
    most = int(torch.bincount(labels_N).max())
    if folds > most:
        raise VATError(f"{folds} folds: the most frequent label has fewer examples ({most})")
    labels = labels_N.numpy()
    with warnings.catch_warnings():
        # of a label with fewer examples than folds: whoever needs one in every part looks himself
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(
            np.zeros_like(labels), labels
        )
        yield from ((torch.from_numpy(rest), torch.from_numpy(fold)) for rest, fold in parts)


def hold_out(labels_N: Tensor, numbers: Tensor, seed: int) -> dict[str, Tensor]:
    """``train`` and ``valid``: a tenth of some examples for validation, stratified, and the rest.

    Of two examples of a label one at least stays for training; where no label has ten examples it
    is one of as many as the most frequent one has.

    Raises:
        VATError: if no label has two examples.
    """
    labels = labels_N[numbers]
    most = int(torch.bincount(labels).max())
    if most < 2:
        raise VATError("no label has two examples, one of them to hold out; give more of each")
    rest, tenth = next(stratified_folds(labels, min(HELD_OUT, most), seed))
    return {"train": numbers[rest], "valid": numbers[tenth]}


def cross_validation(labels_N: Tensor, folds: int, seed: int) -> list[dict[str, Tensor]]:
    """Each fold in turn is ``test``; a tenth of the others is ``valid``, the rest ``train``.

    SentEval (Conneau and Kiela 2018) takes stratified folds too, and inside them each of ten parts
    in turn for validation; here it is one.
    """
    return [
        {**hold_out(labels_N, rest, seed), "test": test}
        for rest, test in stratified_folds(labels_N, folds, seed)
    ]
