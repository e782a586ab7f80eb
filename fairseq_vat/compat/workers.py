"""Several workers of one ``torchrun``: what they all run into is told once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def is_first_to_tell(line: str, of_another: bool = False) -> bool:
    """Whether no other worker of the same launch has told this; now this process has.

    Workers that fail alike, as they do at a wrong flag, find each other by the folder in which
    ``torchrun`` has a file for each worker's error; those of other machines have one of their own.

    Args:
        line: what is to be told.
        of_another: it is that another worker has ended, which goes without saying where any worker
            has told why.
    """
    file = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", ""))
    folder = file.parent.parent  # of an attempt, each worker's is in it
    if file.name != "error.json" or not folder.is_dir():
        return True
    if of_another and any(folder.glob("told.*")):
        return False
    name = f"told.{hashlib.sha256(line.encode()).hexdigest()[:16]}"
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # better twice than not at all
        pass
    return True
