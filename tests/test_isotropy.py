"""Isotropy measures against pairs counted one by one, closed forms, and IsoScore's own package."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.oracle import self_similarity
from IsoScore.IsoScore import IsoScore as published_iso_score
from torch.nn.functional import cosine_similarity

from fairseq_vat.errors import VATError
from fairseq_vat.measures.isotropy import (
    IsotropySums,
    intra_sentence_similarity,
    iso_score_of_covariance,
    mean_cosine,
    unit_vectors,
)


def cosine(u, v):
    return float(cosine_similarity(u.double(), v.double(), dim=0))


def random_tokens(count=60, width=5, types=7, sentences=9, seed=0):
    """Vectors around a common direction, types with -1 among them, sentences in runs."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, width, generator=generator) + torch.tensor([1.0] * width)
    words = torch.randint(-1, types, (count,), generator=generator)
    where = torch.randint(sentences, (count,), generator=generator).sort().values
    return vectors, words, where


def mean_of(vectors):
    return mean_cosine(len(vectors), unit_vectors(vectors).sum(dim=0))


def iso_score_of(vectors):
    sums = IsotropySums(vectors.size(1))
    sums.add(vectors, torch.ones(len(vectors), dtype=torch.bool))
    return sums.result()["iso_score"]


def test_mean_cosine_is_that_of_all_pairs():
    vectors = random_tokens()[0]
    pairs = torch.combinations(torch.arange(len(vectors)))
    expected = sum(cosine(vectors[i], vectors[j]) for i, j in pairs) / len(pairs)
    assert mean_of(vectors) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([[1.0, 2.0], [2.0, 4.0], [0.5, 1.0]], 1.0),
        ([[1.0, 0.0], [0.0, 3.0]], 0.0),
        ([[1.0, 0.0], [-2.0, 0.0]], -1.0),
        ([[1.0, 0.0], [1.0, math.sqrt(3)], [1.0, 0.0]], (0.5 + 0.5 + 1.0) / 3),
    ],
)
def test_mean_cosine_in_closed_form(vectors, expected):
    assert mean_of(torch.tensor(vectors)) == pytest.approx(expected, abs=1e-7)


def test_self_similarity_is_that_of_all_pairs_in_different_sentences():
    vectors, words, where = random_tokens()
    expected = {}
    for word in range(7):
        mine = (words == word).nonzero().flatten().tolist()
        cosines = [
            cosine(vectors[i], vectors[j])
            for position, i in enumerate(mine)
            for j in mine[position + 1 :]
            if where[i] != where[j]
        ]
        if cosines:
            sentences = len({int(where[i]) for i in mine})
            expected[word] = (sum(cosines) / len(cosines), len(mine), sentences)
    found = self_similarity(vectors, words, where)
    assert found.types.tolist() == list(expected)
    for row, (similarity, occurrences, sentences) in enumerate(expected.values()):
        assert float(found.similarity[row]) == pytest.approx(similarity, abs=1e-12)
        assert int(found.occurrences[row]) == occurrences
        assert int(found.sentences[row]) == sentences
    by_type = sum(similarity for similarity, _, _ in expected.values()) / len(expected)
    assert found.mean() == pytest.approx(by_type, abs=1e-12)


def test_repetitions_within_a_sentence_are_no_pairs():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [3.0, 0.0], [1.0, 0.0]])
    # type 4 twice in sentence 0 and once in 1; type 2 in sentence 1 alone
    words, where = torch.tensor([4, 4, 4, 2, 2]), torch.tensor([0, 0, 1, 1, 1])
    found = self_similarity(vectors, words, where)
    assert found.types.tolist() == [4]
    assert found.mean() == pytest.approx(math.sqrt(0.5))
    assert self_similarity(vectors[3:], words[3:], where[3:]).mean() is None
    nothing = self_similarity(vectors, torch.full((5,), -1), where)
    assert (nothing.mean(), len(nothing.types)) == (None, 0)


