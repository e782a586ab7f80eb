"""Token log-likelihoods without the (tokens x vocabulary) matrix.

The logits of 4,000 tokens over 32,768 words take half a gigabyte in single precision, and
log-softmax and its backward several times that; most of a stock training step's time on a CPU
goes there.  Here projection and loss are one step that holds a chunk of the logits at a time and
makes the gradients in the forward pass, from the probabilities that are in the cache anyway.

Shape legend: N tokens, n tokens of a chunk, C width, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Bytes of logits held at a time: on a CPU what its caches hold, on a GPU more, for large products.
CHUNK_BYTES = {"cpu": 1 << 24, "cuda": 1 << 27}
# Columns of logits made at once for each thread of a CPU, in single precision. MKL on an AMD EPYC,
# two threads, width 1024: 108 GFLOPS, against 58 over a vocabulary of 30,522; measured there alone.
_COLUMNS = 256
# fp16 holds nothing between 0 and 6e-8, and of 32,768 equally likely words each has 3e-5
_FP16_SCALE = 1024.0
# products of half precision given in single; chosen by what this torch has
_HAS_OUT_DTYPE = hasattr(torch.ops.aten.mm, "dtype")


@dataclass(frozen=True)
class TokenLikelihood:
    """Sums over the target tokens that aren't padding, in nats.

    Attributes:
        nll: sum of -log p(target), a scalar in single precision (in double for double features).
        loss: what to minimise: `nll`, label-smoothed if asked for.
        n_correct: how many targets are the most likely token; None unless counted.
    """

    nll: Tensor
    loss: Tensor
    n_correct: Tensor | None = None


def token_likelihood(
    features_NC: Tensor,
    weight_VC: Tensor,
    target_N: Tensor,
    padding_idx: int,
    label_smoothing: float = 0.0,
    count_correct: bool = False,
) -> TokenLikelihood:
    """Likelihood of `target_N` under softmax(features weight^T).

    Products run in autocast's type where autocast is on, else in the weight's; sums
    over tokens are in single precision (double in double).  With gradients on, the nll of a token
    is capped where its probability underflows, at 87 nats; its gradient isn't.

    The gradients of features and weight differ from the exact ones by at most 1 % in bfloat16
    (2-norm of the difference over the gradient's), 0.2 % in fp16 and 1e-5 in single precision, the
    nll by 0.2 %, 0.02 % and 1e-6.  These bounds are tested against double precision.

    Args:
        features_NC: the decoder's output before the projection.
        target_N: indices, with `padding_idx` where there is nothing to predict.
        label_smoothing: epsilon as in fairseq's ``label_smoothed_cross_entropy``.
        count_correct: also count how often the target is the most likely token; needs
            gradients to be off.
    """
    keep_N = target_N.ne(padding_idx)
    features_NC, target_N = features_NC[keep_N], target_N[keep_N]
    dtype = _products_dtype(weight_VC)
    with torch.autocast(features_NC.device.type, enabled=False):
        if not torch.is_grad_enabled():
            x_NC, w_VC = features_NC.to(dtype), weight_VC.to(dtype)
            nll, n_correct = _without_gradient(x_NC, w_VC, target_N, count_correct)
        else:
            nll, n_correct = _SummedNLL.apply(features_NC, weight_VC, target_N, dtype), None
        loss = nll
        if label_smoothing > 0:
            loss = nll + _smoothing(features_NC, weight_VC, target_N, label_smoothing)
    return TokenLikelihood(nll.detach(), loss, n_correct)


def token_nll(features_NC: Tensor, weight_VC: Tensor, target_N: Tensor, padding_idx: int) -> Tensor:
    """-log p of every target under softmax(features weight^T), (N,), 0 at padding.

    For evaluation: the rows are gone through in chunks, without gradients.
    """
    dtype = _products_dtype(weight_VC)
    with torch.no_grad(), torch.autocast(features_NC.device.type, enabled=False):
        x_NC, w_VC = features_NC.to(dtype), weight_VC.to(dtype)
        return torch.cat(
            [
                F.cross_entropy(logits_nV, target_n, ignore_index=padding_idx, reduction="none")
                for logits_nV, target_n in _logits_in_chunks(x_NC, w_VC, target_N)
            ]
        )


class _SummedNLL(torch.autograd.Function):
    """Sum over tokens of -log softmax(features weight^T)[target]; gradients made in `forward`."""

    @staticmethod
    def forward(
        ctx: Any, features_NC: Tensor, weight_VC: Tensor, target_N: Tensor, dtype: torch.dtype
    ) -> Tensor:
        single = _single(features_NC)
        x_NC, w_VC = features_NC.to(dtype), weight_VC.to(dtype)
        ones_V1 = w_VC.new_ones(w_VC.size(0), 1)
        scale = _FP16_SCALE if dtype == torch.float16 else 1.0
        nll = features_NC.new_zeros((), dtype=single)
        grad_features_NC = torch.zeros_like(features_NC, dtype=single)
        grad_weight_VC = torch.zeros_like(weight_VC, dtype=single)
        chunk = _rows(w_VC)
        memory_nV = _memory(x_NC, w_VC)
        for x_nC, target_n, grad_nC in zip(
            x_NC.split(chunk), target_N.split(chunk), grad_features_NC.split(chunk), strict=True
        ):
            # one place a row; scatter_ would copy the chunk
            at_target = torch.arange(len(target_n), device=target_n.device), target_n
            logits_nV = _logits(x_nC, w_VC, memory_nV)
            # bfloat16 goes in and out of softmax, which computes in single precision: one pass; a
            # CPU's goes row by row and can put a row where it read it
            wide = single if dtype == torch.float16 else dtype
            in_place = logits_nV if wide == dtype and logits_nV.device.type == "cpu" else None
            p_nV = torch.softmax(logits_nV, dim=-1, dtype=wide, out=in_place)
            p_target_n = p_nV[at_target].to(single)
            p_nV[at_target] = 0.0
            if wide != dtype:
                p_nV = p_nV.mul_(scale).to(dtype)
            # 1 - p(target) as the sum of the others: half precision has no number between 0.996
            # and 1, and what is nearly certain would get no gradient
            others_n = (p_nV @ ones_V1).squeeze(1)
            p_nV[at_target] = -others_n
            others_n = others_n.to(single) / scale
            nll += torch.where(
                p_target_n > 0.5,
                -torch.log1p(-others_n.clamp(max=0.75)),
                -p_target_n.clamp(min=torch.finfo(single).tiny).log(),
            ).sum()
            if ctx.needs_input_grad[0]:
                _add_product(grad_nC, p_nV, w_VC, 1 / scale)
            if ctx.needs_input_grad[1]:
                _add_product(grad_weight_VC, p_nV.t(), x_nC, 1 / scale)
        ctx.save_for_backward(grad_features_NC, grad_weight_VC)
        ctx.types = features_NC.dtype, weight_VC.dtype
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_features_NC, grad_weight_VC = ctx.saved_tensors
        features_type, weight_type = ctx.types
        # in place, so only once: torch refuses a second backward pass over a changed tensor
        return (
            grad_features_NC.mul_(grad).to(features_type),
            grad_weight_VC.mul_(grad).to(weight_type),
            None,
            None,
        )


def _add_product(total: Tensor, a: Tensor, b: Tensor, factor: float) -> None:
    """total += factor a b, summed in the total's type."""
    if a.dtype == total.dtype:
        total.addmm_(a, b, alpha=factor)
    elif a.is_cuda and _HAS_OUT_DTYPE:
        total.add_(torch.mm(a, b, out_dtype=total.dtype), alpha=factor)
    elif a.dtype == torch.float16:  # its own sums can overflow; bfloat16's can't
        total.addmm_(a.to(total.dtype), b.to(total.dtype), alpha=factor)
    else:
        total.add_(a @ b, alpha=factor)


def _products_dtype(weight_VC: Tensor) -> torch.dtype:
    device = weight_VC.device.type
    on = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else weight_VC.dtype


def _single(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _rows(weight_VC: Tensor) -> int:
    budget = CHUNK_BYTES["cpu" if weight_VC.device.type == "cpu" else "cuda"]
    return max(1, budget // (weight_VC.size(0) * weight_VC.element_size()))


def _without_gradient(
    features_NC: Tensor, weight_VC: Tensor, target_N: Tensor, count_correct: bool
) -> tuple[Tensor, Tensor | None]:
    nll = features_NC.new_zeros((), dtype=torch.float64)
    n_correct = target_N.new_zeros(())
    for logits_nV, target_n in _logits_in_chunks(features_NC, weight_VC, target_N):
        nll += F.cross_entropy(logits_nV, target_n, reduction="sum")
        if count_correct:
            n_correct += logits_nV.argmax(dim=-1).eq(target_n).sum()
    return nll.to(_single(features_NC)), n_correct if count_correct else None


def _logits_in_chunks(
    features_NC: Tensor, weight_VC: Tensor, target_N: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits, to be done with before the next are asked for, and targets."""
    chunk = _rows(weight_VC)
    single = _single(features_NC)
    memory_nV = _memory(features_NC, weight_VC)
    for x_nC, target_n in zip(features_NC.split(chunk), target_N.split(chunk), strict=True):
        yield _logits(x_nC, weight_VC, memory_nV).to(single), target_n


def _memory(features_NC: Tensor, weight_VC: Tensor) -> Tensor:
    # one piece for all chunks: the system takes its time to give out new pages
    return weight_VC.new_empty(min(_rows(weight_VC), len(features_NC)), len(weight_VC))


def _logits(x_nC: Tensor, weight_VC: Tensor, memory_nV: Tensor) -> Tensor:
    logits_nV = memory_nV[: len(x_nC)]
    blocked = x_nC.device.type == "cpu" and x_nC.dtype == torch.float32
    columns = _COLUMNS * torch.get_num_threads() if blocked else len(weight_VC)
    for part_nX, weight_XC in zip(
        logits_nV.split(columns, 1), weight_VC.split(columns), strict=True
    ):
        torch.mm(x_nC, weight_XC.t(), out=part_nX)
    return logits_nV


def _smoothing(features_NC: Tensor, weight_VC: Tensor, target_N: Tensor, epsilon: float) -> Tensor:
    """What fairseq's label smoothing adds to the nll, again without the logits.

    With a = epsilon / (V - 1) the smoothed loss is (1 - epsilon - a) nll - a sum_v log p(v), and
    -sum_v log p(v) = V (nll + logit_target) - sum_v logit_v; the nll's factors add up to one, and
    the two logit terms are products of the features with one and with the sum of all weight rows.
    """
    single, vocabulary = _single(features_NC), weight_VC.size(0)
    features_NC = features_NC.to(single)
    target_logits = (features_NC * weight_VC[target_N].to(single)).sum()
    all_logits = (features_NC.sum(dim=0) * weight_VC.sum(dim=0, dtype=single)).sum()
    return epsilon / (vocabulary - 1) * (vocabulary * target_logits - all_logits)
