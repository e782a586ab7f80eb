"""Relatedness as SentEval learns it: cases whose answer is known, and the command."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import huggingface
from helpers.text import WORDS, sentences
from scipy import stats

from fairseq_vat.evaluation import relatedness
from fairseq_vat.evaluation.folds import numbered
from fairseq_vat.evaluation.relatedness import (
    Grades,
    agreement,
    fit_relatedness,
    grade_distribution,
    pair_features,
)

FILES = ("train", "valid", "test")


def senteval_encode_labels(labels, nclass=5):
    """SentEval's `SICKRelatednessEval.encode_labels`, as it stands there."""
    Y = np.zeros((len(labels), nclass)).astype("float32")
    for j, y in enumerate(labels):
        for i in range(nclass):
            if i + 1 == np.floor(y) + 1:
                Y[j, i] = y - np.floor(y)
            if i + 1 == np.floor(y):
                Y[j, i] = np.floor(y) - y + 1
    return Y


def test_grades_are_senteval_s():
    scores = [1.0, 1.3, 2.0, 3.75, 4.999, 5.0, 0.0, 0.4]  # STS-B has those under 1
    found = grade_distribution(torch.tensor(scores, dtype=torch.double), 1, 5)
    np.testing.assert_allclose(found.numpy(), senteval_encode_labels(scores), atol=1e-6)
    wider = grade_distribution(torch.tensor(scores, dtype=torch.double), 0, 5)
    np.testing.assert_allclose(wider.sum(dim=1), 1, atol=1e-6)
    np.testing.assert_allclose(wider @ torch.arange(6.0), scores, atol=1e-5)


def test_features_and_agreement_by_hand():
    first, second = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 4.0]])
    assert pair_features(first, second).tolist() == [[2, 6, 3, -8]]
    predicted, scores = torch.tensor([1.0, 2.0, 2.5, 4.0]), torch.tensor([1.0, 3.0, 2.0, 5.0])
    found = agreement(predicted, scores)
    assert found.mse == pytest.approx((0 + 1 + 0.25 + 1) / 4)
    assert found.pearson == pytest.approx(stats.pearsonr(predicted, scores).statistic)
    assert found.spearman == pytest.approx(0.8)
    constant = agreement(torch.ones(4), scores)
    assert (constant.pearson, constant.spearman) == (None, None)
    rounding = agreement(torch.tensor([3, 3 + 2.4e-7, 3 - 2.4e-7, 3]), scores)
    assert (rounding.pearson, rounding.spearman) == (None, None)


def pairs_of_vectors(seed, counts=(192, 64, 128)):
    """Scores that the vectors' distance decides."""
    generator = torch.Generator().manual_seed(seed)
    features, scores = {}, {}
    for name, count in zip(FILES, counts, strict=True):
        first = torch.randn(count, 4, generator=generator)
        second = first + torch.rand(count, 1, generator=generator) * torch.randn(
            count, 4, generator=generator
        )
        features[name] = pair_features(first, second)
        distance = (first - second).abs().mean(dim=1).clamp(max=1.3).double()
        scores[name] = 5 - 4 * distance / 1.3
    parts = numbered(dict(zip(FILES, counts, strict=True)))
    target = Grades(torch.cat(list(scores.values())), 1, 5)
    return torch.cat(list(features.values())), target, parts


