#!/usr/bin/env python3
"""Decoding: many draws of each sentence, and the subcommands' work, against fairseq-generate.

``stock`` is `fairseq-generate` with one draw and fairseq's own search, its sequence generator
untouched; ``one`` the same command with this plugin's search; ``draws`` the command with
``--latent-samples``, and ``sample`` the same in Python. They take turns in one process, so that
whatever else the machine does hits all; figures are medians, and as many runs as there are draws
are taken as so many times the median run. Loading the model is left out, everything after it is in:
data, encoder, search, output. Then come the steps of `fairseq-vat`, by sentences decoded (or
embedded) a second, against `fairseq-generate` from the mean.

Without --path the model has the paper's shape (4 + 4 layers, width 128) and no training, so that
lengths are the sources' own (--match-source-len).

    python scripts/benchmark_generation.py
    python scripts/benchmark_generation.py --data data-bin --path checkpoint.pt --max-len-b 100
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from fairseq import checkpoint_utils, options
from fairseq.data import Dictionary, data_utils, indexed_dataset
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.sequence_generator import EnsembleModel, SequenceGenerator
from fairseq_cli import generate as fairseq_generate
from fairseq_cli import train as fairseq_train

from fairseq_vat.cli.flags import Parser, add_number, at_least
from fairseq_vat.cli.tables import table
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.hub.loading import load_model
from fairseq_vat.tasks import generation

PLUGIN = Path(__file__).resolve().parent.parent / "fairseq_vat"
COMMON = ["--user-dir", str(PLUGIN), "--task", "variational_lm", "--num-workers", "0"]
TRAINING = (
    "--arch vat_transformer --criterion token_kl_cross_entropy --optimizer adam --lr 1e-9 "
    "--encoder-layers 4 --decoder-layers 4 --encoder-embed-dim 128 --decoder-embed-dim 128 "
    "--encoder-ffn-embed-dim 512 --decoder-ffn-embed-dim 512 --encoder-attention-heads 8 "
    "--decoder-attention-heads 8 --max-update 1 --batch-size 8 --disable-validation"
).split()


class StockEnsemble(EnsembleModel):
    """fairseq's ensemble, its latents drawn where they are encoded."""

    def __init__(self, models: list[Any], sampling: Any):
        super().__init__(models)
        self.sampling = sampling

    def forward_encoder(self, net_input: dict[str, Any]) -> list[Any]:
        """One draw of each sentence."""
        found = super().forward_encoder(net_input)
        pairs = zip(self.models, found, strict=True)
        return [model.encoder.draw(out, self.sampling.seed) for model, out in pairs]


class StockGenerator(SequenceGenerator):
    """fairseq's own generator in place of the plugin's."""

    def __init__(
        self, models: list[Any], tgt_dict: Any, latent_sampling: Any = None, nbest: int = 1, **more
    ):
        ensemble = StockEnsemble(models, latent_sampling) if latent_sampling else models
        super().__init__(ensemble, tgt_dict, **more)


def write_split(folder: Path, split: str, sentences: list[torch.Tensor], vocabulary: int) -> None:
    """Binarised data, as fairseq-preprocess would write it."""
    builder = indexed_dataset.make_builder(str(folder / f"{split}.bin"), "mmap", vocabulary)
    for sentence in sentences:
        builder.add_item(sentence.int())
    builder.finalize(str(folder / f"{split}.idx"))


def make_data(folder: Path, args: argparse.Namespace) -> list[torch.Tensor]:
    """dict.txt, and as many sentences as asked for: a split's first, or random ones."""
    if args.data:
        text = (Path(args.data) / "dict.txt").read_text(encoding="utf-8")
        (folder / "dict.txt").write_text(text, encoding="utf-8")
        split = data_utils.load_indexed_dataset(f"{args.data}/{args.split}", None)
        sentences = [split[n] for n in range(min(len(split), args.sentences))]
    else:
        with open(folder / "dict.txt", "w", encoding="utf-8") as file:
            file.writelines(f"w{i} 1\n" for i in range(args.vocabulary - 4))
        rng = random.Random(1)
        sentences = [
            torch.tensor([*(rng.randrange(4, args.vocabulary) for _ in range(length)), 2])
            for length in (min(60, 4 + int(rng.expovariate(1 / 18))) for _ in range(args.sentences))
        ]
    vocabulary = len(Dictionary.load(str(folder / "dict.txt")))
    write_split(folder, "test", sentences, vocabulary)
    write_split(folder, "train", (sentences * 8)[:8], vocabulary)  # a batch
    return sentences


def make_checkpoint(folder: Path, args: argparse.Namespace) -> Path:
    """A model that was trained for no more than one update."""
    flags = [str(folder), *COMMON, *TRAINING, "--save-dir", str(folder)]
    flags += ["--cpu"] if args.device == "cpu" else []
    parsed = options.parse_args_and_arch(options.get_training_parser(), flags)
    fairseq_train.main(convert_namespace_to_omegaconf(parsed))
    return folder / "checkpoint_last.pt"


