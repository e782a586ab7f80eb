"""fairseq's loader processes, and how they end."""

from __future__ import annotations

from typing import Any

from fairseq.data import iterators


def end_loaders() -> None:
    """Let the loader processes of an epoch and of a validation end with it.

    fairseq stops at the last batch without asking for one more, which is what ends them. They
    stay until Python's garbage collector finds them, one more with every validation. It then waits
    five seconds for each, as the queue that would tell them to end is closed by then; in a loader
    process that was started since, it prints a traceback (can only test a child process).
    """
    iterators.BackgroundConsumer = _ToTheEnd


class _ToTheEnd(iterators.BackgroundConsumer):
    """Reads on after the last batch, unless only a part is wanted."""

    def __init__(self, queue: Any, source: Any, max_len: int | None, cuda_device: int | None):
        part = max_len is not None and max_len < len(source)
        super().__init__(queue, source, max_len if part else None, cuda_device)
