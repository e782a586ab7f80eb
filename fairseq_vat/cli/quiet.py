"""What subcommands that load models keep off the terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Only warnings and errors of fairseq's loggers, and of torch's warnings those of use.

    fairseq logs each step of loading; a command whose output is a figure or a sentence is better
    without.  Everything is as before when the block ends.
    """
    # importing fairseq configures the root logger: here, so that it happens before
    import fairseq_vat.plugin  # noqa: F401

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # fairseq passes a bool and a float mask side by side, which torch still takes
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            yield
    finally:
        root.setLevel(level)
