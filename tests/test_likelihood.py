"""The chunked likelihood against double precision, log-softmax and fairseq's own smoothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss

from fairseq_vat.latent import likelihood
from fairseq_vat.latent.likelihood import token_likelihood, token_nll

PAD = 1
VOCABULARY = 300
# gradients: 2-norm of the difference over the gradient's; nll: relative (as the docstring says)
BOUNDS = {
    torch.float64: (1e-12, 1e-12),
    torch.float32: (1e-5, 1e-6),
    torch.float16: (2e-3, 2e-4),
    torch.bfloat16: (1e-2, 2e-3),
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Eight rows of single precision a chunk, so that small problems have several."""
    monkeypatch.setattr(likelihood, "CHUNK_BYTES", {"cpu": 8 * 4 * VOCABULARY})


def problem(tokens: int, vocabulary: int = VOCABULARY, scale: float = 0.25):
    generator = torch.Generator().manual_seed(tokens)
    features = torch.randn(tokens, 16, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocabulary, 16, generator=generator, dtype=torch.float64) * scale
    target = torch.randint(2, vocabulary, (tokens,), generator=generator)
    target[:: max(2, tokens // 3)] = PAD
    return features, weight, target


def reference(features, weight, target, epsilon=0.0):
    """nll, loss and gradients through the logits, in double precision."""
    features, weight = (x.detach().double().requires_grad_() for x in (features, weight))
    log_probs = F.log_softmax(F.linear(features, weight), dim=-1)
    loss, nll = label_smoothed_nll_loss(log_probs, target, epsilon, ignore_index=PAD)
    loss.backward()
    return nll.detach(), loss.detach(), features.grad, weight.grad


def ours(features, weight, target, dtype, epsilon=0.0, autocast=False):
    kept = torch.float32 if autocast else dtype
    features, weight = (x.detach().to(kept).requires_grad_() for x in (features, weight))
    with torch.autocast("cpu", dtype, enabled=autocast):
        got = token_likelihood(features, weight, target, PAD, epsilon)
    got.loss.backward()
    assert features.grad.dtype == weight.grad.dtype == kept
    return got.nll, got.loss.detach(), features.grad, weight.grad


def difference(got, expected) -> float:
    return float((got.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("tokens", [2, 5, 8, 9, 31])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [(dtype, False) for dtype in BOUNDS] + [(torch.float16, True), (torch.bfloat16, True)],
)
def test_it_is_as_close_to_double_precision_as_it_says(dtype, autocast, epsilon, tokens):
    features, weight, target = problem(tokens)
    if not autocast:  # what half precision makes of the factors isn't the products' fault
        features, weight = features.to(dtype), weight.to(dtype)
    nll, loss, *gradients = ours(features, weight, target, dtype, epsilon, autocast)
    expected_nll, expected_loss, *expected = reference(features, weight, target, epsilon)
    of_gradients, of_nll = BOUNDS[dtype]
    assert nll.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert difference(nll, expected_nll) <= of_nll
    assert difference(loss, expected_loss) <= of_nll
    for got, wanted in zip(gradients, expected, strict=True):
        assert difference(got, wanted) <= of_gradients


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_is_nearly_certain_keeps_its_gradient(dtype):
    """Where p(target) rounds to 1 the gradient is still that of the others' probability."""
    features = torch.zeros(4, 16, dtype=torch.float64)
    features[:, 0] = 1.0
    weight = torch.zeros(VOCABULARY, 16, dtype=torch.float64)
    weight[7, 0] = 14.0  # p = 0.99975 against 299 others
    target = torch.tensor([7, 7, 7, PAD])
    nll, _, *gradients = ours(features, weight, target, dtype)
    expected_nll, _, *expected = reference(features, weight, target)
    assert 0 < expected_nll < 0.001
    assert difference(nll, expected_nll) < 0.02
    for got, wanted in zip(gradients, expected, strict=True):
        assert difference(got, wanted) < 0.02


@pytest.mark.parametrize("dtype", BOUNDS)
def test_an_impossible_target_has_a_finite_loss_and_its_gradient(dtype):
    features = torch.full((3, 16), 4.0, dtype=torch.float64)
    weight = torch.zeros(VOCABULARY, 16, dtype=torch.float64)
    weight[5], weight[6] = 2.0, -2.0  # logits of 128 and -128
    target = torch.tensor([6, 6, 5])
    nll, _, *gradients = ours(features, weight, target, dtype)
    _, _, *expected = reference(features, weight, target)
    assert torch.isfinite(nll) and nll > 2 * 87
    for got, wanted in zip(gradients, expected, strict=True):
        assert difference(got, wanted) < 1e-2


@pytest.mark.parametrize(
    ("tokens", "vocabulary"),
    [*((tokens, VOCABULARY) for tokens in (2, 8, 31)), (31, 3000)],  # of several blocks of columns
)
def test_without_gradients_it_is_the_same_and_counts(tokens, vocabulary):
    made = problem(tokens, vocabulary)
    features, weight, target = (x.float() if x.is_floating_point() else x for x in made)
    nll, _, _, _ = reference(features, weight, target)
    with torch.no_grad():
        without = token_likelihood(features, weight, target, PAD, count_correct=True)
        best = F.linear(features, weight).argmax(dim=-1)
        each = token_nll(features, weight, target, PAD)
    torch.testing.assert_close(without.nll, nll.float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(each.sum(), nll.float(), rtol=1e-6, atol=0)
    assert each[target.eq(PAD)].eq(0).all()
    assert without.n_correct == (best.eq(target) & target.ne(PAD)).sum()


def test_without_gradients_it_follows_autocast():
    features, weight, target = problem(31)
    features, weight = features.bfloat16(), weight.float()
    nll, _, _, _ = reference(features, weight, target)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        without = token_likelihood(features, weight, target, PAD)
        each = token_nll(features, weight, target, PAD)
    for found in (without.nll, each.sum()):
        torch.testing.assert_close(found, nll.float(), rtol=BOUNDS[torch.bfloat16][1], atol=0)


def test_nothing_but_padding_is_nothing():
    features, weight, target = problem(6)
    nll, loss, *gradients = ours(features, weight, torch.full_like(target, PAD), torch.float32, 0.1)
    assert nll == loss == 0 and not any(x.any() for x in gradients)


def test_what_is_frozen_gets_no_gradient():
    features, weight, target = problem(20)
    _, _, of_features, of_weight = reference(features, weight, target)
    for frozen in (0, 1):
        pair = [features.clone(), weight.clone()]
        pair[1 - frozen].requires_grad_()
        token_likelihood(*pair, target, PAD).loss.backward()
        torch.testing.assert_close(pair[1 - frozen].grad, (of_weight, of_features)[frozen])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_do_not_overflow(dtype):
    features, weight, target = (x.to(dtype) if x.is_floating_point() else x for x in problem(9000))
    target = torch.where(target == PAD, target, 7)  # every sum meets in one row
    nll, _, *gradients = ours(features * 8, weight, target, dtype)
    expected, *_ = reference(features * 8, weight, target)
    assert nll > 65504
    torch.testing.assert_close(nll.double(), expected, rtol=5e-3, atol=0)
    assert all(torch.isfinite(x).all() for x in gradients)


@pytest.mark.parametrize("half", ["none", "model", "autocast"])
def test_training_never_holds_the_logits(half, monkeypatch):
    """The largest tensor made on the way is a chunk's, not tokens x vocabulary."""
    tokens, vocabulary = 500, 3000
    monkeypatch.setattr(likelihood, "CHUNK_BYTES", {"cpu": 8 * 4 * vocabulary})
    features, weight, target = problem(tokens, vocabulary)
    kept = torch.bfloat16 if half == "model" else torch.float32
    features, weight = (x.to(kept).requires_grad_() for x in (features, weight))
    with torch.profiler.profile(profile_memory=True) as profiler:
        with torch.autocast("cpu", torch.bfloat16, enabled=half == "autocast"):
            got = token_likelihood(features, weight, target, PAD)
        got.loss.backward()
    largest = max(event.cpu_memory_usage for event in profiler.events())
    assert largest < tokens * vocabulary * 2 / 4


def test_a_second_backward_pass_is_refused():
    """The first one changes what it leaves, so a second would be wrong."""
    features, weight, target = problem(6)
    loss = token_likelihood(features.requires_grad_(), weight, target, PAD).loss
    (2 * loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
