"""The importance-weighted bound on a linear-Gaussian model, whose log p(x) is known.

z ~ N(0, s^2 I), x = W z + noise of standard deviation NOISE, so x ~ N(0, s^2 W W' + NOISE^2 I).
One column of W a dimension of z, orthogonal to the others: the exact posterior is then diagonal.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from fairseq_vat.latent.gaussian import DiagonalGaussian
from fairseq_vat.latent.prior import Prior
from fairseq_vat.measures.importance_weighting import (
    effective_sample_size,
    importance_weighted_nll,
    log_weights,
)

PRIOR_STD, NOISE = 0.4, 0.3
SCALES = torch.tensor([2.0, 0.7, 0.1], dtype=torch.float64)  # lengths of W's columns
SENTENCES = 5


def _weights():
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0][:, :3]
    return rotation * SCALES  # (6, 3)


@pytest.fixture
def model():
    """W, observations (B, 6), their exact log density and the exact posterior (1, B, 3)."""
    torch.manual_seed(4)
    w = _weights()
    cov = PRIOR_STD**2 * w @ w.t() + NOISE**2 * torch.eye(6, dtype=torch.float64)
    marginal = MultivariateNormal(torch.zeros(6, dtype=torch.float64), cov)
    x = marginal.sample((SENTENCES,))
    variance = 1 / (1 / PRIOR_STD**2 + SCALES**2 / NOISE**2)
    mean = (x @ w) / NOISE**2 * variance
    posterior = DiagonalGaussian(mean[None], variance.log().expand(1, SENTENCES, 3))
    return w, x, marginal.log_prob(x), posterior


def _log_weights(w, x, proposal, draws):
    keep = torch.ones(proposal.mean.shape[:2], dtype=torch.bool)
    rows = []
    for _ in range(draws):
        z = proposal.sample(torch.randn_like(proposal.mean))
        nll = -Normal(z[0] @ w.t(), NOISE).log_prob(x).sum(dim=-1)
        rows.append(log_weights(nll, proposal, z, keep, Prior(PRIOR_STD)))
    return torch.stack(rows)


@pytest.mark.parametrize("draws", [1, 2, 50])
def test_with_the_exact_posterior_every_draw_gives_the_likelihood(model, draws):
    w, x, log_p, posterior = model
    weights = _log_weights(w, x, posterior, draws)
    torch.testing.assert_close(importance_weighted_nll(weights), -log_p)
    torch.testing.assert_close(
        effective_sample_size(weights), torch.full((SENTENCES,), float(draws)).double()
    )


def test_with_another_posterior_the_bound_tightens_with_k(model):
    w, x, log_p, exact = model
    wrong = DiagonalGaussian(exact.mean + 0.1, exact.logvar + 0.7)
    weights = _log_weights(w, x, wrong, 4000)
    elbo = weights.mean(dim=0)
    by_ten = -importance_weighted_nll(weights.view(10, 400, SENTENCES)).mean(dim=0)
    whole = -importance_weighted_nll(weights)
    # the gap of the ELBO is KL(q, exact posterior), known in closed form
    gap = torch.distributions.kl_divergence(
        Normal(wrong.mean, wrong.std), Normal(exact.mean, exact.std)
    ).sum(dim=(0, 2))
    standard_error = weights.std(dim=0) / math.sqrt(4000)
    assert ((log_p - elbo - gap).abs() < 4 * standard_error).all()
    assert (elbo + 4 * standard_error < by_ten).all()
    assert (by_ten < log_p).all()
    # relative variance of the mean weight is (K / ESS - 1) / K
    ess = effective_sample_size(weights)
    assert ((whole - log_p).abs() < 4 * (1 / ess - 1 / 4000).sqrt()).all()
    assert ((ess > 1) & (ess < 4000)).all()


def test_padding_has_no_weight(model):
    *_, posterior = model
    padded = DiagonalGaussian(
        torch.cat((posterior.mean, torch.full_like(posterior.mean, 9.0))),
        torch.cat((posterior.logvar, posterior.logvar)),
    )
    keep = torch.tensor([[True], [False]]).expand(2, SENTENCES)
    nll = torch.arange(SENTENCES).double()
    alone = log_weights(nll, posterior, posterior.mean, keep[:1], Prior(PRIOR_STD))
    torch.testing.assert_close(log_weights(nll, padded, padded.mean, keep, Prior(PRIOR_STD)), alone)


def test_positions_add_up(model):
    *_, posterior = model
    twice = DiagonalGaussian(posterior.mean.repeat(2, 1, 1), posterior.logvar.repeat(2, 1, 1))
    zero = torch.zeros(SENTENCES)
    one, two = (
        log_weights(zero, q, q.mean, torch.ones(q.mean.shape[:2]).bool(), Prior(PRIOR_STD))
        for q in (posterior, twice)
    )
    torch.testing.assert_close(two, 2 * one)


def test_weights_far_beyond_exponentiation():
    weights = torch.tensor([[-5000.0, 3000.0], [-5000.0, -3000.0]])
    expected = torch.tensor([5000.0, math.log(2) - 3000.0], dtype=torch.float64)
    torch.testing.assert_close(importance_weighted_nll(weights), expected)
    ess = torch.tensor([2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(effective_sample_size(weights), ess)
