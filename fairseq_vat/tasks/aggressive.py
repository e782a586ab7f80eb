"""Aggressive training: the encoder runs ahead of the decoder until it has caught up with it.

He et al. (2019), "Lagging inference networks and posterior collapse in variational autoencoders",
algorithm 1: early in training the posterior q(z | x) lags behind the decoder, which therefore
learns to do without z. So, for as long as the mutual information of sentences and latents rises,
the encoder alone is updated until its loss stops falling, then the decoder alone once.

Here are the rule, as a state machine over updates, and what it does to gradients. It knows torch;
an optimizer is whatever has fairseq's attributes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import nn

from fairseq_vat.errors import VATError

FLAG = "--aggressive-encoder-updates"

# encoder updates whose losses are averaged and compared with those before (the paper's section 4.2)
WINDOW = 10


class Step(Enum):
    """Whose parameters an update moves."""

    encoder = "encoder"
    decoder = "decoder"
    both = "both"


@dataclass
class Phase:
    """Where aggressive training stands: plain numbers, all of which a checkpoint keeps.

    Attributes:
        active: false once the phase has ended, for good.
        updates: updates of the phase, of any kind.
        decoder_updates: how many of them moved the decoder.
        run: encoder updates since the decoder's last one.
        converged: whether the encoder's loss has stopped falling in this run.
        window_loss: loss summed over the current window.
        window_tokens: target tokens of the current window.
        last_loss: loss per token in the window before; None in a run's first.
        last_mi: mutual information when it was last looked at, in nats; None before.
    """

    active: bool = True
    updates: int = 0
    decoder_updates: int = 0
    run: int = 0
    converged: bool = False
    window_loss: float = 0.0
    window_tokens: float = 0.0
    last_loss: float | None = None
    last_mi: float | None = None


class AggressiveTraining:
    """He et al.'s algorithm 1, one update at a time.

    Args:
        encoder_updates: K, the most updates of the encoder alone before one of the decoder. Up to
            `WINDOW` it is their exact number; from there on a run ends earlier if the loss over
            the last `WINDOW` of them isn't lower than over those before.
        max_updates: updates after which the phase ends at the latest; None for no bound.

    Raises:
        ValueError: naming the `fairseq-train` flag that is wrong.
    """

    def __init__(self, encoder_updates: int, max_updates: int | None = None):
        if encoder_updates < 1:
            raise ValueError(f"{FLAG} must be 0 (off) or above, not {encoder_updates}")
        if max_updates is not None and max_updates < 1:
            raise ValueError(f"--aggressive-max-updates must be at least 1, not {max_updates}")
        self.encoder_updates = encoder_updates
        self.max_updates = max_updates
        self.phase = Phase()

    def next_step(self) -> Step:
        """Whose turn it is."""
        if not self.phase.active or self._is_over():
            return Step.both
        if self.phase.converged or self.phase.run >= self.encoder_updates:
            return Step.decoder
        return Step.encoder

    def made(self, step: Step, loss: float, tokens: float) -> str | None:
        """Take note of an update.

        Args:
            step: what `next_step` said before it.
            loss: of its batches, summed over their sentences; the one that is minimised.
            tokens: its target tokens.

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
        if phase.run % WINDOW:
            return
        mean = phase.window_loss / max(phase.window_tokens, 1.0)
        phase.converged = phase.last_loss is not None and mean > phase.last_loss
        phase.last_loss = mean
        phase.window_loss = phase.window_tokens = 0.0


def keep_gradients(optimizer: Any, model: Any, step: Step) -> None:
    """Take away the gradients of all parameters that an update isn't to move.

    An optimizer leaves a parameter without a gradient as it is, together with its moments and its
    weight decay; one whose gradient is zero would still be moved by both. The encoder is what
    ``model.encoder`` doesn't share with ``model.decoder``: a table of embeddings that both use
    belongs to the decoder, so that p(x | z) stands still while the encoder moves.

    Args:
        optimizer: fairseq's, after its gradients were reduced over processes and clipped.
        model: one with an ``encoder`` and a ``decoder``, perhaps inside a distributed wrapper.
        step: whose gradients stay.

    Raises:
        VATError: for an optimizer that doesn't hold every parameter by itself.
    """
    if step is Step.both:
        return
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
