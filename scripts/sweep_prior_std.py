#!/usr/bin/env python3
"""What scripts/sweep_prior_std.sh measured, as tables and as figures 2, 3a and 3b of the VAT paper.

    python scripts/sweep_prior_std.py OUT --settings mean sum               # OUT/sweep.md
    python scripts/sweep_prior_std.py OUT --settings mean sum --figures     # and the figures

A figure that isn't there yet is a dash.  The tables load no torch: they are written anew after
every step.
"""

from __future__ import annotations

import itertools
import math
import re
import shlex
import statistics
from pathlib import Path
from typing import Any

from fairseq_vat.cli.flags import Parser, above
from fairseq_vat.cli.tables import table
from fairseq_vat.evaluation.training_log import last_validation, read_training_log
from fairseq_vat.files import atomic_path, read_json
from fairseq_vat.measures.collapse import NATS as COLLAPSED

_NATS = math.log(2)  # a bit
_LATENTS = ("random_cosine", "self_similarity", "intra_sentence_similarity", "iso_score")
# of a run's folder, OUT/SETTING/NOISE-sS-seedN
_RUN = re.compile(r"(unit|prior)-s([0-9.e+-]+)-seed([0-9]+)")
# key of a run's figures, the column's head, how it is written
_COLUMNS = (
    ("prior_std", "s", "g"),
    ("loss", "loss", ".3f"),
    ("nll", "reconstruction", ".3f"),
    ("weighted_kl", "weighted KL", ".3f"),
    ("penalty", "penalty per latent", ".3f"),
    ("kl", "KL per latent", ".3f"),
    ("active", "active units", "d"),
    ("accuracy", "accuracy, %", ".1f"),
    ("random_cosine", "random words", ".3f"),
    ("self_similarity", "self-similarity", ".3f"),
    ("intra_sentence_similarity", "intra-sentence", ".3f"),
    ("iso_score", "IsoScore", ".3f"),
)
_NOTES = f"""\
On the test set: loss = reconstruction + weighted KL, with latents drawn, in nats per token. What is
weighted is the penalty, equation (6), in nats per latent. With unit noise it is the KL of latents
to their prior; with the prior's it is none, and the KL stands beside it. Active units: dimensions
whose mean varies by 0.01 p² or more, p being the standard deviation of the latents' prior.
Accuracy: next-token, latents drawn, on the validation set. Random words, self-similarity and
intra-sentence: mean cosines of the latents' means; IsoScore likewise. Collapsed means a KL per
latent under {COLLAPSED} nats. With several seeds: mean ± standard deviation over them (n - 1). Each
run's whole command is beside it, in SETTING/NOISE-sS-seedN/command.
"""


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


def figures_of(folder: Path) -> dict[str, float | None]:
    """The figures of a run, each None as long as it isn't measured."""
    run: dict[str, Any] = dict.fromkeys(key for key, _, _ in _COLUMNS)
    run["prior_std"] = prior_std_of(folder)
    evaluated, isotropy = (read_json(folder / f"{name}.json") for name in ("evaluate", "isotropy"))
    if evaluated:
        last = last_validation(folder / "train.log")
        valid = last.stats if last else {}
        run["nll"] = evaluated["nll_samples"]["per_token"]
        run["kl"] = run["penalty"] = evaluated["kl_nats"]
        penalty = evaluated["kl"]
        if evaluated["penalty"] is not None:  # the two are the same with unit noise
            penalty, run["penalty"] = evaluated["penalty"], evaluated["penalty_nats"]
        run["active"] = evaluated["active_units_scaled"]["count"]
        run["accuracy"] = valid.get("accuracy")
        if "kl_weight" in valid:
            weight = valid["kl_weight"]
            if flags_of(folder).get("--kl-reduction") == "mean":
                weight /= evaluated["active_units_scaled"]["of"]  # the latent's width
            run["weighted_kl"] = weight * penalty["per_token"]
            run["loss"] = run["nll"] + run["weighted_kl"]
    if isotropy:
        run |= {key: isotropy["latents"][key] for key in _LATENTS}
    return run


def prior_std_of(folder: Path) -> float:
    """s of the run in a folder."""
    return float(_RUN.fullmatch(folder.name)[2])


def runs_of(out: Path, settings: list[str]) -> dict[str, list[Path]]:
    """By setting and noise the folders of the runs, by s and seed; without what isn't there.

    Other settings that have runs in `out` come after those that are named.
    """
    groups: dict[str, list[Path]] = {}
    there = sorted(p.parent.name for p in out.glob("*/*-s*-seed*") if _RUN.fullmatch(p.name))
    for setting in dict.fromkeys([*settings, *there]):
        found = [(_RUN.fullmatch(path.name), path) for path in (out / setting).glob("*-s*-seed*")]
        runs = [(match, path) for match, path in found if match and path.is_dir()]
        for noise in ("unit", "prior"):
            ours = [run for run in runs if run[0][1] == noise]
            ours.sort(key=lambda run: (float(run[0][2]), int(run[0][3])))
            groups[f"{setting}, {noise} noise"] = [path for _, path in ours]
    return {name: paths for name, paths in groups.items() if paths}


