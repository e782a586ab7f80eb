"""A figure over runs as a table's cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class MeanAndStd(NamedTuple):
    """Printed as ``mean ± std``, both in one format; of one run as its figure."""

    mean: float
    std: float | None

    @classmethod
    def of(
        cls, figures: Mapping[str, float | None], name: str, scale: float = 1
    ) -> MeanAndStd | None:
        """``NAME`` and, if it is there, ``NAME_std``, times `scale`; None where it is undefined."""
        mean, std = figures[name], figures.get(f"{name}_std")
        if mean is None:
            return None
        return cls(scale * mean, None if std is None else scale * std)

    def __format__(self, spec: str) -> str:
        return f"{self.mean:{spec}}" + ("" if self.std is None else f" ± {self.std:{spec}}")
