"""Classifiers on vectors and on encoders: cases whose answer is known."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from fairseq_vat.evaluation.classifier import SENTEVAL, Training, batches, measure, train
from fairseq_vat.evaluation.heads import (
    Heads,
    Labels,
    majority,
    new_linear,
    on_features,
)

COUNT = 120
LABELS = torch.arange(COUNT) % 3
SPLIT = dict(zip(("train", "valid", "test"), torch.arange(120).split((72, 24, 24)), strict=True))
FAST = Training(epochs=20, batch_size=8, lr=0.05)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def heads(features, hidden=8, count=1, labels=3, activation="tanh", seed=1):
    return on_features(features, labels, generator(seed), hidden, activation, count)


def fit(classifiers, labels, parts, training, seed, **more):
    return train(classifiers, Labels(labels), parts, training, generator(seed), **more)


def clouds(spread=0.3):
    """Three clouds of points, one a label."""
    return 4 * torch.eye(3, 5)[LABELS] + spread * torch.randn(COUNT, 5, generator=generator())


class Table(nn.Module):
    """An encoder of three tokens, all alike until it is trained."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 4))
        self.dropout = nn.Dropout(dropout)
        self.modes = []

    def forward(self, tokens_B):
        self.modes.append(self.training)
        return self.dropout(self.weight[tokens_B])


def fine_tuned(encoder, seed=1):
    vectors = lambda module, numbers: module(LABELS[numbers])  # noqa: E731
    return Heads(vectors, 4, 3, generator(seed), 8, "tanh", encoder=encoder)


def test_separable_features_are_learned():
    found = fit(heads(clouds(), count=4), LABELS, SPLIT, SENTEVAL, 1)
    assert found.scores["valid"].accuracy == found.scores["test"].accuracy == 100
    assert found.epoch % 4 == 0  # looked at as SentEval does
    assert found.penalty == 1e-5  # the first of those that are as good
    nothing = majority(LABELS[SPLIT["train"]], LABELS[SPLIT["test"]])
    assert nothing.accuracy == pytest.approx(100 / 3)


@pytest.mark.parametrize("hidden", [0, 8])
def test_side_by_side_is_as_alone_with_adams_weight_decay(hidden):
    decays = (1e-4, 0.3, 1.0)
    training = Training(epochs=3, batch_size=8, lr=0.01, penalties=decays)
    together = heads(clouds(), hidden, 3)
    fit(together, LABELS, SPLIT, training, seed=4)
    for number, decay in enumerate(decays):
        first = generator(1)
        layers = [new_linear(5, 8, first), nn.Tanh(), new_linear(8, 3, first)]
        alone = nn.Sequential(*layers) if hidden else new_linear(5, 3, generator(1))
        optimizer = torch.optim.Adam(alone.parameters(), lr=0.01, weight_decay=decay)
        order = generator(4)
        for _ in range(3):
            for batch in batches(SPLIT["train"], 8, None, order):
                optimizer.zero_grad()
                nn.functional.cross_entropy(alone(clouds()[batch]), LABELS[batch]).backward()
                optimizer.step()
        logits = together(SPLIT["test"])[number]
        torch.testing.assert_close(logits, alone(clouds()[SPLIT["test"]]), rtol=1e-3, atol=1e-4)


def test_trained_to_the_end_it_is_scikit_learn_s_logistic_regression():
    features, decay, train = clouds(spread=2.5), 0.02, SPLIT["train"]
    count = len(train)
    classifier = heads(features, 0)
    training = Training(epochs=1500, batch_size=count, lr=0.02, penalties=(decay,))
    fit(classifier, LABELS, SPLIT, training, 1)
    # Adam's penalty is on the biases too, as on weights of a column of ones; it goes with the mean
    # of the cross-entropy, C with the sum
    ones = torch.cat((features, torch.ones(COUNT, 1)), dim=1).double().numpy()
    model = LogisticRegression(C=1 / (count * decay), fit_intercept=False, tol=1e-8, max_iter=5000)
    model.fit(ones[:count], LABELS[train].numpy())
    with torch.no_grad():
        found = classifier(SPLIT["test"])[0].softmax(dim=-1).numpy()
    expected = model.predict_proba(ones[SPLIT["test"].numpy()])
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert 0.4 < model.score(ones, LABELS) < 1  # not everything is easy


@pytest.mark.parametrize("seed", [1, 2])
def test_senteval_s_training_comes_near_a_logistic_regression(seed):
    labels = torch.arange(900) % 3
    features = torch.eye(3, 5)[labels] + torch.randn(900, 5, generator=generator(seed))
    names = ("train", "valid", "test")
    split = dict(zip(names, torch.arange(900).split((400, 200, 300)), strict=True))
    found = fit(heads(features, 0, 4), labels, split, SENTEVAL, seed)
    model = LogisticRegression(C=1.0).fit(features[split["train"]], labels[split["train"]])
    expected = 100 * model.score(features[split["test"]], labels[split["test"]])
    assert 50 < expected < 90
    assert found.scores["test"].accuracy == pytest.approx(expected, abs=4)


