#!/usr/bin/env python3
"""Does training in bfloat16 end where training in single precision does?

The same `fairseq-train` in both precisions, with several seeds each: loss, KL and accuracy of the
validation at the end, side by side with how far seeds are apart. It can be stopped at any time: run
it again, and it goes on where it was. Further seeds can be added to an OUT.

    python scripts/parity.py DATA OUT -- --encoder-layers 2 --decoder-layers 2

Flags after -- are fairseq-train's, for every run, and win over the recipe's.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from fairseq_vat.cli.flags import Parser, at_least
from fairseq_vat.cli.tables import table
from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.training_log import last_validation
from fairseq_vat.files import METRICS, write_json
from fairseq_vat.hardware import PRECISIONS, cpu_has_bfloat16

PLUGIN = Path(__file__).resolve().parent.parent / "fairseq_vat"
# fairseq's names, its units (losses in bits a target token), and how they are written
MEASURES = {"loss": ".3f", "nll_loss": ".3f", "kl_nats": ".3f", "accuracy": ".2f"}


def training_command(args: argparse.Namespace, precision: str, seed: int, folder: Path) -> list:
    """`fairseq-train` of one run."""
    updates = args.updates
    command = [sys.executable, "-m", "fairseq_cli.train", args.data, "--user-dir", str(PLUGIN)]
    command += ["--save-dir", str(folder), "--task", "variational_lm", "--arch", args.arch]
    command += (
        "--criterion token_kl_cross_entropy --prior-std 0.4 --kl-weight 0.1 "
        f"--kl-annealing logistic --kl-annealing-updates {max(1, updates // 2)} "
        "--optimizer adam --clip-norm 1.0 --lr 2e-3 --lr-scheduler inverse_sqrt "
        f"--warmup-updates {max(1, updates // 5)} --max-tokens 1200 --truncate --num-workers 0 "
        f"--max-update {updates} --report-accuracy --no-epoch-checkpoints "
        "--keep-interval-updates 1 --save-interval-updates 250 --validate-interval-updates 1000000 "
        "--validate-interval 1000000 --log-format simple --log-interval 50"
    ).split()
    command += ["--log-file", str(folder / "train.log"), "--seed", str(seed)]
    on_cpu = "--cpu" in args.flags or not torch.cuda.is_available()
    command += ["--cpu"] if on_cpu and "--cpu" not in args.flags else []
    emulate = precision == "bfloat16" and on_cpu and not cpu_has_bfloat16()
    command += ["--precision", precision, *(["--emulate-bfloat16"] if emulate else [])]
    return [*command, *args.flags]


def train(args: argparse.Namespace, precision: str, seed: int) -> dict[str, float]:
    """A run's last validation; the run is made, or gone on with, if it isn't done.

    Raises:
        VATError: if the run was made with other flags, or fails.
    """
    folder = Path(args.out) / f"{precision}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    command = training_command(args, precision, seed, folder)
    written, told = folder / "command", shlex.join(command) + "\n"
    found = _last_validation(folder, args.updates)
    if written.exists() and written.read_text(encoding="utf-8") != told:
        if found is not None or any(folder.glob("checkpoint*.pt")):
            raise VATError(f"{folder} was made with other flags (see {written}): use another OUT")
        for name in ("train.log", METRICS):  # of what ended before its first checkpoint
            (folder / name).unlink(missing_ok=True)
    written.write_text(told, encoding="utf-8")
    if found is None:
        print(f"{precision}, seed {seed}: training ({folder / 'train.log'})", file=sys.stderr)
        with open(folder / "out.log", "w", encoding="utf-8") as output:
            ended = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT)
        if ended.returncode != 0:
            raise VATError(f"fairseq-train failed: see {folder / 'out.log'}")
        found = _last_validation(folder, args.updates)
    if found is None:
        raise VATError(f"{folder}: no validation after {args.updates} updates (--updates)")
    return {name: found[name] for name in MEASURES if name in found}


def _last_validation(folder: Path, updates: int) -> dict[str, float] | None:
    found = last_validation(folder / "train.log")
    return found.stats if found and found.num_updates == updates else None


def summary(runs: dict[str, dict[int, dict[str, float]]]) -> dict[str, Any]:
    """By measure: mean and spread (largest less smallest) over seeds; difference of the means."""
    found: dict[str, Any] = {}
    for name in next(iter(runs[PRECISIONS[0]].values())):
        values = {precision: [run[name] for run in runs[precision].values()] for precision in runs}
        found[name] = {
            precision: {"mean": statistics.fmean(x), "spread": max(x) - min(x)}
            for precision, x in values.items()
        }
        single, half = (found[name][precision]["mean"] for precision in PRECISIONS)
        found[name]["difference"] = half - single
    return found


def tables(runs: dict[str, dict[int, dict[str, float]]], measures: dict[str, Any]) -> str:
    """Markdown: a row for each run, spread, and the difference, a column for each measure."""
    rows = [
        {"run": f"{precision}, seed {seed}", **run}
        for precision, by_seed in runs.items()
        for seed, run in by_seed.items()
    ]
    for precision in runs:
        spreads = {name: found[precision]["spread"] for name, found in measures.items()}
        rows.append({"run": f"{precision}, spread", **spreads})
    differences = {
        name: format(found["difference"], f"+{MEASURES[name]}") for name, found in measures.items()
    }
    rows.append({"run": "difference of means", **differences})
    return table(rows, [("run", "run", ""), *((name, name, MEASURES[name]) for name in measures)])


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="binarised text")
    parser.add_argument("out", metavar="OUT", help="is made; everything goes there")
    parser.add_argument("--arch", default="vat_transformer", help="vat_transformer by default")
    parser.add_argument(
        "--updates", type=at_least(1), default=1000, help="of each run, 1000 by default"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="1 2 3 by default")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args = parser.parse_args(sys.argv[1:at])
    args.flags = sys.argv[at + 1 :]
    if not Path(args.data.split(":")[0], "dict.txt").is_file():
        parser.error(f"{args.data} has no dict.txt: give a directory of fairseq-preprocess")
    runs: dict[str, dict[int, dict[str, float]]] = {precision: {} for precision in PRECISIONS}
    with parser.one_line_errors():
        for seed in dict.fromkeys(args.seeds):  # in turns: stopped early, both have as many
            for precision in PRECISIONS:
                runs[precision][seed] = train(args, precision, seed)
    measures = summary(runs)
    figures = {"arch": args.arch, "updates": args.updates, "runs": runs, "measures": measures}
    write_json(Path(args.out, "parity.json"), figures)
    print(json.dumps(figures, indent=1) if args.json else tables(runs, measures))


if __name__ == "__main__":
    main()
