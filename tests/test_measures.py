"""All measures on a model known in closed form, through the code that measures real ones.

Sentence i is a number x_i: z ~ N(0, s^2) in one dimension, x = z + noise, and the posterior is
exact.  Such a model has known KL, MI and log p(x), and draws of equal weight.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Normal

from fairseq_vat.evaluation import evaluate
from fairseq_vat.latent import noise
from fairseq_vat.latent.gaussian import DiagonalGaussian
from fairseq_vat.latent.prior import Prior

PRIOR_STD, NOISE, COUNT = 0.7, 0.5, 2000
TOTAL = PRIOR_STD**2 + NOISE**2  # variance of x
VARIANCE = 1 / (1 / PRIOR_STD**2 + 1 / NOISE**2)
SLOPE = VARIANCE / NOISE**2


class LinearGaussian:
    """Looks like a `VATModel`; a second latent position is padding.

    Sentences whose numbers are equal modulo `kinds` are the same sentence.
    """

    has_latents = True
    prior_noise = None

    def __init__(self, kinds=COUNT):
        self.encoder = self
        torch.manual_seed(0)
        self.x = (torch.randn(COUNT) * math.sqrt(TOTAL))[torch.arange(COUNT) % kinds]
        self.keys = noise.sentence_keys(5 + torch.arange(COUNT).view(-1, 1) % kinds, 1)

    def __call__(self, src_tokens, src_lengths):
        numbers = src_tokens[:, 0]
        mean = SLOPE * self.x[numbers].view(1, -1, 1)
        return {
            "mean": torch.cat((mean, torch.full_like(mean, 100.0))),
            "encoder_padding_mask": [torch.tensor([[False, True]]).expand(len(numbers), 2)],
            "numbers": numbers,
            "latent_key": [self.keys[numbers]],
        }

    def posterior(self, out):
        return DiagonalGaussian(out["mean"], torch.full_like(out["mean"], math.log(VARIANCE)))

    def draw(self, out, seed, number):
        z = self.posterior(out).sample(noise.normal(out["latent_key"][0], 2, 1, seed, number))
        return {**out, "encoder_out": [z]}

    def draw_prior(self, out, prior, seed, number):
        z = prior.std * noise.normal(out["latent_key"][0], 2, 1, seed, number)
        return {**out, "encoder_out": [z]}

    def sentence_nll(self, out, prev_output_tokens, target):
        z = out.get("encoder_out", [out["mean"]])[0][0, :, 0]
        return -Normal(z.double(), NOISE).log_prob(self.x[out["numbers"]].double())


def _batches(size, count=COUNT):
    numbers = torch.arange(count).flip(0)
    for rows in numbers.split(size):
        net_input = {"src_tokens": rows[:, None], "src_lengths": None, "prev_output_tokens": None}
        yield {"id": rows, "net_input": net_input, "target": None}


SETTINGS = evaluate.EvaluationSettings(prior_std=PRIOR_STD, samples=2, iw_samples=7)


@pytest.fixture(scope="module")
def model():
    return LinearGaussian()


@pytest.fixture(scope="module")
def found(model):
    measured = evaluate.measure(model, _batches(64), SETTINGS)
    return evaluate.figures(measured, tokens=4 * COUNT, words=3 * COUNT, settings=SETTINGS)


def test_the_importance_weighted_nll_is_the_likelihood(model, found):
    log_p = Normal(0.0, math.sqrt(TOTAL)).log_prob(model.x).double().mean()
    assert found["iw_nll"]["per_sentence"] == pytest.approx(-float(log_p), abs=1e-5)
    assert found["iw_nll"]["per_word"] == pytest.approx(-float(log_p) / 3, abs=1e-5)
    assert found["iw_nll"]["per_token"] == pytest.approx(-float(log_p) / 4, abs=1e-5)
    assert found["ess"]["min"] == pytest.approx(7, abs=1e-3)


def test_kl_elbo_and_perplexities(model, found):
    kl = (
        Prior(PRIOR_STD)
        .kl(DiagonalGaussian(SLOPE * model.x, torch.tensor(math.log(VARIANCE))))
        .mean()
    )
    assert found["kl_nats"] == found["kl"]["per_sentence"] == pytest.approx(float(kl), rel=1e-5)
    elbo = found["nll_samples"]["per_sentence"] + float(kl)
    assert found["neg_elbo"]["per_sentence"] == pytest.approx(elbo)
    # the posterior is exact: the expectation of the ELBO is the likelihood
    assert elbo == pytest.approx(found["iw_nll"]["per_sentence"], abs=0.05)
    assert found["neg_elbo"]["ppl_per_token"] == pytest.approx(
        2 ** found["neg_elbo"]["bits_per_token"]
    )
    assert found["neg_elbo"]["ppl_per_word"] == pytest.approx(
        math.exp(found["neg_elbo"]["per_word"])
    )
    # decoding from the mean drops the draws' variance, 1/2 VARIANCE / NOISE^2
    gap = found["nll_samples"]["per_sentence"] - found["nll_mean"]["per_sentence"]
    assert gap == pytest.approx(VARIANCE / NOISE**2 / 2, abs=0.05)


def test_mutual_information_and_active_units(found):
    exact = 0.5 * math.log(TOTAL / NOISE**2)  # 0.54 nats
    assert found["mi"]["unpaired"] == pytest.approx(exact, abs=0.1)
    assert found["mi"]["paired"] == pytest.approx(exact, abs=0.1)
    # the aggregated posterior is the prior
    assert found["marginal_kl"] == pytest.approx(0, abs=0.1)
    assert found["mi"]["ceiling"] == pytest.approx(math.log(COUNT))
    assert found["mi_batches"]["ceiling"] == pytest.approx(math.log(32))
    assert found["mi_batches"]["batches"] == COUNT // 32
    assert 0.3 < found["mi_batches"]["paired"] < exact
    assert found["active_units"]["count"] == found["active_units_scaled"]["count"] == 1
    assert found["active_units_scaled"]["threshold"] == pytest.approx(0.01 * PRIOR_STD**2)
    assert found["latents"] == COUNT  # padding is none


def test_no_figure_depends_on_batching(model, found):
    measured = evaluate.measure(model, _batches(13), SETTINGS)
    again = evaluate.figures(measured, tokens=4 * COUNT, words=3 * COUNT, settings=SETTINGS)
    for name in ("nll_mean", "nll_samples", "nll_prior", "kl", "iw_nll", "ess", "mi", "mi_batches"):
        assert again[name] == pytest.approx(found[name], rel=1e-6), name


def test_more_latents_than_asked_for_are_chosen_by_chance(model):
    few = evaluate.EvaluationSettings(prior_std=PRIOR_STD, iw_samples=0, mi_latents=500)
    measured = evaluate.measure(model, _batches(100), few)
    found, again = (evaluate.figures(measured, COUNT, COUNT, few) for _ in range(2))
    assert found["mi"]["latents"] == 500 and found["mi"] == again["mi"]
    assert found["mi"]["ceiling"] == pytest.approx(math.log(500))
    assert found["iw_nll"] is found["ess"] is None  # K = 0
    other = evaluate.EvaluationSettings(prior_std=PRIOR_STD, iw_samples=0, mi_latents=500, seed=2)
    assert evaluate.figures(measured, COUNT, COUNT, other)["mi"]["paired"] != found["mi"]["paired"]


def test_repeated_sentences_draw_by_themselves_in_the_set_s_order():
    few = evaluate.EvaluationSettings(prior_std=PRIOR_STD, iw_samples=0, mi_draws=2)
    distinct = evaluate.measure(LinearGaussian(), _batches(50, 50), few)
    repeating = LinearGaussian(kinds=50)
    found, again = (evaluate.measure(repeating, _batches(size, 200), few) for size in (64, 13))
    for name in ("nll_samples", "nll_prior", "kl"):  # a sentence's first is that of a set without
        assert getattr(found, name)[:50] == pytest.approx(getattr(distinct, name), rel=1e-6), name
    draws = torch.stack(found.draws)
    torch.testing.assert_close(draws[:50], torch.stack(distinct.draws))
    torch.testing.assert_close(draws, torch.stack(again.draws))
    assert len(draws.flatten().unique()) == draws.numel()


@pytest.mark.parametrize("kinds", [1, 12])
def test_the_spread_of_mutual_information_is_that_over_seeds(kinds):
    """96 sentences, of which some or all may be equal: 75 seeds tell what the spread is."""
    model, count, seeds = LinearGaussian(kinds), 96, 75
    settings = [
        evaluate.EvaluationSettings(prior_std=PRIOR_STD, iw_samples=0, seed=seed, mi_draws=4)
        for seed in range(seeds)
    ]
    found = [
        evaluate.figures(evaluate.measure(model, _batches(count, count), one), count, count, one)
        for one in settings
    ]
    tolerance = 2.8 / math.sqrt(2 * seeds)  # 2.8 standard errors of a standard deviation
    for place in ("mi", "mi_batches"):
        for name in ("paired", "unpaired"):
            means = torch.tensor([figures[place][name] for figures in found])
            told = torch.tensor([figures[place][f"{name}_std"] for figures in found])
            told = float(told.square().mean().sqrt())
            actual = float(means.std()) * math.sqrt(4)  # of one draw's estimate
            assert told == pytest.approx(actual, rel=tolerance, abs=1e-9), (place, name)
    # one sentence alone: nothing but the noise of the closed first term, sqrt(L / 2N)
    if kinds == 1:
        unpaired = torch.tensor([figures["mi"]["unpaired"] for figures in found])
        expected = math.sqrt(1 / (2 * count)) / math.sqrt(4)
        assert float(unpaired.std()) == pytest.approx(expected, rel=tolerance)
        assert abs(float(unpaired.mean())) < 4 * expected / math.sqrt(seeds)


def test_the_gain_of_own_latents(model, found):
    """The prior's draws cost 1/2 E (x - z)^2 / NOISE^2 more than the posterior's."""
    prior = (model.x.double().square().mean() + PRIOR_STD**2) / (2 * NOISE**2)
    own = ((1 - SLOPE) ** 2 * model.x.double().square().mean() + VARIANCE) / (2 * NOISE**2)
    gain = found["latent_gain"]
    # the standard error of 2,000 sentences, two draws each
    assert gain["per_token"] * 4 == pytest.approx(float(prior - own), abs=0.15)
    assert gain["bits_per_token"] == pytest.approx(gain["per_token"] / math.log(2))
    assert gain["share"] == pytest.approx(
        1 - found["nll_samples"]["per_sentence"] / found["nll_prior"]["per_sentence"]
    )


def test_a_perplexity_too_large_for_a_number_is_none():
    model = SimpleNamespace(has_latents=False, sentence_nll=lambda *_: torch.tensor([5000.0]))
    batch = {"id": torch.tensor([0]), "target": None, "net_input": {"prev_output_tokens": None}}
    found = evaluate.figures(evaluate.measure(model, [batch], SETTINGS), 5, 1, SETTINGS)
    assert found["nll"]["ppl_per_word"] is None and found["nll"]["ppl_per_token"] is None
    assert found["nll"]["per_token"] == 1000
