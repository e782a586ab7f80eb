"""Figures of `evaluate`, `isotropy` and `sts` against their definitions, in numpy and scipy.

What the model gives, posteriors, draws and logits, is taken sentence by sentence (oracle.py); what
is made of it is written out here from docs/measures.md.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
import torch
from helpers.oracle import BOS
from helpers.text import sentences
from scipy.special import logsumexp
from scipy.stats import norm, pearsonr, spearmanr

from fairseq_vat.cli import main as cli
from fairseq_vat.evaluation.representations import measure_isotropy
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.measures.isotropy import random_words
from fairseq_vat.models.vat_transformer import VATModel

SEED, SAMPLES, K, DRAWS, BATCH, S = 7, 2, 6, 3, 6, 0.4
FLAGS = {"seed": SEED, "samples": SAMPLES, "iw-samples": K, "mi-draws": DRAWS, "mi-batch": BATCH}
ISOTROPY_SEED = 3
CLOSE = {"rel": 2e-4, "abs": 2e-5}  # the tool sums single precision, and in batches


@pytest.fixture(scope="module")
def found(oracle):
    """`evaluate --json`, from the command line."""
    flags = [part for name, value in FLAGS.items() for part in (f"--{name}", str(value))]
    command = ["evaluate", str(oracle.data), "--path", str(oracle.checkpoint), "--no-bleu", "--cpu"]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert cli.main([*command, "--json", *flags]) == 0
    return json.loads(output.getvalue())


@pytest.fixture(scope="module")
def posteriors(oracle):
    return [oracle.posterior(line) for line in oracle.lines]


@pytest.fixture(scope="module")
def draws(oracle):
    """z of each draw and sentence."""
    return [[oracle.draw(line, SEED, k) for line in oracle.lines] for k in range(K)]


@pytest.fixture(scope="module")
def nlls(oracle, draws):
    """(K, sentences)"""
    return np.array(
        [[oracle.nll(*pair) for pair in zip(oracle.lines, z, strict=True)] for z in draws]
    )


@pytest.fixture(scope="module")
def prior(oracle):
    """Standard deviation of z's prior."""
    return S * oracle.noise_std


def kl(posterior, prior):
    """KL to N(0, prior^2 I), summed."""
    m, s = posterior
    return 0.5 * ((m**2 + s**2) / prior**2 - 1 - np.log(s**2) + np.log(prior**2)).sum()


def per(figure, nats, oracle):
    """Nats of the whole set per sentence, word and token, counted in the text."""
    words = sum(len(line.split()) for line in oracle.lines)
    tokens = words + len(oracle.lines)
    assert figure["per_sentence"] == pytest.approx(nats / len(oracle.lines), **CLOSE)
    assert figure["per_word"] == pytest.approx(nats / words, **CLOSE)
    assert figure["per_token"] == pytest.approx(nats / tokens, **CLOSE)
    assert figure["bits_per_token"] == pytest.approx(nats / tokens / math.log(2), **CLOSE)
    if "ppl_per_word" in figure:
        assert math.log(figure["ppl_per_word"]) == pytest.approx(nats / words, **CLOSE)
        assert math.log(figure["ppl_per_token"]) == pytest.approx(nats / tokens, **CLOSE)


def test_counts_are_those_of_the_text(oracle, found):
    text = oracle.text.read_text(encoding="utf-8")
    sentences, words = text.count("\n"), len(text.split())
    assert (found["sentences"], found["words"]) == (sentences, words)
    assert found["tokens"] == words + sentences  # an end each
    start = words + 2 * sentences  # and a start token each, which has a latent
    assert found["latents"] == (start if oracle.level == "token" else sentences)


