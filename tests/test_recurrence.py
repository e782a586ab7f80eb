"""Recurrences over padded sentences against torch's own over packed ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fairseq_vat.models.recurrent import read_both_ways

LENGTHS = torch.tensor([5, 1, 9, 3])
CELLS = pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])


def make(cell: type[nn.RNNBase], dtype: torch.dtype, dropout: float = 0.0) -> nn.RNNBase:
    torch.manual_seed(0)
    return cell(6, 8, 3, dropout=dropout, bidirectional=True, dtype=dtype)


def packed(rnn: nn.RNNBase, x_TBE: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    out, last = rnn(pack_padded_sequence(x_TBE, lengths_B, enforce_sorted=False))
    last = last[0] if isinstance(last, tuple) else last
    out, _ = pad_packed_sequence(out, total_length=len(x_TBE))
    return out, torch.cat((last[-2], last[-1]), dim=-1)


def everything(read, rnn: nn.RNNBase, x_TBE: Tensor, lengths_B: Tensor = LENGTHS) -> list[Tensor]:
    """Outputs, final states, and the gradients of the input and of every parameter."""
    x_TBE = x_TBE.clone().requires_grad_()
    out, last = read(rnn, x_TBE, lengths_B)
    # every output with a weight of its own
    generator = torch.Generator().manual_seed(3)
    loss = sum((x * torch.randn(x.shape, generator=generator)).sum() for x in (out, last))
    return [out, last, *torch.autograd.grad(loss, (x_TBE, *rnn.parameters()))]


@CELLS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
# with a dropout of 1 the layers above the first see nothing, which needs no luck to agree
@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_padded_is_packed(cell, dtype, dropout):
    rnn = make(cell, dtype, dropout)
    x_TBE = torch.randn(11, 4, 6, dtype=dtype)
    got, expected = everything(read_both_ways, rnn, x_TBE), everything(packed, rnn, x_TBE)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@CELLS
def test_dropout_is_in_training_alone_and_between_layers(cell):
    rnn = make(cell, torch.float32, dropout=0.5)
    x_TBE = torch.randn(9, 4, 6)
    first, second = (read_both_ways(rnn, x_TBE, LENGTHS)[0] for _ in range(2))
    assert not torch.equal(first, second)
    rnn.eval()
    torch.testing.assert_close(
        read_both_ways(rnn, x_TBE, LENGTHS), packed(rnn, x_TBE, LENGTHS), rtol=1e-6, atol=1e-6
    )


@CELLS
def test_padding_and_other_sentences_change_nothing(cell):
    rnn = make(cell, torch.float64)
    x_TBE = torch.randn(11, 4, 6, dtype=torch.float64)
    out, last, grad, *_ = everything(read_both_ways, rnn, x_TBE)
    other = torch.randn_like(x_TBE)
    for row, length in enumerate(LENGTHS.tolist()):
        mixed = other.clone()
        mixed[:length, row] = x_TBE[:length, row]
        same_out, same_last, *_ = everything(read_both_ways, rnn, mixed)
        torch.testing.assert_close(same_out[:, row], out[:, row], rtol=0, atol=1e-14)
        torch.testing.assert_close(same_last[row], last[row], rtol=0, atol=1e-14)
        assert out[length:, row].eq(0).all() and grad[length:, row].eq(0).all()


@CELLS
def test_bfloat16_is_near_single_precision(cell):
    """Relative 2-norm of every difference: 1 % for what is put out, 2 % for gradients."""
    rnn = make(cell, torch.float32)
    x_TBE = torch.randn(11, 4, 6)

    def autocast(*args):
        with torch.autocast("cpu", torch.bfloat16):
            return [x.float() for x in read_both_ways(*args)]

    pairs = zip(everything(autocast, rnn, x_TBE), everything(packed, rnn, x_TBE), strict=True)
    for number, (got, expected) in enumerate(pairs):
        assert got.isfinite().all()
        bound = 0.01 if number < 2 else 0.02
        assert (got - expected).norm() <= bound * expected.norm(), number
