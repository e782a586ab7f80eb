"""The linear classifier: cases whose answer is known."""

import math
from itertools import pairwise

import pytest
import torch
from fairseq_vat.evaluation.linear_probe import (
    CONVERGED,
    PAPER,
    Examples,
    ProbeSettings,
    cosine_schedule,
    score,
    standardized,
    train_probe,
    without_features,
)
from fairseq_vat.evaluation.logistic_regression import logistic_regression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from fairseq_vat.latent.gaussian import DiagonalGaussian

FAST = ProbeSettings(lr=0.05, epochs=10)


def examples(features, labels, logvar=-20.0):
    return Examples(DiagonalGaussian(features, torch.full_like(features, logvar)), labels)


def blobs(count, labels, seed, spread=0.3, logvar=-20.0):
    """One cloud a label, around the corners of a simplex."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.arange(count) % labels
    noise = torch.randn(count, labels + 2, generator=generator)
    centres = 4 * torch.eye(labels, labels + 2)
    return examples(centres[numbers] + spread * noise, numbers, logvar)


def splits(labels, **kwargs):
    counts = {"train": 240, "valid": 60, "test": 60}
    return {
        name: blobs(count, labels, seed, **kwargs)
        for seed, (name, count) in enumerate(counts.items())
    }


@pytest.mark.parametrize("labels", [2, 3, 5])
@pytest.mark.parametrize("drawn", [False, True])
def test_separable_labels_are_learned(labels, drawn):
    settings = ProbeSettings(lr=0.05, epochs=10, drawn=drawn)
    result = train_probe(splits(labels), labels, settings)
    for split in result.scores.values():
        assert split.accuracy == 100
        assert split.loss < 0.1 * math.log(labels)


def narrow(labels, scale=0.1):
    """Features of small spread; the first label has three quarters of the examples."""
    generator = torch.Generator().manual_seed(2)
    data = {}
    for name, count in {"train": 400, "valid": 200, "test": 400}.items():
        features = torch.randn(count, 6, generator=generator)
        noise = torch.randn(count, generator=generator)
        bounds = torch.linspace(1.0, 2.0, labels - 1)
        numbers = torch.bucketize(features[:, 0] + features[:, 1] + 0.3 * noise, bounds)
        data[name] = examples(scale * features, numbers)
    return data


@pytest.mark.parametrize("labels", [2, 3])
def test_the_paper_s_protocol_underfits_where_the_converged_one_does_not(labels):
    data = narrow(labels)
    nothing = without_features(data, labels)["test"]
    paper = train_probe(data, labels, PAPER)
    assert (paper.epochs, paper.converged) == (20, None)
    assert paper.scores["test"].accuracy <= nothing.accuracy + 1
    found = train_probe(standardized(data), labels, CONVERGED)
    assert found.converged
    assert found.epoch <= found.epochs < CONVERGED.epochs
    assert found.scores["test"].accuracy > nothing.accuracy + 10
    reference = logistic_regression(data)
    assert reference.converged
    assert found.scores["test"].accuracy == pytest.approx(
        reference.scores["test"].accuracy, abs=1.5
    )
    assert found.scores["test"].loss == pytest.approx(reference.scores["test"].loss, abs=0.03)


def test_a_training_that_is_cut_off_says_so():
    found = train_probe(standardized(narrow(2)), 2, ProbeSettings(epochs=3, lr=1e-2, patience=3))
    assert (found.epochs, found.converged) == (3, False)


@pytest.mark.parametrize("labels", [2, 3])
def test_the_logistic_regression_is_scikit_learn_s_on_standardized_means(labels):
    data = narrow(labels)
    scaler = StandardScaler().fit(data["train"].posterior.mean.double().numpy())
    features = {n: scaler.transform(s.posterior.mean.double().numpy()) for n, s in data.items()}
    model = LogisticRegression(max_iter=1000).fit(features["train"], data["train"].labels)
    found = logistic_regression(data)
    for name, split in data.items():
        accuracy = 100 * model.score(features[name], split.labels)
        loss = log_loss(split.labels, model.predict_proba(features[name]))
        assert found.scores[name].accuracy == pytest.approx(accuracy, abs=0.51)
        assert found.scores[name].loss == pytest.approx(loss, rel=1e-3)
    drawn = logistic_regression(
        {n: examples(s.posterior.mean, s.labels, 0.0) for n, s in data.items()}, drawn=True
    )
    assert drawn.scores["test"].loss > found.scores["test"].loss + 0.1


@pytest.mark.parametrize("labels", [2, 3])
def test_labels_that_have_nothing_to_do_with_the_features(labels):
    generator = torch.Generator().manual_seed(1)
    counts = {"train": 2000, "valid": 500, "test": 2000}
    data = {
        name: examples(
            torch.randn(count, 4, generator=generator),
            # the first label in 7 of 10 cases
            torch.randint(0, 10, (count,), generator=generator).sub(6).clamp(0, labels - 1),
        )
        for name, count in counts.items()
    }
    result, nothing = train_probe(data, labels, FAST), without_features(data, labels)
    for name in data:
        assert result.scores[name].accuracy == pytest.approx(nothing[name].accuracy, abs=1)
        assert result.scores[name].loss == pytest.approx(nothing[name].loss, abs=0.03)


@pytest.mark.parametrize(("labels", "outputs"), [(2, 1), (4, 4)])
def test_a_classifier_of_zeros_has_the_loss_log_k(labels, outputs):
    classifier = torch.nn.Linear(3, outputs)
    for parameter in classifier.parameters():
        torch.nn.init.zeros_(parameter)
    numbers = torch.arange(8) % labels
    found = score(classifier, torch.randn(8, 3), numbers)
    assert found.loss == pytest.approx(math.log(labels), rel=1e-12)
    assert found.accuracy == pytest.approx(100 / labels)  # the first label everywhere


def test_score_by_hand():
    classifier = torch.nn.Linear(1, 1)
    with torch.no_grad():
        classifier.weight.fill_(1)
        classifier.bias.fill_(0)
    features, labels = torch.tensor([[2.0], [-1.0], [3.0]]), torch.tensor([1, 0, 0])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1)) + math.log1p(math.exp(3))) / 3
    found = score(classifier, features, labels)
    assert found.loss == pytest.approx(expected, rel=1e-6)
    assert found.accuracy == pytest.approx(200 / 3)


def test_without_features_by_hand():
    data = {
        name: examples(torch.zeros(len(labels), 1), torch.tensor(labels))
        for name, labels in {"train": [0, 1, 1, 1], "test": [0, 1]}.items()
    }
    found = without_features(data, 2)
    assert found["train"].accuracy == 75
    assert found["test"].accuracy == 50
    assert found["train"].loss == pytest.approx(-(math.log(0.25) + 3 * math.log(0.75)) / 4)
    assert found["test"].loss == pytest.approx(-(math.log(0.25) + math.log(0.75)) / 2)


def test_learning_rate_falls_as_a_cosine_and_restarts():
    settings = ProbeSettings()
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=settings.lr)
    schedule = cosine_schedule(optimizer, settings, updates_an_epoch=7)
    rates = []
    for _ in range(20 * 7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == rates[70] == 1e-4  # the paper's first rate, again after 10 epochs
    assert rates[35] == rates[105] == pytest.approx((1e-4 + 1e-7) / 2, rel=1e-9)
    last = 1e-7 + (1e-4 - 1e-7) * (1 + math.cos(math.pi * 69 / 70)) / 2
    assert rates[69] == rates[139] == pytest.approx(last, rel=1e-9)
    assert all(one > two for one, two in pairwise(rates[:70]))


@pytest.mark.parametrize("drawn", [False, True])
def test_a_seed_fixes_everything_and_leaves_torch_alone(drawn):
    data = splits(2, spread=3.0, logvar=0.0)
    settings = ProbeSettings(lr=0.05, epochs=3, drawn=drawn)
    state = torch.get_rng_state()
    first = train_probe(data, 2, settings, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert train_probe(data, 2, settings, seed=5) == first
    assert train_probe(data, 2, settings, seed=6) != first


def test_draws_are_noisier_than_means():
    data = splits(2, logvar=2 * math.log(4.0))  # draws of standard deviation 4
    mean = train_probe(data, 2, FAST).scores["test"]
    drawn = train_probe(data, 2, ProbeSettings(lr=0.05, epochs=10, drawn=True)).scores["test"]
    assert mean.accuracy == 100
    # two clouds 4 sqrt(2) apart: Phi(2 sqrt(2) / sqrt(16 + 0.09)) = 76 % for the best line
    assert 62 < drawn.accuracy < 88
    assert drawn.loss > mean.loss + 0.3


def test_the_epoch_of_least_validation_loss_is_kept():
    """Validation labels turned round: every update makes that loss worse."""
    data = splits(2)
    data["valid"] = Examples(data["valid"].posterior, 1 - data["valid"].labels)
    calls = []
    result = train_probe(data, 2, FAST, on_epoch=lambda: calls.append(1))
    assert result.epoch == 1
    assert len(calls) == FAST.epochs
    alone = train_probe(data, 2, ProbeSettings(lr=0.05, epochs=1))
    assert alone.scores == result.scores


def test_standardized():
    torch.manual_seed(3)
    train = torch.randn(50, 3) * torch.tensor([0.01, 5.0, 0.0]) + torch.tensor([1.0, -7.0, 0.1])
    other = torch.randn(4, 3)
    data = {
        "train": examples(train, torch.zeros(50, dtype=torch.long), 0.0),
        "test": examples(other, torch.zeros(4, dtype=torch.long), 0.0),
    }
    found = standardized(data)
    mean = found["train"].posterior.mean
    torch.testing.assert_close(mean.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    expected = torch.tensor([1.0, 1.0, 0.0])
    torch.testing.assert_close(mean.std(dim=0, unbiased=False), expected, atol=1e-4, rtol=0)
    # the training set's shift and scale, for means and standard deviations alike
    scale = train.std(dim=0, unbiased=False)[:2]
    moved = (other[:, :2] - train.mean(dim=0)[:2]) / scale
    torch.testing.assert_close(found["test"].posterior.mean[:, :2], moved, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["test"].posterior.std[:, :2], (1 / scale).expand(4, 2))
