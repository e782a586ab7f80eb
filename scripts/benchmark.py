#!/usr/bin/env python3
"""A training step of the VAT against stock fairseq's Transformer: tokens a second, peak memory.

Both models have the paper's shape (4 + 4 layers, width 128, 8 heads, 512) and the same synthetic
batches, and both go through fairseq's own Trainer, optimizer step included.  Stock is fairseq's
``transformer`` with its ``cross_entropy``.  Steps alternate between the two in one process, so
that whatever else the machine does hits both; figures are medians.  Memory is measured with a
process for each: the peak of resident memory over two steps, less what was resident before them.

    python scripts/benchmark.py                      # two CPU threads
    python scripts/benchmark.py --device cuda --fp16
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from fairseq import options, tasks
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.trainer import Trainer

PLUGIN = Path(__file__).resolve().parent.parent / "fairseq_vat"
SHAPE = (
    "--encoder-layers 4 --decoder-layers 4 --encoder-embed-dim 128 --decoder-embed-dim 128 "
    "--encoder-ffn-embed-dim 512 --decoder-ffn-embed-dim 512 --encoder-attention-heads 8 "
    "--decoder-attention-heads 8 --dropout 0.1 --share-all-embeddings"
).split()
OPTIMIZER = (
    "--optimizer adam --adam-betas (0.9,0.98) --lr 1e-4 --lr-scheduler inverse_sqrt "
    "--warmup-updates 100 --clip-norm 1.0 --batch-size 128 --max-update 1000"
).split()
SYSTEMS = {
    "stock": ["--arch", "transformer", "--criterion", "cross_entropy", *SHAPE],
    "vat": [
        *["--arch", "vat_transformer", "--criterion", "token_kl_cross_entropy"],
        *["--kl-annealing", "logistic", "--kl-annealing-updates", "1000", *SHAPE],
    ],
}


def write_dictionary(folder: Path, vocabulary: int) -> None:
    """A dict.txt that makes fairseq's dictionary `vocabulary` entries long."""
    with open(folder / "dict.txt", "w", encoding="utf-8") as file:
        file.writelines(f"w{i} 1\n" for i in range(vocabulary - 4))


def build_trainer(system: str, folder: Path, args: argparse.Namespace) -> Trainer:
    """fairseq's Trainer, as `fairseq-train` would build it."""
    flags = [str(folder), "--user-dir", str(PLUGIN), "--task", "variational_lm", "--seed", "1"]
    flags += SYSTEMS[system] + OPTIMIZER + (["--cpu"] if args.device == "cpu" else [])
    flags += ["--fp16"] if args.fp16 else []
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, flags))
    task = tasks.setup_task(cfg.task)
    torch.manual_seed(1)
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    trainer._build_optimizer()  # now, so that its memory isn't counted as a step's
    return trainer


def make_batches(dictionary: Dictionary, tokens: int, count: int) -> list[dict]:
    """Batches of `tokens` target tokens, in sentences of 24 to 40 tokens, of one length each."""
    rng = random.Random(1)
    batches = []
    for _ in range(count):
        length = rng.randint(24, 40)
        sizes = [length] * (tokens // length) + ([tokens % length] if tokens % length else [])
        target = [
            torch.tensor([rng.randrange(4, len(dictionary)) for _ in range(n - 1)] + [2])
            for n in sizes
        ]
        source = [torch.cat((torch.tensor([0]), sentence)) for sentence in target]
        data = LanguagePairDataset(
            source,
            [len(x) for x in source],
            dictionary,
            target,
            [len(x) for x in target],
            dictionary,
            left_pad_source=False,
        )
        batches.append(data.collater([data[i] for i in range(len(data))]))
    return batches


def step_seconds(trainer: Trainer, batch: dict) -> float:
    """Wall time of one training step."""
    _synchronise(trainer)
    start = time.perf_counter()
    trainer.train_step([batch])
    _synchronise(trainer)
    return time.perf_counter() - start


def _synchronise(trainer: Trainer) -> None:
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()


def step_memory(system: str, folder: Path, args: argparse.Namespace) -> float:
    """Peak memory of a step in MiB, above what the process held before."""
    trainer = build_trainer(system, folder, args)
    batches = make_batches(trainer.task.source_dictionary, args.tokens, 2)
    if args.device == "cuda":
        before = torch.cuda.memory_allocated()
        for batch in batches:
            trainer.train_step([batch])
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = _resident("VmRSS")
    for batch in batches:
        trainer.train_step([batch])
    return _resident("VmHWM") - before


def profile(system: str, folder: Path, args: argparse.Namespace) -> str:
    """torch's profile of one step, by operation."""
    trainer = build_trainer(system, folder, args)
    warm_up, batch = make_batches(trainer.task.source_dictionary, args.tokens, 2)
    trainer.train_step([warm_up])
    with torch.profiler.profile() as profiler:
        trainer.train_step([batch])
    return profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25)


