"""Variational Transformers for text, as a plugin for fairseq (``--user-dir fairseq_vat``).

    from fairseq_vat import VATModel

    vat = VATModel.from_pretrained("checkpoints")

Imported where fairseq is (its commands, its hub), the package registers its parts
(`fairseq_vat.plugin`). Elsewhere it loads neither fairseq nor torch before they are needed.
"""

import sys
from typing import Any

__version__ = "0.1.0"
__all__ = ["VATModel", "__version__"]

if "fairseq" in sys.modules:
    from fairseq_vat import plugin  # noqa: F401


def __getattr__(name: str) -> Any:
    if name != "VATModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fairseq_vat.plugin import VATModel

    return VATModel
