"""Mutual information where it is known: x ~ N(0, 1), q(z | x) = N(a x, v), all dimensions alike."""

from __future__ import annotations

import math

import pytest
import torch

from fairseq_vat.latent.gaussian import DiagonalGaussian
from fairseq_vat.latent.prior import Prior
from fairseq_vat.measures import mutual_information as mi


def _linear(count, slopes, variance, seed=0):
    """Means, log-variances and draws of `count` posteriors, a dimension for each slope."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, count, len(slopes), generator=generator, dtype=torch.float64)
    mean = noise[0] * torch.tensor(slopes, dtype=torch.float64)
    logvar = torch.full_like(mean, math.log(variance))
    return mean, logvar, mean + math.sqrt(variance) * noise[1]


def _exact(slopes, variance):
    return sum(0.5 * math.log1p(a * a / variance) for a in slopes)


@pytest.mark.parametrize(("slopes", "variance"), [([1.0], 1.0), ([0.5, 2.0], 0.3)])
def test_linear_gaussian(slopes, variance):
    count = 4000
    found = mi.mutual_information(*_linear(count, slopes, variance))
    # The pointwise values have a variance below 1 for each dimension and the closed first term adds
    # that of the noise, 1/2 each: four standard errors of the mean, and the bias of q(z), which
    # is of order exp(MI) / N.
    bias = math.exp(_exact(slopes, variance)) / count
    tolerance = 4 * math.sqrt(1.5 * len(slopes) / count) + 2 * bias
    assert found.unpaired == pytest.approx(_exact(slopes, variance), abs=tolerance)
    assert found.paired == pytest.approx(_exact(slopes, variance), abs=tolerance)
    assert (found.latents, found.batches) == (count, 1)


def test_kl_is_mi_plus_the_aggregate_s_kl():
    slopes, variance, prior, count = [0.5, 2.0], 0.3, Prior(0.8), 4000
    mean, logvar, z = _linear(count, slopes, variance)
    kl = float(prior.kl(DiagonalGaussian(mean, logvar)).sum(dim=1).mean())
    # q(z) is N(0, a^2 + v) in every dimension
    marginal = DiagonalGaussian(
        torch.zeros(2, dtype=torch.float64),
        torch.tensor([a * a + variance for a in slopes], dtype=torch.float64).log(),
    )
    aggregate_kl = float(prior.kl(marginal).sum())
    found = mi.mutual_information(mean, logvar, z).unpaired
    # kl's and mi's noise is each a few hundredths here
    assert kl - found == pytest.approx(aggregate_kl, abs=0.2)
    assert aggregate_kl > 1.5 and found > 1.5


@pytest.mark.parametrize("count", [1, 10, 500])
def test_narrow_posteriors_reach_the_ceiling_and_are_not_clamped(count):
    mean, logvar, z = _linear(count, [1.0] * 8, 1e-8)
    found = mi.mutual_information(mean, logvar, z)
    assert found.ceiling == pytest.approx(math.log(count))
    assert found.paired == pytest.approx(math.log(count), abs=1e-6)
    # the closed first term differs from the drawn one by the noise's length: here it shows
    surplus = ((z - mean).square() * 1e8).sum(dim=1).mean() / 2 - 8 / 2
    assert found.unpaired == pytest.approx(math.log(count) + float(surplus), abs=1e-5)


def test_equal_posteriors_carry_nothing():
    mean, logvar, _ = _linear(1, [1.0] * 16, 0.5)
    mean, logvar = mean.expand(200, -1), logvar.expand(200, -1)
    generator = torch.Generator().manual_seed(1)
    z = mean + math.sqrt(0.5) * torch.randn(200, 16, generator=generator, dtype=torch.float64)
    found = mi.mutual_information(mean, logvar, z)
    assert found.paired == pytest.approx(0, abs=1e-9)
    assert abs(found.unpaired) < 4 * math.sqrt(16 / 2 / 200)


def test_pairs_are_those_of_the_plain_formula_whatever_the_chunk(monkeypatch):
    generator = torch.Generator().manual_seed(2)
    mean = 50 + torch.randn(37, 5, generator=generator)  # far from the origin
    logvar = -4 + 8 * torch.rand(37, 5, generator=generator)
    posterior = DiagonalGaussian(mean, logvar)
    z = posterior.sample(torch.randn(37, 5, generator=generator))
    pairs = DiagonalGaussian(mean.double(), logvar.double()).log_prob(z.double()[:, None]).sum(-1)
    marginal = torch.logsumexp(pairs, dim=1) - math.log(37)
    first_term = -0.5 * (5 * math.log(2 * math.pi) + (1 + logvar.double()).sum(dim=1)).mean()
    whole = mi.mutual_information(mean, logvar, z)
    assert whole.unpaired == pytest.approx(float(first_term - marginal.mean()), abs=1e-8)
    assert whole.paired == pytest.approx(float((pairs.diagonal() - marginal).mean()), abs=1e-8)
    monkeypatch.setattr(mi, "MAX_DENSITIES", 37 * 10)  # ten rows at a time, and seven at the end
    assert mi.mutual_information(mean, logvar, z).unpaired == pytest.approx(
        whole.unpaired, abs=1e-10
    )


def test_batches_are_consecutive_sentences():
    mean, logvar, z = _linear(70, [1.0, 1.0], 0.5)
    found = mi.mutual_information_over_batches(mean, logvar, z, [1] * 70)
    parts = [
        mi.mutual_information(*(x[first : first + 32] for x in (mean, logvar, z)))
        for first in (0, 32)  # the last six are no batch
    ]
    assert found.unpaired == pytest.approx((parts[0].unpaired + parts[1].unpaired) / 2)
    assert found.paired == pytest.approx((parts[0].paired + parts[1].paired) / 2)
    assert found.ceiling == pytest.approx(math.log(32))
    assert (found.batches, found.latents) == (2, 64)


def test_a_batch_holds_all_latents_of_its_sentences():
    mean, logvar, z = _linear(12, [1.0], 0.5)
    found = mi.mutual_information_over_batches(mean, logvar, z, [4, 2, 1, 3, 2], batch_size=2)
    parts = [mi.mutual_information(mean[a:b], logvar[a:b], z[a:b]) for a, b in ((0, 6), (6, 10))]
    assert found.unpaired == pytest.approx((parts[0].unpaired + parts[1].unpaired) / 2)
    assert found.ceiling == pytest.approx((math.log(6) + math.log(4)) / 2)


def test_a_set_smaller_than_a_batch_is_one_batch():
    mean, logvar, z = _linear(5, [1.0], 0.5)
    found = mi.mutual_information_over_batches(mean, logvar, z, [1] * 5)
    whole = mi.mutual_information(mean, logvar, z)
    assert found == whole


def test_nothing_has_no_information():
    with pytest.raises(ValueError, match="at least one latent"):
        mi.mutual_information(*(torch.zeros(0, 3),) * 3)
