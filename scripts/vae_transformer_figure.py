"""Rate and distortion of the systems that scripts/reproduce_vae_transformer.sh measured."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.lines import Line2D
from vae_transformer_paper import NAMES
from vae_transformer_runs import FREE_BITS

from fairseq_vat.report.plots import RUNS, STYLE, plt, save_figure

_MARKERS = {"none": "o", "linear": "s", "cyclic": "^", FREE_BITS: "D"}
_LANGUAGE_MODEL = "*"


def rate_distortion(runs: Sequence[Mapping[str, Any]], path: str | os.PathLike) -> None:
    """A point for each run: KL against the reconstruction from drawn latents.

    A language model, which has no latents, is a point at a KL of 0, and the dashed line through it
    joins what has its likelihood as the ELBO, KL + reconstruction: what lies above is worse. Both
    axes are nats per sentence.

    Args:
        runs: those of tables of language modelling, as ``OUT/results`` has them; what is narrower
            than the widest latents is a hollow point.
        path: the image file.
    """
    names = [name for name in NAMES if any(run["system"] == name for run in runs)]
    colours = dict(zip(names, RUNS, strict=False))
    widths = sorted({run["latent_dim"] for run in runs} - {None})
    points = []
    for run in runs:
        measured, annealing = run["evaluate"], run["annealing"]
        nll = measured["nll" if annealing is None else "nll_samples"]["per_sentence"]
        kl = 0.0 if annealing is None else measured["kl_nats"]
        marker = _LANGUAGE_MODEL if annealing is None else _MARKERS[annealing]
        is_narrow = run["latent_dim"] in widths[:-1]
        points.append((kl, nll, marker, colours[run["system"]], is_narrow))
    # at least a nat: collapsed runs alone are all at 0
    widest = max(1.0, *(kl for kl, *_ in points))
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8.6, 4.6))
        for kl, nll, marker, colour, is_narrow in points:
            size = 130 if marker == _LANGUAGE_MODEL else 45
            face = "none" if is_narrow else colour
            look = {"edgecolors": colour, "facecolors": face, "marker": marker}
            axis.scatter(kl, nll, size, alpha=0.8, zorder=3, **look)
            if marker == _LANGUAGE_MODEL:
                line = [nll, nll - widest]
                axis.plot([0, widest], line, color=colour, linestyle="--", linewidth=1, alpha=0.6)
        axis.set_xlim(-0.04 * widest, 1.04 * widest)
        axis.set_xlabel("rate: KL (nats per sentence)")
        axis.set_ylabel("distortion: nll of drawn latents\n(nats per sentence)")
        axis.set_title("Rate and distortion, a point for each run")
        empty = {"linestyle": "none", "color": "grey"}
        handles = [
            Line2D([], [], linewidth=5, color=colour, label=NAMES[name])
            for name, colour in colours.items()
        ]
        used = {marker for _, _, marker, *_ in points}
        for annealing, marker in _MARKERS.items():
            if marker in used:
                handles.append(Line2D([], [], marker=marker, label=annealing, **empty))
        if widths[:-1]:
            label = f"z = {', '.join(map(str, widths[:-1]))}"
            look = {"markerfacecolor": "none", "markeredgecolor": "grey"}
            handles.append(Line2D([], [], marker="o", label=label, **look, **empty))
        if _LANGUAGE_MODEL in used:
            label = "language model, and its likelihood"
            handles.append(
                Line2D([], [], marker=_LANGUAGE_MODEL, markersize=10, label=label, **empty)
            )
        figure.legend(handles=handles, loc="outside right upper")
        save_figure(figure, path)
