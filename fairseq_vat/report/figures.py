"""The figures of a report: what the template's macro ``figure`` draws as inline SVG.

Each is about as wide as a phone's screen, so that its text is readable there at its own size; a
wide screen shows several side by side.  Colours are classes of the page's style sheet, which has
them for light and dark.

Shape legend: N sentences, L latent width.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from fairseq_vat.evaluation.training_log import Record
from fairseq_vat.report.plots import MARKED, PANELS, panel_curves

# nats of a dimension, the least height of their figure
_LEAST_KL = 0.01
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 6, 34
_SIZE, _MAP_SIZE = (302, 196), (331, 311)
_SUPERSCRIPTS = str.maketrans(
    "-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
)
# by the names of `measure_isotropy`: short ones for the legend, and how they are drawn
MEASURES = {
    "random_cosine": ("random", "blue", "\u25cf"),
    "self_similarity": ("self", "orange dashed", "\u25a0"),
    "intra_sentence_similarity": ("intra-sentence", "green dashdot", "\u25b2"),
    "iso_score": ("IsoScore", "blue", "\u25cf"),
}
# of a point at the path's place: a dot is the round end of a line of no length
_SYMBOLS = {
    "\u25cf": "h0",
    "\u25a0": "m-2.2,-2.2h4.4v4.4h-4.4z",
    "\u25b2": "m-2.6,2.2h5.2l-2.6,-4.8z",
}
_RING = "m-4.5,0a4.5,4.5 0 1 0 9,0a4.5,4.5 0 1 0 -9,0"


@dataclass
class Axis:
    """From the least value to the greatest, which lie at `start` and `end` in the SVG's units."""

    label: str
    low: float
    high: float
    log: bool = False
    names: Sequence[str] = ()
    integer: bool = False
    start: float = 0
    end: float = 1

    def place(self, value: float) -> float:
        """Where a value lies; only positive ones do on a logarithmic axis."""
        low, high, value = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and texts; the texts are `names`, of the values 0, 1, ..., where there are any."""
        if self.names:
            return [(self.place(number), name) for number, name in enumerate(self.names)]
        if self.log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            shown = powers[:: 1 + len(powers) // 7]
            return [(self.place(10.0**n), "10" + str(n).translate(_SUPERSCRIPTS)) for n in shown]
        values = MaxNLocator(6, integer=self.integer).tick_values(self.low, self.high)
        inside = [float(x) for x in values if self.low <= x <= self.high]
        return [(self.place(x), f"{x:,.0f}" if x.is_integer() else f"{x:g}") for x in inside]


class Mark(NamedTuple):
    """A path: CSS classes, its data, and a tooltip where it has one."""

    style: str
    path: str
    tooltip: str = ""


@dataclass
class Figure:
    """Two axes and what is between them."""

    title: str
    description: str  # what it shows, for those who can't see it
    # x, y: the axes, laid out for the size
    x: Axis
    y: Axis
    size: tuple[int, int] = _SIZE
    marks: list[Mark] = field(default_factory=list)
    texts: list[tuple[float, float, str]] = field(default_factory=list)
    # CSS classes, symbol and text of each entry
    legend: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self):
        self.x.start, self.x.end = _LEFT, self.size[0] - _RIGHT
        self.y.start, self.y.end = self.size[1] - _BOTTOM, _TOP

    def point(self, x: float, y: float) -> str:
        """A path's beginning."""
        return f"M{self.x.place(x):.1f},{self.y.place(y):.1f}"

    def curve(self, points: Iterable[tuple[float, float]], style: str, symbol: str = "") -> None:
        """A line, with a gap where a value isn't finite, and a symbol at each of its points."""
        line, symbols, drawn = "", "", False
        for x, y in points:
            finite = math.isfinite(y)
            if finite:
                place = self.point(x, y)
                line += "L" + place[1:] if drawn else place
                symbols += place + _SYMBOLS.get(symbol, "")
            drawn = finite
        self.marks.append(Mark(f"line {style}", line))
        if symbol:
            shape = "dot" if symbol == "\u25cf" else "area"
            self.marks.append(Mark(f"{shape} {style.split()[0]}", symbols))


def learning_curves(records: list[Record], updates: int) -> list[Figure]:
    """A figure for each of `plots.PANELS`; a dotted line where the checkpoint was written."""
    figures = []
    last = max(record.num_updates for record in records)
    for title in PANELS:
        label, train, valid, log = panel_curves(records, title)
        values = [value for value in train[1] + valid[1] if math.isfinite(value)] or [1.0]
        low, high = (min(values) / 1.2, max(values) * 1.2) if log else (0, max(values) * 1.05 or 1)
        x = Axis("updates", 0, 1.05 * max(*train[0], *valid[0], 1), integer=True)
        figure = Figure(title, f"{title} by update", x, Axis(label, low, high, log))
        figure.curve(zip(*train, strict=True), "blue", "\u25cf" if len(train[0]) < 3 else "")
        if valid[1]:
            symbol = "\u25cf" if len(valid[0]) <= MARKED else ""
            figure.curve(zip(*valid, strict=True), "orange", symbol)
            figure.legend = [("blue", "\u2501", "train"), ("orange", symbol or "\u2501", "valid")]
        if 0 < updates < last:
            figure.curve([(updates, low), (updates, high)], "dotted")
        figures.append(figure)
    return figures


