#!/usr/bin/env python3
"""What scripts/reproduce_vae_transformer.sh measured, beside the VAE-Transformer paper's figures.

    python scripts/vae_transformer_tables.py OUT         # writes OUT/tables.md

A figure that isn't there yet is a dash.  No torch is loaded: the tables are written anew after
every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fairseq_vat.cli.flags import Parser
from fairseq_vat.cli.tables import MISSING, table
from fairseq_vat.evaluation.training_log import read_training_log
from fairseq_vat.files import atomic_path, read_json

SETS = ("ptb", "wikitext2", "sst2", "air")
LABELLED = ("sst2", "air")
SPLITS = ("train", "valid", "test")
NAMES = {
    "vae_transformer": "VAE-Transformer",
    "transformer_decoder_lm": "Transformer decoder",
    "vae_lstm": "VAE-LSTM",
    "lstm_decoder_lm": "LSTM",
    "vae_gru": "VAE-GRU",
    "gru_decoder_lm": "GRU",
    "vae_gpt2": "VAE-GPT",
}
RUNS = tuple(
    f"{system}-{annealing}"
    for system in NAMES
    for annealing in (("lm",) if system.endswith("_lm") else ("cyclic", "linear", "none"))
)
# perplexity, KL, mutual information for each of SETS; a language model's perplexities
TABLE_2 = """
vae_transformer-cyclic 75.65 4.40 2.45 121.71 4.27 1.96 411.40 0.21 0.11 83.70 0.70 0.62
vae_transformer-linear 82.01 2.50 1.54 120.16 5.29 2.26 408.62 0.18 0.08 85.92 0.01 0.01
vae_transformer-none 91.52 0.00 0.00 128.25 0.16 0.09 413.77 0.06 0.02 88.65 0.00 0.00
transformer_decoder_lm-lm 118.69 170.42 456.60 100.90
vae_lstm-cyclic 88.64 0.90 0.81 133.81 0.55 0.38 659.85 0.00 0.00 142.72 0.01 0.01
vae_lstm-linear 92.08 0.01 0.01 134.61 0.01 0.01 629.05 0.00 0.00 137.53 0.00 0.00
vae_lstm-none 92.04 0.00 0.00 132.23 0.03 0.02 656.12 0.00 0.00 147.00 0.00 0.00
lstm_decoder_lm-lm 102.44 151.86 646.63 152.25
vae_gpt2-cyclic 54.23 0.01 0.00 79.10 0.02 0.01 358.90 1.57 0.74 83.44 0.86 0.52
"""
# table 4 and, for the GRU, table 5
TABLE_5 = """
vae_transformer-cyclic 75.17 4.78 2.58 125.78 3.67 1.73 301.83 1.02 0.90 71.40 2.64 2.14
vae_transformer-linear 81.49 2.70 1.65 122.17 5.48 2.33 312.05 0.01 0.01 77.95 0.33 0.30
vae_transformer-none 92.23 0.00 0.00 128.46 1.28 0.68 321.14 0.01 0.00 80.23 0.00 0.00
transformer_decoder_lm-lm 96.79 160.97 358.63 79.08
vae_lstm-cyclic 88.31 0.91 0.82 131.67 1.38 0.82 504.19 0.00 0.00 118.02 0.03 0.03
vae_lstm-linear 90.81 0.01 0.00 136.60 0.00 0.00 503.56 0.00 0.00 115.16 0.00 0.00
vae_lstm-none 92.79 0.00 0.00 134.02 0.00 0.00 547.01 0.00 0.00 121.89 0.00 0.00
lstm_decoder_lm-lm 93.30 141.90 486.67 123.43
vae_gru-cyclic 69.88 5.99 2.94 110.96 9.34 2.88 381.45 0.09 0.08 99.00 0.29 0.24
vae_gru-linear 76.33 3.57 2.07 110.15 9.08 2.87 394.33 0.00 0.00 102.11 0.03 0.02
vae_gru-none 86.74 0.70 0.46 123.66 0.68 0.23 376.84 0.00 0.00 95.96 0.00 0.00
gru_decoder_lm-lm 89.92 123.56 376.72 96.60
"""
# cross-entropy and accuracy on train, valid and test, for each of LABELLED; table 3, and 6 for GRU
TABLE_6 = """
vae_transformer 0.630 0.689 0.641 0.661 0.618 0.700 0.492 0.793 0.459 0.797 0.483 0.800
vae_lstm 0.638 0.682 0.649 0.652 0.631 0.694 0.547 0.794 0.543 0.800 0.542 0.801
vae_gru 0.630 0.689 0.643 0.661 0.619 0.700 0.535 0.794 0.528 0.800 0.590 0.801
vae_gpt2 0.634 0.670 0.650 0.646 0.633 0.677 0.522 0.787 0.517 0.789 0.525 0.798
"""
# seconds: ptb at width 128 and 1024, wikitext2 at both
TABLE_7 = """
vae_transformer 14.51 85.84 23.12 142.48
vae_lstm 12.64 137.36 19.05 227.65
vae_gru 11.29 109.78 16.44 182.79
transformer_decoder_lm 11.39 63.09 19.84 106.70
lstm_decoder_lm 9.89 74.37 15.14 119.79
gru_decoder_lm 9.44 60.44 14.81 104.28
"""
# parameters at width 128 and 1024
TABLE_8 = """
vae_transformer 12763706 118395834
vae_lstm 12756922 87515578
vae_gru 12526010 75575738
transformer_decoder_lm 8272186 71461690
lstm_decoder_lm 8108346 48315450
gru_decoder_lm 8042298 45034554
"""
NEAR_ZERO = 0.1  # nats of KL and of mutual information; the paper prints up to 0.09 for "almost"


def paper(figures_of: str, row: str, place: int, width: int) -> list[float | None]:
    """`width` figures of a row, those of the data set or model width number `place`."""
    rows = {name: figures for name, *figures in map(str.split, figures_of.strip().splitlines())}
    chosen = rows.get(row, [])[place * width : (place + 1) * width] if place >= 0 else []
    return [float(figure) for figure in chosen] or [None] * width


def section(
    title: str,
    rows: Sequence[Mapping[str, object]],
    columns: Sequence[tuple[str, str, str]],
    *notes: str,
) -> list[str]:
    """A heading, a Markdown table, and what is to be said of it."""
    return [f"### {title}", "", table(rows, columns), "", *notes, ""]


class Run:
    """One trained system: its figures, each None as long as it isn't measured."""

    def __init__(self, data: Path, latent_dim: int, name: str):
        self.name = name
        self.system, _, self.annealing = name.rpartition("-")
        folder = data / f"z{latent_dim}" / name
        if self.annealing == "lm":  # one run, whatever the latents' width
            folder = next(iter(sorted(data.glob(f"z*/{name}"))), folder)
        self.exists = folder.is_dir()
        found = read_json(folder / "evaluate.json") or {}
        nll = found.get("nll_samples") or found.get("nll") or {}
        self.ppl = nll.get("ppl_per_token")
        self.kl = found.get("kl_nats")
        batches, whole = found.get("mi_batches") or {}, found.get("mi") or {}
        # both terms at the same draws: the same expectation, without the noise of sqrt(L / 2N)
        self.mi, self.mi_std = batches.get("paired"), batches.get("paired_std")
        self.mi_unpaired, self.mi_whole = batches.get("unpaired"), whole.get("paired")
        self.active = (found.get("active_units") or {}).get("count")
        self.elbo_ppl = (found.get("neg_elbo") or {}).get("ppl_per_token")
        self.classified = read_json(folder / "classify.json")
        self.epochs = trained_epochs(folder / "train.log") if found else None


