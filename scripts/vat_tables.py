#!/usr/bin/env python3
"""What scripts/reproduce_vat.sh measured, beside the VAT paper's figures.

    python scripts/vat_tables.py OUT     # its JSON files to OUT/tables.md

What isn't measured is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vat_paper import CLASSIFICATION, SETS, table_4, table_5

from fairseq_vat.cli.flags import Parser
from fairseq_vat.cli.tables import MeanAndStd, table
from fairseq_vat.files import atomic_path, read_json

AVERAGES = {"mean": "mean of subsets", "weighted_mean": "weighted by pairs", "all_pairs": "all"}
MODES = {"features": "on vectors as they are", "finetune": "fine-tuned"}
MEASURES = (
    ("random_cosine", "random words", ".3f"),
    ("self_similarity", "self-similarity", ".3f"),
    ("intra_sentence_similarity", "intra-sentence", ".3f"),
    ("iso_score", "IsoScore", ".3f"),
)


def write_markdown(out: Path) -> None:
    """OUT/tables.md from OUT's JSON files."""
    parts = [*similarity(out), *relatedness(out), *isotropy(out)]
    for mode, title in MODES.items():
        parts += classification(out, mode, title)
    samples = out / "tables-1-3.md"
    if samples.exists():
        parts.append(samples.read_text(encoding="utf-8").rstrip())
    with atomic_path(out / "tables.md") as path:
        Path(path).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def similarity(out: Path) -> Iterator[str]:
    """Table 4: a row for each average of a data set."""
    measured = {name: read_json(out / f"table4-{name}.json") for name in SETS}
    measured = {name: value for name, value in measured.items() if value is not None}
    if not measured:
        return
    theirs = table_4()
    shown = [name for name in theirs if name.startswith("VAT")] + ["BERT-mean"]
    rows, heads = [], {}
    for name, value in measured.items():
        for average, title in AVERAGES.items():
            row: dict[str, Any] = {"row": f"{name}, {title}"}
            subsets = 0
            for system in value["systems"]:
                for pooling, results in system["poolings"].items():
                    (task,) = results["tasks"].values()
                    subsets = len(task["subsets"])
                    rho = task[average]["spearman"]  # None where it is undefined
                    head = label(system["name"], pooling)
                    row[f"{head}, measured"] = rho and 100 * rho
                    heads[f"{head}, measured"] = head
            if average == "mean":
                row |= {system: theirs[system][name] for system in shown}
            if subsets > 1 or average == "mean":
                rows.append(row)
    columns = [(key, head, ".2f") for key, head in heads.items()]
    columns += [(name, f"{name} (paper)", ".2f") for name in shown]
    yield "**Table 4**: Spearman's correlation of cosines and scores, times 100"
    yield table(rows, [("row", "", "s"), *columns])


def relatedness(out: Path) -> Iterator[str]:
    """SentEval's STS-B: a trained layer, the VAT paper's STSb if it took SentEval as it is."""
    value = read_json(out / "relatedness-stsb.json")
    if value is None:
        return
    rows = [
        {
            "row": label(result["encoder"], result["pooling"]),
            **{
                figure: MeanAndStd.of(result["test"], figure, 100)
                for figure in ("pearson", "spearman")
            },
        }
        for result in value["results"]
    ]
    yield f"**STSb with a trained layer**, test, {value['seeds']} seeds, correlations times 100"
    columns = (("row", "", "s"), ("pearson", "Pearson", ".2f"), ("spearman", "Spearman", ".2f"))
    yield table(rows, columns)


def isotropy(out: Path) -> Iterator[str]:
    """Figure 3a, one model."""
    value = read_json(out / "figure3a.json")
    if value is None:
        return
    rows: list[Mapping[str, Any]] = [
        {**layer, "row": f"layer {layer['layer']}" if layer["layer"] else "embeddings"}
        for layer in value["layers"]
    ]
    rows.append({"row": "latents", **value["latents"]})
    words = ", ".join(f"`{word['word']}` {word['self_similarity']:.2f}" for word in value["words"])
    yield f"**Figure 3a**: {value['sentences']:,} sentences, {value['tokens']:,} words"
    yield table(rows, (("row", "", "s"), *MEASURES))
    yield f"Least self-similarity: {words}"


def classification(out: Path, mode: str, title: str) -> Iterator[str]:
    """Table 5, dev / test in percent: a row a system, a column a data set."""
    measured = {name: read_json(out / f"table5-{name}-{mode}.json") for name in CLASSIFICATION}
    measured = {name: value for name, value in measured.items() if value is not None}
    if not measured:
        return
    rows: dict[str, dict[str, Any]] = {}
    for name, value in measured.items():
        for result in value["results"]:
            row = label(result["encoder"], result["pooling"])
            rows.setdefault(row, {"row": row})[name] = cell(result) + f" ({len(result['runs'])})"
        row = "most frequent label"
        rows.setdefault(row, {"row": row})[name] = cell(value["majority"])
    theirs = [{"row": f"{name} (paper)", **figures} for name, figures in table_5(mode).items()]
    yield f"**Table 5, {title}**: accuracy on dev / test in percent, ± over runs (their number)"
    columns = [(name, name, "s") for name in measured]
    yield table([*rows.values(), *theirs], [("row", "", "s"), *columns])


def label(encoder: str, pooling: str | None) -> str:
    """``VAT-mean``, as the paper has it."""
    return "-".join(filter(None, ("VAT" if encoder == "checkpoint" else encoder, pooling)))


def cell(result: Mapping[str, Any]) -> str:
    """``dev ± std / test ± std``."""
    parts = [result[part] for part in ("valid", "test") if result[part]]
    return " / ".join(format(MeanAndStd.of(part, "accuracy"), ".1f") for part in parts)


def main() -> None:
    """Write the tables."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    args = parser.parse_args()
    with parser.one_line_errors():
        write_markdown(args.out)


if __name__ == "__main__":
    main()
