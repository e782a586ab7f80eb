"""fairseq's beam search over the best few tokens of a row, in place of the whole vocabulary.

A step of beam search keeps 2 x beam of all continuations, so no row can bring in more than its own
best 2 x beam tokens.  fairseq nevertheless goes over all (rows x V) log-probabilities many times:
log softmax, the search for NaN, the sum with the scores, top-k.  Here the output layer works on
parts of rows and vocabulary that stay in the cache.  Of each row remain its logsumexp, the special
symbols, which fairseq's loop changes by their numbers, and the best tokens.  The loop goes on with
these columns as if they were its vocabulary; the search strategy turns columns into tokens.

Shape legend: R rows (hypotheses at work: B sentences x beam), V vocabulary, W columns kept of it,
S special symbols, C model width, P latents of a sentence, X columns at once, G groups of columns.
"""

import math
from typing import Any

import torch
from fairseq.models.transformer import TransformerDecoderBase
from fairseq.search import BeamSearch
from fairseq.sequence_generator import EnsembleModel
from torch import Tensor

from fairseq_vat.models.latent_decoder import LatentAddition
from fairseq_vat.models.latent_encoder import EncoderOut

# columns of which only the largest is looked at before the best groups are known
_GROUP = 64
# logits made at once on a CPU: rows for each thread and columns, 1 MiB, which stays in the cache
_ROWS, _COLUMNS = 256, 1024


