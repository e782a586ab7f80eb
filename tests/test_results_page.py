"""Each figure that the VAE-Transformer's page gives as measured is that of docs/results/."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import vae_transformer_paper as papers

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "results-vae-transformer.md").read_text(encoding="utf-8")
SYSTEMS = {
    "VAE-Transformer": "vae_transformer",
    "VAE-LSTM": "vae_lstm",
    "VAE-GRU": "vae_gru",
    "Transformer decoder": "transformer_decoder_lm",
    "LSTM": "lstm_decoder_lm",
    "GRU": "gru_decoder_lm",
}
PPLS = {"PPL", "PPL per piece", "per BERT word", "per word", "per word, without ends"}
NOT_MEASURED = ("system", "annealing", "epochs", "(paper")
TABLES = {  # section, a column of this table alone: the files
    ("Table 2 under BERT's WordPiece", "per BERT word"): (
        "table2-ptb-wordpiece", "table5-ptb-wordpiece"
    ),
    ("Table 2 by words, at the paper's length", "epochs"): (
        "table2-ptb", "table2-ptb-unfinished"
    ),
    ("Tables 2, 3 and 6 on SST-2", "PPL per piece"): ("table2-sst2",),
    ("Tables 2, 3 and 6 on SST-2", "test accuracy"): ("table3-sst2",),
}  # fmt: skip


def rows_of(section: str, column: str) -> list[list[tuple[str, str]]]:
    """The rows of a section's table with a column: each cell with its column's name."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()]
        if column in lines[0]:
            return [list(zip(lines[0], line, strict=True)) for line in lines[2:]]
    raise ValueError(f"{section}: no table has a column {column!r}")


