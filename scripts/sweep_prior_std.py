#!/usr/bin/env python3
"""What scripts/sweep_prior_std.sh measured, as tables and as figures 2, 3a and 3b of the VAT paper.

    python scripts/sweep_prior_std.py OUT --settings mean sum               # OUT/sweep.md
    python scripts/sweep_prior_std.py OUT --settings mean sum --figures     # and the figures

A figure that isn't there yet is a dash.  The tables take only the standard library: they are
written anew after every step.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import re
import shlex
from pathlib import Path
from typing import Any

COLLAPSED = 0.1  # nats of KL per latent, under which the latents say next to nothing
_NATS = math.log(2)  # a bit
_LATENTS = ("random_cosine", "self_similarity", "intra_sentence_similarity", "iso_score")
_VALID = re.compile(r"^epoch \d+ \| valid on '[^']+' subset \| (.*)$", re.MULTILINE)
# key of a run's figures, the column's head, how it is written
_COLUMNS = (
    ("prior_std", "s", "g"),
    ("loss", "loss", ".3f"),
    ("nll", "reconstruction", ".3f"),
    ("weighted_kl", "weighted KL", ".3f"),
    ("kl", "KL per latent", ".3f"),
    ("active", "active units", "d"),
    ("accuracy", "accuracy, %", ".1f"),
    ("random_cosine", "random words", ".3f"),
    ("self_similarity", "self-similarity", ".3f"),
    ("intra_sentence_similarity", "intra-sentence", ".3f"),
    ("iso_score", "IsoScore", ".3f"),
)
_NOTES = f"""\
On the test set: loss = reconstruction + weighted KL, with latents drawn, in nats per token;
KL per latent, in nats, not weighted; active units, dimensions whose mean varies by 0.01 s² or more.
Accuracy: next-token, latents drawn, on the validation set. Random words, self-similarity and
intra-sentence: mean cosines of the latents' means; IsoScore likewise. Collapsed means a KL per
latent under {COLLAPSED} nats. Each run's whole command is beside it, in SETTING/sS/command.
"""


def read(path: Path) -> Any:
    """A JSON file's value, or None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def flags_of(folder: Path) -> dict[str, str]:
    """What decides about the KL in a run's training, s apart; of a flag given twice the last."""
    path = folder / "command"
    command = shlex.split(path.read_text(encoding="utf-8")) if path.exists() else []
    # --flag=value is two words
    split = (word.split("=", 1) if word.startswith("--") else [word] for word in command)
    command = [*itertools.chain.from_iterable(split)]
    return {
        flag: value
        for flag, value in itertools.pairwise(command)
        if flag.startswith(("--kl-", "--free-bits")) or flag == "--max-update"
    }


def last_validation(log: Path) -> dict[str, float]:
    """The statistics of the last validation in fairseq's log, as far as they are numbers."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    found = _VALID.findall(text)
    pairs = (item.split() for item in found[-1].split(" | ")) if found else ()
    return {name: float(value) for name, value in pairs}


def figures_of(folder: Path) -> dict[str, float | None]:
    """The figures of the run in OUT/SETTING/sS, each None as long as it isn't measured."""
    run: dict[str, Any] = dict.fromkeys(key for key, _, _ in _COLUMNS)
    run["prior_std"] = float(folder.name[1:])
    evaluated, isotropy = read(folder / "evaluate.json"), read(folder / "isotropy.json")
    if evaluated:
        valid = last_validation(folder / "train.log")
        run["nll"] = evaluated["nll_samples"]["per_token"]
        run["kl"] = evaluated["kl_nats"]
        run["active"] = evaluated["active_units_scaled"]["count"]
        run["accuracy"] = valid.get("accuracy")
        if "kl_weight" in valid:
            weight = valid["kl_weight"]
            if flags_of(folder).get("--kl-reduction") == "mean":
                weight /= evaluated["active_units_scaled"]["of"]  # the latent's width
            run["weighted_kl"] = weight * evaluated["kl"]["per_token"]
            run["loss"] = run["nll"] + run["weighted_kl"]
    if isotropy:
        run |= {key: isotropy["latents"][key] for key in _LATENTS}
    return run


def runs_of(out: Path, setting: str) -> list[Path]:
    """The folders of a setting's runs, by s."""
    folders = [path for path in (out / setting).glob("s*") if path.is_dir()]
    return sorted(folders, key=lambda path: float(path.name[1:]))


