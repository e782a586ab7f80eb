"""Architectures; fairseq imports every module of this folder when it loads the plugin."""

# what registers with fairseq comes with the checks of what fairseq is given
import fairseq_vat.plugin  # noqa: F401