def test_kl(oracle, posteriors, prior, found):
    total = sum(kl(posterior, prior) for posterior in posteriors)
    count = sum(len(p.mean) for p in posteriors)
    assert found["prior_std"] == pytest.approx(prior)
    per(found["kl"], total, oracle)
    assert found["kl_nats"] == pytest.approx(total / count, **CLOSE)
    square = np.concatenate([p.mean**2 + p.std**2 for p in posteriors]).mean()
    assert found["least_kl_prior_std"] == pytest.approx(math.sqrt(square), **CLOSE)


def test_penalty(oracle, posteriors, prior, found):
    assert found["noise_std"] == oracle.noise_std
    if oracle.noise_std == 1:
        assert found["penalty"] is found["penalty_nats"] is None
        return
    # equation (6) of mu and sigma, the deviation of z without the noise's part
    total = sum(kl((p.mean, p.std / oracle.noise_std), S) for p in posteriors)
    per(found["penalty"], total, oracle)
    count = sum(len(p.mean) for p in posteriors)
    assert found["penalty_nats"] == pytest.approx(total / count, **CLOSE)
    assert found["penalty_nats"] < found["kl_nats"]


def test_nll_from_mean_and_from_samples(oracle, posteriors, prior, nlls, found):
    from_mean = [oracle.nll(x, p.mean) for x, p in zip(oracle.lines, posteriors, strict=True)]
    per(found["nll_mean"], sum(from_mean), oracle)
    samples = nlls[:SAMPLES].mean(axis=0).sum()
    per(found["nll_samples"], samples, oracle)
    per(found["neg_elbo"], samples + sum(kl(p, prior) for p in posteriors), oracle)


def test_gain_of_own_latents(oracle, posteriors, prior, draws, nlls, found):
    from_prior = np.mean(
        [
            [
                oracle.nll(
                    line, prior * (z - p.mean) / p.std
                )  # the draw's noise, at the prior's width
                for line, p, z in zip(oracle.lines, posteriors, draw, strict=True)
            ]
            for draw in draws[:SAMPLES]
        ],
        axis=0,
    ).sum()
    own = nlls[:SAMPLES].mean(axis=0).sum()
    # the noise is got back from draws in single precision, narrow ones among them
    assert found["nll_prior"]["per_sentence"] * len(oracle.lines) == pytest.approx(
        from_prior, rel=2e-3
    )
    gain = found["latent_gain"]
    assert gain["per_token"] * found["tokens"] == pytest.approx(from_prior - own, rel=1e-2)
    assert gain["share"] == pytest.approx(1 - own / from_prior, rel=1e-2)


def test_importance_weighted_nll(oracle, posteriors, prior, draws, nlls, found):
    total, ess = 0.0, []
    for number, posterior in enumerate(posteriors):
        log_w = []
        for k in range(K):
            z = draws[k][number]
            log_prior = norm.logpdf(z, 0, prior).sum()
            log_w.append(-nlls[k, number] + log_prior - norm.logpdf(z, *posterior).sum())
        total -= logsumexp(log_w) - math.log(K)
        w = np.exp(np.array(log_w) - max(log_w))
        ess.append(w.sum() ** 2 / (w**2).sum())
    per(found["iw_nll"], total, oracle)
    assert found["ess"]["mean"] == pytest.approx(np.mean(ess), rel=2e-3)
    assert found["ess"]["median"] == pytest.approx(np.median(ess), rel=2e-3)
    assert found["ess"]["percentile_5"] == pytest.approx(np.percentile(ess, 5), rel=2e-3)
    assert found["ess"]["min"] == pytest.approx(min(ess), rel=2e-3)


def information(posteriors, z):
    """Paired and unpaired MI of a set of sentences, and log N."""
    m, s = (np.concatenate(column) for column in zip(*posteriors, strict=True))
    z = np.concatenate(z)
    pairs = norm.logpdf(z[:, None], m, s).sum(axis=-1)  # row: draw, column: posterior
    marginal = (logsumexp(pairs, axis=1) - math.log(len(z))).mean()
    closed = -0.5 * math.log(2 * math.pi) * z.shape[1] - 0.5 * (1 + np.log(s**2)).sum(1).mean()
    return pairs.diagonal().mean() - marginal, closed - marginal, math.log(len(z))


