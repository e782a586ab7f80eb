"""Half precision in training: products in bfloat16, everything that is kept in single precision.

fairseq's ``--fp16`` casts the model itself and needs a CUDA device, and its ``--bf16`` means a TPU
on the command line.  Here parameters, gradients, optimizer and checkpoints stay as they are.
"""

import contextlib
import logging
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fairseq_vat.errors import VATError
from fairseq_vat.hardware import cpu_has_bfloat16

logger = logging.getLogger(__name__)

WITH_FP16 = (
    "--precision bfloat16 keeps parameters in single precision and can't be combined with --fp16, "
    "which casts them: give one of the two"
)


class TrainingPrecision:
    """``--precision`` and ``--emulate-bfloat16``: in which type a training step's products run.

    bfloat16 is torch's autocast, of the forward pass alone as torch advises; the backward pass runs
    in the types of the forward pass.

    Args:
        emulate: take bfloat16 also on a CPU without instructions for it, where it is slow.
    """

    def __init__(self, precision: str, emulate: bool = False):
        self.precision, self.emulate = str(precision), emulate
        self._told = False

    @contextlib.contextmanager
    def forward(self, model: nn.Module) -> Iterator[None]:
        """Surrounds a forward pass; outside training, where models are measured, nothing."""
        if self.precision == "float32" or not model.training:
            yield
            return
        parameter = next(model.parameters())
        device = parameter.device.type
        if parameter.dtype != torch.float32:
            raise VATError(WITH_FP16)
        if device == "cpu" and not self._on_this_cpu():
            yield
            return
        with contextlib.ExitStack() as stack:
            if device == "cpu":
                # flash attention's backward pass on a CPU takes six times as long as in float32
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(torch.autocast(device, torch.bfloat16))
            yield

    def _on_this_cpu(self) -> bool:
        if not (self.emulate or cpu_has_bfloat16() or self._told):
            logger.warning(
                "--precision bfloat16: this CPU has no instructions for it, so training runs in "
                "float32 (--emulate-bfloat16 takes bfloat16 all the same, and is slow)"
            )
            self._told = True
        return self.emulate or cpu_has_bfloat16()
