"""What fairseq imports scikit-learn for, left out of the commands' own processes.

fairseq imports all of its criterions and tasks with itself. Two of them need scikit-learn, whose
import takes a third of a command's start, and no command here uses them.
"""

import sys
from importlib.machinery import ModuleSpec
from typing import Any

UNUSED = (
    "fairseq.criterions.sentence_prediction",
    "fairseq.criterions.sentence_prediction_adapters",
    "fairseq.tasks.audio_classification",
)


class _Empty:
    """Finds `UNUSED`, as modules with nothing in them."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, _Empty) if name in UNUSED else None

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """An ordinary one."""

    @staticmethod
    def exec_module(module: Any) -> None:
        """Leaves it empty."""


def leave_out_scikit_learn() -> None:
    """Before fairseq is imported; after that it does nothing."""
    if "fairseq" not in sys.modules and _Empty not in sys.meta_path:
        sys.meta_path.insert(0, _Empty)