def generate_seconds(folder: Path, args: argparse.Namespace, *flags: str, stock: bool) -> float:
    """Wall time of `fairseq-generate`, less that of loading its model."""
    every = [str(folder), *COMMON, "--path", str(args.path), "--beam", str(args.beam), *flags]
    every += ["--max-len-b", str(args.max_len_b)]
    every += ["--cpu"] if args.device == "cpu" else []
    every += [] if args.trained else ["--match-source-len"]
    parsed = options.parse_args_and_arch(options.get_generation_parser(), every)
    cfg = convert_namespace_to_omegaconf(parsed)
    loading, load = [], checkpoint_utils.load_model_ensemble

    def timed(*given: Any, **named: Any) -> Any:
        start = time.perf_counter()
        found = load(*given, **named)
        loading.append(time.perf_counter() - start)
        return found

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(checkpoint_utils, "load_model_ensemble", timed))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        if stock:
            for name in ("VariationalSequenceGenerator", "LatentSequenceGenerator"):
                stack.enter_context(mock.patch.object(generation, name, StockGenerator))
        start = time.perf_counter()
        fairseq_generate.main(cfg)
        return time.perf_counter() - start - sum(loading)


def steps(
    folder: Path, sentences: list[torch.Tensor], args: argparse.Namespace
) -> dict[str, tuple[int, Callable[[], Any]]]:
    """What each subcommand does with the sentences, and how many come out."""
    loaded = load_model(args.path, folder, args.device)
    vat = VATHubInterface(loaded.cfg, loaded.task, loaded.model)
    words = [loaded.task.source_dictionary.string(sentence).split() for sentence in sentences]
    texts = [" ".join(sentence) for sentence in words]
    marked = [" ".join([f"<v>{first}</v>", *rest]) for first, *rest in words]
    pairs = len(texts) // 2
    how = {"beam": args.beam, "max_len_b": args.max_len_b, "match_source_len": not args.trained}
    drawn = {"samples": args.draws, **how}
    return {
        "reconstruct": (len(texts), lambda: vat.reconstruct(texts, **how)),
        "sample": (len(texts) * args.draws, lambda: vat.sample(texts, **drawn)),
        "vary": (len(texts) * args.draws, lambda: vat.vary(marked, marks="<v> </v>", **drawn)),
        "interpolate": (pairs * 5, lambda: vat.interpolate(texts[:pairs], texts[-pairs:], **how)),
        "embed": (len(texts), lambda: vat.embed(texts)),
    }


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Medians of alternating runs."""
    sentences = make_data(folder, args)
    args.trained = args.path is not None
    args.path = args.path or make_checkpoint(folder, args)
    draw, many = "--latent-sampling", ("--latent-samples", str(args.draws))
    systems: dict[str, tuple[int, Callable[[], float]]] = {
        "generate (mean)": (1, lambda: generate_seconds(folder, args, stock=True)),
        "stock": (1, lambda: generate_seconds(folder, args, draw, stock=True)),
        "one": (1, lambda: generate_seconds(folder, args, draw, stock=False)),
        "draws": (args.draws, lambda: generate_seconds(folder, args, draw, *many, stock=False)),
    }
    counts = {name: times * len(sentences) for name, (times, _) in systems.items()}
    works = {name: work for name, (_, work) in systems.items()}
    for name, (count, step) in steps(folder, sentences, args).items():
        counts[name], works[name] = count, lambda step=step: _seconds(step)
    took: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(args.repeats):
        for name, work in works.items():
            took[name].append(work())
            print(f"{repeat + 1}: {name} {took[name][-1]:.2f} s", file=sys.stderr)
    seconds = {name: statistics.median(values) for name, values in took.items()}
    return {
        "sentences": len(sentences),
        "draws": args.draws,
        "seconds": seconds,
        "sentences_per_second": {name: counts[name] / seconds[name] for name in seconds},
        "draws_against_stock": args.draws * seconds["stock"] / seconds["draws"],
        "sample_against_stock": args.draws * seconds["stock"] / seconds["sample"],
        "draws_against_one": args.draws * seconds["one"] / seconds["draws"],
    }


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="data directory of --path")
    parser.add_argument("--path", help="a trained checkpoint (default: none, see above)")
    parser.add_argument("--split", default="test", help="of --data")
    for flag, default, text in (
        ("--sentences", 10_000, "of the split, or made up"),
        ("--vocabulary", 32768, "dictionary entries, without --data"),
        ("--draws", 12, "of each sentence"),
        ("--beam", 5, "width of the beam search"),
        ("--max-len-b", 200, "subwords of an output, at most"),
        ("--repeats", 3, "runs of each"),
        ("--threads", 2, "CPU threads"),
    ):
        add_number(parser, flag, text, default, at_least(1))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()
    if (args.data is None) != (args.path is None):
        parser.error("--data and --path go together")
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        figures = measure(Path(name), args)
    if args.json:
        print(json.dumps(figures))
        return
    print(f"torch {torch.__version__}, {args.device}, {args.threads} threads, beam {args.beam}")
    print(f"{figures['sentences']:,} sentences")
    rows = [
        {"name": name, "seconds": seconds, "speed": figures["sentences_per_second"][name]}
        for name, seconds in figures["seconds"].items()
    ]
    columns = (("name", "", ""), ("seconds", "s/run", ".2f"), ("speed", "sentences/s", ",.1f"))
    print(table(rows, columns, "plain"))
    for name in ("draws_against_stock", "sample_against_stock", "draws_against_one"):
        print(f"{name}: {figures[name]:.2f}")


if __name__ == "__main__":
    main()
