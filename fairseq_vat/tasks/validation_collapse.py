"""A line in the log, once, when the posterior has collapsed: by a hook of the task alone."""

import logging
from typing import Any

from fairseq.distributed import utils as distributed_utils
from fairseq.tasks import FairseqTask

from fairseq_vat.measures import collapse

logger = logging.getLogger(__name__)

# the share of its full weight that the annealing has to have reached: before, the KL can't have
# pressed the latents out, and the decoder may not have learned yet to use them
_ANNEALED = 0.1


class CollapseTask(FairseqTask):
    """A task that looks at each validation whether the decoder still uses the latents."""

    def __init__(self, cfg: Any):
        super().__init__(cfg)
        self._criterion: Any = None  # of the last validation
        self._told = False

    def valid_step(self, sample: dict[str, Any], model: Any, criterion: Any) -> tuple:
        """fairseq's; the criterion knows how far the annealing is."""
        self._criterion = criterion
        return super().valid_step(sample, model, criterion)

    def post_validate(self, model: Any, stats: dict[str, Any], agg: Any) -> None:
        """Called by fairseq after each validation subset; warns once in a run."""
        if hasattr(super(), "post_validate"):
            super().post_validate(model, stats, agg)
        # a language model, or another criterion, has no gain
        if self._told or "latent_gain" not in stats:
            return
        update = stats["num_updates"]
        if self._criterion.annealing.weight(update) < _ANNEALED:
            return
        nll_prior = stats["nll_loss"] + stats["latent_gain"]
        why = collapse.reason(
            kl_nats=stats["kl_nats"],
            gain=stats["latent_gain"] / nll_prior if nll_prior > 0 else None,
            active_units=int(agg.get_smoothed_value("_active_units_least")),
        )
        if why is not None:
            self._told = True
            if distributed_utils.get_global_rank() == 0:
                logger.warning(f"update {update:,}: {collapse.message(why)}")