def trained_epochs(log: Path) -> int | None:
    """The last epoch that fairseq's log has figures of as a whole."""
    records = read_training_log(log) if log.exists() else []
    return max((record.epoch for record in records if record.kind == "train"), default=None)


LANGUAGE_MODELLING = (
    ("system", "system", ""),
    ("annealing", "annealing", ""),
    ("epochs", "epochs", "d"),
    *(
        (f"{name.lower()}{key}", f"{name}{note}", ".2f")
        for name in ("PPL", "KL", "MI")
        for key, note in (("", ""), ("_paper", " (paper)"))
    ),
    ("mi_unpaired", "MI, unpaired", ".2f"),
    ("mi_whole", "MI, whole set", ".2f"),
    ("elbo_ppl", "ELBO PPL", ".2f"),
    ("active", "active units", "d"),
)


def language_modelling(data: Path, latent_dim: int, runs: list[Run]) -> list[str]:
    """Table 2, or 4 and 5."""
    theirs, numbers = {64: (TABLE_2, "Table 2"), 32: (TABLE_5, "Tables 4 and 5")}.get(
        latent_dim, ("", "No table of the paper")
    )
    place = SETS.index(data.name) if data.name in SETS else -1
    rows = []
    for run in runs:
        names = ("ppl_paper",) if run.annealing == "lm" else ("ppl_paper", "kl_paper", "mi_paper")
        row = {**vars(run), "system": NAMES[run.system]}
        row["annealing"] = run.annealing.replace("lm", "")
        row |= zip(names, paper(theirs, run.name, place, len(names)), strict=True)
        if run.mi_std is not None:
            row["mi"] = f"{run.mi:.2f} ± {run.mi_std:.2f}"
        rows.append(row)
    dictionaries = f"Dictionary: {vocabulary(data / 'data-bin')} (the paper's: 30,522 pieces)"
    if any(run.system == "vae_gpt2" for run in runs):
        dictionaries += "; VAE-GPT's is GPT-2's"
    title = f"{numbers}: language modelling, {data.name}, latents of width {latent_dim}"
    return section(title, rows, LANGUAGE_MODELLING, f"{dictionaries}.")


