"""A checkpoint in Python."""

# what is loaded here must be known to fairseq, and checked
import fairseq_vat.plugin  # noqa: F401
