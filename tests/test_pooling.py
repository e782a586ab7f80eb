"""Pooling of independent Gaussians, against the draws it stands for."""

import math

import pytest
import torch

from fairseq_vat.latent.gaussian import DiagonalGaussian, pool

MASK_BP = torch.tensor([[False, False, False], [False, True, True]])


@pytest.fixture
def posterior():
    torch.manual_seed(1)
    return DiagonalGaussian(torch.randn(3, 2, 4), torch.randn(3, 2, 4))


def test_sums_and_means_leave_padding_out(posterior):
    summed, averaged = (pool(posterior, MASK_BP, how) for how in ("sum", "mean"))
    torch.testing.assert_close(summed.mean[0], posterior.mean[:, 0].sum(dim=0))
    torch.testing.assert_close(summed.logvar[0].exp(), posterior.logvar[:, 0].exp().sum(dim=0))
    torch.testing.assert_close(averaged.mean[0], summed.mean[0] / 3)
    torch.testing.assert_close(averaged.std[0], summed.std[0] / 3)
    for pooled in (summed, averaged):
        torch.testing.assert_close(pooled.mean[1], posterior.mean[0, 1])
        torch.testing.assert_close(pooled.logvar[1], posterior.logvar[0, 1])


def test_what_padding_holds_changes_nothing(posterior):
    other = DiagonalGaussian(posterior.mean.clone(), posterior.logvar.clone())
    other.mean[1:, 1] = math.inf
    other.logvar[1:, 1] = 1e4
    for how in ("sum", "mean", "start"):
        one, two = pool(posterior, MASK_BP, how), pool(other, MASK_BP, how)
        assert torch.equal(one.mean, two.mean)
        assert torch.equal(one.logvar, two.logvar)


def test_pooled_draws_have_the_pooled_distribution(posterior):
    draws = 40_000
    noise = torch.randn(draws, 3, 2, 4, generator=torch.Generator().manual_seed(2))
    z = posterior.sample(noise)[:, :, 0].mean(dim=1)
    pooled = pool(posterior, MASK_BP, "mean")
    torch.testing.assert_close(z.mean(dim=0), pooled.mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(z.std(dim=0), pooled.std[0], atol=0, rtol=0.02)


def test_start_is_the_first_latent(posterior):
    pooled = pool(posterior, MASK_BP, "start")
    assert torch.equal(pooled.mean, posterior.mean[0])
    assert torch.equal(pooled.logvar, posterior.logvar[0])


def test_another_pooling_is_refused(posterior):
    with pytest.raises(ValueError, match="'max': must be one of mean, sum, start"):
        pool(posterior, MASK_BP, "max")
