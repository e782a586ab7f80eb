"""The pictures of a report, each as inline SVG.

Every picture is drawn about as wide as a phone's screen, so that its text is readable there at its
own size; a wide screen shows several side by side.

Shape legend: N sentences, L latent width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from fairseq_vat.evaluation.training_log import Record
from fairseq_vat.report import plots, svg
from fairseq_vat.report.markup import Markup
from fairseq_vat.report.plots import plt

_BLUE, _ORANGE = plots.TRAIN.lower(), plots.VALID.lower()
_GREEN, _QUIET = "#009e73", "#999999"
# from few words to many; in the middle of the brightness, to be seen on light and dark
_RAMP = ("#d55e01", "#b07a4a", "#7f7f80", "#4a7fa8", "#0072b3")
# what they are drawn with, and the style sheet's variables
_COLOURS = {
    _BLUE: "var(--blue)",
    _ORANGE: "var(--orange)",
    _GREEN: "var(--green)",
    _QUIET: "var(--quiet)",
    "#b0b0b0": "var(--quiet)",  # matplotlib's grid
    "#000000": "currentColor",
    "#ffffff": "var(--page)",
} | {colour: f"var(--ramp{number})" for number, colour in enumerate(_RAMP, 1)}
_STYLE = {
    **plots.STYLE,
    "axes.labelsize": 9.5,
    "axes.titlesize": 10.5,
    "font.size": 9.5,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "fairseq_vat",  # the same picture is the same text
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}
# nats of a dimension, the least height of their picture
_LEAST_KL = 0.01
_SIZE = (4.2, 2.9)
_MAP_SIZE = (4.6, 4.7)
# by the names of `measure_isotropy`, short ones for the legend
MEASURES = {
    "random_cosine": "random",
    "self_similarity": "self",
    "intra_sentence_similarity": "intra-sentence",
    "iso_score": "IsoScore",
}


def learning_curves(records: list[Record], updates: int) -> list[Markup]:
    """A picture for each of `plots.PANELS`; a dotted line where the checkpoint was written.

    Raises:
        VATError: if the log is of another criterion.
    """
    pictures = []
    last = max(record.num_updates for record in records)
    for number, title in enumerate(plots.PANELS):

        def draw(axis: Any, title: str = title) -> None:
            plots.draw_panel(axis, records, title)
            if 0 < updates < last:
                axis.axvline(updates, color="black", linestyle=":", linewidth=1)
            axis.set_xlabel("updates")
            if len(axis.lines) > 1 and title != "KL weight":
                _legend(axis)

        pictures.append(_picture(f"curve{number}", f"{title} by update", draw))
    return pictures


def kl_per_dimension(kl_L: Tensor, active_L: Tensor) -> Markup:
    """Bars from the largest; dimensions that aren't active are grey."""
    order = kl_L.argsort(descending=True)

    def draw(axis: Any) -> None:
        values = kl_L[order].tolist()
        colours = [_BLUE if active else _QUIET for active in active_L[order].tolist()]
        axis.bar(range(1, len(values) + 1), values, width=1.0, color=colours, linewidth=0)
        axis.set_title("KL of each dimension")
        axis.set_xlabel("dimensions, sorted by KL")
        axis.set_ylabel("nats per latent")
        axis.set_xlim(0.5, len(values) + 0.5)
        # else what is next to nothing would fill the picture
        axis.set_ylim(0, max(1.05 * values[0], _LEAST_KL))

    active = int(active_L.sum())
    label = (
        f"Bar chart of the KL of {len(kl_L)} dimensions, sorted: from {float(kl_L.max()):.3f} to "
        f"{float(kl_L.min()):.3f} nats; {active} are active."
    )
    return _picture("kl", label, draw)


def variance_per_dimension(variance_L: Tensor, kl_L: Tensor, threshold: float) -> Markup:
    """Points in the order of `kl_per_dimension`, on a logarithmic scale, with the threshold."""
    order = kl_L.argsort(descending=True)
    values_L = variance_L[order].clamp(min=1e-8)

    def draw(axis: Any) -> None:
        places = range(1, len(values_L) + 1)
        colours = [_BLUE if value >= threshold else _QUIET for value in values_L.tolist()]
        axis.scatter(places, values_L.tolist(), s=9, color=colours, linewidths=0)
        axis.axhline(threshold, color=_ORANGE, linewidth=1.2)
        axis.set_yscale("log")
        axis.set_title("Variance of the means")
        axis.set_xlabel("dimensions, sorted by KL")
        axis.set_ylabel("variance, log scale")
        axis.set_xlim(0.5, len(values_L) + 0.5)

    label = (
        "Variance over latents of each dimension's posterior mean, in the same order, from "
        f"{float(variance_L.max()):.3g} to {float(variance_L.min()):.3g}; a line at {threshold:g}."
    )
    return _picture("variance", label, draw)


