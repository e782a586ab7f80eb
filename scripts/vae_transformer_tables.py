#!/usr/bin/env python3
"""What scripts/reproduce_vae_transformer.sh measured, beside the VAE-Transformer paper's figures.

    python scripts/vae_transformer_tables.py OUT/results     # JSON files to tables.md and figures

A figure that isn't there is a dash.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_transformer_figure import rate_distortion
from vae_transformer_paper import (
    LABELLED,
    NAMES,
    NEAR_ZERO,
    SETS,
    SPLITS,
    TABLE_2,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    TABLE_8,
    paper,
)
from vae_transformer_results import System, systems
from vae_transformer_runs import FREE_BITS, FREE_NATS

from fairseq_vat.cli.flags import Parser
from fairseq_vat.cli.tables import MISSING, table
from fairseq_vat.files import atomic_path, read_json

KINDS = {"sentencepiece": "sentencepiece pieces", "bert": "WordPiece pieces"}


def section(
    title: str,
    rows: Sequence[Mapping[str, object]],
    columns: Sequence[tuple[str, str, str]],
    *notes: str,
) -> list[str]:
    """A heading, a Markdown table, and what is to be said of it."""
    return [f"### {title}", "", table(rows, columns), "", *notes, ""]


LANGUAGE_MODELLING = (
    ("system", "system", ""),
    ("annealing", "annealing", ""),
    ("seeds", "seeds", "d"),
    ("epochs", "epochs", "s"),
    ("measured", "measured after", "s"),
    ("ppl", "PPL per token", ".2f"),
    ("ppl_word", "per word", ".2f"),
    ("ppl_paper", "PPL (paper)", ".2f"),
    *(
        (f"{name.lower()}{key}", f"{name}{note}", ".2f")
        for name in ("KL", "MI")
        for key, note in (("", ""), ("_paper", " (paper)"))
    ),
    ("mi_unpaired", "MI, unpaired", ".2f"),
    ("mi_whole", "MI, whole set", ".2f"),
    ("elbo_ppl", "ELBO PPL per token", ".2f"),
    ("elbo_ppl_word", "per word", ".2f"),
    ("iw_ppl", "IW PPL per token", ".2f"),
    ("iw_ppl_word", "per word", ".2f"),
    ("active", "active units", ".4g"),
    ("stopped", "ended by", ""),
)


def language_modelling(found: Mapping[str, Any]) -> list[str]:
    """Table 2, or 4 and 5."""
    width = found["latent_dim"]
    theirs, numbers = {64: (TABLE_2, "Table 2"), 32: (TABLE_5, "Tables 4 and 5")}.get(
        width, ("", "No table of the paper")
    )
    place = SETS.index(found["data"]) if found["data"] in SETS else -1
    rows = []
    for run in systems(found):
        names = ("ppl_paper", "kl_paper", "mi_paper")[: 1 if run.annealing is None else 3]
        row = {**vars(run), "system": NAMES[run.system], "annealing": run.annealing or ""}
        row |= zip(names, paper(theirs, run.name, place, len(names)), strict=True)
        rows.append(row)
    entries, kind = found["vocabulary"]["entries"], found["vocabulary"]["kind"]
    dictionaries = f"Dictionary: {entries:,} entries, {KINDS.get(kind, kind)}, fairseq's 4 included"
    dictionaries += " (the paper's: 30,522 pieces)"
    if any(run["system"] == "vae_gpt2" for run in found["runs"]):
        dictionaries += "; VAE-GPT's is GPT-2's"
    title = f"{numbers}: language modelling, {found['data']}, latents of width {width}"
    notes = [f"{dictionaries}."]
    if any(run["annealing"] == FREE_BITS for run in found["runs"]):
        notes.append(f"{FREE_BITS}: linear, {FREE_NATS} nats of each KL free; not the paper's.")
    return section(title, rows, LANGUAGE_MODELLING, " ".join(notes))


def classification(found: Mapping[str, Any]) -> list[str]:
    """Tables 3 and 6."""
    labelled, width = found["data"] in LABELLED, found["latent_dim"]
    place = LABELLED.index(found["data"]) if labelled and width == 64 else -1
    names = [f"{split} {name}" for split in SPLITS for name in ("BCE", "accuracy")]
    columns = [("system", "system", ""), ("annealing", "annealing", "")]
    columns += [("runs", "runs", "d"), ("epochs", "epochs", "s")]
    columns.append(("measured", "measured after", "s"))
    for name in names:
        columns += [(name, name, ".3f"), (f"{name} paper", f"{name} (paper)", ".3f")]
    columns.append(("regression", "test accuracy, logistic regression", ".3f"))
    columns.append(("stopped", "ended by", ""))
    rows = []
    for run in systems(found):
        theirs = paper(TABLE_6, run.name, place, 6)
        row = {"system": NAMES[run.system], "annealing": run.annealing}
        row |= {"runs": run.seeds, "epochs": run.epochs}
        row |= {"measured": run.measured, "stopped": run.stopped}
        row |= _scores([one["classifier"] for one in run.classified])
        row |= {f"{name} paper": figure for name, figure in zip(names, theirs, strict=True)}
        regression = _scores([one["logistic_regression"] for one in run.classified])
        row["regression"] = regression["test accuracy"]
        rows.append(row)
    first = found["runs"][0]["classify"]
    rows.append({"system": "without latents", **_scores([first["majority"]])})
    return section(
        f"Tables 3 and 6: classification, {found['data']}, latents of width {width}",
        rows,
        columns,
        f"Means of {first['seeds']} classifiers' seeds, {first['epochs']} epochs each, the paper's "
        "protocol; the logistic regression is fitted to the end on the same latents, standardized.",
    )


def _scores(found: list[dict]) -> dict[str, float]:
    """Loss and accuracy (a share, as in the paper) on each split, means over runs."""
    scores = {}
    for split in SPLITS:
        scores[f"{split} BCE"] = statistics.fmean(one[split]["loss"] for one in found)
        accuracy = statistics.fmean(one[split]["accuracy"] for one in found)
        scores[f"{split} accuracy"] = accuracy / 100
    return scores


def times(found: Mapping[str, Any]) -> list[str]:
    """Table 7."""
    columns = [("system", "system", "")]
    for width in ("128", "1024"):
        columns += [(width, f"width {width}, s", ".2f"), (f"{width} paper", "(paper)", ".2f")]
    found, name = found["output"], found["data"]
    place = SETS.index(name) if name in SETS[:2] else -1
    rows = []
    for system in (system for system in NAMES if system != "vae_gpt2"):
        theirs = paper(TABLE_7, system, place, 2)
        ours = [found["seconds"].get(name) for name in (system, f"{system}_1024")]
        row = {"system": NAMES[system], "128": ours[0], "1024": ours[1]}
        rows.append({**row, "128 paper": theirs[0], "1024 paper": theirs[1]})
    threads = f" ({found['threads']} threads)" if found["device"] == "cpu" else ""
    scaled = f"all {found['batches']:,} batches"
    if found["batches"] < found["batches_in_all"]:
        scaled = (
            f"{found['batches']:,} of {found['batches_in_all']:,} batches, scaled to all of them"
        )
    return section(
        f"Table 7: seconds of the forward passes, {name}",
        rows,
        columns,
        f"{found['device']}{threads}, torch {found['torch']}, {found['precision']}; {scaled}, of "
        f"{found['batch_size']} sentences; median of {found['repeats']}, systems taking turns; "
        f"dictionary filled up to {found['vocabulary']:,}.",
    )


def parameters(found: Mapping[str, Any]) -> list[str]:
    """Table 8."""
    found = found["output"]
    rows = []
    for system in (name for name in NAMES if name != "vae_gpt2"):
        for place, suffix in enumerate(("", "_1024")):
            ours = found["parameters"].get(system + suffix)
            theirs = int(paper(TABLE_8, system, place, 1)[0])
            row = {"system": NAMES[system], "width": 1024 if suffix else 128, "ours": ours}
            row |= {"paper": theirs, "difference": None if ours is None else ours - theirs}
            rows.append(row)
    columns = (
        ("system", "system", ""),
        ("width", "width", "d"),
        ("ours", "parameters", ",d"),
        ("paper", "(paper)", ",d"),
        ("difference", "difference", "+,d"),
    )
    return section(
        f"Table 8: parameters, dictionary of {found['vocabulary']:,}",
        rows,
        columns,
        "An output bias, which the models here don't have, would be "
        f"{found['vocabulary']:,} parameters more.",
    )


def claims(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rows for the three claims, by the means; a dash as long as a figure of one is missing."""
    runs = systems(found)
    by_name = {run.name: run for run in runs}
    where = f"{found['data']}, width {found['latent_dim']}"
    rows = []

    def figures(run: System, *names: str) -> tuple[float | None, ...]:
        means = (getattr(run, name) for name in names)
        return tuple(None if mean is None else mean.mean for mean in means)

    def add(claim: str, *comparisons: tuple[tuple[float | None, ...], bool]) -> None:
        missing = any(x is None for compared, _ in comparisons for x in compared)
        answer = MISSING if missing else "yes" if all(holds for _, holds in comparisons) else "no"
        rows.append({"claim": claim, "data": where, "answer": answer})

    for system in dict.fromkeys(run.system for run in runs if run.annealing is not None):
        title = NAMES[system]
        cyclic, linear, none = (by_name.get(f"{system}-{a}") for a in ("cyclic", "linear", "none"))
        if none:
            both = figures(none, "kl", "mi")
            add(
                f"(a) without annealing KL and MI are about 0 (under {NEAR_ZERO}): {title}",
                (both, None not in both and max(both) < NEAR_ZERO),
            )
        if cyclic and linear and none:
            for_each = [
                sum((figures(run, x) for run in (cyclic, linear, none)), ()) for x in ("kl", "mi")
            ]
            add(
                f"(b) cyclic > linear > none in KL and MI: {title}",
                *((x, None not in x and x[0] > x[1] > x[2]) for x in for_each),
            )
    for annealing in ("cyclic", "linear", "none"):
        ours = by_name.get(f"vae_transformer-{annealing}")
        for other in ("transformer_decoder_lm-lm", f"vae_lstm-{annealing}"):
            if ours and other in by_name:
                pair = figures(ours, "ppl") + figures(by_name[other], "ppl")
                title = NAMES[by_name[other].system]
                add(
                    f"(c) the VAE-Transformer's PPL ({annealing}) is under the {title}'s",
                    (pair, None not in pair and pair[0] < pair[1]),
                )
    return rows


