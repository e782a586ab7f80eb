"""Isotropy of the latents at each validation, by hooks of the task alone.

What a batch adds are sums, which fairseq adds up over batches and processes; the measures follow
from the sums of them all, so that they don't depend on either.

Shape legend: B sentences, T source positions, N vectors measured, L latent width.
"""

import math
from typing import Any

import torch
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.measures.isotropy import (
    intra_sentence_similarity,
    iso_score,
    mean_cosine,
    unit_vectors,
)
from fairseq_vat.measures.word_tokens import random_words, words_of

FLAG = "--log-isotropy"
# of the random words: always the same, so that validations can be compared
_SEED = 1
_SUMS = ("random", "unit_sum", "vectors", "sum", "product")


class IsotropyTask(FairseqTask):
    """A task that can measure the latents' isotropy in validation.

    Args:
        cfg: with ``log_isotropy``: how many sentences of a subset, the first ones; 0 for none.

    Raises:
        VATError: for a number below 0, and for a model without latents.
    """

    def __init__(self, cfg: Any):
        super().__init__(cfg)
        if cfg.log_isotropy < 0:
            raise VATError(f"{FLAG} must be a number of sentences, 0 or more: {cfg.log_isotropy}")

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """fairseq's; refuses to measure a model that has no latents."""
        model = super().build_model(cfg, from_checkpoint)
        if self.cfg.log_isotropy > 0 and not hasattr(model, "encoder"):
            raise VATError(f"{FLAG} needs a model with latents: a language model has none")
        return model

    def valid_step(self, sample: dict[str, Any], model: Any, criterion: Any) -> tuple:
        """fairseq's, with the sums of the sentences that are measured."""
        loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        if self.cfg.log_isotropy > 0:
            keep_B = sample["id"] < self.cfg.log_isotropy
            logging_output.update(
                _sums(model.encoder, sample["net_input"], keep_B, self.source_dictionary)
            )
        return loss, sample_size, logging_output

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """fairseq's, and the measures where their sums are."""
        super().reduce_metrics(logging_outputs, criterion)
        logs = [log for log in logging_outputs if "isotropy_vectors" in log]
        if logs:
            _log({name: sum(log[f"isotropy_{name}"] for log in logs) for name in _SUMS})
            # a latent for each sentence has none of this
            if "isotropy_intra" in logs[0]:
                sentences = float(sum(log["isotropy_sentences"] for log in logs))
                total = float(sum(log["isotropy_intra"] for log in logs))
                if sentences:
                    name = "isotropy_intra_sentence_similarity"
                    metrics.log_scalar(name, total / sentences, sentences, round=4)


@torch.no_grad()
def _sums(
    encoder: Any, net_input: dict[str, Any], keep_B: Tensor, dictionary: Any
) -> dict[str, Tensor]:
    """A batch's sums, zero where none of its sentences is measured: each batch has all names."""
    tokens_BT = net_input["src_tokens"][keep_B]
    token_level = encoder.latent_level == "token"
    vectors_NL = torch.zeros(0, encoder.latent_dim, dtype=torch.float64, device=tokens_BT.device)
    random_N = sentence_N = torch.zeros(0, dtype=torch.bool, device=tokens_BT.device)
    word_BT = words_of(tokens_BT, dictionary)
    if word_BT.any():
        out = encoder(tokens_BT, src_lengths=net_input["src_lengths"][keep_B])
        mean_BPL = encoder.posterior(out).mean.transpose(0, 1).double()
        where_BP = word_BT if token_level else word_BT.any(dim=1, keepdim=True)
        vectors_NL, sentence_N = mean_BPL[where_BP], where_BP.nonzero()[:, 0]
        random_BP = random_words(tokens_BT, dictionary, _SEED) if token_level else where_BP
        random_N = random_BP[where_BP]
        # without a direction: nothing to measure, and no reason to end a training
        usable_N = (vectors_NL.norm(dim=1) > 0) & vectors_NL.isfinite().all(dim=1)
        vectors_NL, sentence_N, random_N = (x[usable_N] for x in (vectors_NL, sentence_N, random_N))
    sums = {
        "random": random_N.sum(),
        "unit_sum": unit_vectors(vectors_NL)[random_N].sum(dim=0),
        "vectors": vectors_NL.new_tensor(len(vectors_NL)),
        "sum": vectors_NL.sum(dim=0),
        "product": vectors_NL.t() @ vectors_NL,
    }
    if token_level:
        cosines_G = intra_sentence_similarity(vectors_NL, sentence_N)
        sums["intra"] = cosines_G.sum()
        sums["sentences"] = vectors_NL.new_tensor(len(cosines_G))
    return {f"isotropy_{name}": value for name, value in sums.items()}


def _log(sums: dict[str, Tensor]) -> None:
    """Log the sums, hidden by their underscore, and what is derived from them.

    The names hold the width, as one of fairseq's aggregators outlives a run.
    """
    width = len(sums["sum"])
    for name, value in sums.items():
        metrics.log_scalar_sum(f"_isotropy_{name}_{width}", value)

    def total(meters: Any, name: str) -> Any:
        return meters[f"_isotropy_{name}_{width}"].sum

    def random_cosine(meters: Any) -> float:
        count = int(total(meters, "random"))
        return _figure(mean_cosine(count, total(meters, "unit_sum")))

    def score(meters: Any) -> float:
        count = int(total(meters, "vectors"))
        return _figure(iso_score(count, total(meters, "sum"), total(meters, "product")))

    metrics.log_derived("isotropy_random_cosine", random_cosine)
    metrics.log_derived("isotropy_iso_score", score)


def _figure(value: Any) -> float:
    return math.nan if value is None else round(value, 4)
