"""What ``fairseq-vat sts`` prints without --json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_MEASURES = {"spearman": "Spearman", "pearson": "Pearson"}
_AVERAGES = {
    "mean": "mean of subsets",
    "weighted_mean": "mean, weighted by pairs",
    "all_pairs": "all pairs together",
}
_CELL = 11


def table(found: dict[str, Any]) -> Iterator[str]:
    """The lines of a table of both correlations, times 100, and of why some are undefined."""
    systems = found["systems"]
    for system in systems:
        yield _description(system)
    columns = [(system, pooling) for system in systems for pooling in system["poolings"]]
    rows = list(_rows(systems[0]))
    width = max(len(title) for title, _, _ in rows) + 2
    for measure, title in _MEASURES.items():
        yield ""
        yield f"{'':{width + 8}}" + "".join(_heading(system) for system in systems)
        names = "".join(f"{pooling:>{_CELL}}" for _, pooling in columns)
        yield f"{title + ' x 100':{width}}{'pairs':>8}{names}"
        for name, pairs, path in rows:
            cells = (_cell(_at(s["poolings"][p], path), measure) for s, p in columns)
            yield f"{name:{width}}{pairs:>8,}" + "".join(cells)
    reasons = {
        f"undefined: {system['name']}, {pooling}: {name}: {correlation['undefined']}": None
        for system, pooling in columns
        for name, _, path in rows
        if (correlation := _at(system["poolings"][pooling], path))["undefined"]
    }
    if reasons:
        yield ""
        yield from reasons


def _description(system: dict[str, Any]) -> str:
    shares = ", ".join(f"{task} {share:.1%}" for task, share in system["unknown_share"].items())
    what = f"vectors of width {system['width']}"
    if "updates" in system:
        one = "each token" if system["latent_level"] == "token" else "each sentence"
        what = f"{system['updates']:,} updates, a latent of width {system['width']} for {one}"
    return f"{system['name']}: {system['path']}: {what}; unknown pieces: {shares}"


def _rows(system: dict[str, Any]) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Title, number of pairs, and where the correlation stands among a pooling's results."""
    results = next(iter(system["poolings"].values()))
    for task, result in results["tasks"].items():
        for subset, correlation in result["subsets"].items():
            yield f"{task} {subset}", correlation["pairs"], ("tasks", task, "subsets", subset)
        for kind, title in _AVERAGES.items():
            yield f"{task}, {title}", result[kind]["pairs"], ("tasks", task, kind)
    if len(results["tasks"]) > 1:
        for kind, title in _AVERAGES.items():
            pairs = results["average_of_tasks"][kind]["pairs"]
            yield f"mean over tasks of: {title}", pairs, ("average_of_tasks", kind)


def _at(results: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path:
        results = results[key]
    return results


def _heading(system: dict[str, Any]) -> str:
    width = _CELL * len(system["poolings"])
    return f"{system['name'][: width - 1]:>{width}}"


def _cell(correlation: dict[str, Any], measure: str) -> str:
    value = correlation[measure]
    return f"{'undefined' if value is None else f'{100 * value:.2f}':>{_CELL}}"
