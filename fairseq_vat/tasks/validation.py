"""What validation measures beside the criterion, by hooks of the task alone.

The isotropy of the latents, where it is asked for; their mutual information with the sentences,
where aggressive training looks at it; and a line in the log, once, when the posterior
collapses: there or, by what the log interval shows, between validations.

What a batch adds are sums, which fairseq adds up over batches and processes. Isotropy follows from
the sums of them all, so it doesn't depend on either; mutual information is the mean over batches.

Shape legend: B sentences, T source positions, N vectors measured, L latent width.
"""

import logging
import math
from typing import Any

import torch
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.measures import collapse
from fairseq_vat.measures.isotropy import (
    intra_sentence_similarity,
    iso_score,
    mean_cosine,
    random_words,
    unit_vectors,
    words_of,
)
from fairseq_vat.measures.mutual_information import mutual_information

logger = logging.getLogger(__name__)

FLAG = "--log-isotropy"
# of the draws behind the mutual information, and of isotropy's random words: always the same, so
# that validations can be compared
MI_SEED, _WORDS_SEED = 0, 1
_SUMS = ("random", "unit_sum", "vectors", "sum", "product")
# the share of its full weight that the annealing has to have reached: before, the KL can't have
# pressed the latents out, and the decoder may not have learned yet to use them
_ANNEALED = 0.1


class ValidationTask(FairseqTask):
    """A task that measures the latents in validation.

    Args:
        cfg: with ``log_isotropy``: how many sentences of a subset, the first ones; 0 for none.
    """

    def __init__(self, cfg: Any):
        super().__init__(cfg)
        if cfg.log_isotropy < 0:
            raise VATError(f"{FLAG} must be a number of sentences, 0 or more: {cfg.log_isotropy}")
        self.measures_mi = False  # in the validation that is going on
        self._criterion: Any = None  # knows how far the annealing is
        self._collapsed = False  # whether it was told

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """fairseq's; refuses to measure a model that has no latents."""
        model = super().build_model(cfg, from_checkpoint)
        if self.cfg.log_isotropy > 0 and not hasattr(model, "encoder"):
            raise VATError(f"{FLAG} needs a model with latents: a language model has none")
        return model

    def get_batch_iterator(self, *args: Any, **kwargs: Any) -> Any:
        """fairseq's; its loader processes end with their batches (`compat.loaders`).

        fairseq would keep them for a next epoch, but each has an iterator of its own.
        """
        iterator = super().get_batch_iterator(*args, **kwargs)
        iterator.persistent_workers = False
        return iterator

    def valid_step(self, sample: dict[str, Any], model: Any, criterion: Any) -> tuple:
        """fairseq's, with the sums of what is measured of this batch."""
        loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        if self.measures_mi:
            logging_output.update(batch_information(model.encoder, sample["net_input"]))
        if self.cfg.log_isotropy > 0:
            keep_B = sample["id"] < self.cfg.log_isotropy
            logging_output.update(
                _isotropy_sums(model.encoder, sample["net_input"], keep_B, self.source_dictionary)
            )
        return loss, sample_size, logging_output

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """fairseq's, and the measures where their sums are."""
        super().reduce_metrics(logging_outputs, criterion)
        self._criterion = criterion

        def total(key: str) -> Any:
            return sum(log.get(key, 0) for log in logging_outputs)

        keys = {key for log in logging_outputs for key in log}
        if "mi" in keys:
            latents = max(float(total("mi_latents")), 1.0)
            metrics.log_scalar("mi", float(total("mi")) / latents, latents, round=3)
        if "isotropy_vectors" in keys:
            _log_isotropy({name: total(f"isotropy_{name}") for name in _SUMS})
        # a latent for each sentence has none of this
        sentences = float(total("isotropy_sentences"))
        if sentences:
            name = "isotropy_intra_sentence_similarity"
            metrics.log_scalar(name, float(total("isotropy_intra")) / sentences, sentences, round=4)

    def post_log(self, update: int, stats: dict[str, Any]) -> None:
        """Called after each log interval of the training; warns of collapse once in a run."""
        # a language model, or another criterion, has none
        if stats.get("kl_nats") is not None:
            self._warn_of_collapse(update, stats, metrics.get_meters("train_inner"))

    def post_validate(self, model: Any, stats: dict[str, Any], agg: Any) -> None:
        """Called by fairseq after each validation subset; warns of collapse once in a run."""
        if "latent_gain" in stats:
            nll_prior = stats["nll_loss"] + stats["latent_gain"]
            gain = stats["latent_gain"] / nll_prior if nll_prior > 0 else None
            self._warn_of_collapse(stats["num_updates"], stats, agg, gain)

    def _warn_of_collapse(
        self, update: int, stats: dict[str, Any], meters: Any, gain: float | None = None
    ) -> None:
        if self._collapsed or self._criterion.annealing.weight(update) < _ANNEALED:
            return
        why = collapse.reason(
            kl_nats=stats["kl_nats"],
            gain=gain,
            active_units=int(meters.get_smoothed_value("_most_active_units")),
        )
        if why is not None:
            self._collapsed = True
            if distributed_utils.get_global_rank() == 0:
                logger.warning(f"update {update:,}: {collapse.message(why)}")


@torch.no_grad()
def batch_information(encoder: Any, net_input: dict[str, Any]) -> dict[str, float]:
    """A batch's sums: ``mi``, its mutual information times its latents, and ``mi_latents``."""
    out = encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])
    keep_PB = ~out["encoder_padding_mask"][0].t()
    posterior = encoder.posterior(out)
    z_PBL = encoder.draw(out, MI_SEED)["encoder_out"][0]
    mi = mutual_information(*(x[keep_PB] for x in (posterior.mean, posterior.logvar, z_PBL)))
    return {"mi": mi.paired * mi.latents, "mi_latents": mi.latents}


@torch.no_grad()
def _isotropy_sums(
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
        random_BP = random_words(tokens_BT, dictionary, _WORDS_SEED) if token_level else where_BP
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
    # each batch's are kept until the last, and fairseq adds them up over workers from there as well
    return {f"isotropy_{name}": value.cpu() for name, value in sums.items()}


def _log_isotropy(sums: dict[str, Tensor]) -> None:
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
