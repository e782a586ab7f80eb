"""Ways between two points of latent space."""

from __future__ import annotations

import math

import pytest
import torch

from fairseq_vat.errors import VATError
from fairseq_vat.latent.interpolation import interpolate, linear, pad_latents, spherical


def test_the_shorter_sentence_is_padded_with_its_last_latent():
    latents = torch.arange(6.0).view(3, 2)
    padded = pad_latents(latents, 5)
    assert padded.tolist() == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]]
    assert torch.equal(pad_latents(latents, 3), latents)
    for wrong in (torch.zeros(0, 2), torch.zeros(6, 2)):
        with pytest.raises(ValueError, match="can't be padded"):
            pad_latents(wrong, 5)


def test_linear_ways_keep_their_ends_as_they_are():
    first, second = torch.zeros(2, 3), torch.ones(4, 3)
    way = interpolate(first, second, 5)
    assert [len(point) for point in way] == [2, 4, 4, 4, 4]
    assert torch.equal(way[0], first)
    assert torch.equal(way[-1], second)
    for step, point in enumerate(way[1:-1], 1):
        torch.testing.assert_close(point, torch.full((4, 3), step / 4))


def test_spherical_turns_evenly_and_keeps_the_length():
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    point = spherical(a, b, 1 / 3)
    angle, length = math.pi / 6, 2 + 2 / 3
    expected = torch.tensor([[length * math.cos(angle), length * math.sin(angle)]])
    torch.testing.assert_close(point, expected)
    # the straight line's middle is shorter than both ends
    assert linear(a, a.flip(-1), 0.5).norm() < 2
    torch.testing.assert_close(spherical(a, a.flip(-1), 0.5).norm(), torch.tensor(2.0))


def test_spherical_where_there_is_no_circle():
    a = torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[2.0, 4.0], [3.0, 1.0], [-1.0, 0.0]])
    torch.testing.assert_close(spherical(a, b, 0.25), linear(a, b, 0.25))


@pytest.mark.parametrize("away", [1e-2, 1e-3, 3e-4])
def test_spherical_keeps_the_length_near_opposite_directions(away):
    generator = torch.Generator().manual_seed(1)
    a, noise = torch.randn(2, 8, 16, generator=generator)
    b = -a + away * noise
    expected = (a.norm(dim=-1) + b.norm(dim=-1)) / 2
    torch.testing.assert_close(spherical(a, b, 0.5).norm(dim=-1), expected, atol=0, rtol=1e-4)


def test_steps_and_methods_that_are_none():
    point = torch.ones(1, 2)
    with pytest.raises(VATError, match="at least 2"):
        interpolate(point, point, 1)
    with pytest.raises(VATError, match="must be linear or spherical"):
        interpolate(point, point, 3, "cubic")
