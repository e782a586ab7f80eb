"""The chunked likelihood against logits, log-softmax and fairseq's own smoothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss

from fairseq_vat import likelihood
from fairseq_vat.likelihood import CHUNK, token_likelihood

PAD = 1


def problem(tokens: int, vocabulary: int = 300, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(tokens)
    features = torch.randn(tokens, 16, generator=generator)
    weight = torch.randn(vocabulary, 16, generator=generator) / 4
    target = torch.randint(2, vocabulary, (tokens,), generator=generator)
    target[:: max(2, tokens // 3)] = PAD
    return features.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), target


@pytest.mark.parametrize("tokens", [1, 5, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("chunked", [True, False])
def test_loss_and_gradients_are_those_of_the_logits(tokens, epsilon, chunked, monkeypatch):
    # the path without the chunked loss is the one an older torch takes
    monkeypatch.setattr(likelihood, "HAS_CHUNKED", chunked and likelihood.HAS_CHUNKED)
    features, weight, target = problem(tokens)
    got = token_likelihood(features, weight, target, PAD, epsilon)
    got.loss.backward()
    gradients = features.grad.clone(), weight.grad.clone()
    features.grad = weight.grad = None
    log_probs = F.log_softmax(F.linear(features, weight), dim=-1)
    loss, nll = label_smoothed_nll_loss(log_probs, target, epsilon, ignore_index=PAD)
    loss.backward()
    torch.testing.assert_close(got.nll, nll, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(got.loss, loss, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradients[0], features.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients[1], weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens", [1, CHUNK, 3 * CHUNK + 7])
def test_without_gradients_it_is_the_same_and_counts(tokens):
    features, weight, target = problem(tokens)
    with_gradient = token_likelihood(features, weight, target, PAD)
    with torch.no_grad():
        without = token_likelihood(features, weight, target, PAD, count_correct=True)
        best = F.linear(features, weight).argmax(dim=-1)
    torch.testing.assert_close(without.nll, with_gradient.nll, rtol=1e-5, atol=1e-4)
    assert without.n_correct == (best.eq(target) & target.ne(PAD)).sum()


def test_padding_never_contributes():
    features, weight, target = problem(40)
    keep = target.ne(PAD)
    for epsilon in (0.0, 0.2):
        whole = token_likelihood(features, weight, target, PAD, epsilon)
        kept = token_likelihood(features[keep], weight, target[keep], PAD, epsilon)
        torch.testing.assert_close(whole.loss, kept.loss, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_do_not_overflow(dtype):
    features, weight, target = problem(9000, dtype=dtype)
    got = token_likelihood(features, weight, target, PAD)
    got.loss.backward()
    assert got.nll.dtype == torch.float32 and got.nll > 40000
    reference = F.cross_entropy(
        F.linear(features.float(), weight.float()), target, ignore_index=PAD, reduction="sum"
    )
    torch.testing.assert_close(got.nll, reference, rtol=5e-3, atol=0)
    assert torch.isfinite(features.grad).all() and torch.isfinite(weight.grad).all()


@pytest.mark.skipif(not likelihood.HAS_CHUNKED, reason="this torch has no chunked loss")
def test_training_never_holds_the_logits():
    """The largest tensor made on the way is a chunk's, not tokens x vocabulary."""
    tokens, vocabulary = 8 * CHUNK, 3000
    features, weight, target = problem(tokens, vocabulary)
    with torch.profiler.profile(profile_memory=True) as profiler:
        token_likelihood(features, weight, target, PAD).loss.backward()
    largest = max(event.cpu_memory_usage for event in profiler.events())
    assert largest < tokens * vocabulary * 4 / 4
