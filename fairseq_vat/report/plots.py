"""Figures of trainings: learning curves as in figure 2 of the VAT paper, and the KL weight."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

# Importing fairseq turns debug messages on for everybody; matplotlib has one for every font.
logging.getLogger("matplotlib").setLevel(logging.WARNING)

import matplotlib  # noqa: E402

matplotlib.use("Agg")  # files only: there may be no display

from matplotlib import pyplot as plt  # noqa: E402  (after the backend is chosen)
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: E402

from fairseq_vat.errors import VATError  # noqa: E402
from fairseq_vat.evaluation.training_log import Record  # noqa: E402
from fairseq_vat.files import atomic_path  # noqa: E402

# Two colours that differ for colour-blind readers and in print.
TRAIN, VALID = "#0072B2", "#D55E00"
# Of several runs, a colour each; Okabe and Ito's, which colour-blind readers tell apart.
RUNS = (TRAIN, VALID, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")
FAINT = {"linewidth": 1, "alpha": 0.45}
FORMATS = ("png", "pdf", "svg")
STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
# A curve that falls by more than this factor is drawn on a logarithmic scale: the first updates'
# KL is hundreds of times the later one, and would leave a flat line at the bottom.
LOG_RANGE = 30
LOG_LABEL = ", log scale"
# A curve of so many points has a marker at each.
MARKED = 40


def learning_curves(records: list[Record], path: str | os.PathLike, kl_only: bool = False) -> None:
    """Draw reconstruction, KL, weighted KL and KL weight by update, for train and valid."""
    with _panels(path, kl_only) as (figure, axes):
        for title, axis in axes.items():
            _draw_panel(axis, records, title)
        handles, labels = next(iter(axes.values())).get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)


def compare_learning_curves(
    runs: Mapping[str, list[Record]], path: str | os.PathLike, kl_only: bool = False
) -> None:
    """Draw the same panels with the curves of several runs, a colour each."""
    with _panels(path, kl_only) as (figure, axes):
        for title, axis in axes.items():
            _draw_compared(axis, list(runs.values()), title)
        handles = [
            Line2D([], [], **_style(number), linewidth=2, label=_plain(label))
            for number, label in enumerate(runs)
        ]
        if any(record.kind == "valid" for records in runs.values() for record in records):
            handles.append(Line2D([], [], color="grey", **FAINT, label="train"))
            handles.append(Line2D([], [], color="grey", linewidth=1.5, label="valid"))
        figure.legend(handles=handles, loc="outside upper right", ncols=min(len(handles), 6))


@contextmanager
def _panels(path: str | os.PathLike, kl_only: bool) -> Iterator[tuple[Figure, dict[str, Axes]]]:
    """A figure with a panel for each of `PANELS`, by title, which is saved in the end."""
    titles = [title for title in PANELS if not (kl_only and title == "Reconstruction")]
    with plt.rc_context(STYLE):
        rows, columns = (1, 3) if kl_only else (2, 2)
        size = (12.5, 3.8) if kl_only else (10, 7)
        figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True)
        yield figure, dict(zip(titles, axes.flat, strict=True))
        for axis in axes.flat[-columns:]:
            axis.set_xlabel("updates")
        save_figure(figure, path)


def compare_annealing(runs: Mapping[str, list[Record]], path: str | os.PathLike) -> None:
    """Draw the weight of the KL term by update, of several runs."""
    curves = [_train_points(records, lambda s: s.get("kl_weight")) for records in runs.values()]
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(6.5, 3.8))
        for number, (label, (x, y)) in enumerate(zip(runs, curves, strict=True)):
            # dashes: schedules lie on each other for a while
            style = {"color": _colour(number), "linestyle": LINES[number % len(LINES)]}
            marker = "o" if len(x) < 2 else None
            axis.plot(x, y, **style, linewidth=2, marker=marker, label=_plain(label))
        axis.set_ylim(0, 1.08 * max(max(y) for _, y in curves) or 1)
        axis.set_xlim(left=0)
        axis.set_title("KL annealing")
        axis.set_xlabel("updates")
        axis.set_ylabel("weight of the KL term")
        _format_updates(axis)
        if len(runs) > 1:
            figure.legend(loc="outside upper right", ncols=min(len(runs), 3))
        save_figure(figure, path)


def _colour(number: int) -> str:
    return RUNS[number % len(RUNS)]


def _style(number: int) -> dict[str, str]:
    """Of a run: a colour and, from the eighth on, dashes."""
    return {"color": _colour(number), "linestyle": LINES[number // len(RUNS) % len(LINES)]}


def _plain(label: str) -> str:
    """As it is: matplotlib reads formulas between dollars, and leaves out what begins with _."""
    return ("\u200b" if label.startswith("_") else "") + label.replace("$", r"\$")


# title of a panel: its label, and its value in a record's statistics
def _weighted(stats: dict[str, float]) -> float | None:
    """The loss's term; under --latent-noise prior it isn't the latents' KL."""
    if not {"kl_nats", "kl_weight"} <= stats.keys():
        return None
    return stats.get("penalty_nats", stats["kl_nats"]) * stats["kl_weight"]


