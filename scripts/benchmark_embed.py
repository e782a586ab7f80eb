#!/usr/bin/env python3
"""Sentences a second of the hub's `embed`, against the bare encoder's forward on the same batches.

Both go over the same sentences with the same model.  `embed` reads strings and gives a numpy array:
cleaning, subwords, dictionary, batching, encoder, pooling.  The bare encoder is fairseq's encoder
without the latents' layers, on batches that were made before the clock started.  The two take turns
in one process, so that whatever else the machine does hits both; figures are medians.

    python scripts/benchmark_embed.py DATA --path CHECKPOINT --sentencepiece-model MODEL \
        --sentences text.txt
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from fairseq_vat.cli.checkpoint import add_checkpoint_arguments, load_hub, locate
from fairseq_vat.cli.flags import Parser, add_number, at_least
from fairseq_vat.cli.tables import table
from fairseq_vat.cli.terminal import quiet
from fairseq_vat.errors import VATError
from fairseq_vat.text.lines import read_lines


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Wall time of a call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.no_grad()
def measure(vat: Any, sentences: list[str], repeats: int) -> dict[str, Any]:
    """Alternating passes over all sentences; the first of each, to warm up, isn't counted."""
    batches = [sample["net_input"] for sample in vat.batches(sentences)]
    encoder = vat.model.encoder.body

    def forward() -> None:
        for batch in batches:
            encoder(batch["src_tokens"], src_lengths=batch["src_lengths"])

    systems = {"embed": lambda: vat.embed(sentences), "encoder": forward}
    taken: dict[str, list[float]] = {name: [] for name in systems}
    for repeat in range(repeats + 1):
        for name, work in systems.items():
            passed = seconds(work, vat.device)
            if repeat:
                taken[name].append(passed)
        print(f"repeat {repeat} of {repeats}", file=sys.stderr, flush=True)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    sizes = torch.tensor([tuple(batch["src_tokens"].shape) for batch in batches])
    tokens = int(sum(batch["src_lengths"].sum() for batch in batches))
    return {
        "device": torch.cuda.get_device_name() if vat.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "sentences": len(sentences),
        "tokens": tokens,
        "padding": 1 - tokens / int(sizes.prod(dim=1).sum()),
        "batches": len(batches),
        "seconds": taken,
        "sentences_per_second": {name: len(sentences) / time for name, time in medians.items()},
        # each pair of turns by itself, so that a slow minute counts in both
        "ratio": statistics.median(
            bare / whole for whole, bare in zip(taken["embed"], taken["encoder"], strict=True)
        ),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_checkpoint_arguments(parser)
    parser.add_argument("--sentences", metavar="FILE", required=True, help="a sentence a line")
    add_number(parser, "--count", "of sentences", 10_000, at_least(1))
    add_number(parser, "--repeats", "passes over all of them", 5, at_least(1))
    add_number(parser, "--threads", "CPU threads", 2, at_least(1))
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with parser.one_line_errors(), quiet():
        sentences = list(itertools.islice(read_lines(args.sentences), args.count))
        if not sentences:
            raise VATError(f"{args.sentences} has no line with text")
        locate(args)
        found = measure(load_hub(args), sentences, args.repeats)
    if args.json:
        print(json.dumps(found))
        return
    print(
        f"{found['sentences']:,} sentences, {found['tokens']:,} tokens in {found['batches']:,} "
        f"batches ({found['padding']:.1%} padding); {found['device']}, {found['threads']} threads"
    )
    rows = [
        {"system": name, "speed": speed, "seconds": statistics.median(found["seconds"][name])}
        for name, speed in found["sentences_per_second"].items()
    ]
    columns = (("system", "", ""), ("speed", "sentences/s", ",.0f"), ("seconds", "seconds", ".2f"))
    print(table(rows, columns, "plain"))
    print(f"ratio: {found['ratio']:.2f}")


if __name__ == "__main__":
    main()