def over_seeds(runs: list[dict]) -> list[dict]:
    """One run for each s: every figure's mean over the seeds that have it, and its ``_spread``.

    The spread is the standard deviation, n - 1 in the denominator, None for a single seed;
    ``kls`` are the seeds' KLs.
    """
    means = []
    for std, same in itertools.groupby(runs, key=lambda run: run["prior_std"]):
        seeds, mean = list(same), {"prior_std": std}
        for key in dict.fromkeys(key for key, _, _ in _COLUMNS if key != "prior_std"):
            values = [run[key] for run in seeds if run[key] is not None]
            mean[key] = statistics.fmean(values) if values else None
            mean[f"{key}_spread"] = statistics.stdev(values) if len(values) > 1 else None
        mean["kls"] = [run["kl"] for run in seeds if run["kl"] is not None]
        means.append(mean)
    return means


def table_of(means: list[dict]) -> str:
    """A Markdown table, a row for each s."""
    several = any(len(run["kls"]) > 1 for run in means)
    rows = [
        {key: _cell(run, key, form) for key, _, form in _COLUMNS}
        | {"seeds": len(run["kls"]) if several else None}
        for run in means
    ]
    return table(rows, (*_COLUMNS, ("seeds", "seeds", "d")))


def _cell(run: dict, key: str, form: str) -> str | None:
    value, spread = run[key], run.get(f"{key}_spread")
    if value is None:
        return None
    if spread is None:
        return format(int(value) if form == "d" else value, form)
    form = ".1f" if form == "d" else form  # a mean of whole numbers
    return f"{format(value, form)} ± {format(spread, form)}"


def answers(means: list[dict]) -> list[str]:
    """What isn't there, where the latents have collapsed, and where they are most isotropic."""
    measured = [run for run in means if run["kls"]]
    missing = [f"{run['prior_std']:g}" for run in means if not run["kls"]]
    lines = [f"Without figures: s = {', '.join(missing)}."] if missing else []
    if not measured:
        return lines
    collapsed = [text for text in map(_collapsed, measured) if text]
    lines += ["Collapsed: " + (f"s = {', '.join(collapsed)}." if collapsed else "none.")]
    for key, best, text in (
        ("random_cosine", min, "The cosine of random words is least"),
        ("iso_score", max, "IsoScore is greatest"),
    ):
        found = [run for run in measured if run[key] is not None and not _collapsed(run)]
        if len(found) > 1:
            at = best(found, key=lambda run: run[key])
            lines.append(
                f"{text} at s = {at['prior_std']:g} ({_cell(at, key, '.3f')}), of those not "
                "collapsed."
            )
    return [*lines, ""]


def _collapsed(run: dict) -> str:
    """s, where a seed's latents have collapsed, and of how many; else nothing."""
    count, of = sum(kl < COLLAPSED for kl in run["kls"]), len(run["kls"])
    seeds = "" if count == of else f" ({count} of {of} seeds)"
    return f"{run['prior_std']:g}{seeds}" if count else ""


def document(out: Path, settings: list[str]) -> str:
    """The tables."""
    lines = ["## The prior's standard deviation", "", *_NOTES.splitlines(), ""]
    for name, folders in runs_of(out, settings).items():
        means = over_seeds([figures_of(folder) for folder in folders])
        flags = next(filter(None, map(flags_of, folders)), {})
        shared = " ".join(f"{flag} {value}" for flag, value in flags.items())
        lines += [f"### {name}", "", f"`{shared}`", table_of(means), "", *answers(means)]
    return "\n".join(lines).rstrip() + "\n"


def curves_of(folder: Path) -> dict[str, Any]:
    """The learning curves of a run, in nats."""
    run: dict[str, Any] = {"prior_std": prior_std_of(folder), "train": [], "valid": []}
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
    from fairseq_vat.cli.terminal import quiet

    with quiet():  # fairseq makes matplotlib tell what it does
        import sweep_plots

    folders = runs_of(out, settings)
    figures = {
        name: over_seeds([figures_of(path) for path in paths]) for name, paths in folders.items()
    }
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
        name: [curves_of(path) for path in paths if (path / "done").exists()]
        for name, paths in folders.items()
    }
    trained = {name: runs for name, runs in trained.items() if runs}
    if trained:
        sweep_plots.kl_curves(trained, out / "kl.png")
    for name, runs in trained.items():
        first = {run["prior_std"]: run for run in reversed(runs)}  # of the seeds the least
        chosen = [first[std] for std in stds if std in first]
        if chosen:
            short = name.removesuffix(" noise").replace(", ", "-")
            sweep_plots.learning_curves(chosen, out / f"curves-{short}.png")


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--settings", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--figures", action="store_true", help="draw them, too")
    parser.add_argument("--curves", nargs="+", type=above(0), default=[1.0, 0.4], metavar="S")
    args = parser.parse_args()
    if not args.out.is_dir():
        parser.error(f"{args.out} is no folder: give that of sweep_prior_std.sh")
    with parser.one_line_errors():
        text = document(args.out, args.settings)
        with atomic_path(args.out / "sweep.md") as partial:
            partial.write_text(text, encoding="utf-8")
        if args.figures:
            draw(args.out, args.settings, args.curves)


if __name__ == "__main__":
    main()
