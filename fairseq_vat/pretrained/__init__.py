"""The models that the package brings with it, by name."""

import os
from pathlib import Path

_FOLDER = Path(__file__).parent
DEFAULT = "vat-small"


def packaged_models() -> list[str]:
    """Their names; each is a folder as `pack` makes it."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/model.pt"))


def path_of(name_or_path: str | os.PathLike) -> str:
    """The folder of a packaged model for its name; a path stays, and what is there comes first."""
    path = os.fspath(name_or_path)
    if not os.path.exists(path) and path in packaged_models():
        return str(_FOLDER / path)
    return path