PANELS: dict[str, tuple[str, Callable[[dict[str, float]], float | None]]] = {
    "Reconstruction": ("nll (bits per token)", lambda s: s.get("nll_loss")),
    "KL divergence": ("KL (nats per latent)", lambda s: s.get("kl_nats")),
    "Weighted KL": (
        "weight \u00d7 KL (nats per latent)",
        _weighted,
    ),
    "KL weight": ("weight", lambda s: s.get("kl_weight")),
}


class PanelCurves(NamedTuple):
    """What one panel shows: updates and values of training and validation, which may be empty."""

    label: str
    train: tuple[list[int], list[float]]
    valid: tuple[list[int], list[float]]
    log: bool


def panel_curves(records: list[Record], title: str) -> PanelCurves:
    """The curves of one panel."""
    label, value = PANELS[title]
    train = _train_points(records, value)
    # The first subset only: the one that fairseq chooses its best checkpoint by.
    subset = next((r.subset for r in records if r.kind == "valid"), None)
    valid = _points([r for r in records if r.subset == subset], "valid", value)
    if title == "KL weight":
        # It depends on the update alone: a second curve would say nothing more.
        valid = [], []
    values = train[1] + valid[1]
    log = min(values) > 0 and max(values) > LOG_RANGE * sorted(values)[len(values) // 2]
    return PanelCurves(label + (LOG_LABEL if log else ""), train, valid, log)


def _draw_panel(axis: Axes, records: list[Record], title: str) -> None:
    label, (x, y), valid, log = panel_curves(records, title)
    axis.plot(x, y, color=TRAIN, linewidth=1.5, label="train", marker="." if len(x) < 3 else None)
    x, y = valid
    if y:
        # Markers tell single validations apart, but many of them would hide the line.
        marker = "o" if len(x) <= MARKED else None
        axis.plot(x, y, color=VALID, linewidth=1.5, marker=marker, markersize=4, label="valid")
    _finish_panel(axis, title, label, log)


def _draw_compared(axis: Axes, runs: list[list[Record]], title: str) -> None:
    """The training thin and faint with validation over it, or the training alone."""
    curves = [panel_curves(records, title) for records in runs]
    for number, (_, train, (x, y), _) in enumerate(curves):
        width = FAINT if y else {"linewidth": 1.5}
        axis.plot(*train, **_style(number), **width, marker="." if len(train[0]) < 3 else None)
        axis.plot(x, y, **_style(number), linewidth=1.5, marker="o" if len(x) < 3 else None)
    every = [value for curve in curves for value in curve.train[1] + curve.valid[1]]
    log = min(every) > 0 and any(curve.log for curve in curves)
    label, _ = PANELS[title]
    _finish_panel(axis, title, label + (LOG_LABEL if log else ""), log)


def _finish_panel(axis: Axes, title: str, label: str, log: bool) -> None:
    if log:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.set_xlim(left=0)
    _format_updates(axis)
    axis.set_title(title)
    axis.set_ylabel(label)


def _train_points(records: list[Record], value: Callable) -> tuple[list[int], list[float]]:
    # A run shorter than the log interval has only the lines of whole epochs.
    for kind in ("train_inner", "train"):
        x, y = _points(records, kind, value)
        if y:
            return x, y
    raise VATError(
        "the log has no kl_nats or kl_weight: it is not of a run with "
        "--criterion token_kl_cross_entropy"
    )


def _points(records: list[Record], kind: str, value: Callable) -> tuple[list[int], list[float]]:
    found = [(r.num_updates, value(r.stats)) for r in records if r.kind == kind]
    found = [(x, y) for x, y in found if y is not None]
    return [x for x, _ in found], [y for _, y in found]


def _format_updates(axis: Axes) -> None:
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))


def save_figure(figure: Figure, path: str | os.PathLike, dpi: int = 150) -> None:
    """Write the image file, whole or not at all, and close the figure."""
    try:
        with atomic_path(path) as temporary:
            # The temporary name ends in .tmp, so the format is said here.
            figure.savefig(temporary, dpi=dpi, format=Path(path).suffix.lstrip(".") or "png")
    finally:
        plt.close(figure)
