"""A pre-trained GPT-2 that attends to the latents: the decoder of ``vae_gpt2``.

The vocabulary is GPT-2's own (`fairseq_vat.text.gpt2_vocabulary`): the dictionary's symbols are
token ids, and input and output layer are GPT-2's embedding, which is never copied into another
order.

Shape legend: P latents of a sentence, S target positions, B sentences, L latent width, C GPT-2's
width, V entries of fairseq's dictionary, R rows of GPT-2's embedding, K of them in the softmax,
N tokens.
"""

import inspect
import json
import math
import re
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from fairseq_vat.errors import VATError
from fairseq_vat.models.latent_encoder import EncoderOut
from fairseq_vat.text.gpt2_vocabulary import ARCHITECTURE

_NONE = -1  # in place of a row or column: there is none
# -100 would do for the loss itself, but must also be an index of a weight of few rows
_IGNORED = -1


class GPT2Decoder(FairseqIncrementalDecoder):
    """GPT-2 with cross-attention to the latents in every layer (latent-decoder attention).

    GPT-2's weights are pre-trained; the cross-attention and the layer that makes the latents as
    wide as GPT-2 are new.

    ``</s>`` is GPT-2's end of text; as a decoder's input it stands at the beginning only, and is
    GPT-2's beginning of text there (one and the same in OpenAI's models).  ``<pad>`` and ``<unk>``
    have no row: as input they are a zero vector, which is what word dropout replaces words by.

    Args:
        dictionary: fairseq's, its symbols GPT-2's token ids.
        gpt2: a ``transformers.GPT2Model`` with cross-attention.

    Raises:
        VATError: if the dictionary has a symbol that is no token id of this GPT-2.
    """

    def __init__(self, dictionary: Dictionary, gpt2: nn.Module, latent_dim: int):
        super().__init__(dictionary)
        self.gpt2 = gpt2
        # the later name, and the one of earlier versions of transformers
        names = inspect.signature(type(gpt2).forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"
        self.memory = nn.Linear(latent_dim, gpt2.config.n_embd)
        nn.init.xavier_uniform_(self.memory.weight)
        nn.init.zeros_(self.memory.bias)

        row_V = _rows(dictionary, gpt2.config)
        bos, eos = dictionary.bos(), dictionary.eos()
        input_row_V = row_V.clone()
        input_row_V[eos] = row_V[bos]
        is_word_V = row_V.ne(_NONE)
        is_word_V[bos] = False  # never predicted
        row_K = row_V[is_word_V].unique()
        column_V = torch.searchsorted(row_K, row_V).masked_fill(~is_word_V, _IGNORED)
        index_K = torch.empty_like(row_K)
        index_K[column_V[is_word_V]] = is_word_V.nonzero().flatten()
        # a dictionary can hold the end of text's id beside </s>, as fairseq's own for GPT-2 does
        index_K[column_V[eos]] = eos
        # they follow from the dictionary, so a checkpoint needn't hold them
        for name, value in (
            ("_input_row_V", input_row_V),
            ("_row_K", row_K),
            ("_column_V", column_V),
            ("_index_K", index_K),
        ):
            self.register_buffer(name, value, persistent=False)

    @property
    def config_json(self) -> str:
        """GPT-2's architecture as JSON: with it, a checkpoint needs no directory."""
        return json.dumps({name: getattr(self.gpt2.config, name) for name in ARCHITECTURE})

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: EncoderOut | None = None,
        incremental_state: dict[str, Any] | None = None,
        features_only: bool = False,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Predict the next tokens.

        Args:
            prev_output_tokens: (B, S), padded on the right.
            encoder_out: from a `LatentEncoder`; None is GPT-2 alone, without cross-attention.
            incremental_state: keeps keys and values from one call to the next, so that only
                tokens that are new are computed, and answered for.

        Returns:
            (B, S, V) logits, or (B, S, C) features.
        """
        x, extra = self.extract_features(prev_output_tokens, encoder_out, incremental_state)
        return (x if features_only else self.output_layer(x)), extra

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: EncoderOut | None = None,
        incremental_state: dict[str, Any] | None = None,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """As `forward` with ``features_only``."""
        if prev_output_tokens.size(1) > self.max_positions():
            raise VATError(
                f"a sentence of {prev_output_tokens.size(1)} tokens is longer than GPT-2's "
                f"{self.max_positions()} positions: give --truncate and --max-target-positions "
                f"{self.max_positions()}"
            )
        cache = (self.get_incremental_state(incremental_state, "cache") or {}).get("cache")
        known = 0 if cache is None else cache.get_seq_length()
        row_BS = self._input_row_V[prev_output_tokens[:, known:]]
        x_BSC = self.gpt2.wte(row_BS.clamp(min=0)) * row_BS.ne(_NONE).unsqueeze(-1)
        # positions need no mask: padding is on the right, where nothing that counts looks
        out = self.gpt2(
            inputs_embeds=x_BSC,
            use_cache=incremental_state is not None,
            **{self._cache_name: cache},
            **self._cross_attention(encoder_out),
        )
        self.set_incremental_state(
            incremental_state, "cache", {"cache": getattr(out, self._cache_name)}
        )
        x_BSC = out.last_hidden_state
        return x_BSC, {"attn": [None], "inner_states": [x_BSC.transpose(0, 1)]}

    def _cross_attention(self, encoder_out: EncoderOut | None) -> dict[str, Tensor]:
        if encoder_out is None:
            return {}
        memory_BPC = self.memory(encoder_out["encoder_out"][0].transpose(0, 1))
        mask_BP = encoder_out["encoder_padding_mask"][0]
        return {"encoder_hidden_states": memory_BPC, "encoder_attention_mask": ~mask_BP}

    def output_layer(self, features: Tensor, **unused: Any) -> Tensor:
        """(..., C) features to (..., V) logits: -inf for what GPT-2 has no token for."""
        logits_K = F.linear(features, self._weight())
        logits_V = logits_K.new_full((*features.shape[:-1], len(self.dictionary)), -math.inf)
        return logits_V.index_copy(-1, self._index_K, logits_K)

    def scoring(self, target_N: Tensor) -> tuple[Tensor, Tensor, int]:
        """What `fairseq_vat.latent.likelihood.token_likelihood` needs.

        Returns:
            the rows of GPT-2's embedding that are in the softmax, (K, C): those of ``</s>`` and
            of the dictionary's token ids; the targets as numbers of these rows; and the number
            that stands for padding.

        Raises:
            VATError: if a target is ``<unk>``, which a byte-level vocabulary never makes.
        """
        if bool(target_N.eq(self.dictionary.unk()).any()):
            raise VATError(
                "the data has <unk>, which GPT-2's vocabulary never makes: its dict.txt lacks "
                f"token ids; {_HOW_TO_BINARISE}"
            )
        return self._weight(), self._column_V[target_N], _IGNORED

    def _weight(self) -> Tensor:
        weight_RC = self.gpt2.wte.weight
        # rows are ascending: as many as there are is all of them, and then nothing is copied
        if len(self._row_K) == len(weight_RC):
            return weight_RC
        return weight_RC.index_select(0, self._row_K)

    def max_positions(self) -> int:
        return self.gpt2.config.n_positions

    def reorder_incremental_state(
        self, incremental_state: dict[str, Any], new_order: Tensor
    ) -> None:
        """Select and repeat rows of the cached keys and values (fairseq's beam search does)."""
        state = self.get_incremental_state(incremental_state, "cache")
        if state is not None:
            state["cache"].reorder_cache(new_order)


_HOW_TO_BINARISE = (
    "binarise the text with this GPT-2's vocabulary (GPT2_DIR=DIR scripts/prepare_corpus.sh, or "
    "fairseq-vat tokenize --gpt2 DIR and fairseq-preprocess --srcdict)"
)


def _rows(dictionary: Dictionary, config: Any) -> Tensor:
    """GPT-2's row of every entry of the dictionary, or `_NONE`."""
    # on the CPU also where a model is made of shapes alone
    row_V = torch.full((len(dictionary),), _NONE, device="cpu")
    row_V[dictionary.bos()], row_V[dictionary.eos()] = config.bos_token_id, config.eos_token_id
    special = {dictionary.bos(), dictionary.pad(), dictionary.eos(), dictionary.unk()}
    for index, symbol in enumerate(dictionary.symbols):
        # fairseq fills a dictionary up with these, to a multiple of some number
        if index in special or re.fullmatch(r"madeupword\d{4,}", symbol):
            continue
        if not re.fullmatch(r"0|[1-9][0-9]*", symbol) or int(symbol) >= config.vocab_size:
            raise VATError(
                f"dict.txt has {symbol!r}, which is no token id of this GPT-2 (0 to "
                f"{config.vocab_size - 1}): {_HOW_TO_BINARISE}"
            )
        row_V[index] = int(symbol)
    return row_V
