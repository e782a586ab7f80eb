"""Latent noise belongs to the sentence and is normal."""

from __future__ import annotations

import math

import torch

from fairseq_vat.latent import noise

PAD = 1


def keys(*sentences: list[int], pad_to: int = 0) -> torch.Tensor:
    length = max(pad_to, *map(len, sentences))
    rows = [s + [PAD] * (length - len(s)) for s in sentences]
    return noise.sentence_keys(torch.tensor(rows), PAD)


def test_keys_ignore_padding_and_neighbours():
    a, b = [0, 5, 6, 2], [0, 7, 2]
    together = keys(a, b, pad_to=9)
    assert torch.equal(together, torch.cat((keys(a), keys(b))))


def test_keys_tell_sentences_apart():
    different = keys([5, 6, 2], [6, 5, 2], [5, 6], [5, 6, 6, 2], [5, 7, 2], [0, 5, 6, 2])
    assert len(set(different.tolist())) == 6


def test_noise_of_a_longer_batch_begins_the_same():
    k = keys([5, 6, 2], [7, 2])
    assert torch.equal(noise.normal(k, 9, 5, seed=3)[:4], noise.normal(k, 4, 5, seed=3))
    assert torch.equal(noise.normal(k[1:], 4, 5, seed=3)[:, 0], noise.normal(k, 4, 5, 3)[:, 1])


def test_noise_depends_on_seed_draw_and_sentence():
    k = keys([5, 6, 2], [7, 2])
    base = noise.normal(k, 8, 16, seed=3, draw=0)
    assert torch.equal(base, noise.normal(k, 8, 16, seed=3, draw=0))
    for other in (noise.normal(k, 8, 16, 4, 0), noise.normal(k, 8, 16, 3, 1), base.flip(1)):
        correlation = torch.corrcoef(torch.stack((base.flatten(), other.flatten())))[0, 1]
        assert abs(correlation) < 4 / math.sqrt(base.numel())


def test_noise_is_standard_normal():
    k = noise.sentence_keys(torch.arange(4, 404).view(400, 1), PAD)
    x = noise.normal(k, 30, 33, seed=1).double()
    assert x.shape == (30, 400, 33)
    n = x.numel()
    # moments within four standard errors
    assert abs(x.mean()) < 4 / math.sqrt(n)
    assert abs(x.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((x**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / n)
    # Kolmogorov-Smirnov, at the 0.1 % level
    ordered = x.flatten().sort().values
    cdf = torch.special.ndtr(ordered)
    distance = (cdf - (torch.arange(n) + 0.5) / n).abs().max()
    assert distance < 1.95 / math.sqrt(n)
    assert torch.isfinite(x).all() and x.abs().max() > 4


def test_neighbouring_positions_dimensions_sentences_and_draws_are_uncorrelated():
    k = noise.sentence_keys(torch.arange(4, 304).view(300, 1), PAD)
    x = noise.normal(k, 21, 32, seed=1)
    pairs = {
        "positions": (x[1:], x[:-1]),
        "dimensions": (x[..., 1:], x[..., :-1]),
        "halves": (x[..., :16], x[..., 16:]),
        "sentences": (x[:, 1:], x[:, :-1]),
        "draws": (x, noise.normal(k, 21, 32, seed=1, draw=1)),
        "seeds": (x, noise.normal(k, 21, 32, seed=2)),
    }
    for name, (a, b) in pairs.items():
        for power in (1, 2):
            r = torch.corrcoef(torch.stack((a.flatten() ** power, b.flatten() ** power)))[0, 1]
            assert abs(r) < 4.5 / math.sqrt(a.numel()), (name, power)


def test_no_number_comes_twice():
    k = noise.sentence_keys(torch.arange(4, 104).view(100, 1), PAD)
    x = torch.stack([noise.normal(k, 10, 16, seed, draw) for seed in (0, 1) for draw in (0, 1)])
    # normal numbers in single precision collide by chance; whole rows of 16 must not
    assert len(torch.unique(x.flatten(0, -2), dim=0)) == 4 * 10 * 100


def test_repeated_sentences_have_keys_of_their_own():
    k = noise.sentence_keys(torch.arange(4, 104).view(100, 1), PAD)
    assert torch.equal(noise.repeated_keys(k, torch.zeros(100, dtype=torch.long)), k)
    repeats = torch.arange(50)
    found = torch.stack([noise.repeated_keys(key.expand(50), repeats) for key in k])
    assert len(found.unique()) == found.numel() and torch.equal(found[:, 0], k)