class Columns:
    """Which tokens the columns of the log-probabilities are, for model and search strategy.

    Attributes:
        special: S, the first entries of the dictionary, which are columns of every row.
        best: columns beside these, or 0 for the whole vocabulary.
    """

    def __init__(self, special: int):
        self.special = special
        self.best = 0
        self.tokens: Tensor | None = None
        self._logits: Tensor | None = None

    def clear(self) -> None:
        """The whole vocabulary from now on; memory is given back."""
        self.best, self.tokens, self._logits = 0, None, None

    def of_logits(self, logits_RV: Tensor) -> Tensor:
        """Log-probabilities (R, W) from logits or log-probabilities, which are overwritten."""
        logits_RV = logits_RV.float()
        lprobs_RW, self.tokens = self._best(logits_RV, logits_RV.logsumexp(dim=1))
        return lprobs_RW

    def of_features(self, x_RC: Tensor, weight_VC: Tensor) -> Tensor:
        """Log-probabilities (R, W) from the output layer's input and weight, on a CPU."""
        blocks, weights = x_RC.split(_ROWS * torch.get_num_threads()), weight_VC.split(_COLUMNS)
        # kept from step to step: the system takes its time over fresh pages
        if self._logits is None or len(self._logits) < len(blocks[0]):
            self._logits = x_RC.new_empty(len(blocks[0]), len(weight_VC))
        found = []
        for block_RC in blocks:
            logits_RV = self._logits[: len(block_RC)]
            norms = []
            for part_RX, weight_XC in zip(logits_RV.split(_COLUMNS, 1), weights, strict=True):
                torch.mm(block_RC, weight_XC.t(), out=part_RX)
                norms.append(part_RX.float().logsumexp(dim=1))
            found.append(self._best(logits_RV, torch.stack(norms).logsumexp(dim=0)))
        lprobs_RW, self.tokens = (torch.cat(parts) for parts in zip(*found, strict=True))
        return lprobs_RW

    def _best(self, logits_RV: Tensor, norm_R: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities and tokens, both (R, W); the logits are overwritten."""
        special_RS = logits_RV[:, : self.special].clone()
        logits_RV[:, : self.special] = -math.inf
        best, tokens = top_k(logits_RV, self.best)
        numbers_RS = torch.arange(self.special, device=tokens.device).expand(len(tokens), -1)
        lprobs_RW = torch.cat((special_RS, best), dim=1) - norm_R.unsqueeze(1)
        return lprobs_RW, torch.cat((numbers_RS, tokens), dim=1)


class ColumnBeamSearch(BeamSearch):
    """fairseq's beam search, on columns where the model gives columns."""

    def __init__(self, tgt_dict: Any, columns: Columns):
        super().__init__(tgt_dict)
        self.columns = columns

    def step(
        self, step: int, lprobs: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As fairseq's: scores, tokens and beams of the candidates, best first."""
        scores, indices, beams = super().step(step, lprobs, *args, **kwargs)
        if self.columns.best:
            _, _, width = lprobs.shape
            tokens = self.columns.tokens.view(len(lprobs), -1)
            indices = tokens.gather(1, beams * width + indices)
        return scores, indices, beams


def _keeps_memory(decoder: Any) -> bool:
    """Whether it holds keys and values of the latents, and never reads these again."""
    return isinstance(decoder, TransformerDecoderBase) and not any(
        isinstance(part, LatentAddition) for part in decoder.modules()
    )


class LatentEnsembleModel(EnsembleModel):
    """fairseq's ensemble, with less work in a step of the search.

    Encoder outputs can be handed in ready-made. The memory isn't reordered where the decoder has
    keys and values of its own. With `columns`, log-probabilities are (R, W).
    """

    def __init__(self, models: list[Any], columns: Columns):
        super().__init__(models)
        self.columns = columns
        self._keeps_memory = all(_keeps_memory(getattr(model, "decoder", None)) for model in models)
        self._repeated = False

    def forward_encoder(self, net_input: dict[str, Any]) -> list[EncoderOut] | None:
        """``net_input["encoder_outs"]`` if it is there, else the encoders' output."""
        self._repeated = False
        if "encoder_outs" in net_input:
            return net_input["encoder_outs"]
        return super().forward_encoder(net_input)

    def reorder_encoder_out(self, encoder_outs: Any, new_order: Tensor) -> Any:
        """A row for each hypothesis; after that, only what a decoder reads again is reordered."""
        if self._repeated and self._keeps_memory:
            return encoder_outs
        self._repeated = True
        return super().reorder_encoder_out(encoder_outs, new_order)

    def set_decoder_beam_size(self, beam_size: int) -> None:
        """Let cross-attention hold keys and values once a sentence, and not once a hypothesis.

        Unlike fairseq's this also goes back to 1, since a model can have several generators.
        """
        for model in self.models:
            if hasattr(model.decoder, "set_beam_size"):
                model.decoder.set_beam_size(beam_size)

    def forward_decoder(
        self,
        tokens: Tensor,
        encoder_outs: list[EncoderOut],
        incremental_states: list[dict[str, Any]],
        temperature: float = 1.0,
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities of the next token, (R, V) or (R, W), and attention (R, P) or None."""
        if not self.columns.best:
            return super().forward_decoder(tokens, encoder_outs, incremental_states, temperature)
        if self.models_size > 1:  # the mean of the models' probabilities needs all of them
            lprobs_RV, attention = super().forward_decoder(
                tokens, encoder_outs, incremental_states, temperature
            )
            return self.columns.of_logits(lprobs_RV), attention
        decoder = self.single_model.decoder
        x_R1C, extra = decoder(
            tokens,
            encoder_out=encoder_outs[0] if self.has_encoder() else None,
            incremental_state=incremental_states[0],
            features_only=True,
        )
        x_RC = x_R1C[:, -1]
        if x_RC.device.type == "cpu" and not hasattr(decoder, "scoring"):
            weight_VC = decoder.output_projection.weight
            lprobs_RW = self.columns.of_features(x_RC / temperature, weight_VC)
        else:
            lprobs_RW = self.columns.of_logits(decoder.output_layer(x_RC).div_(temperature))
        attention = (extra.get("attn") or [None])[0]
        return lprobs_RW, None if attention is None else attention[:, -1]


def top_k(x_RV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row and their columns, both (R, k), best first.

    They lie in the k groups of columns with the largest maxima, so that most columns are read by
    nothing slower than a maximum.
    """
    rows, width = x_RV.shape
    groups = width // _GROUP
    if groups <= k:
        return x_RV.topk(k)
    grouped = groups * _GROUP
    maxima_RG = x_RV[:, :grouped].unflatten(1, (groups, _GROUP)).amax(dim=-1)
    first_Rk1 = maxima_RG.topk(k, sorted=False).indices.unsqueeze(-1) * _GROUP
    inside = torch.arange(_GROUP, device=x_RV.device)
    rest = torch.arange(grouped, width, device=x_RV.device).expand(rows, -1)
    columns = torch.cat(((first_Rk1 + inside).flatten(1), rest), dim=1)
    values, places = x_RV.gather(1, columns).topk(k)
    return values, columns.gather(1, places)
