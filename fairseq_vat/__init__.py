"""Variational Transformers for text, as a plugin for fairseq (``--user-dir fairseq_vat``).

Importing the package registers

- the architectures ``vat_transformer``, ``vae_transformer``, their variants and the baselines
  (`fairseq_vat.models.presets`),
- the task ``variational_lm``,
- the criterion ``token_kl_cross_entropy``,

and makes fairseq's commands robust where they are not (`fairseq_vat.compat`).
"""

# ruff: noqa: E402
import logging

# While it is imported, fairseq tells of a package that its speech models would like to have.
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)

from fairseq_vat import compat
from fairseq_vat.criterions import token_kl_cross_entropy
from fairseq_vat.models import presets, vat_transformer
from fairseq_vat.tasks import variational_lm

__version__ = "0.1.0"
__all__ = ["compat", "presets", "token_kl_cross_entropy", "variational_lm", "vat_transformer"]
