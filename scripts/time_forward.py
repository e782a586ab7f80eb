#!/usr/bin/env python3
"""Seconds of the forward passes over the training batches of a data set, and sizes of the systems.

The VAE-Transformer paper's table 7, for its six systems at widths 128 and 1024: a forward pass is
the model in training mode (dropout on, latents drawn) with the likelihood of its targets, without
gradients.  Systems take turns batch by batch in one process, so that whatever else the machine does
hits all of them.  Batches are evenly spaced among all training batches in order of length; the
median over repeats of their time is scaled to the whole set by the number of batches.

    python scripts/time_forward.py DATA --max-positions 64
    python scripts/time_forward.py DATA --batches 0 --repeats 1 --record times.jsonl
    python scripts/time_forward.py --parameters      # table 8: needs no data, makes no tensors
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.utils import move_to_cuda

from fairseq_vat.cli.flags import Parser, add_number, at_least
from fairseq_vat.cli.tables import table
from fairseq_vat.cli.terminal import quiet
from fairseq_vat.errors import VATError
from fairseq_vat.files import atomic_path
from fairseq_vat.hardware import PRECISIONS, preferred_precision

PLUGIN = Path(__file__).resolve().parent.parent / "fairseq_vat"
SYSTEMS = (
    *("vae_transformer", "vae_lstm", "vae_gru"),
    *("transformer_decoder_lm", "lstm_decoder_lm", "gru_decoder_lm"),
)
ARCHITECTURES = tuple(f"{system}{suffix}" for suffix in ("", "_1024") for system in SYSTEMS)
BATCH_SIZE = 32
PROGRESS = 32  # batches between two lines of it


def build(
    architecture: str, data: Path, vocabulary: int, positions: int, precision: str = "float32"
) -> tuple[Any, Any]:
    """Task and model, as `fairseq-train` would build them, with a dictionary of `vocabulary`."""
    flags = [str(data), "--user-dir", str(PLUGIN), "--task", "variational_lm", "--truncate"]
    flags += ["--arch", architecture, "--criterion", "token_kl_cross_entropy", "--lr", "1"]
    flags += ["--max-source-positions", str(positions), "--max-target-positions", str(positions)]
    flags += ["--precision", precision]
    parser = options.get_training_parser()
    with warnings.catch_warnings(action="ignore"):  # Hydra's, of what fairseq asks of it
        cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, flags))
    task = tasks.setup_task(cfg.task)
    dictionary = task.source_dictionary
    for number in range(vocabulary - len(dictionary)):
        dictionary.add_symbol(f"filler{number:05d}")
    return task, task.build_model(cfg.model)


def count_parameters(vocabulary: int) -> dict[str, int]:
    """Numbers of parameters by architecture, of models that are never allocated."""
    counts = {}
    with tempfile.TemporaryDirectory() as name, torch.device("meta"):
        (Path(name) / "dict.txt").write_text("", encoding="utf-8")
        for architecture in ARCHITECTURES:
            _, model = build(architecture, Path(name), vocabulary, 64)
            counts[architecture] = sum(p.numel() for p in model.parameters())
    return counts


def sample_batches(task: Any, split: str, count: int, positions: int) -> tuple[list[dict], int]:
    """`count` (0: all) of the training batches, evenly spaced by length, and how many there are."""
    task.load_dataset(split)
    data = task.dataset(split)
    batches = task.get_batch_iterator(
        data, max_sentences=BATCH_SIZE, max_positions=(positions, positions), seed=1
    ).frozen_batches
    longest_first = sorted(batches, key=lambda batch: -max(data.size(i)[0] for i in batch))
    count = min(count or len(batches), len(batches))
    # the middle of each of `count` equal shares
    chosen = [longest_first[(2 * i + 1) * len(batches) // (2 * count)] for i in range(count)]
    return [data.collater([data[i] for i in batch]) for batch in chosen], len(batches)


@torch.no_grad()
def forward_seconds(model: torch.nn.Module, batch: dict, device: torch.device) -> float:
    """Wall time of one forward pass."""
    _synchronise(device)
    start = time.perf_counter()
    model(**batch["net_input"], latent_seed=1, target=batch["target"])
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(args: argparse.Namespace, device: torch.device) -> dict:
    """Alternating passes: every repeat takes all batches, every batch all systems in turn."""
    models = {}
    for architecture in args.archs:
        sizes = (args.vocabulary, args.max_positions)
        task, model = build(architecture, Path(args.data), *sizes, args.precision)
        models[architecture] = model.to(device).train()
    batches, total = sample_batches(task, args.split, args.batches, args.max_positions)
    found = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": args.precision,
        "vocabulary": len(task.source_dictionary),
        "batches": len(batches),
        "batches_in_all": total,
        "batch_size": BATCH_SIZE,
    }
    tokens = sum(batch["ntokens"] for batch in batches)
    kept = read_record(args.record, found | {"systems": args.archs, "tokens": tokens})
    if device.type == "cuda":
        batches = [move_to_cuda(batch) for batch in batches]
    for model in models.values():  # warm up
        for batch in (batches[0], batches[-1]):
            forward_seconds(model, batch, device)
    seconds: dict[str, list[float]] = {architecture: [] for architecture in models}
    for repeat in range(args.repeats):
        sums = dict.fromkeys(models, 0.0)
        for number, batch in enumerate(batches, start=1):
            taken = next(kept, None)
            if taken is None:
                taken = {name: forward_seconds(m, batch, device) for name, m in models.items()}
                if args.record:
                    with open(args.record, "a", encoding="utf-8") as file:
                        file.write(json.dumps(taken) + "\n")
            for architecture in models:
                sums[architecture] += taken[architecture]
            if number % PROGRESS == 0 or number == len(batches):
                place = f"repeat {repeat + 1} of {args.repeats}, batch {number} of {len(batches)}"
                print(place, file=sys.stderr, flush=True)
        for architecture, taken in sums.items():
            seconds[architecture].append(taken * total / len(batches))
    return found | {
        "repeats": args.repeats,
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "spread": {name: [min(times), max(times)] for name, times in seconds.items()},
    }


def read_record(path: str | None, settings: dict) -> Iterator[dict[str, float]]:
    """Seconds by system of the batches that a stopped run with these settings has measured.

    Raises:
        VATError: for the record of other settings.
    """
    if path is None:
        return iter(())
    lines = []
    text = Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""
    for line in text.splitlines():
        with contextlib.suppress(ValueError):  # the last may be cut off
            lines.append(json.loads(line))
    if lines and lines[0] != settings:
        raise VATError(f"{path}: measured with other settings or data; remove it, or give another")
    with atomic_path(path) as temporary:
        text = "".join(json.dumps(line) + "\n" for line in lines or [settings])
        temporary.write_text(text, encoding="utf-8")
    return iter(lines[1:])


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", metavar="DATA", help="made by fairseq-preprocess")
    parser.add_argument("--parameters", action="store_true", help="count parameters instead")
    parser.add_argument("--split", default="train", help="default: %(default)s")
    parser.add_argument(
        *("--vocabulary", "-V"),
        type=at_least(1),
        default=30522,
        help="a smaller dictionary is filled up to this (default: the paper's %(default)s)",
    )
    parser.add_argument(
        *("--batches", "-n"),
        type=at_least(0),
        help="of the set's batches; 0: all (default: 32 on a CPU, all on a GPU)",
    )
    add_number(parser, "--repeats", "of all batches", 3, at_least(1))
    add_number(parser, "--max-positions", "of the models", 64, at_least(1))
    parser.add_argument(
        "--archs",
        type=lambda text: text.split(","),
        default=list(ARCHITECTURES),
        metavar="A,B,..",
        help="default: all twelve",
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="default: what is fast here")
    parser.add_argument(
        "--record",
        metavar="FILE",
        help="keep each batch's seconds there; a second run goes on behind the last",
    )
    parser.add_argument("--cpu", action="store_true", help="leave a CUDA device alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if unknown := set(args.archs) - set(ARCHITECTURES):
        parser.error(f"--archs {sorted(unknown)[0]}: must be among {', '.join(ARCHITECTURES)}")
    if args.parameters:
        with quiet():
            counts = count_parameters(args.vocabulary)
        found: dict = {"vocabulary": args.vocabulary, "parameters": counts}
        unit, form = "parameters", ",d"
    else:
        if not args.data or not (Path(args.data) / "dict.txt").is_file():
            parser.error(f"{args.data or 'DATA'}: give a folder made by fairseq-preprocess")
        use_cuda = torch.cuda.is_available() and not args.cpu
        args.precision = args.precision or preferred_precision(args.cpu)
        if args.batches is None:
            args.batches = 0 if use_cuda else 32
        with parser.one_line_errors(), quiet():
            found = measure(args, torch.device("cuda" if use_cuda else "cpu"))
        unit, form = "seconds", ".2f"
    if args.json:
        print(json.dumps(found))
        return
    print(" ".join(f"{k}={v}" for k, v in found.items() if not isinstance(v, dict)))
    rows = [{"system": name, "figure": figure} for name, figure in found[unit].items()]
    print(table(rows, (("system", "system", ""), ("figure", unit, form)), "plain"))


if __name__ == "__main__":
    main()
