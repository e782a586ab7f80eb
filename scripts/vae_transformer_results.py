"""What reproduce_vae_transformer measured: a JSON file for each table, and means over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_transformer_paper import RUNS

from fairseq_vat.cli.tables import MeanAndStd
from fairseq_vat.files import read_json, write_json

# by what is measured and the latents' width
TABLE_OF = {
    ("evaluate", 64): "table2",
    ("evaluate", 32): "table5",  # and 4, which is a part of it
    ("classify", 64): "table3",  # and 6
}


def write_results(out: Path) -> None:
    """OUT/results: a JSON file for each table, of all that is measured."""
    results = out / "results"
    written = set()
    runs = [read_json(path) for path in sorted(out.glob("*/*/result.json"))]
    for name in sorted({run["data"] for run in runs}):
        of_data = [run for run in runs if run["data"] == name]
        for width in {run["latent_dim"] for run in of_data} - {None} or {64}:
            # language models have no latents: one run is for every width
            chosen = [run for run in of_data if run["latent_dim"] in (None, width)]
            head = {"data": name, "latent_dim": width, "vocabulary": vocabulary(out / name)}
            for kind, left_out in (("evaluate", "classify"), ("classify", "evaluate")):
                entries = [
                    {key: value for key, value in run.items() if key != left_out}
                    for run in chosen
                    if kind in run
                ]
                if entries:
                    table = TABLE_OF.get((kind, width), f"{kind}-z{width}")
                    value = {"table": table, "kind": kind, **head, "runs": entries}
                    written.add(results / f"{table}-{name}.json")
                    write_json(results / f"{table}-{name}.json", value)
    for kind in ("table[235]", "evaluate-z*", "classify-z*"):  # of runs that are others now
        for path in set(results.glob(f"{kind}-*.json")) - written:
            path.unlink()
    for path in sorted(out.glob("*/time.json")):
        value = {"table": "table7", "kind": "time", "data": path.parent.name}
        write_json(results / f"table7-{path.parent.name}.json", value | read_json(path))
    if (found := read_json(out / "parameters.json")) is not None:
        write_json(results / "table8.json", {"table": "table8", "kind": "parameters"} | found)


def vocabulary(folder: Path) -> dict[str, Any]:
    """What a data set was binarised with."""
    with open(folder / "data-bin" / "dict.txt", encoding="utf-8") as file:
        entries = sum(1 for _ in file) + 4  # fairseq's own symbols
    note = read_json(folder / "data-bin" / "subwords.json") or {}
    return {"kind": note.get("bpe"), "entries": entries}


class System:
    """All seeds of a system with one annealing: its figures, each None where it isn't measured."""

    def __init__(self, runs: list[dict[str, Any]]):
        first = runs[0]
        self.system, self.annealing = first["system"], first["annealing"]
        self.name = f"{self.system}-{self.annealing or 'lm'}"
        self.seeds = len(runs)
        self.epochs = _range(run["epochs"] for run in runs)
        self.measured = _range(
            run["best_epoch" if run["checkpoint"] == "checkpoint_best.pt" else "epochs"]
            for run in runs
        )
        self.stopped = ", ".join(sorted({run["stopped"] for run in runs}))
        found = [run["evaluate"] for run in runs if "evaluate" in run]

        def mean(*path: str) -> MeanAndStd | None:
            figures = [_at(one, path) for one in found]
            figures = [figure for figure in figures if figure is not None]
            if not figures:
                return None
            std = statistics.stdev(figures) if len(figures) > 1 else None
            return MeanAndStd(statistics.fmean(figures), std)

        nll = "nll" if self.annealing is None else "nll_samples"
        self.ppl, self.ppl_word = mean(nll, "ppl_per_token"), mean(nll, "ppl_per_word")
        self.kl = mean("kl_nats")
        # both terms at the same draws: the same expectation, without the noise of sqrt(L / 2N)
        self.mi, self.mi_unpaired = mean("mi_batches", "paired"), mean("mi_batches", "unpaired")
        self.mi_whole = mean("mi", "paired")
        self.active = mean("active_units", "count")
        self.elbo_ppl = mean("neg_elbo", "ppl_per_token")
        self.elbo_ppl_word = mean("neg_elbo", "ppl_per_word")
        self.iw_ppl = mean("iw_nll", "ppl_per_token")
        self.iw_ppl_word = mean("iw_nll", "ppl_per_word")
        self.classified = [run["classify"] for run in runs if "classify" in run]


def _range(numbers: Iterable[int]) -> str:
    ordered = sorted(numbers)
    return "\N{EN DASH}".join(map(str, dict.fromkeys((ordered[0], ordered[-1]))))


def _at(found: Any, path: Sequence[str]) -> Any:
    for key in path:
        found = None if found is None else found.get(key)
    return found


def systems(found: Mapping[str, Any]) -> list[System]:
    """Those of a table, in the paper's order."""
    by_name: dict[str, list] = {}
    for run in found["runs"]:
        by_name.setdefault(f"{run['system']}-{run['annealing'] or 'lm'}", []).append(run)
    return [System(by_name[name]) for name in RUNS if name in by_name]
