#!/usr/bin/env python3
"""Training steps: time, memory, and the share of the machine's matrix products they reach.

Steps go through fairseq's own Trainer, optimizer included, over synthetic batches. The VAT and
stock fairseq's ``transformer`` with its ``cross_entropy`` have the VAT paper's shape (4 + 4 layers,
width 128, 8 heads, 512) and the same batches; the VAE-Transformer paper's systems, with the
experiments' ``fused_adam`` and with fairseq's own Adam, have no counterpart in stock fairseq;
``vae_transformer/addition`` has ``--no-latent-attention``.
Systems and precisions take steps in turns in one process, so that whatever else the machine does
hits all; figures are medians. CPU seconds, over all threads, are the robust ones on a machine that
others use, too: who waits for a core spends none.

The peak is that of a product of two square matrices of 2,048, in the type in use and in the same
turns. A step's share of it is the step's operations (arithmetic: `step_operations`) a CPU second
over the product's, on a GPU a second over a second. Memory is measured with a process for each: the
peak over two steps (resident, on a GPU allocated), less what there was before them. Ratios are to
stock with the same vocabulary: in the same precision, but bfloat16, which `fairseq-train` can't be
asked for, to single precision.

    python scripts/benchmark.py                                  # two CPU threads
    python scripts/benchmark.py --device cuda --precisions float32 bfloat16 fp16
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from benchmark_systems import (
    BY_TOKENS,
    PRECISIONS,
    SYSTEMS,
    build_trainer,
    make_batches,
    step_operations,
)

from fairseq_vat.cli.flags import Parser, add_number, at_least
from fairseq_vat.cli.tables import table
from fairseq_vat.hardware import preferred_precision

WARM_UP = 2  # steps that aren't counted
SQUARE = 2048
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "fp16": torch.float16}
COLUMNS = (
    ("system", "system", ""),
    ("precision", "precision", ""),
    ("vocabulary", "V", ",d"),
    ("seconds", "s/step", ".3f"),
    ("cpu_seconds", "CPU s/step", ".3f"),
    ("tokens_per_second", "tokens/s", ",.0f"),
    ("peak_mib", "peak MiB", ",.0f"),
    ("share_of_peak", "of peak", ".0%"),
    ("speed_ratio", "speed", ".2f"),
    ("cpu_ratio", "by CPU s", ".2f"),
    ("memory_ratio", "memory", ".2f"),
)


def timed(work: Callable[[], object], device: str) -> tuple[float, float]:
    """Wall and CPU seconds of `work`."""
    if device == "cuda":
        torch.cuda.synchronize()
    start, cpu_start = time.perf_counter(), time.process_time()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - cpu_start


def measure(cases: list[dict], folder: Path, args: argparse.Namespace) -> dict:
    """Each case's seconds, and each precision's product's, from steps in turns."""
    cpu = args.device == "cpu"
    for case in cases:
        where = (case["system"], case["precision"], case["vocabulary"])
        case["trainer"] = build_trainer(*where, folder, cpu)
        dictionary = case["trainer"].task.source_dictionary
        case["batches"] = make_batches(
            case["system"], dictionary, args.tokens, args.repeats + WARM_UP
        )
        case["times"] = []
    products: dict[str, list] = {precision: [] for precision in args.precisions}
    squares = {
        precision: torch.randn(SQUARE, SQUARE, device=args.device).to(TYPES[precision])
        for precision in products
    }
    for number in range(args.repeats + WARM_UP):
        for case in cases:
            batch, trainer = case["batches"][number], case["trainer"]
            case["times"].append(timed(lambda t=trainer, b=batch: t.train_step([b]), args.device))
        for precision, x in squares.items():
            products[precision].append(timed(lambda x=x: x @ x, args.device))
        print(f"turn {number + 1} of {args.repeats + WARM_UP}", file=sys.stderr)
    # on a shared CPU the CPU's own seconds compare, on a GPU they say nothing
    clock = 1 if cpu else 0
    peaks = {
        precision: 2 * SQUARE**3 / statistics.median(times[clock] for times in found[WARM_UP:])
        for precision, found in products.items()
    }
    for case in cases:
        trainer, batches = case.pop("trainer"), case.pop("batches")[WARM_UP:]
        times = case.pop("times")[WARM_UP:]
        case["seconds"], case["cpu_seconds"] = (
            statistics.median(column) for column in zip(*times, strict=True)
        )
        case["tokens_per_second"] = batches[0]["ntokens"] / case["seconds"]
        shares = [
            step_operations(trainer.model, batch) / taken[clock] / peaks[case["precision"]]
            for batch, taken in zip(batches, times, strict=True)
        ]
        case["share_of_peak"] = statistics.median(shares)
    unit = "gflops_per_cpu_second" if cpu else "gflops_per_second"
    return {unit: {precision: peak / 1e9 for precision, peak in peaks.items()}}


