"""The linear classifier: cases whose answer is known."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.classifier import CONVERGED, PAPER, cosine_schedule
from fairseq_vat.evaluation.classify import logistic_regression, standardized, train_linear
from fairseq_vat.evaluation.folds import numbered
from fairseq_vat.evaluation.heads import majority, new_linear, score_logits
from fairseq_vat.latent.gaussian import DiagonalGaussian

FAST = replace(PAPER, lr=0.05, epochs=10)


def posterior(features, logvar=-20.0):
    return DiagonalGaussian(features, torch.full_like(features, logvar))


def without_features(labels, parts):
    return {name: majority(labels[parts["train"]], labels[some]) for name, some in parts.items()}


def put_together(data):
    """Posteriors by part, all labels, and the parts' numbers."""
    labels = torch.cat([numbers for _, numbers in data.values()])
    parts = numbered({name: len(numbers) for name, (_, numbers) in data.items()})
    return {name: some for name, (some, _) in data.items()}, labels, parts


def blobs(count, labels, seed, spread=0.3, logvar=-20.0):
    """One cloud a label, around the corners of a simplex."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.arange(count) % labels
    noise = torch.randn(count, labels + 2, generator=generator)
    centres = 4 * torch.eye(labels, labels + 2)
    return posterior(centres[numbers] + spread * noise, logvar), numbers


def splits(labels, **kwargs):
    counts = {"train": 240, "valid": 60, "test": 60}
    return put_together(
        {
            name: blobs(count, labels, seed, **kwargs)
            for seed, (name, count) in enumerate(counts.items())
        }
    )


@pytest.mark.parametrize("labels", [2, 3, 5])
@pytest.mark.parametrize("drawn", [False, True])
def test_separable_labels_are_learned(labels, drawn):
    posteriors, numbers, _ = splits(labels)
    result = train_linear(posteriors, numbers, FAST, drawn)
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
        data[name] = posterior(scale * features), numbers
    return put_together(data)


@pytest.mark.parametrize("labels", [2, 3])
def test_the_paper_s_protocol_underfits_where_the_converged_one_does_not(labels):
    data, numbers, parts = narrow(labels)
    nothing = without_features(numbers, parts)["test"]
    paper = train_linear(data, numbers, PAPER)
    assert (paper.epochs, paper.converged) == (20, None)
    assert paper.scores["test"].accuracy <= nothing.accuracy + 1
    found = train_linear(standardized(data), numbers, CONVERGED)
    assert found.converged
    assert found.epoch <= found.epochs < CONVERGED.epochs
    assert found.scores["test"].accuracy > nothing.accuracy + 10
    reference = logistic_regression(data, numbers)
    assert reference["converged"]
    assert found.scores["test"].accuracy == pytest.approx(reference["test"]["accuracy"], abs=1.5)
    assert found.scores["test"].loss == pytest.approx(reference["test"]["loss"], abs=0.03)


def test_a_training_that_diverges_is_an_error():
    data, numbers, _ = narrow(2, scale=1e30)
    with pytest.raises(VATError, match="seed 4: the training diverged; give a smaller --lr"):
        train_linear(data, numbers, replace(PAPER, lr=1e10), seed=4)


def test_a_training_that_is_cut_off_says_so():
    data, numbers, _ = narrow(2)
    found = train_linear(standardized(data), numbers, replace(CONVERGED, epochs=3))
    assert (found.epochs, found.converged) == (3, False)


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("training", [PAPER, replace(CONVERGED, epochs=60)])
def test_the_trainer_does_what_the_protocols_say(labels, drawn, training):
    """Written out: AdamW by batch, the rates of `docs/measures.md`, the least validation loss."""
    data, numbers, parts = splits(labels, spread=2.0, logvar=-1.0)
    generator = torch.Generator().manual_seed(3)

    def latents(some):
        noise = torch.randn(some.mean.shape, generator=generator) if drawn else 0
        return some.mean + noise * some.std

    layer = new_linear(labels + 2, 1 if labels == 2 else labels, generator)
    measured = {name: latents(some) for name, some in data.items()}
    decay = 0.1 if training is PAPER else 0.0
    optimizer = torch.optim.AdamW(layer.parameters(), lr=training.lr, weight_decay=decay)

    def loss(features, targets):
        if labels == 2:
            logits = layer(features)[:, 0]
            return F.binary_cross_entropy_with_logits(logits, targets.float())
        return F.cross_entropy(layer(features), targets)

    targets = numbers[parts["train"]]
    lowest, waited, best, number = math.inf, 0, (math.inf, 0, 0.0), 0
    for epoch in range(1, training.epochs + 1):
        features = latents(data["train"])
        for batch in torch.randperm(240, generator=generator).split(32):
            if training is PAPER:  # 8 updates an epoch, a cosine of 10 epochs
                rate = (1 + math.cos(math.pi * (number % 80) / 80)) / 2
                optimizer.param_groups[0]["lr"] = 1e-7 + (1e-4 - 1e-7) * rate
            number += 1
            optimizer.zero_grad()
            loss(features[batch], targets[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            valid = loss(measured["valid"], numbers[parts["valid"]]).item()
            test = loss(measured["test"], numbers[parts["test"]]).item()
        best = min(best, (valid, epoch, test))
        if training is not PAPER:
            lowest, waited = (valid, 0) if valid < lowest * (1 - 1e-4) else (lowest, waited + 1)
            if waited > 3:
                optimizer.param_groups[0]["lr"] /= 10
                waited = 0
                if optimizer.param_groups[0]["lr"] < training.lr / 500:
                    break
    found = train_linear(data, numbers, training, drawn, seed=3)
    assert (found.epoch, found.epochs) == (best[1], epoch)
    assert found.scores["valid"].loss == pytest.approx(best[0], rel=1e-5)
    assert found.scores["test"].loss == pytest.approx(best[2], rel=1e-5)


@pytest.mark.parametrize("labels", [2, 3])
def test_the_logistic_regression_is_scikit_learn_s_on_standardized_means(labels):
    data, numbers, parts = narrow(labels)
    scaler = StandardScaler().fit(data["train"].mean.double().numpy())
    features = {name: scaler.transform(some.mean.double().numpy()) for name, some in data.items()}
    model = LogisticRegression(max_iter=1000).fit(features["train"], numbers[parts["train"]])
    found = logistic_regression(data, numbers)
    for name, part in parts.items():
        accuracy = 100 * model.score(features[name], numbers[part])
        loss = log_loss(numbers[part], model.predict_proba(features[name]))
        assert found[name]["accuracy"] == pytest.approx(accuracy, abs=0.51)
        assert found[name]["loss"] == pytest.approx(loss, rel=1e-3)
    noisy = {name: posterior(some.mean, 0.0) for name, some in data.items()}
    drawn = logistic_regression(noisy, numbers, drawn=True)
    assert drawn["test"]["loss"] > found["test"]["loss"] + 0.1


@pytest.mark.parametrize("labels", [2, 3])
def test_labels_that_have_nothing_to_do_with_the_features(labels):
    generator = torch.Generator().manual_seed(1)
    counts = {"train": 2000, "valid": 500, "test": 2000}
    data, numbers, parts = put_together(
        {
            name: (
                posterior(torch.randn(count, 4, generator=generator)),
                # the first label in 7 of 10 cases
                torch.randint(0, 10, (count,), generator=generator).sub(6).clamp(0, labels - 1),
            )
            for name, count in counts.items()
        }
    )
    result, nothing = train_linear(data, numbers, FAST), without_features(numbers, parts)
    for name in data:
        assert result.scores[name].accuracy == pytest.approx(nothing[name].accuracy, abs=1)
        assert result.scores[name].loss == pytest.approx(nothing[name].loss, abs=0.03)


@pytest.mark.parametrize(("labels", "outputs"), [(2, 1), (4, 4)])
def test_a_classifier_of_zeros_has_the_loss_log_k(labels, outputs):
    classifier = torch.nn.Linear(3, outputs)
    for parameter in classifier.parameters():
        torch.nn.init.zeros_(parameter)
    numbers = torch.arange(8) % labels
    with torch.no_grad():
        found = score_logits(classifier(torch.randn(8, 3)), numbers)
    assert found.loss == pytest.approx(math.log(labels), rel=1e-12)
    assert found.accuracy == pytest.approx(100 / labels)  # the first label everywhere


def test_score_by_hand():
    logits, labels = torch.tensor([[2.0], [-1.0], [3.0]]), torch.tensor([1, 0, 0])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1)) + math.log1p(math.exp(3))) / 3
    found = score_logits(logits, labels)
    assert found.loss == pytest.approx(expected, rel=1e-6)
    assert found.accuracy == pytest.approx(200 / 3)


def test_without_features_by_hand():
    parts = numbered({"train": 4, "test": 2})
    found = without_features(torch.tensor([0, 1, 1, 1, 0, 1]), parts)
    assert found["train"].accuracy == 75
    assert found["test"].accuracy == 50
    assert found["train"].loss == pytest.approx(-(math.log(0.25) + 3 * math.log(0.75)) / 4)
    assert found["test"].loss == pytest.approx(-(math.log(0.25) + math.log(0.75)) / 2)


def test_learning_rate_falls_as_a_cosine_and_restarts():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=PAPER.lr)
    schedule = cosine_schedule(optimizer, updates_an_epoch=7)
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
    data, numbers, _ = splits(2, spread=3.0, logvar=0.0)
    training = replace(FAST, epochs=3)
    state = torch.get_rng_state()
    first = train_linear(data, numbers, training, drawn, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert train_linear(data, numbers, training, drawn, seed=5) == first
    assert train_linear(data, numbers, training, drawn, seed=6) != first


def test_draws_are_noisier_than_means():
    data, numbers, _ = splits(2, logvar=2 * math.log(4.0))  # draws of standard deviation 4
    mean = train_linear(data, numbers, FAST).scores["test"]
    drawn = train_linear(data, numbers, FAST, drawn=True).scores["test"]
    assert mean.accuracy == 100
    # two clouds 4 sqrt(2) apart: Phi(2 sqrt(2) / sqrt(16 + 0.09)) = 76 % for the best line
    assert 62 < drawn.accuracy < 88
    assert drawn.loss > mean.loss + 0.3


def test_the_epoch_of_least_validation_loss_is_kept():
    """Validation labels turned round: every update makes that loss worse."""
    data, numbers, parts = splits(2)
    numbers[parts["valid"]] = 1 - numbers[parts["valid"]]
    calls = []
    result = train_linear(data, numbers, FAST, on_batch=calls.append)
    assert result.epoch == 1
    assert sum(calls) == FAST.epochs * len(parts["train"])
    alone = train_linear(data, numbers, replace(FAST, epochs=1))
    assert alone.scores == result.scores


def test_standardized():
    torch.manual_seed(3)
    train = torch.randn(50, 3) * torch.tensor([0.01, 5.0, 0.0]) + torch.tensor([1.0, -7.0, 0.1])
    other = torch.randn(4, 3)
    found = standardized({"train": posterior(train, 0.0), "test": posterior(other, 0.0)})
    mean = found["train"].mean
    torch.testing.assert_close(mean.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    expected = torch.tensor([1.0, 1.0, 0.0])
    torch.testing.assert_close(mean.std(dim=0, unbiased=False), expected, atol=1e-4, rtol=0)
    # the training set's shift and scale, for means and standard deviations alike
    scale = train.std(dim=0, unbiased=False)[:2]
    moved = (other[:, :2] - train.mean(dim=0)[:2]) / scale
    torch.testing.assert_close(found["test"].mean[:, :2], moved, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["test"].std[:, :2], (1 / scale).expand(4, 2))