NOTES = """\
PPL: reconstruction perplexity of the test set from drawn latents, per token of the dictionary and
per word; that of language models from themselves. KL: nats per sentence. MI: nats, over batches of
32 sentences, both terms at the same draws; unpaired, the first term in closed form, it has the same
expectation and more noise (docs/measures.md). ± is the standard deviation over seeds. ELBO PPL is
the one that can be held against a language model's PPL: a reconstruction has seen the sentence.
IW PPL: the tighter bound of several draws, where --iw-samples asked for it.
Perplexities per token can be compared only under one dictionary.
The paper has one row for VAE-GPT and doesn't say with which annealing.
"""


def write_markdown(results: Path) -> None:
    """tables.md and the figures beside the JSON files of a folder."""
    parts = {"evaluate": language_modelling, "classify": classification, "time": times}
    parts["parameters"] = parameters
    found = [read_json(path) for path in sorted(results.glob("*.json"))]
    found = [one for one in found if one and one.get("kind") in parts]
    found.sort(key=lambda one: (list(parts).index(one["kind"]), one["table"], one.get("data", "")))
    lines, answers, runs = [], [], {}
    for one in found:
        lines += parts[one["kind"]](one)
        if one["kind"] == "evaluate":
            # a language model is in the tables of every width
            measured = runs.setdefault(one["data"], [])
            measured += [run for run in one["runs"] if run not in measured]
            answers += claims(one)
    for name, measured in runs.items():
        figure = f"rate-distortion-{name}.png"
        rate_distortion(measured, results / figure)
        lines += [f"![Rate and distortion, {name}]({figure})", ""]
    if answers:
        lines += section("The claims", answers, [(x, x, "") for x in answers[0]])
    head = ["## The VAE-Transformer paper's tables", "", *NOTES.splitlines(), ""]
    with atomic_path(results / "tables.md") as partial:
        partial.write_text("\n".join([*head, *lines]).rstrip() + "\n", encoding="utf-8")


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, metavar="DIR")
    args = parser.parse_args()
    if not args.results.is_dir():
        parser.error(f"{args.results} is no folder: give OUT/results of reproduce_vae_transformer")
    with parser.one_line_errors():
        write_markdown(args.results)


if __name__ == "__main__":
    main()
