"""Latents into fairseq's own beam search and sampling.

Shape legend: B sentences, T source positions, K draws.
"""

from dataclasses import dataclass
from typing import Any

import torch
from fairseq import search
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.models.latent_encoder import EncoderOut, join_draws
from fairseq_vat.tasks.beam_search import ColumnBeamSearch, Columns, LatentEnsembleModel

# hypotheses decoded at once, and source tokens over all of them; more are decoded in several
# rounds, since what leaves the cache isn't faster together, and keys and values take memory
MAX_ROWS, MAX_TOKENS = 1024, 65536

# what of a batch's input the search reads itself
_SOURCE = ("src_tokens", "src_lengths")


@dataclass(frozen=True)
class LatentSampling:
    """How latents are drawn."""

    samples: int = 1
    temperature: float = 1.0
    seed: int = 1  # with the sentence and the draw's number it fixes the draw


class LatentSequenceGenerator(SequenceGenerator):
    """fairseq's search, faster, and over ``net_input["encoder_outs"]`` where that is given.

    Beam search looks at the best few tokens of a hypothesis only (`fairseq_vat.tasks.beam_search`);
    what needs whole distributions gets them.
    """

    def __init__(
        self, models: list[Any], tgt_dict: Any, search_strategy: Any = None, **kwargs: Any
    ):
        if getattr(kwargs.get("lm_model"), "has_latents", False):
            raise VATError("--lm-path needs a language model, such as transformer_decoder_lm")
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
        self.model.set_decoder_beam_size(1)  # until the search: the model is others' too
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
        """fairseq's hypotheses of each sentence, searched for in rounds."""
        tokens_BT = sample["net_input"]["src_tokens"]
        sentences, at_once = len(tokens_BT), self._at_once(sample, prefix_tokens)
        if sentences <= at_once or not self.model.has_encoder():
            return self._search(sample, prefix_tokens, constraints, bos_token)
        encoder_outs = self.model.forward_encoder(sample["net_input"])
        found = []
        for rows in torch.arange(sentences, device=tokens_BT.device).split(at_once):
            part = self._part(sample, encoder_outs, rows)
            found += self._search(part, None, _select(constraints, rows), bos_token)
        return found

    def _search(
        self,
        sample: dict[str, Any],
        prefix_tokens: Tensor | None,
        constraints: Tensor | None,
        bos_token: int | None,
    ) -> list[list[dict[str, Tensor]]]:
        """fairseq's search, on columns where nothing needs the whole vocabulary."""
        whole = len(self.tgt_dict)
        if self.match_source_len:  # fairseq counts start token and end where it is given lengths
            tokens_BT, ends = (
                sample["net_input"]["src_tokens"],
                (self.tgt_dict.bos(), self.pad, self.eos),
            )
            words_B = sum(tokens_BT.ne(symbol) for symbol in ends).eq(len(ends)).sum(dim=1)
            sample = {**sample, "net_input": {**sample["net_input"], "src_lengths": words_B}}
        if self._takes_columns and prefix_tokens is None:
            self.columns.best = min(2 * self.beam_size, whole - self.columns.special)
            self.vocab_size = self.columns.special + self.columns.best
        self.model.set_decoder_beam_size(self.beam_size)
        try:
            return super()._generate(sample, prefix_tokens, constraints, bos_token)
        except AssertionError as error:
            if "min_len" not in str(error):
                raise
            raise VATError(
                f"--min-len {self.min_len}: longer than the longest output, which --max-len-a, "
                "--max-len-b and the model's positions limit"
            ) from None
        finally:  # the model is others' too
            self.model.set_decoder_beam_size(1)
            self.columns.clear()
            self.vocab_size = whole

    def _at_once(self, sample: dict[str, Any], prefix_tokens: Tensor | None) -> int:
        """Sentences, or draws of them, in a round."""
        sentences, length = sample["net_input"]["src_tokens"].shape
        if not self._takes_columns or prefix_tokens is not None:
            return max(sentences, MAX_ROWS // self.beam_size)  # as fairseq has them
        return max(1, min(MAX_ROWS, MAX_TOKENS // length) // self.beam_size)

    def _part(
        self, sample: dict[str, Any], encoder_outs: list[EncoderOut], rows: Tensor
    ) -> dict[str, Any]:
        """The batch's sentences of these numbers, with what the encoder made of them."""
        net_input = sample["net_input"]
        chosen = {name: net_input[name][rows] for name in _SOURCE if name in net_input}
        pairs = zip(self.model.models, encoder_outs, strict=True)
        chosen["encoder_outs"] = [model.encoder.reorder_encoder_out(x, rows) for model, x in pairs]
        part = {"net_input": chosen}
        if sample.get("latent_positions") is not None:
            part["latent_positions"] = sample["latent_positions"][rows]
        return part


class VariationalSequenceGenerator(LatentSequenceGenerator):
    """Draws K latent sequences a sentence and decodes each with fairseq's search.

    The encoder runs once a batch. In an ensemble every model draws from its own posterior, with
    the same noise. Where a batch has ``latent_positions`` (B, T), only the latents at these
    positions are drawn; the others stay at their mean (VAT paper, section 5, "Table 2").
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
        encoder_outs = self.model.forward_encoder(sample["net_input"])
        tokens_BT, draws = sample["net_input"]["src_tokens"], self.latent_sampling.samples
        sentences, at_once = len(tokens_BT), self._at_once(sample, prefix_tokens)
        draws_at_once = min(draws, max(1, at_once // sentences))
        if self._takes_columns and prefix_tokens is None:  # all draws of some sentences
            draws_at_once = min(draws, at_once)
        hypotheses: list[list[dict[str, Tensor]]] = []
        order = torch.arange(sentences, device=tokens_BT.device)
        for rows in order.split(max(1, at_once // draws_at_once)):
            part = self._part(sample, encoder_outs, rows)
            found: list[list[dict[str, Tensor]]] = [[] for _ in rows]
            for first in range(0, draws, draws_at_once):
                numbers = range(first, min(first + draws_at_once, draws))
                decoded = self._search(
                    self._with_draws(part, numbers),
                    _repeat(_select(prefix_tokens, rows), len(numbers)),
                    _repeat(_select(constraints, rows), len(numbers)),
                    bos_token,
                )
                for row, best in enumerate(decoded):
                    name = f"latents: draw {numbers[row % len(numbers)] + 1}"
                    found[row // len(numbers)] += [
                        {**one, "steps": name} for one in best[: self.nbest]
                    ]
            hypotheses += found
        return hypotheses

    def _with_draws(self, sample: dict[str, Any], numbers: range) -> dict[str, Any]:
        """The batch with every sentence repeated for its draws, and their latents as memory."""
        sampling, positions_BT = self.latent_sampling, sample.get("latent_positions")
        net_input = sample["net_input"]
        draws = [
            join_draws(
                [
                    model.encoder.draw(out, sampling.seed, k, sampling.temperature, positions_BT)
                    for k in numbers
                ]
            )
            for model, out in zip(self.model.models, net_input["encoder_outs"], strict=True)
        ]
        repeated = {
            name: _repeat(net_input[name], len(numbers)) for name in _SOURCE if name in net_input
        }
        return {"net_input": {**repeated, "encoder_outs": draws}}


def check_generation(models: list[Any], args: Any, sampling: LatentSampling | None) -> None:
    """Raise `VATError` for models, or settings of fairseq's generation, that don't go together."""
    if len({hasattr(model, "encoder") for model in models}) > 1:
        raise VATError("--path: an ensemble can't mix language models and models with latents")
    levels = {str(model.encoder.latent_level) for model in models if hasattr(model, "encoder")}
    if len(levels) > 1:
        raise VATError("--path: an ensemble can't mix latents of sentences and of tokens")
    types = min((len(model.decoder.dictionary) for model in models), default=args.beam)
    if args.beam > types:
        raise VATError(f"--beam {args.beam}: the dictionary has {types} types; give fewer")
    if getattr(args, "sampling_topk", -1) > types:
        raise VATError(
            f"--sampling-topk {args.sampling_topk}: the dictionary has {types} types; give fewer"
        )
    for flag in ("print_alignment", "score_reference"):
        if sampling is not None and getattr(args, flag, None):
            name = flag.replace("_", "-")
            raise VATError(f"--{name} can't be combined with --latent-sampling")
    if getattr(args, "print_alignment", None) and not all(map(_aligns, models)):
        raise VATError("--print-alignment needs a Transformer decoder and a latent for every token")


def _aligns(model: Any) -> bool:
    """Whether the decoder attends to latents of single tokens, and says how much."""
    level = getattr(getattr(model, "encoder", None), "latent_level", None)
    return level == "token" and model.cfg.decoder_type == "transformer"


def align_words(hypotheses: list[list[dict[str, Any]]], start_token: bool) -> Any:
    """Alignments, pairs or rows of shares, that count the source's words as they are printed."""

    def shifted(alignment: Any) -> Any:
        if len(alignment) == 0 or not start_token:
            return alignment
        if isinstance(alignment[0], tuple):
            return [(source - 1, target) for source, target in alignment if source > 0]
        return [shares[1:] for shares in alignment]

    return [
        [{**one, "alignment": shifted(one["alignment"])} for one in of_sentence]
        for of_sentence in hypotheses
    ]


def answer_empty(
    hypotheses: list[list[dict[str, Tensor]]], tokens_BT: Tensor, dictionary: Any
) -> list[list[dict[str, Tensor]]]:
    """Hypotheses, those of sentences without words the end of sentence alone, with score 0.

    What no draw is named for is from the mean: in ``steps``, which fairseq-generate prints in a
    line of its own (``I-``), so that its output says what it is.
    """
    special = (dictionary.bos(), dictionary.pad(), dictionary.eos())
    empty_B = torch.stack([tokens_BT.eq(symbol) for symbol in special]).any(dim=0).all(dim=1)
    nothing = {
        "tokens": tokens_BT.new_tensor([dictionary.eos()]),
        "score": torch.tensor(0.0, device=tokens_BT.device),
        "attention": torch.empty(0, device=tokens_BT.device),
        "alignment": torch.empty(0, device=tokens_BT.device),
        "positional_scores": torch.zeros(1, device=tokens_BT.device),
    }
    return [
        [{"steps": "latents: mean", **one, **(nothing if empty else {})} for one in of_sentence]
        for of_sentence, empty in zip(hypotheses, empty_B.tolist(), strict=True)
    ]


def _select(x: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if x is None else x[rows]


def _repeat(x: Tensor | None, times: int) -> Tensor | None:
    return None if x is None else x.repeat_interleave(times, dim=0)
