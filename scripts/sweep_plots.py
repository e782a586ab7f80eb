"""Figures of a sweep over the prior's standard deviation s (figures 2, 3a and 3b of the VAT paper),
and of rate and distortion.

A setting is what the runs of a sweep have in common, such as the weight of the KL; each makes a
panel.  Values that aren't there are None and leave a gap.  A value's ``_spread``, where a run has
one, is its standard deviation over seeds, and a line as long above and below it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fairseq_vat.report.plots import LOG_RANGE, STYLE, TRAIN, VALID, plt, save_figure

# the rest of the colours that differ for colour-blind readers
_THIRD, _FOURTH = "#009E73", "#7F7F7F"


@dataclass
class Curve:
    """One line of a panel: its points, how it looks, and its name in the legend."""

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: object
    marker: str | None = None
    spread: Sequence[float | None] = ()


@dataclass
class Panel:
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    curves: list[Curve]
    log: bool = False


def similarities(settings: dict[str, list[dict]], path: str | os.PathLike) -> None:
    """Figure 3a: cosines of the latents, and their IsoScore, against s.

    Args:
        settings: for each setting's name the runs, by s: ``prior_std``, ``random_cosine``,
            ``self_similarity``, ``intra_sentence_similarity``, ``iso_score``.
        path: the image file.
    """
    names = {
        "self_similarity": ("self-similarity", _THIRD, "s"),
        "intra_sentence_similarity": ("intra-sentence similarity", VALID, "^"),
        "random_cosine": ("random words", TRAIN, "o"),
        "iso_score": ("IsoScore", _FOURTH, "D"),
    }
    _against_s(settings, names, "cosine", path, top=1.05)


def losses(settings: dict[str, list[dict]], path: str | os.PathLike) -> None:
    """Figure 3b: the losses at the end of the training against s.

    Args:
        settings: for each setting's name the runs, by s: ``prior_std``, and in nats per token
            ``loss``, ``nll``, ``weighted_kl``.
        path: the image file.
    """
    names = {
        "loss": ("loss", _FOURTH, "D"),
        "nll": ("reconstruction", VALID, "s"),
        "weighted_kl": ("weighted KL", TRAIN, "o"),
    }
    # each setting with a scale of its own: one that has collapsed loses many times as much
    _against_s(settings, names, "nats per token", path, share_y=False)


def kl_curves(settings: dict[str, list[dict]], path: str | os.PathLike) -> None:
    """The KL by update, a curve for each s.

    Args:
        settings: for each setting's name the runs, by s: ``prior_std``, and ``updates`` with
            ``kl`` beside them, in nats per latent.
        path: the image file.
    """
    stds = sorted({run["prior_std"] for runs in settings.values() for run in runs})
    colours = {std: plt.cm.viridis(0.95 * i / max(1, len(stds) - 1)) for i, std in enumerate(stds)}
    panels = [
        Panel(
            title,
            "updates",
            "KL (nats per latent), log scale",
            [
                Curve(
                    f"s = {run['prior_std']:g}",
                    run["updates"],
                    run["kl"],
                    colours[run["prior_std"]],
                )
                for run in runs
            ],
            log=True,
        )
        for title, runs in settings.items()
    ]
    _draw(panels, path, share_y=True)


def learning_curves(runs: list[dict], path: str | os.PathLike) -> None:
    """Figure 2: weighted KL (top) and reconstruction (bottom) by update, for some values of s.

    Args:
        runs: a column each: ``prior_std``, and for ``train`` and ``valid`` lists of
            (update, nll, weighted KL), in nats per token.
        path: the image file.
    """
    panels = []
    for label, place in (("weighted KL", 2), ("reconstruction", 1)):
        for run in runs:
            curves = [
                Curve(
                    name, [p[0] for p in run[name]], [p[place] for p in run[name]], colour, marker
                )
                for name, colour, marker in (("train", TRAIN, None), ("valid", VALID, "o"))
            ]
            values = [y for y in curves[0].y if y > 0]
            log = place == 2 and bool(values) and values[0] > LOG_RANGE * _middle(values)
            scale = ", log scale" if log else ""
            title = f"{label[0].upper()}{label[1:]}, s = {run['prior_std']:g}"
            panels.append(Panel(title, "updates", f"nats per token{scale}", curves, log))
    _draw(panels, path, columns=len(runs))


def rate_distortion(runs: list[dict], path: str | os.PathLike) -> None:
    """BLEU, and the fluency of draws, against the rate, a point for each run.

    Args:
        runs: of scripts/rate_distortion.py: ``kl`` in nats per token, ``bleu_mean``,
            ``bleu_draws``, ``ppl_ratio``, ``ppl_ratio_changed``.
        path: the image file.
    """
    runs = sorted(runs, key=lambda run: run["kl"])

    def panel(title: str, label: str, *curves: tuple[str, str, object, str]) -> Panel:
        x = [run["kl"] for run in runs]
        lines = [
            Curve(name, x, [run[key] for run in runs], colour, marker)
            for key, name, colour, marker in curves
        ]
        return Panel(title, "KL (nats per token)", label, lines)

    panels = [
        panel(
            *("Distortion", "BLEU"),
            ("bleu_mean", "BLEU from the mean", TRAIN, "o"),
            ("bleu_draws", "BLEU from draws", VALID, "s"),
        ),
        panel(
            *("Fluency", "perplexity, draws over sources"),
            ("ppl_ratio", "ratio, all draws", _THIRD, "^"),
            ("ppl_ratio_changed", "ratio, changed draws", _FOURTH, "D"),
        ),
    ]
    _draw(panels, path)


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _against_s(
    settings: dict[str, list[dict]],
    names: dict[str, tuple[str, str, str]],
    label: str,
    path: str | os.PathLike,
    top: float | None = None,
    share_y: bool = True,
) -> None:
    panels = []
    for title, runs in settings.items():
        x = [run["prior_std"] for run in runs]
        curves = [
            Curve(
                name,
                x,
                [run[key] for run in runs],
                colour,
                marker,
                [run.get(f"{key}_spread") for run in runs],
            )
            for key, (name, colour, marker) in names.items()
        ]
        panels.append(Panel(title, "prior's standard deviation s", label, curves))
    right = 1.05 * max((s for panel in panels for c in panel.curves for s in c.x), default=1.0)
    _draw(panels, path, share_y=share_y, top=top, right=right)


def _draw(
    panels: list[Panel],
    path: str | os.PathLike,
    columns: int | None = None,
    share_y: bool = False,
    top: float | None = None,
    right: float | None = None,
) -> None:
    columns = columns or min(len(panels), 2 if len(panels) in (2, 4) else 3)
    rows = math.ceil(len(panels) / columns)
    with plt.rc_context(STYLE):
        size = (4.4 * columns + 1.6, 3.3 * rows + 0.2)
        figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=share_y)
        for axis in grid.flat[len(panels) :]:
            axis.remove()
        legend: dict = {}
        shared = [curve for panel in panels for curve in panel.curves] if share_y else None
        for axis, panel in zip(grid.flat, panels, strict=False):
            _draw_panel(axis, panel)
            if not share_y or axis in grid[:, 0]:
                axis.set_ylabel(panel.y_label)
            if not panel.log:
                # a little under 0, so that a curve at 0 is seen whole
                curves = shared or panel.curves
                lowest = min((_low(c, i) for c in curves for i in range(len(c.y))), default=0)
                axis.set_ylim(min(lowest, 0) - (0.03 * top if top else 0), top)
            if right is not None:
                axis.set_xlim(right=right)
            handles, labels = axis.get_legend_handles_labels()
            legend.update(zip(labels, handles, strict=True))
        figure.legend(legend.values(), legend.keys(), loc="outside right upper")
        save_figure(figure, path, dpi=110)


def _low(curve: Curve, place: int) -> float:
    """The lowest point drawn of a value, 0 for a gap."""
    spread = curve.spread[place] if place < len(curve.spread) else None
    return 0 if curve.y[place] is None else curve.y[place] - (spread or 0)


def _draw_panel(axis: Axes, panel: Panel) -> None:
    for curve in panel.curves:
        y = [math.nan if value is None else value for value in curve.y]
        axis.plot(
            curve.x,
            y,
            color=curve.colour,
            label=curve.label,
            marker=curve.marker or ("." if len(curve.x) < 3 else None),  # a point has no line
            markersize=4,
            linewidth=1.5,
        )
        for x, value, spread in zip(curve.x, curve.y, curve.spread, strict=False):
            if value is not None and spread is not None:
                axis.vlines(
                    x, value - spread, value + spread, color=curve.colour, linewidth=3, alpha=0.4
                )
    if panel.log:
        axis.set_yscale("log")
    axis.set_title(panel.title)
    axis.set_xlabel(panel.x_label)
    axis.set_xlim(left=0)
    if panel.x_label == "updates":
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