def test_the_best_of_the_penalties_is_taken():
    decays = (100.0, 1e-4)  # the first keeps every weight near 0
    training = Training(epochs=5, batch_size=8, lr=0.01, penalties=decays)
    found = fit(heads(clouds(), count=2), LABELS, SPLIT, training, 1)
    assert found.penalty == 1e-4
    assert found.scores["test"].accuracy == 100


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
def test_the_dense_layer_is_not_linear(activation):
    corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    features, labels = corners.repeat(30, 1), torch.tensor([0, 1, 1, 0]).repeat(30)
    training = Training(epochs=60, batch_size=8, lr=0.02)
    accuracies = {
        hidden: fit(heads(features, hidden, 1, 2, activation), labels, SPLIT, training, 1)
        .scores["test"]
        .accuracy
        for hidden in (0, 16)
    }
    assert accuracies[16] == 100
    assert accuracies[0] <= 75  # no line has more than three corners right


def test_the_training_ends_when_nothing_gets_better():
    passes = []
    training = Training(epochs=200, batch_size=72, lr=1e-3, look_every=4, tenacity=5)
    classifier = heads(torch.zeros(COUNT, 2))  # always one label, in turns
    found = fit(classifier, LABELS, SPLIT, training, 1, on_batch=passes.append)
    assert found.epoch == 4
    assert found.scores["valid"].accuracy == pytest.approx(100 / 3)
    assert passes == [72] * (4 + 6 * 4)  # the first look, and six that brought nothing


def test_the_epoch_is_that_of_the_best_validation():
    # what the training part teaches is wrong on the validation part
    features = clouds()
    labels = LABELS.clone()
    labels[SPLIT["valid"]] = (labels[SPLIT["valid"]] + 1) % 3
    classifier = heads(features)
    found = fit(classifier, labels, SPLIT, Training(epochs=6, batch_size=72, lr=0.003), 1)
    scores = []
    for epochs in range(1, 7):
        fresh = heads(features)
        fit(fresh, labels, SPLIT, Training(epochs=epochs, batch_size=72, lr=0.003), 1)
        scores.append(
            tuple(measure(fresh, Labels(labels), SPLIT[part])[0] for part in ("valid", "test"))
        )
    best = max(range(6), key=lambda n: scores[n][0].accuracy)
    assert found.epoch == best + 1
    assert (found.scores["valid"], found.scores["test"]) == scores[best]
    assert scores[-1][0].accuracy < found.scores["valid"].accuracy  # it got worse again


def test_without_a_test_part():
    split = {name: SPLIT[name] for name in ("train", "valid")}
    found = fit(heads(clouds()), LABELS, split, FAST, 1)
    assert set(found.scores) == {"valid"}
    assert found.scores["valid"].accuracy == 100


def test_fine_tuning_trains_a_copy_of_the_encoder():
    encoder = Table()
    frozen = fit(heads(encoder(LABELS).detach()), LABELS, SPLIT, FAST, 1)
    assert frozen.scores["test"].accuracy == pytest.approx(100 / 3)  # its vectors tell nothing
    classifier = fine_tuned(encoder)
    assert fit(classifier, LABELS, SPLIT, FAST, 1).scores["test"].accuracy == 100
    assert torch.equal(encoder.weight, torch.ones(3, 4))
    assert not torch.equal(classifier.encoder.weight, encoder.weight)
    assert fine_tuned(encoder).encoder.weight.eq(1).all()  # the next run begins as this one did


def test_dropout_is_on_in_training_only():
    classifier = fine_tuned(Table(dropout=0.5))
    fit(classifier, LABELS, SPLIT, Training(2, 36, 1e-3), 1)
    modes = classifier.encoder.modes
    assert modes[:2] == [True, True]  # two batches, then a look at valid
    assert modes[2] is False
    assert modes.count(True) == 4


def test_a_seed_fixes_everything_and_leaves_torch_alone():
    def trained(fit_seed, head_seed=1):
        return fit(fine_tuned(Table(dropout=0.5), head_seed), LABELS, SPLIT, FAST, fit_seed)

    state = torch.get_rng_state()
    first = trained(5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert trained(5) == first
    assert trained(6) != first
    assert trained(5, head_seed=2) != first


def test_batches_hold_every_example_once_and_like_lengths_together():
    numbers = torch.arange(20, 120)
    lengths = [(7 * n) % 50 for n in range(120)]
    for some in (None, lengths):
        found = list(batches(numbers, 8, some, generator()))
        assert torch.cat(found).sort().values.tolist() == numbers.tolist()
        assert max(map(len, found)) == 8
        again = list(batches(numbers, 8, some, generator(2)))
        assert torch.cat(found).tolist() != torch.cat(again).tolist()
    ranges = [max(lengths[n] for n in b) - min(lengths[n] for n in b) for b in map(list, found)]
    assert max(ranges) <= 8