def isotropy(rows: list[dict[str, Any]]) -> list[Markup]:
    """Two pictures by layer, the latents last: likeness of tokens, and IsoScore.

    Args:
        rows: each with ``layer`` and the measures, None where there is none.
    """
    names = [str(row["layer"]) for row in rows]
    styles = dict(
        zip(
            MEASURES,
            ((_BLUE, "-", "o"), (_ORANGE, "--", "s"), (_GREEN, "-.", "^"), (_BLUE, "-", "o")),
            strict=True,
        )
    )

    def draw(measures: Sequence[str]) -> Callable[[Any], None]:
        def inside(axis: Any) -> None:
            for measure in measures:
                colour, line, marker = styles[measure]
                found = [
                    (n, row[measure]) for n, row in enumerate(rows) if row.get(measure) is not None
                ]
                axis.plot(
                    [n for n, _ in found],
                    [value for _, value in found],
                    color=colour,
                    linestyle=line,
                    marker=marker,
                    markersize=4,
                    label=MEASURES[measure],
                )
            axis.set_xticks(range(len(names)), names)
            low = min((y for line in axis.lines for y in line.get_ydata()), default=0)
            axis.set_ylim(min(0, 1.1 * low), 1.02)
            axis.set_xlabel("layer")

        return inside

    *cosines, iso_score = MEASURES

    def likeness(axis: Any) -> None:
        draw(cosines)(axis)
        axis.set_title("Cosines")
        _legend(axis)

    def score(axis: Any) -> None:
        draw([iso_score])(axis)
        axis.set_title("IsoScore")

    return [
        _picture("cosines", "Mean cosines by layer; the table has the figures.", likeness),
        _picture("isoscore", "IsoScore by layer; the table has the figures.", score),
    ]


def sentence_map(
    coordinates_N2: Tensor,
    explained_2: Tensor,
    sentences: Sequence[str],
    numbered: dict[int, int],
) -> Markup:
    """Sentences as points, coloured by their number of words, some of them numbered.

    Args:
        coordinates_N2: first two principal components.
        explained_2: their shares of the variance.
        sentences: the points' tooltips.
        numbered: what to write beside a point, by its row.
    """
    words = [len(sentence.split()) for sentence in sentences]
    limits = _fifths(words)
    classes = [sum(count > limit for limit in limits) for count in words]

    def draw(axis: Any) -> None:
        x, y = coordinates_N2.t().tolist()
        colours = [_RAMP[number] for number in classes]
        axis.scatter(x, y, s=16, color=colours, alpha=0.75, linewidths=0, gid="points")
        for row, number in numbered.items():
            axis.scatter(x[row], y[row], s=42, facecolors="none", edgecolors="black", linewidths=1)
            axis.annotate(
                str(number),
                (x[row], y[row]),
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=11,
                fontweight="bold",
            )
        for number, text in enumerate(_ranges(words, limits)):
            if text:
                axis.scatter([], [], s=24, color=_RAMP[number], linewidths=0, label=text)
        axis.figure.legend(
            loc="outside lower center", ncols=5, columnspacing=0.9, handletextpad=0, title="words"
        )
        axis.set_xlabel(f"first component ({explained_2[0]:.1%} of the variance)")
        axis.set_ylabel(f"second component ({explained_2[1]:.1%})")
        axis.set_aspect("equal", adjustable="datalim")

    label = (
        f"Map of {len(sentences):,} sentence embeddings on their first two principal components, "
        "coloured by number of words."
    )
    # a tooltip is read at a glance
    titles = [s if len(s) <= 240 else s[:239] + "\u2026" for s in sentences]
    return _picture("map", label, draw, size=_MAP_SIZE, titles={"points": titles})


def _legend(axis: Any) -> None:
    """In the title's line, where no curve can run under it."""
    axis.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=3,
        borderaxespad=0,
        columnspacing=1,
        handlelength=1.6,
        handletextpad=0.4,
    )


def _fifths(counts: Sequence[int]) -> list[int]:
    """Upper bounds of the first four of five classes of about equal size."""
    ordered = sorted(counts)
    return [ordered[(len(ordered) - 1) * part // 5] for part in range(1, 5)]


def _ranges(counts: Sequence[int], limits: Sequence[int]) -> list[str]:
    """What each class holds, such as ``4\u20139``; empty for one without a member."""
    texts = []
    for number in range(len(limits) + 1):
        inside = [c for c in counts if sum(c > limit for limit in limits) == number]
        low, high = (min(inside), max(inside)) if inside else (0, 0)
        texts.append("" if not inside else str(low) if low == high else f"{low}\u2013{high}")
    return texts


def _picture(
    name: str,
    label: str,
    draw: Callable[[Any], None],
    size: tuple[float, float] = _SIZE,
    titles: dict[str, Sequence[str]] | None = None,
) -> Markup:
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=size)
        try:
            draw(axis)
            return svg.inline(figure, name, label, _COLOURS, titles)
        finally:
            plt.close(figure)