@pytest.mark.parametrize("place", ["mi", "mi_batches"])
def test_mutual_information(oracle, posteriors, draws, found, place):
    count = len(oracle.lines)
    parts = [slice(0, count)]
    if place == "mi_batches":  # what doesn't fill a batch is left out
        parts = [slice(first, first + BATCH) for first in range(0, count - BATCH + 1, BATCH)]
    each = [[information(posteriors[part], z[part]) for part in parts] for z in draws[:DRAWS]]
    paired, unpaired, ceiling = np.array(each).mean(axis=1).T
    # far posteriors' densities differ by thousands of nats: single precision has seven digits
    close = {"rel": 1e-3, "abs": 1e-3}
    assert found[place]["paired"] == pytest.approx(paired.mean(), **close)
    assert found[place]["unpaired"] == pytest.approx(unpaired.mean(), **close)
    assert found[place]["paired_std"] == pytest.approx(paired.std(ddof=1), **close)
    assert found[place]["unpaired_std"] == pytest.approx(unpaired.std(ddof=1), **close)
    assert found[place]["ceiling"] == pytest.approx(ceiling.mean())
    assert (found[place]["draws"], found[place]["batches"]) == (DRAWS, len(parts))
    if place == "mi":
        aggregate_kl = found["kl_nats"] - paired.mean()
        assert found["marginal_kl"] == pytest.approx(aggregate_kl, **close)


def test_active_units(posteriors, prior, found):
    variance = np.concatenate([p.mean for p in posteriors]).var(axis=0, ddof=1)
    assert found["active_units"]["count"] == (variance >= 0.01).sum()
    assert found["active_units_scaled"]["count"] == (variance >= 0.01 * prior**2).sum()
    assert found["active_units"]["of"] == len(variance)


# --- isotropy and semantic textual similarity, pair by pair ---------------------------------


@pytest.fixture(scope="module")
def vat(oracle) -> VATHubInterface:
    return VATModel.from_pretrained(
        oracle.checkpoint.parent, data_name_or_path=str(oracle.data), device="cpu"
    )


@pytest.fixture(scope="module")
def isotropy(vat, oracle):
    return measure_isotropy(vat, oracle.lines, seed=ISOTROPY_SEED)


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
    for isotropy in occurrences.values():
        pairs = [cosine(x, y) for (a, x), (b, y) in combinations(isotropy, 2) if a != b]
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
        (place,) = (
            random_words(tokens, vat.task.source_dictionary, ISOTROPY_SEED)[0].nonzero().flatten()
        )
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


def test_isotropy_of_the_last_layer(oracle, vat, isotropy):
    rows = [oracle.layer(line) for line in oracle.lines]
    assert_measures(isotropy["layers"][-1], oracle, vat, rows)


def test_isotropy_of_the_latents(oracle, vat, isotropy):
    rows = [oracle.posterior(line).mean for line in oracle.lines]
    if oracle.level == "token":
        assert_measures(isotropy["latents"], oracle, vat, rows)
    else:
        vectors = np.concatenate(rows)
        figures = isotropy["latents"]
        assert figures["random_cosine"] == pytest.approx(mean_over_pairs(vectors), abs=1e-5)
        assert figures["iso_score"] == pytest.approx(iso_score(vectors), abs=1e-5)


def test_tokens_are_counted_in_the_text(oracle, isotropy):
    assert isotropy["sentences"] == len(set(oracle.lines)) == len(oracle.lines)
    assert isotropy["tokens"] == len(oracle.text.read_text(encoding="utf-8").split())


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
        spearman, pearson = (f(cosines, gold).statistic for f in (spearmanr, pearsonr))
        assert figures["spearman"] == pytest.approx(spearman, abs=1e-6)
        assert figures["pearson"] == pytest.approx(pearson, abs=1e-5)
