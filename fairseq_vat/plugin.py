"""Registers with fairseq, when it is imported,

- the architectures ``vat_transformer``, ``vae_transformer``, their variants and the baselines
  (`fairseq_vat.models.presets`),
- the task ``variational_lm``,
- the criterion ``token_kl_cross_entropy``,
- the optimizer ``fused_adam``,

and makes fairseq's commands robust where they are not (`fairseq_vat.compat`).
"""

# ruff: noqa: E402
import logging

# While it is imported, fairseq tells of a package that its speech models would like to have.
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)

from fairseq_vat import compat
from fairseq_vat.criterions.token_kl_cross_entropy import TokenKLCrossEntropy
from fairseq_vat.models import presets
from fairseq_vat.models.vat_transformer import VATModel
from fairseq_vat.optim.fused_adam import FusedAdam
from fairseq_vat.tasks.checkpoint_check import check_checkpoint
from fairseq_vat.tasks.flag_checks import check_flags, check_names
from fairseq_vat.tasks.variational_lm import VariationalLMTask

__all__ = [
    "FusedAdam",
    "TokenKLCrossEntropy",
    "VATModel",
    "VariationalLMTask",
    "install",
    "presets",
]


def install() -> None:
    """Change what `fairseq_vat.compat` changes, in those of fairseq's commands that are imported.

    It is done when this module is imported; a second call is for a command imported later.
    """
    compat.install(check_checkpoint, check_flags, check_names)


install()