def test_what_is_there_to_be_learned_is_learned():
    features, target, parts = pairs_of_vectors(1)
    state = torch.get_rng_state()
    found = fit_relatedness(features, target, parts, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.epoch % 50 == 0
    test = found.scores["test"]
    assert test.pearson > 0.95
    assert test.spearman > 0.9
    assert test.mse < 0.15 * target.scores[parts["test"]].var().item()


def test_the_seed_decides(few_epochs):
    small = pairs_of_vectors(1, (64, 30, 20))
    found = fit_relatedness(*small, seed=1)
    assert fit_relatedness(*small, seed=1) == found
    assert fit_relatedness(*small, seed=2) != found


def test_the_training_ends_after_four_looks_that_brought_nothing(monkeypatch):
    features, target, parts = pairs_of_vectors(1, (64, 30, 20))
    looks = iter([0.1, 0.5, 0.4, 0.5, None, 0.6, 0.3, 0.9])
    seen = []

    def told(predicted, gold):
        if len(gold) == 20:
            return relatedness.Agreement(7.0, 7.0, 7.0)
        seen.append(next(looks))
        return relatedness.Agreement(seen[-1], seen[-1], 1.0)

    monkeypatch.setattr(relatedness, "agreement", told)
    found = fit_relatedness(features, target, parts, seed=1)
    assert found.epoch == 300  # that of 0.6; 0.3 is the fourth that brought nothing
    assert found.epochs == 350
    assert len(seen) == 7
    assert found.scores["valid"].pearson == 0.6
    assert found.scores["test"].pearson == 7


def write(folder, lowest=1):
    """Pairs whose score is the share of their words that are the same."""
    rng = random.Random(1)
    flags = []
    for seed, (name, count) in enumerate(zip(FILES, (128, 60, 80), strict=True)):
        lines = []
        for first in sentences(count, 20 + seed):
            rate = rng.random()
            words = [word if rng.random() < rate else rng.choice(WORDS) for word in first.split()]
            common = len(set(words) & set(first.split())) / len(set(words))
            score = lowest + (5 - lowest) * common
            lines.append(f"{score:.2f}\t{first}\t{' '.join(words)}\n")
        (folder / name).write_text("".join(lines), encoding="utf-8")
        flags += [f"--{name}", str(folder / name)]
    return flags


@pytest.fixture
def few_epochs(monkeypatch):
    """A fifth of SentEval's; its own are above."""
    few = replace(relatedness.TRAINING, epochs=210, look_every=10)
    monkeypatch.setattr(relatedness, "TRAINING", few)


@pytest.fixture
def probe(subcommand, few_epochs):
    return subcommand("probe", "--cpu", "--relatedness", "--seeds", "2")


def test_the_command_with_a_hugging_face_encoder_beside(probe, vat, tmp_path):
    huggingface.save_bert(tmp_path / "tiny", WORDS)
    flags = [*write(tmp_path), "--pooling", "sum", "mean"]
    found = probe(*flags, "--hf", tmp_path / "tiny", "--json")
    assert not probe.warnings
    assert found["grades"] == [1, 5]
    assert found["examples"] == {"train": 128, "valid": 60, "test": 80}
    named = [(result["encoder"], result["pooling"]) for result in found["results"]]
    assert named == [(name, p) for name in ("checkpoint", "tiny") for p in ("sum", "mean")]
    for result in found["results"]:
        assert result["test"]["pearson"] > 0.3  # words in common show
        assert result["test"]["mse"] < found["mean_score"]["test"]["mse"]
        values = [run["test"]["spearman"] for run in result["runs"]]
        assert result["test"]["spearman"] == pytest.approx(sum(values) / 2)
    assert found["mean_score"]["test"]["pearson"] is None
    # the checkpoint's are its own vectors
    rows = {}
    for name in FILES:
        text = (tmp_path / name).read_text(encoding="utf-8").splitlines()
        rows[name] = list(zip(*(line.split("\t") for line in text), strict=True))
    columns = [[text for name in FILES for text in rows[name][c]] for c in range(3)]
    features = pair_features(*(torch.from_numpy(vat.embed(columns[c], "sum")) for c in (1, 2)))
    target = Grades(torch.tensor([float(s) for s in columns[0]], dtype=torch.double), 1, 5)
    parts = numbered({name: len(rows[name][0]) for name in FILES})
    expected = fit_relatedness(features, target, parts, seed=2)
    again = found["results"][0]["runs"][1]
    assert again["epoch"] == expected.epoch
    assert again["test"]["pearson"] == pytest.approx(expected.scores["test"].pearson, abs=1e-3)

    table = probe(*flags[:-2], "mean", "--hf", tmp_path / "tiny").splitlines()
    row = next(line for line in reversed(table) if line.startswith("tiny, features, mean "))
    test = found["results"][-1]["test"]
    assert row.split()[3:] == [
        part
        for name, scale in (("pearson", 100), ("spearman", 100), ("mse", 1))
        for part in (f"{scale * test[name]:.2f}", "±", f"{scale * test[f'{name}_std']:.2f}")
    ]
    assert table[-1].split()[:4] == ["mean", "score", "undefined", "undefined"]


def test_scores_from_nought(probe, tmp_path):
    flags = [*write(tmp_path, lowest=0), "--json"]
    found = [probe(*flags, *grades) for grades in ((), ("--grades", "0", "5"))]
    assert [one["grades"] for one in found] == [[1, 5], [0, 5]]
    means = [one["results"][0]["test"]["mse"] for one in found]
    assert means[0] != means[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cv", "x"], "give --train, with"),
        (["--mode", "finetune"], "--mode finetune: --relatedness is learned from features alone"),
        (["--pairs"], "--pairs doesn't go with --relatedness"),
        (["--save", "x.json"], "--save doesn't go with --relatedness"),
        (["--hidden", "0"], "--hidden doesn't go with --relatedness"),
        (["--batch-size", "8"], "--batch-size doesn't go with --relatedness"),
        (["--activation", "relu"], "--activation doesn't go with --relatedness"),
        (["--grades", "5", "1"], "--grades 5 1: the first must be the smaller"),
        (["--grades", "1", "4"], "don't fit the grades 1 to 4; give --grades 1 5"),
        (["--grades", "3", "5"], "don't fit the grades 3 to 5; give --grades 1 5"),
        (["--hf", "none"], "none is not a Hugging Face model's folder"),
    ],
)
def test_flags_that_are_wrong(probe, tmp_path, flags, message):
    assert message in probe(*write(tmp_path), *flags)


def test_files_are_all_needed_and_grades_are_of_relatedness(probe, subcommand, tmp_path):
    flags = write(tmp_path)
    assert probe(*flags[:4]) == "--relatedness: give --train, --valid and --test"
    plain = subcommand("probe", "--cpu", "--grades", "1", "5")
    assert plain(*flags) == "--grades goes with --relatedness"
