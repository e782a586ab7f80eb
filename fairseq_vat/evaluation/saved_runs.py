"""Finished trainings in a file, so that an interrupted `probe` can go on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fairseq_vat.errors import VATError
from fairseq_vat.files import read_json, write_json


class SavedRuns:
    """Finished runs in a JSON file, and the settings they all have.

    Args:
        path: the file; None keeps nothing.
        settings: everything that a run's result depends on and that its key doesn't tell, under
            the names of the flags.

    Raises:
        VATError: if the file is there and isn't one of these, or its runs had other settings.
    """

    def __init__(self, path: str | None, settings: Mapping[str, Any]):
        self.path = path
        self.settings = dict(settings)
        self.runs: dict[str, dict[str, Any]] = {}
        if path is not None and os.path.exists(path):
            self.runs = self._read(path)
        self._write()  # here, so that a place that can't be written to is met before the work

    def _read(self, path: str) -> dict[str, dict[str, Any]]:
        saved = read_json(path)
        if not isinstance(saved, dict) or set(saved) != {"settings", "runs"}:
            raise VATError(f"--save {path}: is there and holds no runs of probe; name another file")
        then = saved["settings"]
        for name in {**then, **self.settings}:
            if then.get(name) != self.settings.get(name):
                raise VATError(
                    f"--save {path}: its runs were made with another {name} "
                    f"({_short(then.get(name))}, now {_short(self.settings.get(name))}); name "
                    "another file, or repeat the settings"
                )
        return saved["runs"]

    def add(self, key: str, run: Mapping[str, Any]) -> None:
        """Keep a run."""
        self.runs[key] = dict(run)
        self._write()

    def _write(self) -> None:
        if self.path is not None:
            write_json(self.path, {"settings": self.settings, "runs": self.runs})


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 20 else text[:12] + "..."