def published(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The runs of the files; one that is in two of them, once."""
    runs: list[dict[str, Any]] = []
    for name in names:
        for run in json.loads((DOCS / "results" / f"{name}.json").read_text())["runs"]:
            runs += [] if run in runs else [run]
    return runs


def value(run: dict[str, Any], column: str) -> float | None:
    split, _, measure = column.partition(" ")
    if measure in ("BCE", "accuracy"):
        return run["classify"]["classifier"][split]["loss" if measure == "BCE" else measure]
    if column == "logistic regression, test":
        return run["classify"]["logistic_regression"]["test"]["accuracy"]
    if column in PPLS:
        measure = "ppl_per_token" if column.startswith("PPL") else "ppl_per_word"
        return run["evaluate"]["nll" if run["annealing"] is None else "nll_samples"][measure]
    found = run["evaluate"]
    for key in {
        "KL": ["kl_nats"],
        "MI": ["mi_batches", "paired"],
        "MI, whole set": ["mi", "paired"],
        "ELBO PPL": ["neg_elbo", "ppl_per_token"],
        "IW PPL": ["iw_nll", "ppl_per_token"],
        "active units": ["active_units", "count"],
    }[column]:
        found = None if found is None else found[key]
    return found


def runs_of(row: dict[str, str], runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    name, *rest = row.get("system, annealing", row.get("system", "")).split(", ")
    annealing = row["annealing"] if "annealing" in row else "".join(rest)
    width = 32 if "z = 32" in rest else 64
    epoch = re.match(r"\d+", row.get("epochs", ""))  # of a checkpoint on the way
    found = [
        run
        for run in runs
        if (run["system"], run["annealing"]) == (SYSTEMS[name], annealing or None)
        and run["latent_dim"] in (None, width)
        and (epoch is None) != (run.get("epoch") == 40)
    ]
    assert len(found) == (3 if "3 seeds" in rest else 1)
    return found


def spelled(column: str, runs: list[dict[str, Any]]) -> str:
    """What the runs have in a column, as the page prints it."""
    values = [value(run, column) for run in runs]
    if set(values) == {None}:
        return "-"
    if column == "active units":
        return " to ".join(dict.fromkeys([f"{min(values):.0f}", f"{max(values):.0f}"]))
    share = "accuracy" in column or "logistic" in column
    digits = 3 if "BCE" in column else 1 if share else 2
    spread = stdev(values) if len(values) > 1 else None
    if "accuracy" in column:
        spread = runs[0]["classify"]["classifier"][column.split()[0]]["accuracy_std"]
    text = f"{fmean(values):,.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")
    return f"{text} %" if share else text


def measured_rows() -> list[Any]:
    found = []
    for (section, column), names in TABLES.items():
        for number, cells in enumerate(rows_of(section, column)):
            if "most frequent" not in cells[0][1]:
                name = f"{names[0]}-{column.replace(' ', '_')}-{number}"
                found.append(pytest.param(cells, names, id=name))
    return found


@pytest.mark.parametrize(("cells", "names"), measured_rows())
def test_a_row_is_its_runs(cells, names):
    runs = runs_of(dict(cells), published(names))
    measured = [cell for cell in cells if not cell[0].startswith(NOT_MEASURED)]
    assert measured == [(column, spelled(column, runs)) for column, _ in measured]


@pytest.mark.parametrize(
    ("cells", "names"), [row for row in measured_rows() if row.values[0][2][0].startswith("epochs")]
)
def test_its_epochs_are_theirs(cells, names):
    def span(key: str) -> str:
        values = sorted({run[key] for run in runs})
        between = " or " if len(values) == 2 and values[1] == values[0] + 1 else " to "
        return between.join(dict.fromkeys([str(values[0]), str(values[-1])]))

    runs = runs_of(dict(cells), published(names))
    printed = cells[2][1].partition(",")[0]
    if "epoch" in runs[0]:  # a checkpoint on the way
        assert int(re.findall(r"\d+", printed)[0]) == runs[0]["epoch"]
    else:
        assert printed == f"best {span('best_epoch')} of {span('epochs')}"


def test_what_stands_beside_the_estimator_is_of_a_run():
    columns = ("PPL", "KL", "MI", "MI, whole set", "ELBO PPL", "IW PPL", "active units")
    section = "Table 2 under BERT's WordPiece", "per BERT word"
    runs = [[spelled(column, [run]) for column in columns] for run in published(TABLES[section])]
    quoted = re.findall(r"\(ours: ([^)]*)\)", PAGE)
    assert quoted and all(figures.split(", ") in runs for figures in quoted)


@pytest.mark.parametrize(("cells", "names"), measured_rows())
def test_the_papers_figures_are_beside_it(cells, names):
    (run, *_) = runs_of(dict(cells), published(names))
    row = f"{run['system']}-{run['annealing'] or 'lm'}"
    place = papers.SETS.index(run.get("data", "ptb"))
    if "classify" in run:
        found = papers.paper(papers.TABLE_6, row, papers.LABELLED.index(run["data"]), 6)[2:]
        spellings = ["{:.3f}", "{:.1%}"] * 2  # the page has no figures of train
    else:
        width = 1 if run["annealing"] is None else 3
        table = papers.TABLE_5 if run["latent_dim"] == 32 else papers.TABLE_2
        found, spellings = papers.paper(table, row, place, width), ["{:.2f}"] * width
    expected = [text.format(x) for text, x in zip(spellings, found, strict=True) if x is not None]
    printed = [text.replace(" ", "") for column, text in cells if column.startswith("(paper")]
    assert [text for text in printed if text not in ("", "-")] == expected


def output(name: str) -> dict[str, Any]:
    return json.loads((DOCS / "results" / f"{name}.json").read_text())["output"]


def test_sizes_are_those_counted():
    rows = [dict(cells) for cells in rows_of("Tables 7 and 8", "parameters")]
    counted = output("table8")["parameters"]
    assert len(rows) == len(counted)
    for row in rows:
        system = SYSTEMS[row["system"]] + ("_1024" if row["width"] == "1024" else "")
        assert row["parameters"] == f"{counted[system]:,}"
        paper = int(row["(paper)"].replace(",", ""))
        assert row["difference"] == f"{counted[system] - paper:+,}"


def test_seconds_are_those_measured():
    rows = [dict(cells) for cells in rows_of("Tables 7 and 8", "width 128")]
    for width, suffix in (("128", ""), ("1024", "_1024")):
        seconds = output(f"table7-ptb-{width}")["seconds"]
        printed = {SYSTEMS[row["system"]] + suffix: row[f"width {width}"] for row in rows}
        assert printed == {system: f"{taken:.0f}" for system, taken in seconds.items()}
