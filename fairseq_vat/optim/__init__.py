"""Optimizers."""

# what registers with fairseq comes with the checks of what fairseq is given
import fairseq_vat.plugin  # noqa: F401
