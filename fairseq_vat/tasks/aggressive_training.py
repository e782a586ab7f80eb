"""Aggressive training in fairseq's loop, by hooks of the task alone.

fairseq's trainer goes on as ever: a batch, its gradients, an optimizer step. What is updated is
decided where it hands the step to the task.
"""

import logging
from dataclasses import asdict
from typing import Any, Optional

import torch
from fairseq.logging import metrics
from fairseq.optim.bmuf import FairseqBMUF
from fairseq.tasks import FairseqTask

from fairseq_vat.errors import VATError
from fairseq_vat.measures.mutual_information import mutual_information
from fairseq_vat.tasks.aggressive import FLAG, AggressiveTraining, Phase, Step, keep_gradients

logger = logging.getLogger(__name__)

# of the draws behind the mutual information: always the same, so that looks can be compared
_SEED = 0


class AggressiveTask(FairseqTask):
    """A task whose first updates may move the encoder alone or the decoder alone.

    Args:
        cfg: with ``aggressive_encoder_updates`` (0 for ordinary training),
            ``aggressive_max_updates`` and ``validate_interval_updates``.

    Raises:
        VATError: for flags out of range, and for a phase that would never end.
    """

    def __init__(self, cfg: Any):
        super().__init__(cfg)
        self.aggressive = _aggressive_training(cfg)
        self._updating: Optional[tuple[Step, int]] = None  # from optimizer step to its figures
        self._updates = 0
        self._looking = False  # whether this validation's mutual information counts

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """fairseq's; refuses aggressive training of a model that has no encoder."""
        model = super().build_model(cfg, from_checkpoint)
        if self.aggressive is not None and not hasattr(model, "encoder"):
            raise VATError(f"{FLAG} needs a model with latents: a language model has no encoder")
        return model

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """Step, after taking away the gradients of what isn't to move."""
        if self.aggressive is not None:
            _check_wrappers(optimizer, model)
            step = self.aggressive.next_step()
            keep_gradients(optimizer, model, step)
            self._updating = (step, update_num)
        super().optimizer_step(optimizer, model, update_num)

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """fairseq's; after an update, also what comes next is decided.

        The sums are those of all processes, so that each decides the same.
        """
        super().reduce_metrics(logging_outputs, criterion)

        def total(key: str) -> float:
            return float(sum(log.get(key, 0) for log in logging_outputs))

        if any("mi" in log for log in logging_outputs):
            latents = max(total("mi_latents"), 1.0)
            metrics.log_scalar("mi", total("mi") / latents, latents, round=3)
        # neither validation nor a step that overflowed gets here with an update
        if self._updating is not None:
            step, update_num = self._updating
            self._updating, self._updates = None, update_num + 1
            metrics.log_scalar("encoder_only", 100.0 * (step is Step.encoder), round=1)
            self._say_why(self.aggressive.made(step, total("loss"), total("ntokens")))

    def begin_valid_epoch(self, epoch: int, model: Any) -> None:
        """Only validations at ``--validate-interval-updates`` count.

        fairseq also validates where a run is stopped: were that one looked at, the resumed run
        would no longer be the run that was never stopped.
        """
        super().begin_valid_epoch(epoch, model)
        self._updating = None
        interval = self.cfg.validate_interval_updates
        self._looking = (
            self.aggressive is not None
            and self.aggressive.phase.active
            and interval > 0
            and self._updates % interval == 0
        )

    def valid_step(self, sample: dict[str, Any], model: Any, criterion: Any) -> tuple:
        """fairseq's, with the batch's mutual information where it is looked at."""
        loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        if self._looking:
            logging_output.update(_information(model.encoder, sample["net_input"]))
        return loss, sample_size, logging_output

    def post_validate(self, model: Any, stats: dict[str, Any], agg: Any) -> None:
        """Called after each validation subset: the first one's mutual information decides."""
        if self._looking:
            self._looking = False
            self._say_why(self.aggressive.look(float(agg["mi"].avg)))

    def get_checkpoint_dict(self) -> dict[str, Any]:
        """What a training that resumes is to find again; fairseq asks at every checkpoint."""
        if self.aggressive is None:
            return {}
        return {type(self).__name__: {"aggressive": asdict(self.aggressive.phase)}}

    def set_checkpoint_dict(self, state: dict[str, Any]) -> None:
        """Go on where the checkpoint was; not called with ``--reset-dataloader``."""
        if self.aggressive is not None and "aggressive" in state:
            self.aggressive.phase = Phase(**state["aggressive"])

    def _say_why(self, reason: Optional[str]) -> None:
        if reason is not None:
            phase = self.aggressive.phase
            logger.info(
                f"aggressive training ended after {phase.updates:,} updates, "
                f"{phase.decoder_updates:,} of them the decoder's: {reason}"
            )


def _aggressive_training(cfg: Any) -> Optional[AggressiveTraining]:
    """What the flags ask for; None for ordinary training."""
    if cfg.aggressive_encoder_updates == 0:
        if cfg.aggressive_max_updates is not None:
            raise VATError(f"--aggressive-max-updates needs {FLAG}: without it there is no phase")
        return None
    try:
        aggressive = AggressiveTraining(cfg.aggressive_encoder_updates, cfg.aggressive_max_updates)
    except ValueError as error:
        raise VATError(str(error)) from None
    if cfg.aggressive_max_updates is None and cfg.validate_interval_updates < 1:
        raise VATError(
            f"{FLAG} needs an end: --validate-interval-updates V, to stop when the mutual "
            "information measured there falls, or --aggressive-max-updates N"
        )
    return aggressive


def _check_wrappers(optimizer: Any, model: Any) -> None:
    """Refuse what moves parameters beside the optimizer's step."""
    if isinstance(optimizer, FairseqBMUF):
        raise VATError(f"{FLAG} can't be combined with --use-bmuf, whose processes drift apart")
    if hasattr(model, "perform_slowmo"):
        raise VATError(f"{FLAG} can't be combined with --ddp-backend slowmo, which moves it all")


@torch.no_grad()
def _information(encoder: Any, net_input: dict[str, Any]) -> dict[str, float]:
    """Mutual information of a batch, times its latents, and their number."""
    out = encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])
    keep_PB = ~out["encoder_padding_mask"][0].t()
    posterior = encoder.posterior(out)
    z_PBL = encoder.draw(out, _SEED)["encoder_out"][0]
    latents = [x_PBL[keep_PB] for x_PBL in (posterior.mean, posterior.logvar, z_PBL)]
    mi = mutual_information(*latents)
    return {"mi": mi.paired * mi.latents, "mi_latents": mi.latents}