def test_intra_sentence_similarity():
    vectors, _, where = random_tokens()
    found = intra_sentence_similarity(vectors, where)
    for row, number in enumerate(where.unique()):
        mine = vectors[where == number]
        expected = sum(cosine(vector, mine.mean(dim=0)) for vector in mine) / len(mine)
        assert float(found[row]) == pytest.approx(expected, abs=1e-6)
    # right angles give 1 / sqrt(n), one vector 1
    found = intra_sentence_similarity(torch.eye(5), torch.tensor([3, 3, 3, 3, 8]))
    assert found.tolist() == pytest.approx([0.5, 1.0])


def published_steps(variances):
    """IsoScore of Rudman et al. (2022), algorithm 1, step by step as published."""
    n = len(variances)
    scaled = math.sqrt(n) * variances / variances.norm()
    defect = (scaled - 1).norm() / math.sqrt(2 * (n - math.sqrt(n)))
    share = (n - defect**2 * (n - math.sqrt(n))) ** 2 / n**2
    return float((n * share - 1) / (n - 1))


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
@pytest.mark.parametrize("width", [2, 3, 40])
def test_iso_score_is_the_published_one(width):
    generator = torch.Generator().manual_seed(width)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    points = torch.randn(500, width, generator=generator, dtype=torch.float64) @ mixing + 7.0
    variances = torch.linalg.eigvalsh(torch.cov(points.t()))
    found = iso_score_of(points)
    # the package takes the square root of n in single precision
    assert found == pytest.approx(float(published_iso_score(points)), abs=1e-6)
    assert found == pytest.approx(published_steps(variances), abs=1e-12)


@pytest.mark.parametrize("used", [1, 2, 10])
def test_iso_score_in_closed_form(used):
    """Of `used` equal variances among 10 it is (used - 1) / (10 - 1), whatever their scale."""
    covariance = torch.diag(torch.tensor([4.0] * used + [0.0] * (10 - used), dtype=torch.float64))
    assert iso_score_of_covariance(covariance) == pytest.approx((used - 1) / 9, abs=1e-12)
    rotation = torch.linalg.qr(torch.randn(10, 10, dtype=torch.float64)).Q
    turned = rotation @ covariance @ rotation.t()
    assert iso_score_of_covariance(turned) == pytest.approx((used - 1) / 9, abs=1e-12)


def test_what_has_no_value_is_none():
    sums = IsotropySums(3)
    assert set(sums.result().values()) == {None}
    one, yes, first = torch.ones(1, 3), torch.tensor([True]), torch.tensor([0])
    sums.add(one, yes, first, first)
    found = sums.result()
    assert found.pop("intra_sentence_similarity") == pytest.approx(1.0)
    assert set(found.values()) == {None}
    sums.add(0.1 * one, yes, first, first)  # a second sentence, and still one direction
    found = sums.result()
    assert found["random_cosine"] == pytest.approx(1.0)
    assert found["self_similarity"] == pytest.approx(1.0)
    assert found["iso_score"] == pytest.approx(0.0, abs=1e-9)
    equal = torch.full((50, 3), 0.1) + 1e-8 * torch.randn(50, 3)  # but for rounding
    assert iso_score_of(equal) is None
    assert iso_score_of(torch.randn(50, 1)) is None


@pytest.mark.parametrize("wrong", [0.0, math.nan, math.inf])
def test_vectors_without_a_direction(wrong):
    vectors = torch.randn(5, 3)
    vectors[2] = wrong
    with pytest.raises(VATError, match="1 of 5 representations are zero or not finite"):
        IsotropySums(3).add(vectors, torch.ones(5, dtype=torch.bool))


def test_batches_do_not_matter():
    vectors, words, where = random_tokens(400, types=60, sentences=50)
    lot = torch.rand(400) < 0.2
    whole, parts = IsotropySums(5), IsotropySums(5)
    whole.add(vectors, lot, words, where)
    for sentences in torch.randperm(50).split(7):
        mine = torch.isin(where, sentences)
        # numbers of sentences need to differ within a batch only
        parts.add(vectors[mine], lot[mine], words[mine], where[mine] - where[mine].min())
    assert parts.result() == pytest.approx(whole.result(), abs=1e-12)
    one, other = whole.types.result(), parts.types.result()
    assert torch.equal(one.types, other.types)
    assert torch.equal(one.sentences, other.sentences)
