"""Latents into fairseq's own beam search and sampling.

Shape legend: B sentences, T source positions, K draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from fairseq import search
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor

from fairseq_vat.beam_search import ColumnBeamSearch, Columns, LatentEnsembleModel
from fairseq_vat.errors import VATError
from fairseq_vat.models.latent_encoder import EncoderOut, join_draws

# hypotheses decoded at once; more draws are decoded in several rounds, to bound the memory
MAX_ROWS = 1024


@dataclass(frozen=True)
class LatentSampling:
    """How latents are drawn.

    Attributes:
        samples: K, draws a sentence.
        temperature: factor on the posterior's standard deviation.
        seed: with the sentence and the draw's number it fixes the draw.
    """

    samples: int = 1
    temperature: float = 1.0
    seed: int = 1


class LatentSequenceGenerator(SequenceGenerator):
    """fairseq's search, faster, and over ``net_input["encoder_outs"]`` where that is given.

    Beam search looks at the best few tokens of a hypothesis only (`fairseq_vat.beam_search`);
    what needs whole distributions gets them.

    Args:
        models: with fairseq's incremental decoders.
        tgt_dict: the dictionary.
        search_strategy: as fairseq's; None is beam search.
        **kwargs: for `fairseq.sequence_generator.SequenceGenerator`.
    """

    def __init__(
        self, models: list[Any], tgt_dict: Any, search_strategy: Any = None, **kwargs: Any
    ):
        symbols = (tgt_dict.bos(), tgt_dict.pad(), tgt_dict.eos(), tgt_dict.unk())
        columns = Columns(special=max(symbols) + 1)
        strategy = search.BeamSearch(tgt_dict) if search_strategy is None else search_strategy
        takes_columns = True
        if type(strategy) is search.BeamSearch:
            strategy = ColumnBeamSearch(tgt_dict, columns)
        elif type(strategy) is search.LengthConstrainedBeamSearch:
            strategy.beam = ColumnBeamSearch(tgt_dict, columns)
        else:
            takes_columns = False
        ensemble = LatentEnsembleModel(models, columns)
        super().__init__(ensemble, tgt_dict, search_strategy=strategy, **kwargs)
        self.columns = columns
        self._takes_columns = (
            takes_columns
            and ensemble.has_incremental_states()
            and self.eos < columns.special
            and self.lm_model is None
            and self.repeat_ngram_blocker is None
            and self.token_indices_to_suppress is None
        )

    def _generate(
        self,
        sample: dict[str, Any],
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
        bos_token: int | None = None,
    ) -> list[list[dict[str, Tensor]]]:
        """fairseq's search, on columns where nothing needs the whole vocabulary."""
        whole = len(self.tgt_dict)
        if self._takes_columns and prefix_tokens is None:
            self.columns.best = min(2 * self.beam_size, whole - self.columns.special)
            self.vocab_size = self.columns.special + self.columns.best
        self.model.set_decoder_beam_size(self.beam_size)
        try:
            return super()._generate(sample, prefix_tokens, constraints, bos_token)
        finally:  # the model is others' too
            self.model.set_decoder_beam_size(1)
            self.columns.best, self.columns.tokens, self.vocab_size = 0, None, whole


class VariationalSequenceGenerator(LatentSequenceGenerator):
    """Draws K latent sequences a sentence and decodes each with fairseq's search.

    The encoder runs once a batch. In an ensemble every model draws from its own posterior, with
    the same noise. Where a batch has ``latent_positions`` (B, T), only the latents at these
    positions are drawn; the others stay at their mean (VAT paper, section 5, "Table 2").

    Args:
        models: models with a `LatentEncoder`.
        tgt_dict: the dictionary.
        latent_sampling: how latents are drawn.
        nbest: hypotheses kept of each draw.
        **kwargs: for `fairseq.sequence_generator.SequenceGenerator`.

    Raises:
        VATError: if a model has no latents.
    """

    def __init__(
        self,
        models: list[Any],
        tgt_dict: Any,
        latent_sampling: LatentSampling,
        nbest: int = 1,
        **kwargs: Any,
    ):
        if not all(hasattr(getattr(model, "encoder", None), "draw") for model in models):
            raise VATError("--latent-sampling needs models with latents, such as vat_transformer")
        super().__init__(models, tgt_dict, **kwargs)
        self.latent_sampling = latent_sampling
        self.nbest = nbest

    def _generate(
        self,
        sample: dict[str, Any],
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
        bos_token: int | None = None,
    ) -> list[list[dict[str, Tensor]]]:
        """K x nbest hypotheses a sentence, in the order of the draws."""
        net_input = sample["net_input"]
        sentences = net_input["src_tokens"].size(0)
        encoder_outs = self.model.forward_encoder(net_input)
        at_once = max(1, MAX_ROWS // (sentences * self.beam_size))
        hypotheses: list[list[dict[str, Tensor]]] = [[] for _ in range(sentences)]
        for first in range(0, self.latent_sampling.samples, at_once):
            numbers = range(first, min(first + at_once, self.latent_sampling.samples))
            decoded = super()._generate(
                self._with_draws(sample, encoder_outs, numbers),
                _repeat(prefix_tokens, len(numbers)),
                _repeat(constraints, len(numbers)),
                bos_token,
            )
            for row, found in enumerate(decoded):
                hypotheses[row // len(numbers)].extend(found[: self.nbest])
        return hypotheses

    def _with_draws(
        self, sample: dict[str, Any], encoder_outs: list[EncoderOut], numbers: range
    ) -> dict[str, Any]:
        """The batch with every sentence repeated for its draws, and their latents as memory."""
        sampling, positions_BT = self.latent_sampling, sample.get("latent_positions")
        draws = [
            join_draws(
                [
                    model.encoder.draw(out, sampling.seed, k, sampling.temperature, positions_BT)
                    for k in numbers
                ]
            )
            for model, out in zip(self.model.models, encoder_outs, strict=True)
        ]
        net_input = sample["net_input"]
        repeated = {
            "src_tokens": _repeat(net_input["src_tokens"], len(numbers)),
            "encoder_outs": draws,
        }
        if "src_lengths" in net_input:
            repeated["src_lengths"] = _repeat(net_input["src_lengths"], len(numbers))
        return {"net_input": repeated}


def empty_hypothesis(eos: int, device: torch.device) -> dict[str, Tensor]:
    """What an empty sentence is answered with: nothing but the end of sentence, score 0."""
    return {
        "tokens": torch.tensor([eos], device=device),
        "score": torch.tensor(0.0, device=device),
        "attention": torch.empty(0, device=device),
        "alignment": torch.empty(0, device=device),
        "positional_scores": torch.zeros(1, device=device),
    }


def _repeat(x: Tensor | None, times: int) -> Tensor | None:
    return None if x is None else x.repeat_interleave(times, dim=0)