def _resident(field: str) -> float:
    """A line of Linux's /proc/self/status in MiB: VmRSS is resident now, VmHWM at most so far.

    getrusage won't do: its maximum outlives exec, so it holds the parent process's too.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(x.split()[1]) / 1024 for x in status.splitlines() if x.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=32768)
    parser.add_argument("--tokens", type=int, default=4000, help="target tokens a step")
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of each system")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--fp16", action="store_true")
    parser.add_argument("--memory-of", choices=list(SYSTEMS), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--profile", choices=list(SYSTEMS), help="print where a step of this system spends its time"
    )
    args = parser.parse_args()
    if args.repeats < 5:
        parser.error("--repeats must be at least 5")
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dictionary(folder, args.vocabulary)
        if args.profile:
            print(profile(args.profile, folder, args))
            return
        if args.memory_of:
            print(json.dumps(step_memory(args.memory_of, folder, args)))
            return
        figures = measure(folder, args)
    if args.json:
        print(json.dumps(figures))
        return
    print(
        f"torch {torch.__version__}, {args.device}, {args.threads} threads, "
        f"vocabulary {args.vocabulary:,}, {args.tokens:,} target tokens a step"
    )
    print(f"{'':8}{'s/step':>10}{'tokens/s':>12}{'peak MiB':>12}")
    for system in SYSTEMS:
        f = figures[system]
        print(
            f"{system:8}{f['seconds']:>10.3f}{f['tokens_per_second']:>12,.0f}"
            f"{f['peak_mib']:>12,.0f}"
        )
    print(f"{'ratio':8}{'':>10}{figures['speed_ratio']:>12.2f}{figures['memory_ratio']:>12.2f}")


def measure(folder: Path, args: argparse.Namespace) -> dict:
    """Alternating timed steps, then a process for each system's memory."""
    trainers = {system: build_trainer(system, folder, args) for system in SYSTEMS}
    dictionary = trainers["stock"].task.source_dictionary
    batches = make_batches(dictionary, args.tokens, args.repeats + 2)
    seconds: dict[str, list[float]] = {system: [] for system in SYSTEMS}
    for number, batch in enumerate(batches):
        for system, trainer in trainers.items():
            took = step_seconds(trainer, batch)
            if number >= 2:  # the first two warm up
                seconds[system].append(took)
        print(f"step {number + 1} of {len(batches)}", file=sys.stderr)
    figures: dict = {}
    for system in SYSTEMS:
        command = [sys.executable, *sys.argv, "--memory-of", system]
        output = subprocess.run(
            command, capture_output=True, text=True, check=True, env=dict(os.environ)
        ).stdout
        median = statistics.median(seconds[system])
        figures[system] = {
            "seconds": median,
            "tokens_per_second": args.tokens / median,
            "peak_mib": json.loads(output.splitlines()[-1]),
        }
    figures["speed_ratio"] = figures["stock"]["seconds"] / figures["vat"]["seconds"]
    figures["memory_ratio"] = figures["vat"]["peak_mib"] / figures["stock"]["peak_mib"]
    return figures


if __name__ == "__main__":
    main()
