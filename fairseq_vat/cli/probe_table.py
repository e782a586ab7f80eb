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
    lines = [
        f"{found['checkpoint']}: {found['updates']:,} updates",
        f"{'pairs' if found['pairs'] else 'sentences'}: {files}; "
        f"{'training ' if found['folds'] is None else ''}labels: {label_shares(found['labels'])}",
        f"{how}; dense layer: {_dense(found, found['hidden'])}; "
        f"{found['unknown_share']:.1%} of the pieces unknown",
    ]
    for encoder, width in zip(found["hf"], found["hf_hidden"], strict=True):
        lines.append(f"{hf_line(encoder)}; dense layer: {_dense(found, width)}")
    rows = {title(found, result): _cells(result) for result in found["results"]}
    rows["most frequent label"] = _cells(found["majority"])
    column = max(24, *(len(name) + 2 for name in rows))
    lines += ["", f"{'accuracy, %':{column}}{'dev':>16}{'test':>16}"]
    lines += [f"{name:{column}}{cells}" for name, cells in rows.items()]
    return "\n".join(lines)


def hf_line(encoder: dict[str, Any]) -> str:
    """A Hugging Face encoder in words."""
    return (
        f"{encoder['name']}: {encoder['path']}: vectors of width {encoder['width']}; "
        f"{encoder['unknown_share']:.1%} of the pieces unknown"
    )


def title(found: dict[str, Any], result: dict[str, Any]) -> str:
    """A result's encoder where there are several, mode and pooling."""
    names = {"features": "features", "finetune": "fine-tuned"}
    parts = (result["encoder"] if found["hf"] else None, names[result["mode"]], result["pooling"])
    return ", ".join(part for part in parts if part is not None)


def _dense(found: dict[str, Any], width: int) -> str:
    return f"{width}, {found['activation']}" if width else "none"


def _cells(scores: dict[str, Any]) -> str:
    cells = []
    for part in ("valid", "test"):
        score = scores[part]
        cell = "-" if score is None else f"{score['accuracy']:.1f}"
        if score is not None and score["accuracy_std"] is not None:
            cell += f" ± {score['accuracy_std']:.1f}"
        cells.append(f"{cell:>16}")
    return "".join(cells)
