"""Token log-likelihoods without the (tokens x vocabulary) matrix.

The logits of 4,000 tokens over 32,768 words take half a gigabyte in single precision, and
log-softmax and its backward several times that; most of a stock training step's time on a CPU
goes there.  torch's chunked ``linear_cross_entropy`` never holds more than `CHUNK` rows.

Shape legend: N tokens, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 256  # rows of logits held at a time: 32 MB at a vocabulary of 32,768

# chosen by what this torch has, not by its version
HAS_CHUNKED = hasattr(F, "linear_cross_entropy") and hasattr(torch.nn, "LinearCrossEntropyOptions")


@dataclass(frozen=True)
class TokenLikelihood:
    """Sums over the target tokens that aren't padding, in nats.

    Attributes:
        nll: sum of -log p(target), a scalar.
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

    With gradients on, torch's chunked loss is used where it exists and logits are otherwise made
    at once; with gradients off the rows are gone through in chunks here, since torch's chunked
    loss would compute gradients that nobody wants.

    Args:
        features_NC: the decoder's output before the projection.
        weight_VC: the projection's weight.
        target_N: indices, with `padding_idx` where there is nothing to predict.
        padding_idx: index of the padding symbol.
        label_smoothing: epsilon as in fairseq's ``label_smoothed_cross_entropy``.
        count_correct: also count how often the target is the most likely token; needs
            gradients to be off.
    """
    if not torch.is_grad_enabled():
        nll, n_correct = _chunked_without_gradient(
            features_NC, weight_VC, target_N, padding_idx, count_correct
        )
    else:
        nll, n_correct = _with_gradient(features_NC, weight_VC, target_N, padding_idx), None
    loss = nll
    if label_smoothing > 0:
        loss = _smoothed(nll, features_NC, weight_VC, target_N, padding_idx, label_smoothing)
    return TokenLikelihood(nll.detach(), loss, n_correct)


def _with_gradient(
    features_NC: Tensor, weight_VC: Tensor, target_N: Tensor, padding_idx: int
) -> Tensor:
    # autocast does not reach into the chunked loss, which wants equal types
    if not HAS_CHUNKED or torch.is_autocast_enabled(features_NC.device.type):
        logits_NV = F.linear(features_NC, weight_VC).float()
        return F.cross_entropy(logits_NV, target_N, ignore_index=padding_idx, reduction="sum")
    # in half precision the sum over a batch could overflow: sum the tokens in single precision
    single = features_NC.dtype in (torch.float32, torch.float64)
    nll = F.linear_cross_entropy(
        features_NC,
        weight_VC,
        target_N,
        ignore_index=padding_idx,
        reduction="sum" if single else "none",
        options=torch.nn.LinearCrossEntropyOptions(batch_chunk_size=CHUNK),
    )
    return nll if single else nll.float().sum()


def _chunked_without_gradient(
    features_NC: Tensor,
    weight_VC: Tensor,
    target_N: Tensor,
    padding_idx: int,
    count_correct: bool,
) -> tuple[Tensor, Tensor | None]:
    nll = features_NC.new_zeros((), dtype=torch.float64)
    n_correct = target_N.new_zeros(())
    for logits_nV, target_n in _logits_in_chunks(features_NC, weight_VC, target_N):
        nll += F.cross_entropy(logits_nV, target_n, ignore_index=padding_idx, reduction="sum")
        if count_correct:
            hit_n = logits_nV.argmax(dim=-1).eq(target_n) & target_n.ne(padding_idx)
            n_correct += hit_n.sum()
    return nll.to(torch.float32), n_correct if count_correct else None


def token_nll(features_NC: Tensor, weight_VC: Tensor, target_N: Tensor, padding_idx: int) -> Tensor:
    """-log p of every target under softmax(features weight^T), (N,), 0 at padding.

    For evaluation: the rows are gone through in chunks, without gradients.
    """
    with torch.no_grad():
        return torch.cat(
            [
                F.cross_entropy(logits_nV, target_n, ignore_index=padding_idx, reduction="none")
                for logits_nV, target_n in _logits_in_chunks(features_NC, weight_VC, target_N)
            ]
        )


def _logits_in_chunks(
    features_NC: Tensor, weight_VC: Tensor, target_N: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    for features_nC, target_n in zip(features_NC.split(CHUNK), target_N.split(CHUNK), strict=True):
        yield F.linear(features_nC, weight_VC).float(), target_n


def _smoothed(
    nll: Tensor,
    features_NC: Tensor,
    weight_VC: Tensor,
    target_N: Tensor,
    padding_idx: int,
    epsilon: float,
) -> Tensor:
    """fairseq's label-smoothed loss from the nll alone, again without the logits.

    The smooth part is -sum_v log p(v) = V lse - sum_v logit_v, where lse = nll + logit_target and
    the two logit terms are products of the features with one and with the sum of all weight rows.
    """
    vocabulary = weight_VC.size(0)
    keep_N1 = target_N.ne(padding_idx).unsqueeze(-1)
    features_NC = features_NC.float() * keep_N1
    target_logits = (features_NC * weight_VC[target_N].float()).sum()
    all_logits = (features_NC.sum(dim=0) * weight_VC.sum(dim=0, dtype=torch.float32)).sum()
    smooth = vocabulary * (nll + target_logits) - all_logits
    share = epsilon / (vocabulary - 1)
    return (1.0 - epsilon - share) * nll + share * smooth
