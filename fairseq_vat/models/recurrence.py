"""Bidirectional recurrences over sentences of different lengths, by what is fast on the device.

On a GPU cuDNN takes packed sequences in one call.  On a CPU torch steps through the cells of packed
sequences, and the backward pass of that takes time quadratic in the length; it has a fused LSTM for
padded ones (oneDNN's), in single precision and in bfloat16.

Shape legend: T positions, B sentences, E input width, H hidden width (of one direction).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def read(rnn: nn.RNNBase, x_TBE: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    """What a bidirectional `rnn` makes of sentences padded on the right, whatever the padding is.

    Args:
        rnn: an LSTM or GRU, with biases and without projections.
        x_TBE: its input.
        lengths_B: each at least 1.

    Returns:
        the last layer's output (T, B, 2H), 0 at padding; and its final states (B, 2H), after the
        last token forwards and after the first backwards.
    """
    if x_TBE.device.type == "cpu":
        return _read_padded(rnn, x_TBE, lengths_B)
    # packing wants the lengths on the CPU
    packed = pack_padded_sequence(x_TBE, lengths_B.cpu(), enforce_sorted=False)
    packed, state = rnn(packed)
    x_TBH, _ = pad_packed_sequence(packed, total_length=x_TBE.size(0))
    last_NBH = state[0] if isinstance(state, tuple) else state
    return x_TBH, torch.cat((last_NBH[-2], last_NBH[-1]), dim=-1)


def _read_padded(rnn: nn.RNNBase, x_TBE: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    """`read` without packing.

    No step sees the padding to its right, and backwards is forwards over each sentence turned
    round, with its padding still on the right.
    """
    positions_T1 = torch.arange(x_TBE.size(0)).unsqueeze(1)
    padding_TB = positions_T1 >= lengths_B
    turned_TB = torch.where(padding_TB, positions_T1, lengths_B - 1 - positions_T1)
    for layer in range(rnn.num_layers):
        if layer > 0:
            x_TBE = F.dropout(x_TBE, rnn.dropout, rnn.training)
        forwards, backwards = rnn.all_weights[2 * layer : 2 * layer + 2]
        ahead_TBH = _one_direction(rnn, x_TBE, forwards)
        back_TBH = _one_direction(rnn, _pick(x_TBE, turned_TB), backwards)
        x_TBE = torch.cat((ahead_TBH, _pick(back_TBH, turned_TB)), dim=-1)
    last_1B = lengths_B.unsqueeze(0) - 1
    last_1BH = torch.cat((_pick(ahead_TBH, last_1B), _pick(back_TBH, last_1B)), dim=-1)
    return x_TBE.masked_fill(padding_TB.unsqueeze(-1), 0.0), last_1BH.squeeze(0)


def _one_direction(rnn: nn.RNNBase, x_TBE: Tensor, weights: list[Tensor]) -> Tensor:
    """One layer of `rnn` from the first position to the last: (T, B, H)."""
    zeros_1BH = x_TBE.new_zeros(1, x_TBE.size(1), rnn.hidden_size)
    if rnn.mode == "LSTM":
        recurrence, initial = torch.lstm, (zeros_1BH, zeros_1BH)
    else:
        recurrence, initial = torch.gru, zeros_1BH
    # has biases, 1 layer, no dropout, training, not bidirectional, time first
    return recurrence(x_TBE, initial, weights, True, 1, 0.0, rnn.training, False, False)[0]


def _pick(x_TBE: Tensor, positions_SB: Tensor) -> Tensor:
    """Of each sentence the outputs at its positions: (S, B, E)."""
    return x_TBE.gather(0, positions_SB.unsqueeze(-1).expand(-1, -1, x_TBE.size(-1)))