def vocabulary(data_bin: Path) -> str:
    """What the data was binarised with."""
    dictionary = data_bin / "dict.txt"
    if not dictionary.exists():
        return MISSING
    with open(dictionary, encoding="utf-8") as file:
        entries = sum(1 for _ in file) + 4  # fairseq's own symbols
    kind = "sentencepiece pieces" if (data_bin / "made_from.json").exists() else "words"
    return f"{entries:,} {kind}, fairseq's 4 symbols included"


def classification(data: Path, latent_dim: int, runs: list[Run]) -> list[str]:
    """Tables 3 and 6."""
    runs = [run for run in runs if run.annealing == "cyclic"]
    first = next((run.classified for run in runs if run.classified), None)
    if first is None:
        return []
    place = LABELLED.index(data.name) if data.name in LABELLED and latent_dim == 64 else -1
    names = [f"{split} {name}" for split in SPLITS for name in ("BCE", "accuracy")]
    columns = [("system", "system", "")]
    for name in names:
        columns += [(name, name, ".3f"), (f"{name} paper", f"{name} (paper)", ".3f")]
    columns.append(("regression", "test accuracy, logistic regression", ".3f"))
    rows = []
    for run in runs:
        found = run.classified or {}
        theirs = paper(TABLE_6, run.system, place, 6)
        row = {"system": NAMES[run.system], **_scores(found.get("classifier"))}
        row |= {f"{name} paper": figure for name, figure in zip(names, theirs, strict=True)}
        row["regression"] = _scores(found.get("logistic_regression")).get("test accuracy")
        rows.append(row)
    # the second name is that of earlier versions, whose figures may be there
    nothing = first.get("majority", first.get("without_latents"))
    rows.append({"system": "without latents", **_scores(nothing)})
    return section(
        f"Tables 3 and 6: classification, {data.name}, latents of width {latent_dim}",
        rows,
        columns,
        f"Means of {first['seeds']} seeds, {first['epochs']} epochs each, the paper's protocol; "
        "the logistic regression is fitted to the end on the same latents, standardized.",
    )


def _scores(found: dict | None) -> dict[str, float]:
    """Loss and accuracy (a share, as in the paper) on each split."""
    scores = {}
    for split in SPLITS if found else ():
        scores[f"{split} BCE"] = found[split]["loss"]
        scores[f"{split} accuracy"] = found[split]["accuracy"] / 100
    return scores


def times(sets: list[Path]) -> list[str]:
    """Table 7."""
    columns = [("system", "system", "")]
    for width in ("128", "1024"):
        columns += [(width, f"width {width}, s", ".2f"), (f"{width} paper", "(paper)", ".2f")]
    lines = []
    for data in sets:
        found = read_json(data / "time.json")
        if not found:
            continue
        place = SETS.index(data.name) if data.name in SETS[:2] else -1
        rows = []
        for system in (name for name in NAMES if name != "vae_gpt2"):
            theirs = paper(TABLE_7, system, place, 2)
            ours = [found["seconds"].get(name) for name in (system, f"{system}_1024")]
            row = {"system": NAMES[system], "128": ours[0], "1024": ours[1]}
            rows.append({**row, "128 paper": theirs[0], "1024 paper": theirs[1]})
        threads = f" ({found['threads']} threads)" if found["device"] == "cpu" else ""
        scaled = (
            f"{found['batches']:,} of {found['batches_in_all']:,} batches, scaled to all of them"
            if found["batches"] < found["batches_in_all"]
            else f"all {found['batches']:,} batches"
        )
        lines += section(
            f"Table 7: seconds of the forward passes, {data.name}",
            rows,
            columns,
            f"{found['device']}{threads}, torch {found['torch']}; {scaled}, of "
            f"{found['batch_size']} sentences; median of {found['repeats']}, systems taking turns; "
            f"dictionary filled up to {found['vocabulary']:,}.",
        )
    return lines