def table(runs: list[dict]) -> list[str]:
    """A Markdown table, a row for each s."""
    lines = ["", "| " + " | ".join(head for _, head, _ in _COLUMNS) + " |"]
    lines.append("|" + " ---: |" * len(_COLUMNS))
    for run in runs:
        cells = ("-" if run[key] is None else format(run[key], form) for key, _, form in _COLUMNS)
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def answers(runs: list[dict]) -> list[str]:
    """Where the latents are most isotropic, and where they have collapsed."""
    measured = [run for run in runs if run["kl"] is not None]
    if not measured:
        return []
    collapsed = [f"{run['prior_std']:g}" for run in measured if run["kl"] < COLLAPSED]
    lines = ["Collapsed: " + (f"s = {', '.join(collapsed)}." if collapsed else "none.")]
    for key, best, text in (
        ("random_cosine", min, "The cosine of random words is least"),
        ("iso_score", max, "IsoScore is greatest"),
    ):
        found = [run for run in measured if run[key] is not None and run["kl"] >= COLLAPSED]
        if len(found) > 1:
            at = best(found, key=lambda run: run[key])
            lines.append(
                f"{text} at s = {at['prior_std']:g} ({at[key]:.3f}), of those not collapsed."
            )
    return [*lines, ""]


def document(out: Path, settings: list[str]) -> str:
    """The tables."""
    lines = ["## The prior's standard deviation", "", *_NOTES.splitlines(), ""]
    for setting in settings:
        folders = runs_of(out, setting)
        if not folders:
            continue
        runs = [figures_of(folder) for folder in folders]
        flags = next(filter(None, map(flags_of, folders)), {})
        shared = " ".join(f"{flag} {value}" for flag, value in flags.items())
        lines += [f"### {setting}", "", f"`{shared}`", *table(runs), *answers(runs)]
    return "\n".join(lines).rstrip() + "\n"


def curves_of(folder: Path) -> dict[str, Any]:
    """The learning curves of a run, in nats."""
    from fairseq_vat.evaluation.training_log import read_training_log

    run: dict[str, Any] = {"prior_std": float(folder.name[1:]), "train": [], "valid": []}
    run |= {"updates": [], "kl": []}
    for record in read_training_log(folder / "train.log"):
        stats, kind = record.stats, record.kind.replace("train_inner", "inner")
        if kind == "train" or "kl_nats" not in stats:  # a whole epoch: its parts are there
            continue
        nll, loss = stats["nll_loss"] * _NATS, stats["loss"] * _NATS
        run[kind.replace("inner", "train")].append((record.num_updates, nll, loss - nll))
        if kind == "inner":
            run["updates"].append(record.num_updates)
            run["kl"].append(stats["kl_nats"])
    return run


def draw(out: Path, settings: list[str], stds: list[float]) -> None:
    """The figures, of what there is."""
    from fairseq_vat.cli.quiet import quiet

    with quiet():  # fairseq makes matplotlib tell what it does
        from fairseq_vat import sweep_plots

    folders = {setting: runs_of(out, setting) for setting in settings}
    figures = {name: [figures_of(path) for path in paths] for name, paths in folders.items()}
    for name, function, key in (
        ("similarities", sweep_plots.similarities, "random_cosine"),
        ("losses", sweep_plots.losses, "loss"),
    ):
        there = {
            setting: [run for run in runs if run[key] is not None]
            for setting, runs in figures.items()
        }
        there = {setting: runs for setting, runs in there.items() if runs}
        if there:
            function(there, out / f"{name}.png")
    trained = {
        setting: [curves_of(path) for path in paths if (path / "done").exists()]
        for setting, paths in folders.items()
    }
    trained = {setting: runs for setting, runs in trained.items() if runs}
    if trained:
        sweep_plots.kl_curves(trained, out / "kl.png")
    for setting, runs in trained.items():
        chosen = [run for std in stds for run in runs if run["prior_std"] == std]
        if chosen:
            sweep_plots.learning_curves(chosen, out / f"curves-{setting}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--settings", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--figures", action="store_true", help="draw them, too")
    parser.add_argument("--curves", nargs="+", type=float, default=[1.0, 0.4], metavar="S")
    args = parser.parse_args()
    if not args.out.is_dir():
        parser.error(f"{args.out} is no folder: give that of sweep_prior_std.sh")
    text = document(args.out, args.settings)
    partial = args.out / f".sweep.md.{os.getpid()}"
    partial.write_text(text, encoding="utf-8")
    partial.replace(args.out / "sweep.md")
    if args.figures:
        draw(args.out, args.settings, args.curves)


if __name__ == "__main__":
    main()
