"""What ``fairseq-vat probe`` prints without --json."""

from typing import Any

from fairseq_vat.cli.classify_command import ACCURACY, MAJORITY, label_shares
from fairseq_vat.cli.tables import MeanAndStd, prose, table

_PARTS = ("valid", "test")


def probe_tables(found: dict[str, Any], style: str) -> str:
    """Accuracies."""
    if found["folds"] is None:
        files = ", ".join(f"{count:,} {name}" for name, count in found["examples"].items())
        how = f"seeds: {found['seeds']}"
    else:
        files = f"{found['examples']['cv']:,}, {found['folds']}-fold cross-validation"
        how = f"folds run: {found['folds_run']} of {found['folds']}; seeds: {found['seeds']}"
    beside = zip(found["hf"], found["hf_hidden"], strict=True)
    rows = [(_title(found, result), result) for result in found["results"]]
    rows.append((MAJORITY[0], found[MAJORITY[1]]))
    lines = prose(
        style,
        f"{found['checkpoint']}: {found['updates']:,} updates",
        f"{'pairs' if found['pairs'] else 'sentences'}: {files}; "
        f"{'training ' if found['folds'] is None else ''}labels: "
        f"{label_shares(found['labels'])}",
        f"{how}; dense layer: {_dense(found, found['hidden'])}; "
        f"{found['unknown_share']:.1%} of the pieces unknown",
        *(f"{_hf_line(encoder)}; dense layer: {_dense(found, n)}" for encoder, n in beside),
        "",
    )
    cells = [
        {"name": name}
        | {part: MeanAndStd.of(result[part], "accuracy") for part in _PARTS if result[part]}
        for name, result in rows
    ]
    columns = [("name", ACCURACY[0], ""), *((part, part, ACCURACY[1]) for part in _PARTS)]
    return "\n".join([*lines, table(cells, columns, style)])


def relatedness_tables(found: dict[str, Any], style: str) -> str:
    """Correlations and errors, a table of valid and one of test, an empty line between."""
    files = ", ".join(f"{count:,} {name}" for name, count in found["examples"].items())
    least, most = found["grades"]
    lines = prose(
        style,
        f"{found['checkpoint']}: {found['updates']:,} updates",
        f"pairs: {files}; grades: {least} to {most}; seeds: {found['seeds']}; "
        f"{found['unknown_share']:.1%} of the pieces unknown",
        *map(_hf_line, found["hf"]),
        "",
    )
    rows = [(_title(found, result), result) for result in found["results"]]
    rows.append(("mean score", found["mean_score"]))
    for part in _PARTS:
        scores = [(name, result[part]) for name, result in rows]
        columns = [
            ("name", part, ""),
            ("pearson", "Pearson x 100", ".2f"),
            ("spearman", "Spearman x 100", ".2f"),
            ("mse", "MSE", ".2f"),
        ]
        cells = [
            {"name": name, "mse": MeanAndStd.of(score, "mse")}
            | {
                figure: MeanAndStd.of(score, figure, 100) or "undefined"
                for figure in ("pearson", "spearman")
            }
            for name, score in scores
        ]
        lines += [table(cells, columns, style), ""]
    return "\n".join(lines[:-1])


def _hf_line(encoder: dict[str, Any]) -> str:
    return (
        f"{encoder['name']}: {encoder['path']}: vectors of width {encoder['width']}; "
        f"{encoder['unknown_share']:.1%} of the pieces unknown"
    )


def _title(found: dict[str, Any], result: dict[str, Any]) -> str:
    """A result's encoder where there are several, mode and pooling."""
    names = {"features": "features", "finetune": "fine-tuned"}
    parts = (result["encoder"] if found["hf"] else None, names[result["mode"]], result["pooling"])
    return ", ".join(part for part in parts if part is not None)


def _dense(found: dict[str, Any], width: int) -> str:
    return f"{width}, {found['activation']}" if width else "none"
