"""Parts of a labelled set: stratified, apart from each other, and complete."""

import itertools

import pytest
import torch

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.folds import (
    cross_validation,
    hold_out,
    numbered,
    stratified_folds,
)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def mixed(*counts):
    """So many examples of each label, in random order."""
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(counts)])
    return labels[torch.randperm(len(labels), generator=generator(7))]


@pytest.mark.parametrize(
    ("counts", "folds"),
    [*itertools.product([(50, 53), (7, 90, 13)], [2, 3, 10]), *(((3, 3, 3), k) for k in (2, 3))],
)
def test_folds_are_stratified_disjoint_and_cover(counts, folds):
    labels = mixed(*counts)
    parts = []
    for rest, fold in stratified_folds(labels, folds, 1):
        assert torch.cat((rest, fold)).sort().values.tolist() == list(range(len(labels)))
        parts.append(fold)
    assert torch.cat(parts).sort().values.tolist() == list(range(len(labels)))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for label, count in enumerate(counts):
        found = [int(labels[part].eq(label).sum()) for part in parts]
        assert sum(found) == count
        assert max(found) - min(found) <= 1


def test_folds_follow_the_seed():
    labels = mixed(40, 60)
    one, again, other = (
        [fold.tolist() for _, fold in stratified_folds(labels, 4, seed)] for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


def test_more_folds_than_any_label_has_examples():
    with pytest.raises(
        VATError, match=r"5 folds: the most frequent label has fewer examples \(4\)"
    ):
        list(stratified_folds(mixed(2, 4), 5, 1))
    with pytest.raises(VATError, match="no label has two examples"):
        hold_out(torch.tensor([0, 1]), torch.arange(2), 1)


def test_examples_of_parts_are_numbered_through():
    found = numbered({"train": 3, "valid": 0, "test": 2})
    assert {name: some.tolist() for name, some in found.items()} == {
        "train": [0, 1, 2],
        "valid": [],
        "test": [3, 4],
    }


@pytest.mark.parametrize("counts", [(60, 40), (2, 98), (3, 4)])
def test_a_tenth_is_held_out(counts):
    labels, total = mixed(*counts), sum(counts)
    numbers = torch.arange(total)[torch.arange(total) != 0]  # example 0 belongs to another part
    parts = hold_out(labels, numbers, 1)
    rest, tenth = parts["train"], parts["valid"]
    assert torch.cat((rest, tenth)).sort().values.tolist() == numbers.tolist()
    # without ten of a label, one of as many as the most frequent one has
    share = min(10, int(torch.bincount(labels[numbers]).max()))
    assert abs(len(tenth) - len(numbers) / share) < 1
    for label in range(2):
        held = int(labels[tenth].eq(label).sum())
        assert abs(held - int(labels[numbers].eq(label).sum()) / share) <= 1
    if labels[numbers].eq(0).sum() > 1:  # two of a label: one of them stays
        assert set(labels[rest].tolist()) == {0, 1}


def test_cross_validation_tests_every_example_once():
    labels = mixed(30, 50, 21)
    splits = cross_validation(labels, 10, seed=3)
    assert torch.cat([split["test"] for split in splits]).sort().values.tolist() == list(range(101))
    for split in splits:
        parts = torch.cat([split[name] for name in ("train", "valid", "test")])
        assert parts.sort().values.tolist() == list(range(101))  # apart, and complete
        assert len(split["valid"]) in (9, 10)
        shares = [int(labels[split["valid"]].eq(label).sum()) for label in range(3)]
        assert shares == pytest.approx([2.7, 4.5, 1.9], abs=1.5)
    again = cross_validation(labels, 10, seed=3)
    assert all(torch.equal(a["valid"], b["valid"]) for a, b in zip(splits, again, strict=True))
    other = cross_validation(labels, 10, seed=4)
    assert not torch.equal(splits[0]["test"], other[0]["test"])