def step_memory(case: list[str], folder: Path, args: argparse.Namespace) -> float:
    """Peak memory of a step in MiB, above what the process held before."""
    system, precision, vocabulary = case
    trainer = build_trainer(system, precision, int(vocabulary), folder, args.device == "cpu")
    batches = make_batches(system, trainer.task.source_dictionary, args.tokens, 2)
    gpu = args.device == "cuda"
    before = torch.cuda.memory_allocated() / 2**20 if gpu else _resident("VmRSS")
    for batch in batches:
        trainer.train_step([batch])
    return (torch.cuda.max_memory_allocated() / 2**20 if gpu else _resident("VmHWM")) - before


def _resident(field: str) -> float:
    """A line of Linux's /proc/self/status in MiB: VmRSS is resident now, VmHWM at most so far.

    getrusage won't do: its maximum outlives exec, so it holds the parent process's too.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(x.split()[1]) / 1024 for x in status.splitlines() if x.startswith(field))


def add_memory(cases: list[dict]) -> None:
    """Each case's `peak_mib`, from a process of its own with the same flags."""
    for case in cases:
        where = [case["system"], case["precision"], str(case["vocabulary"])]
        command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", *where]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        case["peak_mib"] = json.loads(output.splitlines()[-1])


def add_ratios(cases: list[dict]) -> None:
    """Each case over stock's with the same vocabulary."""
    stock = {(c["precision"], c["vocabulary"]): c for c in cases if c["system"] == "stock"}
    for case in cases:
        precision = "float32" if case["precision"] == "bfloat16" else case["precision"]
        base = stock.get((precision, case["vocabulary"]))
        if base is not None and case is not base:
            case["speed_ratio"] = base["seconds"] / case["seconds"]
            case["cpu_ratio"] = base["cpu_seconds"] / case["cpu_seconds"]
            case["memory_ratio"] = case["peak_mib"] / base["peak_mib"]


def profile(system: str, folder: Path, args: argparse.Namespace) -> str:
    """torch's profile of one step, by operation."""
    vocabulary = _vocabularies(system, args)[0]
    precision = args.precisions[-1]
    trainer = build_trainer(system, precision, vocabulary, folder, args.device == "cpu")
    warm_up, batch = make_batches(system, trainer.task.source_dictionary, args.tokens, 2)
    trainer.train_step([warm_up])
    with torch.profiler.profile() as profiler:
        trainer.train_step([batch])
    sort_by = f"self_{'cpu' if args.device == 'cpu' else 'device'}_time_total"
    table = profiler.key_averages().table(sort_by=sort_by, row_limit=25)
    return f"{system}, {precision}, vocabulary {vocabulary:,}\n{table}"


def _vocabularies(system: str, args: argparse.Namespace) -> list[int]:
    return args.vocabulary if system in BY_TOKENS else args.sentence_vocabulary


def show(figures: dict) -> None:
    """The figures as a table."""
    print(", ".join(f"{key} {value}" for key, value in figures["machine"].items()))
    ((unit, peaks),) = figures["product"].items()
    rates = ", ".join(f"{precision} {rate:,.0f}" for precision, rate in peaks.items())
    print(f"product of {SQUARE:,} x {SQUARE:,}, {unit}: {rates}")
    print(table(figures["cases"], COLUMNS, "plain"))


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS,
                        help="float32 and, where the machine is fast in it, bfloat16")  # fmt: skip
    parser.add_argument("--vocabulary", nargs="+", type=at_least(1), default=[32768, 8192],
                        help="dictionary entries for the VAT and stock")  # fmt: skip
    parser.add_argument("--sentence-vocabulary", nargs="+", type=at_least(1),
                        default=[10_000, 30_522], help="of the other systems")  # fmt: skip
    parser.add_argument("--tokens", type=at_least(1), default=4000,
                        help="target tokens a step of the VAT and stock")  # fmt: skip
    add_number(parser, "--repeats", "steps of each that are counted", 7, at_least(1))
    add_number(parser, "--threads", "CPU threads", 2, at_least(1))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--profile", choices=SYSTEMS, metavar="SYSTEM",
                        help="where a step spends its time, in the last precision")  # fmt: skip
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.precisions is None:
        args.precisions = list(
            dict.fromkeys(("float32", preferred_precision(args.device == "cpu")))
        )
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.profile:
            print(profile(args.profile, folder, args))
            return
        if args.memory_of:
            print(json.dumps(step_memory(args.memory_of, folder, args)))
            return
        cases = [
            {"system": system, "precision": precision, "vocabulary": vocabulary}
            for system in args.systems
            for vocabulary in _vocabularies(system, args)
            for precision in args.precisions
            if (system, precision) != ("stock", "bfloat16")
        ]
        figures: dict = {
            "machine": {
                "device": args.device if args.device == "cpu" else torch.cuda.get_device_name(),
                "threads": args.threads,
                "torch": torch.__version__,
                "tokens": args.tokens,
            },
            "product": measure(cases, folder, args),
            "cases": cases,
        }
    add_memory(cases)
    add_ratios(cases)
    if args.json:
        print(json.dumps(figures))
    else:
        show(figures)


if __name__ == "__main__":
    main()
