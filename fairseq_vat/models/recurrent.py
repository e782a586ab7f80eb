"""LSTM and GRU encoders and decoders (Bowman et al. 2016) on torch's own recurrences.

fairseq's LSTM steps through cells in Python, which no fused kernel can take over, and it has no
GRU; here a whole sequence is one call of ``torch.nn.LSTM`` or ``torch.nn.GRU`` (cuDNN on a GPU).

Shape legend: T source positions, S target positions, B sentences, N layers, E embedding width,
H hidden width (of one direction), L latent width, V vocabulary, X states of a layer.
"""

import contextlib
from typing import Any

import torch
from fairseq.models import FairseqEncoder, FairseqIncrementalDecoder
from fairseq.modules import FairseqDropout
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

CELLS: dict[str, type[nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU}


def _recurrence(cell: str, width: int, hidden_size: int, layers: int, dropout: float, **more: Any):
    dropout = dropout if layers > 1 else 0.0
    return CELLS[cell](width, hidden_size, layers, dropout=dropout, **more)


class RecurrentEncoder(FairseqEncoder):
    """A bidirectional LSTM or GRU.

    Args:
        hidden_size: H, of each direction.
        dropout: on embeddings, between layers and on the output.
    """

    def __init__(
        self,
        cell: str,
        dictionary: Any,
        embed_tokens: nn.Embedding,
        hidden_size: int,
        layers: int,
        dropout: float,
        max_positions: int,
    ):
        super().__init__(dictionary)
        self.embed_tokens = embed_tokens
        self.dropout = FairseqDropout(dropout, module_name=type(self).__name__)
        width = embed_tokens.embedding_dim
        self.rnn = _recurrence(cell, width, hidden_size, layers, dropout, bidirectional=True)
        self.output_dim = 2 * hidden_size
        self._max_positions = max_positions

    def forward(self, src_tokens: Tensor, src_lengths: Tensor | None = None) -> dict[str, Any]:
        """Read sentences (B, T), padded on the right.

        Returns:
            ``encoder_out`` (T, B, 2H); ``encoder_padding_mask`` (B, T); and ``sentence_out``
            (B, 2H), the last layer's final state of either direction: after the last token
            forwards, after the first backwards.
        """
        mask_BT = src_tokens.eq(self.dictionary.pad())
        # lengths come from the tokens, so that a caller without lengths gets the same
        x_TBE = self.dropout(self.embed_tokens(src_tokens)).transpose(0, 1)
        x_TBH, last_BH = read_both_ways(self.rnn, x_TBE, (~mask_BT).sum(dim=1))
        return {
            "encoder_out": [self.dropout(x_TBH)],
            "encoder_padding_mask": [mask_BT],
            "sentence_out": [self.dropout(last_BH)],
        }

    def max_positions(self) -> int:
        return self._max_positions


class RecurrentDecoder(FairseqIncrementalDecoder):
    """A unidirectional LSTM or GRU; a latent enters its initial state and every step's input.

    Args:
        latent_dim: L; 0 makes a language model.
        share_embed: use the embedding as the output layer too; needs E = H.
    """

    def __init__(
        self,
        cell: str,
        dictionary: Any,
        embed_tokens: nn.Embedding,
        hidden_size: int,
        layers: int,
        dropout: float,
        max_positions: int,
        latent_dim: int = 0,
        share_embed: bool = False,
    ):
        super().__init__(dictionary)
        self.embed_tokens = embed_tokens
        self.padding_idx = dictionary.pad()
        self.dropout = FairseqDropout(dropout, module_name=type(self).__name__)
        self.latent_dim = latent_dim
        self.layers, self.hidden_size = layers, hidden_size
        # the LSTM has two states a layer, the GRU one
        self.states = 2 if cell == "lstm" else 1
        width = embed_tokens.embedding_dim + latent_dim
        self.rnn = _recurrence(cell, width, hidden_size, layers, dropout)
        if latent_dim:
            self.initial = nn.Linear(latent_dim, self.states * layers * hidden_size)
        self.output_projection = nn.Linear(hidden_size, len(dictionary), bias=False)
        if share_embed:
            self.output_projection.weight = embed_tokens.weight
        else:
            nn.init.normal_(self.output_projection.weight, mean=0, std=hidden_size**-0.5)
        self._max_positions = max_positions

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, list[Tensor]] | None = None,
        incremental_state: dict[str, dict[str, Tensor | None]] | None = None,
        features_only: bool = False,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits (B, S, V), or features (B, S, H) with `features_only`.

        With `incremental_state` only the last token is read: S = 1 comes back.
        """
        x_BSH = self._features(prev_output_tokens, encoder_out, incremental_state)
        extra = {"attn": [None], "inner_states": []}
        return (x_BSH if features_only else self.output_layer(x_BSH)), extra

    def _features(self, tokens_BS: Tensor, encoder_out: Any, incremental_state: Any) -> Tensor:
        state = None
        if incremental_state is not None:
            tokens_BS = tokens_BS[:, -1:]
            state = self._load(incremental_state)
        x_SBE = self.dropout(self.embed_tokens(tokens_BS)).transpose(0, 1)
        if self.latent_dim:
            z_1BL = encoder_out["encoder_out"][0]
            if state is None:
                state = self._initial_state(z_1BL)
            x_SBE = torch.cat((x_SBE, z_1BL.expand(x_SBE.size(0), -1, -1)), dim=-1)
        with _in_its_own_precision(x_SBE.device):
            x_SBH, state = self.rnn(*_as(self.rnn, x_SBE, state))
        if incremental_state is not None:
            self._save(incremental_state, state)
        return self.dropout(x_SBH).transpose(0, 1)

    def _initial_state(self, z_1BL: Tensor) -> Any:
        state_BX = self.initial(z_1BL.squeeze(0))
        split_BXNH = state_BX.view(-1, self.states, self.layers, self.hidden_size)
        states = [x_NBH.contiguous() for x_NBH in split_BXNH.permute(1, 2, 0, 3)]
        return tuple(states) if self.states == 2 else states[0]

    def _load(self, incremental_state: Any) -> Any:
        saved = self.get_incremental_state(incremental_state, "state")
        if saved is None:
            return None
        return (saved["hidden"], saved["cell"]) if self.states == 2 else saved["hidden"]

    def _save(self, incremental_state: Any, state: Any) -> None:
        hidden, cell = state if self.states == 2 else (state, None)
        self.set_incremental_state(incremental_state, "state", {"hidden": hidden, "cell": cell})

    def reorder_incremental_state(self, incremental_state: Any, new_order: Tensor) -> None:
        """Select and repeat sentences (fairseq's beam search calls this)."""
        saved = self.get_incremental_state(incremental_state, "state")
        if saved is not None:
            reordered = {
                name: None if x is None else x.index_select(1, new_order)
                for name, x in saved.items()
            }
            self.set_incremental_state(incremental_state, "state", reordered)

    def output_layer(self, features: Tensor) -> Tensor:
        """(..., H) to logits (..., V)."""
        return self.output_projection(features)

    def max_positions(self) -> int:
        return self._max_positions


def _in_its_own_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """Surrounds a recurrence: under autocast cuDNN's runs in float16, whatever was asked for.

    `--precision bfloat16` has no scale of the loss, which float16 needs.
    """
    if device.type != "cuda" or torch.get_autocast_dtype("cuda") != torch.bfloat16:
        return contextlib.nullcontext()
    return torch.autocast("cuda", enabled=False)


def _as(rnn: nn.RNNBase, *inputs: Any) -> list[Any]:
    """Inputs and states in the type that `rnn` runs in.

    On a GPU that of its parameters. On a CPU an LSTM's under autocast: torch asks whether the
    processor can take oneDNN's in bfloat16 by the type of the input, which autocast changes only
    afterwards, and an input in single precision is an error without AVX-512.
    """
    if rnn.all_weights[0][0].device.type == "cuda":
        dtype = rnn.all_weights[0][0].dtype
    elif rnn.mode == "LSTM" and torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
    else:
        return list(inputs)

    def cast(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(map(cast, x))
        return x if x is None else x.to(dtype)

    return [cast(x) for x in inputs]


def read_both_ways(rnn: nn.RNNBase, x_TBE: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    """What a bidirectional `rnn` makes of sentences padded on the right, whatever the padding is.

    On a GPU cuDNN takes packed sequences in one call. On a CPU torch steps through the cells of
    packed sequences, and the backward pass of that takes time quadratic in the length; it has a
    fused LSTM for padded ones (oneDNN's), in single precision and in bfloat16.

    Args:
        rnn: an LSTM or GRU, with biases and without projections.
        lengths_B: each at least 1.

    Returns:
        the last layer's output (T, B, 2H), 0 at padding; and its final states (B, 2H), after the
        last token forwards and after the first backwards.
    """
    if x_TBE.device.type == "cpu":
        return _read_padded(rnn, x_TBE, lengths_B)
    with _in_its_own_precision(x_TBE.device):
        (x_TBE,) = _as(rnn, x_TBE)
        # packing wants the lengths on the CPU
        packed, state = rnn(pack_padded_sequence(x_TBE, lengths_B.cpu(), enforce_sorted=False))
    x_TBH, _ = pad_packed_sequence(packed, total_length=x_TBE.size(0))
    last_NBH = state[0] if isinstance(state, tuple) else state
    return x_TBH, torch.cat((last_NBH[-2], last_NBH[-1]), dim=-1)


def _read_padded(rnn: nn.RNNBase, x_TBE: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    """`read_both_ways` without packing.

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
    (x_TBE,) = _as(rnn, x_TBE)
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
