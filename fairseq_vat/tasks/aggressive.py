"""Aggressive training: the encoder runs ahead of the decoder until it has caught up with it.

He et al. (2019), "Lagging inference networks and posterior collapse in variational autoencoders",
algorithm 1: early in training the posterior q(z | x) lags behind the decoder, which therefore
learns to do without z. So, for as long as the mutual information of sentences and latents rises,
the encoder alone is updated until its loss stops falling, then the decoder alone once.

The rule, as a state machine over updates; what it does to gradients; the task's hooks. fairseq's
trainer goes on as ever: what is updated is decided where it hands a step to the task.
"""

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from fairseq.logging import metrics
from fairseq.optim.bmuf import FairseqBMUF
from torch import nn

from fairseq_vat.errors import VATError
from fairseq_vat.tasks.validation import ValidationTask

logger = logging.getLogger(__name__)

FLAG = "--aggressive-encoder-updates"

# encoder updates whose losses are averaged and compared with those before (the paper's section 4.2)
WINDOW = 10


class Step(Enum):
    """Whose parameters an update changes."""

    encoder = "encoder"
    decoder = "decoder"
    both = "both"


@dataclass
class Phase:
    """Where aggressive training stands: plain numbers, all of which a checkpoint keeps."""

    active: bool = True  # false once the phase has ended, for good
    updates: int = 0
    decoder_updates: int = 0
    run: int = 0  # encoder updates since the decoder's last one
    converged: bool = False  # whether the encoder's loss has stopped falling in this run
    window_loss: float = 0.0
    window_tokens: float = 0.0
    last_loss: float | None = None  # loss per token in the window before; None in a run's first
    # mutual information when it was last looked at, in nats; None before
    last_mi: float | None = None


@dataclass
class AggressiveTraining:
    """He et al.'s algorithm 1, one update at a time."""

    # K, the most updates of the encoder alone before one of the decoder. Up to `WINDOW` it is their
    # exact number; from there on a run ends earlier if the loss over the last `WINDOW` of them
    # isn't lower than over those before
    encoder_updates: int
    # updates after which the phase ends at the latest; None for no bound
    max_updates: int | None = None
    phase: Phase = field(default_factory=Phase)

    def next_step(self) -> Step:
        """Whose turn it is."""
        if not self.phase.active or self._is_over():
            return Step.both
        if self.phase.converged or self.phase.run >= self.encoder_updates:
            return Step.decoder
        return Step.encoder

    def made(self, step: Step, loss: float, tokens: float) -> str | None:
        """Take note of an update.

        Returns:
            why the phase ended with this update, or None.
        """
        phase = self.phase
        if step is Step.both:
            return None
        phase.updates += 1
        if step is Step.decoder:
            phase.decoder_updates += 1
            phase.run, phase.converged, phase.last_loss = 0, False, None
            phase.window_loss = phase.window_tokens = 0.0
        else:
            self._watch(loss, tokens)
        if self._is_over():
            phase.active = False
            return f"--aggressive-max-updates {self.max_updates} were made"
        return None

    def look(self, mi: float) -> str | None:
        """Take note of the mutual information on validation data, in nats.

        Returns:
            why the phase ended with it, or None: it ends when the information no longer climbs.
        """
        before, self.phase.last_mi = self.phase.last_mi, mi
        if before is None or mi >= before:
            return None
        self.phase.active = False
        return f"mutual information on validation data fell from {before:.3f} to {mi:.3f} nats"

    def _is_over(self) -> bool:
        # also asked before an update: a resumed run may have been given a smaller bound
        return self.max_updates is not None and self.phase.updates >= self.max_updates

    def _watch(self, loss: float, tokens: float) -> None:
        phase = self.phase
        phase.run += 1
        phase.window_loss += loss
        phase.window_tokens += tokens
        if phase.run % WINDOW == 0:
            mean = phase.window_loss / max(phase.window_tokens, 1.0)
            phase.converged = phase.last_loss is not None and mean > phase.last_loss
            phase.last_loss, phase.window_loss, phase.window_tokens = mean, 0.0, 0.0


def keep_gradients(optimizer: Any, model: Any, step: Step) -> None:
    """Take away the gradients of all parameters that an update isn't to change.

    An optimizer leaves a parameter without a gradient as it is, together with its moments and its
    weight decay; one whose gradient is zero would still be moved by both. The encoder is what
    ``model.encoder`` doesn't share with ``model.decoder``: a table of embeddings that both use
    belongs to the decoder, so that p(x | z) stands still while the encoder moves.

    Args:
        optimizer: fairseq's, after its gradients were reduced over processes and clipped.
        model: one with an ``encoder`` and a ``decoder``, perhaps inside a distributed wrapper.

    Raises:
        VATError: for an optimizer that doesn't hold every parameter by itself, and where something
            beside it changes parameters.
    """
    if step is Step.both:
        return
    if isinstance(optimizer, FairseqBMUF):
        raise VATError(f"{FLAG} can't be combined with --use-bmuf, whose processes drift apart")
    if hasattr(model, "perform_slowmo"):
        raise VATError(f"{FLAG} can't be combined with --ddp-backend slowmo, which averages both")
    encoder = _trainable(model.encoder) - _trainable(model.decoder)
    pairs = list(_parameters(optimizer))
    if not encoder or not encoder <= {id(of_model) for of_model, _ in pairs}:
        raise VATError(
            f"{FLAG}: the optimizer doesn't hold the encoder's parameters by themselves; choose "
            "another --ddp-backend than fully_sharded"
        )
    for of_model, of_optimizer in pairs:
        if (id(of_model) in encoder) != (step is Step.encoder):
            of_optimizer.grad = None


