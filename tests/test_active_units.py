"""Active units from sums, against the variance itself."""

from __future__ import annotations

import torch

from fairseq_vat.measures.active_units import count_active_units, mean_variance


def test_variance_from_sums_is_the_variance():
    means = torch.randn(50, 8, dtype=torch.float64) * torch.arange(8) + 3
    variance = mean_variance(50, means.sum(0), (means**2).sum(0))
    torch.testing.assert_close(variance, means.var(dim=0, unbiased=True))


def test_dimensions_that_vary_are_active():
    means = torch.zeros(1000, 3, dtype=torch.float64)
    means[::2, 1] = 0.2  # variance 0.01001: just active
    means[::2, 2] = 0.19
    assert count_active_units(1000, means.sum(0), (means**2).sum(0)) == 1


def test_one_latent_has_no_variance():
    assert count_active_units(1, torch.ones(4).double(), torch.ones(4).double()) == 0
