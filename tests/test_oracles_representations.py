"""Isotropy and semantic textual similarity of a trained model, pair by pair in plain numpy."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
import torch
from helpers.oracle import BOS
from helpers.text import sentences
from scipy import stats

from fairseq_vat.cli import main as cli
from fairseq_vat.evaluation.representations import measure_isotropy
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.measures.isotropy import random_words
from fairseq_vat.models.vat_transformer import VATModel

SEED = 3


@pytest.fixture(scope="module")
def vat(oracle) -> VATHubInterface:
    return VATModel.from_pretrained(
        oracle.checkpoint.parent, data_name_or_path=str(oracle.data), device="cpu"
    )


@pytest.fixture(scope="module")
def found(vat, oracle):
    return measure_isotropy(vat, oracle.lines, seed=SEED)


def cosine(x, y):
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


def mean_over_pairs(vectors):
    return np.mean([cosine(x, y) for x, y in combinations(vectors, 2)])


def iso_score(vectors):
    """Rudman et al. (2022), algorithm 1, step by step."""
    _, _, axes = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    n = vectors.shape[1]
    variances = np.zeros(n)
    variances[: len(axes)] = (vectors @ axes.T).var(axis=0, ddof=1)
    normalised = np.sqrt(n) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(normalised - 1) / np.sqrt(2 * (n - np.sqrt(n)))
    share = (n - defect**2 * (n - np.sqrt(n))) ** 2 / n**2
    return (n * share - 1) / (n - 1)


def words(oracle, rows):
    """A sentence's word, its row without the start token's and the end's."""
    return [
        list(zip(line.split(), row[1:-1], strict=True))
        for line, row in zip(oracle.lines, rows, strict=True)
    ]


def self_similarity(tagged):
    """Mean over types of the mean cosine of their occurrences in different sentences."""
    occurrences = defaultdict(list)
    for number, sentence in enumerate(tagged):
        for word, vector in sentence:
            occurrences[word].append((number, vector))
    means = []
    for found in occurrences.values():
        pairs = [cosine(x, y) for (a, x), (b, y) in combinations(found, 2) if a != b]
        if pairs:
            means.append(np.mean(pairs))
    return np.mean(means)


def intra_sentence_similarity(tagged):
    """Mean over sentences of the mean cosine of the words to their mean vector."""
    every = []
    for sentence in tagged:
        vectors = np.array([vector for _, vector in sentence])
        every.append(np.mean([cosine(vector, vectors.mean(axis=0)) for vector in vectors]))
    return np.mean(every)


def random_rows(oracle, vat, rows):
    """The one word of each sentence that the lot falls on: the choice is no measure."""
    for line, row in zip(oracle.lines, rows, strict=True):
        tokens = torch.tensor([[BOS, *oracle.target(line)]])
        (place,) = random_words(tokens, vat.task.source_dictionary, SEED)[0].nonzero().flatten()
        yield row[place]


def assert_measures(figures, oracle, vat, rows):
    tagged = words(oracle, rows)
    vectors = np.array([vector for sentence in tagged for _, vector in sentence])
    chosen = list(random_rows(oracle, vat, rows))
    expected = {
        "random_cosine": mean_over_pairs(chosen),
        "self_similarity": self_similarity(tagged),
        "intra_sentence_similarity": intra_sentence_similarity(tagged),
        "iso_score": iso_score(vectors),
    }
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_isotropy_of_the_last_layer(oracle, vat, found):
    rows = [oracle.layer(line) for line in oracle.lines]
    assert_measures(found["layers"][-1], oracle, vat, rows)


def test_isotropy_of_the_latents(oracle, vat, found):
    rows = [oracle.posterior(line).mean for line in oracle.lines]
    if oracle.level == "token":
        assert_measures(found["latents"], oracle, vat, rows)
    else:
        vectors = np.concatenate(rows)
        figures = found["latents"]
        assert figures["random_cosine"] == pytest.approx(mean_over_pairs(vectors), abs=1e-5)
        assert figures["iso_score"] == pytest.approx(iso_score(vectors), abs=1e-5)


def test_tokens_are_counted_in_the_text(oracle, found):
    assert found["sentences"] == len(set(oracle.lines)) == len(oracle.lines)
    assert found["tokens"] == len(oracle.text.read_text(encoding="utf-8").split())


def test_semantic_textual_similarity(oracle, tmp_path, capsys):
    rng = np.random.default_rng(2)
    pairs = list(zip(sentences(15, 18), sentences(15, 19), strict=True))
    gold = rng.integers(0, 6, len(pairs))
    lines = [f"{score}\t{x}\t{y}\n" for score, (x, y) in zip(gold, pairs, strict=True)]
    (tmp_path / "made_up.tsv").write_text("".join(lines), encoding="utf-8")
    command = ["sts", str(oracle.data), "--path", str(oracle.checkpoint), "--sts", str(tmp_path)]
    capsys.readouterr()
    assert cli.main([*command, "--cpu", "--json"]) == 0
    (system,) = json.loads(capsys.readouterr().out)["systems"]
    pooled = {"mean": lambda row: row.mean(axis=0), "sum": lambda row: row.sum(axis=0)}
    pooled = {**pooled, "start": lambda row: row[0]} if oracle.level == "token" else {}
    for name, pool in (pooled or {"latent": lambda row: row[0]}).items():
        cosines = [cosine(*(pool(oracle.posterior(x).mean) for x in pair)) for pair in pairs]
        assert np.diff(np.sort(cosines)).min() > 1e-6  # else rounding decides about ranks
        (task,) = system["poolings"][name]["tasks"].values()
        figures = task["subsets"]["made_up"]
        spearman, pearson = (f(cosines, gold).statistic for f in (stats.spearmanr, stats.pearsonr))
        assert figures["spearman"] == pytest.approx(spearman, abs=1e-6)
        assert figures["pearson"] == pytest.approx(pearson, abs=1e-5)
