"""What fairseq imports scikit-learn for, in the processes that tests start: left empty.

It is 1.4 of the 3.4 seconds of each start, and nothing here uses these modules. Python imports
this file at its start where its folder is in PYTHONPATH; WHOLE_FAIRSEQ leaves all as it is.
"""

import importlib.machinery
import os
import sys

_UNUSED = (
    "fairseq.criterions.sentence_prediction",
    "fairseq.criterions.sentence_prediction_adapters",
    "fairseq.tasks.audio_classification",
)


class _Empty:
    """A finder and loader of modules with nothing in them."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, _Empty) if name in _UNUSED else None

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        return None


if not os.environ.get("WHOLE_FAIRSEQ"):
    sys.meta_path.insert(0, _Empty)