def kl_per_dimension(kl_L: Tensor, active_L: Tensor) -> Figure:
    """Bars from the largest; dimensions that aren't active are grey."""
    order = kl_L.argsort(descending=True)
    values, active = kl_L[order].tolist(), active_L[order].tolist()
    description = (
        f"Bar chart of the KL of {len(kl_L)} dimensions, sorted: from {values[0]:.3f} to "
        f"{values[-1]:.3f} nats; {sum(active)} are active."
    )
    x = Axis("dimensions, sorted by KL", 0.5, len(values) + 0.5, integer=True)
    # else what is next to nothing would fill the figure
    y = Axis("nats per latent", 0, max(1.05 * values[0], _LEAST_KL))
    figure = Figure("KL of each dimension", description, x, y)
    bars = [
        f"{figure.point(n - 0.5, 0)}V{y.place(value):.1f}H{x.place(n + 0.5):.1f}V{y.start}z"
        for n, value in enumerate(values, 1)
    ]
    _mark_active(figure, "area", bars, active)
    return figure


def variance_per_dimension(variance_L: Tensor, kl_L: Tensor, threshold: float) -> Figure:
    """Points in the order of `kl_per_dimension`, on a logarithmic scale, with the threshold."""
    values = variance_L[kl_L.argsort(descending=True)].clamp(min=1e-8).tolist()
    description = (
        "Variance over latents of each dimension's posterior mean, in the same order, from "
        f"{float(variance_L.max()):.3g} to {float(variance_L.min()):.3g}; a line at {threshold:g}."
    )
    x = Axis("dimensions, sorted by KL", 0.5, len(values) + 0.5, integer=True)
    low, high = min(*values, threshold) / 1.3, max(*values, threshold) * 1.3
    y = Axis("variance, log scale", low, high, log=True)
    figure = Figure("Variance of the means", description, x, y)
    dots = [f"{figure.point(n, value)}h0" for n, value in enumerate(values, 1)]
    _mark_active(figure, "dot small", dots, [value >= threshold for value in values])
    figure.curve([(x.low, threshold), (x.high, threshold)], "orange")
    return figure


def _mark_active(figure: Figure, shape: str, paths: list[str], active: list[bool]) -> None:
    """Each dimension's path, blue where it is active, grey where it isn't."""
    for colour, kind in (("blue", True), ("quiet", False)):
        path = "".join(path for path, own in zip(paths, active, strict=True) if own == kind)
        figure.marks.append(Mark(f"{shape} {colour}", path))


def isotropy(rows: list[dict[str, Any]]) -> list[Figure]:
    """Two figures by layer, the latents last: likeness of tokens, and IsoScore."""
    *cosines, iso_score = MEASURES
    return [
        _by_layer(rows, cosines, "Cosines", "Mean cosines by layer; the table has the figures."),
        _by_layer(rows, [iso_score], "IsoScore", "IsoScore by layer; the table has the figures."),
    ]


def _by_layer(rows: list[dict], measures: list[str], title: str, description: str) -> Figure:
    curves = {
        measure: [(n, row[measure]) for n, row in enumerate(rows) if row[measure] is not None]
        for measure in measures
    }
    low = min((value for points in curves.values() for _, value in points), default=0)
    x = Axis("layer", -0.15, len(rows) - 0.85, names=[str(row["layer"]) for row in rows])
    figure = Figure(title, description, x, Axis("", min(0, 1.1 * low), 1.02))
    for measure, points in curves.items():
        name, style, symbol = MEASURES[measure]
        figure.curve(points, style, symbol)
        if len(measures) > 1:
            figure.legend.append((style.split()[0], symbol, name))
    return figure


def sentence_map(
    coordinates_N2: np.ndarray,
    explained_2: np.ndarray,
    texts: Sequence[str],
    numbered: dict[int, int],
) -> Figure:
    """Sentences as points, coloured by their number of words, some of them numbered.

    Args:
        numbered: what to write beside a point, by its row.
    """
    # as many units an inch on one axis as on the other
    width, height = _MAP_SIZE[0] - _LEFT - _RIGHT, _MAP_SIZE[1] - _TOP - _BOTTOM
    low, high = coordinates_N2.min(axis=0), coordinates_N2.max(axis=0)
    unit = 1.1 * max((high - low) / (width, height)) or 1 / width
    half_x, half_y = unit * width / 2, unit * height / 2
    middle_x, middle_y = (low + high) / 2
    x = Axis(
        f"first component ({explained_2[0]:.1%} of the variance)",
        *(middle_x - half_x, middle_x + half_x),
    )
    y = Axis(f"second component ({explained_2[1]:.1%})", middle_y - half_y, middle_y + half_y)
    description = (
        f"Map of {len(texts):,} sentence embeddings on their first two principal components, "
        "coloured by number of words."
    )
    figure = Figure("words", description, x, y, _MAP_SIZE)
    words_N = np.array([len(text.split()) for text in texts])
    # five classes of about equal size, from few words to many
    limits = np.sort(words_N)[[(len(texts) - 1) * part // 5 for part in range(1, 5)]]
    classes_N = (words_N[:, None] > limits).sum(axis=1)
    for point, number, text in zip(coordinates_N2, classes_N, texts, strict=True):
        # a tooltip is read at a glance
        tooltip = text if len(text) <= 240 else text[:239] + "\u2026"
        figure.marks.append(Mark(f"dot ramp{number + 1}", figure.point(*point) + "h0", tooltip))
    for row, number in numbered.items():
        figure.marks.append(Mark("ring", figure.point(*coordinates_N2[row]) + _RING))
        a, b = coordinates_N2[row]
        figure.texts.append((x.place(a) + 5, y.place(b) - 4, str(number)))
    for number in np.unique(classes_N):
        least, most = words_N[classes_N == number].min(), words_N[classes_N == number].max()
        text = f"{least}" if least == most else f"{least}\u2013{most}"
        figure.legend.append((f"ramp{number + 1}", "\u25cf", text))
    return figure
