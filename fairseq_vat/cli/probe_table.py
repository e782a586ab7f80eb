"""The table that ``fairseq-vat probe`` prints."""

from __future__ import annotations

from typing import Any

from fairseq_vat.cli.labelled_input import label_shares


def table(found: dict[str, Any]) -> str:
    """The figures for a reader."""
    if found["folds"] is None:
        files = ", ".join(f"{count:,} {name}" for name, count in found["examples"].items())
        how = f"seeds: {found['seeds']}"
    else:
        files = f"{found['examples']['cv']:,}, {found['folds']}-fold cross-validation"
        how = f"folds run: {found['folds_run']} of {found['folds']}; seeds: {found['seeds']}"
    dense = f"{found['hidden']}, {found['activation']}" if found["hidden"] else "none"
    lines = [
        f"{found['checkpoint']}: {found['updates']:,} updates",
        f"{'pairs' if found['pairs'] else 'sentences'}: {files}; "
        f"{'training ' if found['folds'] is None else ''}labels: {label_shares(found['labels'])}",
        f"{how}; dense layer: {dense}; {found['unknown_share']:.1%} of the pieces unknown",
        "",
        f"{'accuracy, %':24}{'dev':>16}{'test':>16}",
    ]
    names = {"features": "features", "finetune": "fine-tuned"}
    for result in found["results"]:
        pooling = "" if result["pooling"] is None else f", {result['pooling']}"
        lines.append(f"{names[result['mode']] + pooling:24}{_cells(result)}")
    lines.append(f"{'most frequent label':24}{_cells(found['majority'])}")
    return "\n".join(lines)


def _cells(scores: dict[str, Any]) -> str:
    cells = []
    for part in ("valid", "test"):
        score = scores[part]
        cell = "-" if score is None else f"{score['accuracy']:.1f}"
        if score is not None and score["accuracy_std"] is not None:
            cell += f" ± {score['accuracy_std']:.1f}"
        cells.append(f"{cell:>16}")
    return "".join(cells)