def _trainable(module: nn.Module) -> set[int]:
    return {id(parameter) for parameter in module.parameters() if parameter.requires_grad}


def _parameters(optimizer: Any) -> Iterable[tuple[nn.Parameter, nn.Parameter]]:
    """The model's parameters, each with the one that the optimizer steps."""
    if not hasattr(optimizer, "fp32_params"):
        return ((parameter, parameter) for parameter in optimizer.params)
    # fairseq's half-precision optimizers step a copy in single precision, flat or one to one
    if optimizer.has_flat_params:
        raise VATError(
            f"{FLAG} can't tell the encoder's gradients from the decoder's when --fp16 makes them "
            "one vector: give --fp16-no-flatten-grads too, or --memory-efficient-fp16"
        )
    return zip(optimizer.fp16_params, optimizer.fp32_params, strict=True)


class AggressiveTask(ValidationTask):
    """A task whose first updates may be of the encoder alone or the decoder alone."""

    def __init__(self, cfg: Any):
        super().__init__(cfg)
        updates, most = cfg.aggressive_encoder_updates, cfg.aggressive_max_updates
        _check_flags(updates, most, 0 if cfg.disable_validation else cfg.validate_interval_updates)
        self.aggressive = AggressiveTraining(updates, most) if updates else None
        self._updating: tuple[Step, int] | None = None  # from optimizer step to its figures
        self._updates = 0

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """fairseq's; refuses aggressive training of a model that has no encoder."""
        model = super().build_model(cfg, from_checkpoint)
        if self.aggressive is not None and not hasattr(model, "encoder"):
            raise VATError(f"{FLAG} needs a model with latents: a language model has no encoder")
        return model

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """Step, after `keep_gradients`."""
        if self.aggressive is not None:
            step = self.aggressive.next_step()
            keep_gradients(optimizer, model, step)
            self._updating = (step, update_num)
        super().optimizer_step(optimizer, model, update_num)

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """fairseq's; after an update, also what comes next is decided.

        The sums are those of all processes, so that each decides the same.
        """
        super().reduce_metrics(logging_outputs, criterion)
        # neither validation nor a step that overflowed gets here with an update
        if self._updating is not None:
            step, update_num = self._updating
            self._updating, self._updates = None, update_num + 1
            metrics.log_scalar("encoder_only", 100.0 * (step is Step.encoder), round=1)
            loss = float(sum(log.get("loss", 0) for log in logging_outputs))
            tokens = float(sum(log.get("ntokens", 0) for log in logging_outputs))
            self._say_why(self.aggressive.made(step, loss, tokens))

    def begin_valid_epoch(self, epoch: int, model: Any) -> None:
        """Only validations at ``--validate-interval-updates`` count.

        fairseq also validates where a run is stopped: were that one looked at, the resumed run
        would no longer be the run that was never stopped.
        """
        super().begin_valid_epoch(epoch, model)
        self._updating = None
        interval = self.cfg.validate_interval_updates
        self.measures_mi = (
            self.aggressive is not None
            and self.aggressive.phase.active
            and interval > 0
            and self._updates % interval == 0
        )

    def post_validate(self, model: Any, stats: dict[str, Any], agg: Any) -> None:
        """Called after each validation subset: the first one's mutual information decides."""
        if self.measures_mi:
            self.measures_mi = False
            self._say_why(self.aggressive.look(float(agg["mi"].avg)))
        super().post_validate(model, stats, agg)

    def get_checkpoint_dict(self) -> dict[str, Any]:
        """What a training that resumes is to find again; fairseq asks at every checkpoint."""
        on = self.aggressive is not None
        return {type(self).__name__: {"aggressive": asdict(self.aggressive.phase)}} if on else {}

    def set_checkpoint_dict(self, state: dict[str, Any]) -> None:
        """Go on where the checkpoint was; not called with ``--reset-dataloader``."""
        if self.aggressive is not None and "aggressive" in state:
            self.aggressive.phase = Phase(**state["aggressive"])

    def _say_why(self, reason: str | None) -> None:
        if reason is not None:
            phase = self.aggressive.phase
            logger.info(
                f"aggressive training ended after {phase.updates:,} updates, "
                f"{phase.decoder_updates:,} of them the decoder's: {reason}"
            )


def _check_flags(updates: int, most: int | None, validate_interval: int) -> None:
    if updates == 0 and most is not None:
        raise VATError(f"--aggressive-max-updates needs {FLAG}: without it there is no phase")
    if updates < 0:
        raise VATError(f"{FLAG} must be 0 (off) or above, not {updates}")
    if most is not None and most < 1:
        raise VATError(f"--aggressive-max-updates must be at least 1, not {most}")
    if updates > 0 and most is None and validate_interval < 1:
        raise VATError(
            f"{FLAG} needs an end: --validate-interval-updates V, to stop when the mutual "
            "information measured there falls (not with --disable-validation), or "
            "--aggressive-max-updates N"
        )