def parameters(out: Path) -> list[str]:
    """Table 8."""
    found = read_json(out / "parameters.json") or {"parameters": {}, "vocabulary": 30522}
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


def claims(name: str, latent_dim: int, runs: list[Run]) -> list[dict[str, str]]:
    """Rows for the three claims; a dash as long as a figure of one is missing."""
    by_name = {run.name: run for run in runs}
    where = f"{name}, width {latent_dim}"
    rows = []

    def add(claim: str, *comparisons: tuple[tuple[float | None, ...], bool]) -> None:
        missing = any(x is None for figures, _ in comparisons for x in figures)
        answer = MISSING if missing else "yes" if all(holds for _, holds in comparisons) else "no"
        rows.append({"claim": claim, "data": where, "answer": answer})

    for system in dict.fromkeys(run.system for run in runs if run.annealing != "lm"):
        title = NAMES[system]
        cyclic, linear, none = (by_name.get(f"{system}-{a}") for a in ("cyclic", "linear", "none"))
        if none:
            both = (none.kl, none.mi)
            add(
                f"(a) without annealing KL and MI are about 0 (under {NEAR_ZERO}): {title}",
                (both, None not in both and max(both) < NEAR_ZERO),
            )
        if cyclic and linear and none:
            for_each = [[getattr(run, x) for run in (cyclic, linear, none)] for x in ("kl", "mi")]
            add(
                f"(b) cyclic > linear > none in KL and MI: {title}",
                *((tuple(x), None not in x and x[0] > x[1] > x[2]) for x in for_each),
            )
    for annealing in ("cyclic", "linear", "none"):
        ours = by_name.get(f"vae_transformer-{annealing}")
        for other in ("transformer_decoder_lm-lm", f"vae_lstm-{annealing}"):
            if ours and other in by_name:
                pair = (ours.ppl, by_name[other].ppl)
                title = NAMES[by_name[other].system]
                add(
                    f"(c) the VAE-Transformer's PPL ({annealing}) is under the {title}'s",
                    (pair, None not in pair and pair[0] < pair[1]),
                )
    return rows


NOTES = """\
PPL: reconstruction perplexity of the test set per token of the dictionary, from drawn latents; that
of language models from themselves. KL: nats per sentence. MI: nats, over batches of 32 sentences,
both terms at the same draws, ± the standard deviation over draws of the latents; unpaired, the
first term in closed form, it has the same expectation and more noise (docs/measures.md). ELBO PPL
is the one that can be held against a language model's PPL: a reconstruction has seen the sentence.
Perplexities can be compared only under one dictionary.
The paper has one row for VAE-GPT and doesn't say with which annealing.
"""


def tables(out: Path, wanted: set[str]) -> str:
    """The whole document."""
    sets = sorted(
        (path for path in out.iterdir() if path.is_dir() and (path / "data-bin").is_dir()),
        key=lambda path: (SETS.index(path.name) if path.name in SETS else len(SETS), path.name),
    )
    lines, answers = [], []
    for data in sets:
        dims = [int(path.name[1:]) for path in data.glob("z*") if path.name[1:].isdigit()]
        for latent_dim in sorted(dims, reverse=True):
            runs = [Run(data, latent_dim, name) for name in RUNS]
            runs = [run for run in runs if run.exists]
            if wanted & set("245"):
                lines += language_modelling(data, latent_dim, runs)
                answers += claims(data.name, latent_dim, runs)
            if wanted & set("36"):
                lines += classification(data, latent_dim, runs)
    if lines:
        lines = [*NOTES.splitlines(), "", *lines]
    if answers:
        lines += section("The claims", answers, [(x, x, "") for x in answers[0]])
    if "7" in wanted:
        lines += times(sets)
    if "8" in wanted:
        lines += parameters(out)
    return "\n".join(["## The VAE-Transformer paper's tables", "", *lines]).rstrip() + "\n"


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--tables", default="2,3,7,8", metavar="N,..", help="default: %(default)s")
    args = parser.parse_args()
    if not args.out.is_dir():
        parser.error(f"{args.out} is no folder: give that of reproduce_vae_transformer.sh")
    with parser.one_line_errors():
        text = tables(args.out, set(args.tables.split(",")))
        with atomic_path(args.out / "tables.md") as partial:
            partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
