"""The Gaussian against torch.distributions, and its bounds."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from fairseq_vat.errors import VATError
from fairseq_vat.latent.gaussian import LOG_VARIANCE_MAX, LOG_VARIANCE_MIN, DiagonalGaussian
from fairseq_vat.latent.prior import Prior

SHAPES = [(1,), (3, 5), (7, 2, 16), (4, 3, 128)]
PRIORS = [0.1, 0.4, 1.0, 2.5]


def random_gaussian(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(len(shape))
    mean = torch.randn(shape, generator=generator, dtype=torch.float64)
    logvar = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return DiagonalGaussian.from_outputs(mean.to(dtype), logvar.to(dtype))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prior_std", PRIORS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_kl_is_that_of_torch_distributions(shape, prior_std, dtype):
    posterior = random_gaussian(shape, dtype)
    expected = kl_divergence(
        Normal(posterior.mean, posterior.std),
        Normal(torch.zeros_like(posterior.mean), prior_std * torch.ones_like(posterior.mean)),
    )
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    kl = Prior(prior_std).kl(posterior)
    torch.testing.assert_close(kl, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("prior_std", PRIORS)
def test_kl_is_zero_at_the_prior_and_positive_elsewhere(prior_std):
    prior = Prior(prior_std)
    logvar = torch.full((4,), 2 * torch.log(torch.tensor(prior_std)).item())
    at_prior = DiagonalGaussian.from_outputs(torch.zeros(4), logvar)
    assert prior.kl(at_prior).abs().max() < 1e-7
    assert prior.kl(prior.like(torch.ones(4))).abs().max() < 1e-7
    assert (prior.kl(random_gaussian((200,))) >= 0).all()


def test_kl_does_not_change_when_everything_is_scaled():
    posterior = random_gaussian((50,))
    scaled = DiagonalGaussian(3 * posterior.mean, posterior.logvar + 2 * torch.tensor(3.0).log())
    torch.testing.assert_close(
        Prior(1.2).kl(scaled), Prior(0.4).kl(posterior), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("prior_std", PRIORS)
def test_gradients(prior_std):
    posterior = random_gaussian((3, 4))
    inputs = (posterior.mean.requires_grad_(), posterior.logvar.requires_grad_())
    noise = torch.randn(3, 4, dtype=torch.float64)
    z = torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda m, v: Prior(prior_std).kl(DiagonalGaussian.from_outputs(m, v)), inputs
    )
    assert torch.autograd.gradcheck(lambda m, v: DiagonalGaussian(m, v).sample(noise), inputs)
    assert torch.autograd.gradcheck(lambda m, v: DiagonalGaussian(m, v).log_prob(z), inputs)


def test_log_prob_is_that_of_torch_distributions():
    posterior = random_gaussian((5, 6))
    z = torch.randn(5, 6, dtype=torch.float64)
    expected = Normal(posterior.mean, posterior.std).log_prob(z)
    torch.testing.assert_close(posterior.log_prob(z), expected)
    prior = Normal(torch.zeros_like(z), torch.full_like(z, 0.4))
    torch.testing.assert_close(Prior(0.4).log_prob(z), prior.log_prob(z))


def test_sample_is_mean_plus_scaled_noise():
    posterior = random_gaussian((5, 6))
    noise = torch.randn(5, 6, dtype=torch.float64)
    expected = posterior.mean + 0.5 * torch.exp(posterior.logvar / 2) * noise
    torch.testing.assert_close(posterior.sample(noise, temperature=0.5), expected)
    assert torch.equal(posterior.sample(noise, temperature=0.0), posterior.mean)
    torch.testing.assert_close(Prior(0.4).sample(noise, temperature=0.5), 0.2 * noise)
    torch.testing.assert_close(Prior(0.4).like(noise).sample(noise), 0.4 * noise)


def test_packed_and_unpacked():
    posterior = random_gaussian((5, 2, 6))
    out = {"encoder_out": [torch.zeros(5, 2, 6)], **posterior.pack()}
    again = DiagonalGaussian.unpack(out)
    assert again.mean is posterior.mean and again.logvar is posterior.logvar
    first = posterior.map(lambda x: x[0])
    assert torch.equal(first.mean, posterior.mean[0])
    assert torch.equal(first.logvar, posterior.logvar[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_log_variances_stay_finite_in_half_precision(dtype):
    logvar = torch.tensor([-60000.0, -30.0, 0.0, 30.0, 60000.0]).to(dtype).requires_grad_()
    mean = torch.tensor([-1000.0, -1.0, 0.0, 1.0, 1000.0]).to(dtype).requires_grad_()
    posterior = DiagonalGaussian.from_outputs(mean, logvar)
    assert posterior.logvar.min() == LOG_VARIANCE_MIN
    assert posterior.logvar.max() == LOG_VARIANCE_MAX
    z = posterior.sample(torch.full((5,), 6.7)).to(dtype)
    loss = Prior(0.4).kl(posterior).sum() + z.float().sum()
    loss.backward()
    for x in (z, Prior(0.1).kl(posterior), loss, mean.grad, logvar.grad):
        assert torch.isfinite(x).all()


@pytest.mark.parametrize("prior_std", [0.0, -1.0, float("nan"), float("inf"), 1e300])
def test_a_prior_without_width_is_refused(prior_std):
    with pytest.raises(
        VATError,
        match=r"--prior-std must be (a standard deviation above 0|from 1e-12 to 1e\+12), not",
    ):
        Prior(prior_std)
