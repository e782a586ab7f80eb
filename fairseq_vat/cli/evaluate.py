"""``fairseq-vat evaluate``: every measure of a checkpoint over a subset of the data."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairseq_vat.cli.evaluation_table import table
from fairseq_vat.cli.quiet import quiet
from fairseq_vat.errors import VATError

# beyond the longest sentence, for outputs that say more than it
_EXTRA_LENGTH = 10
_DEFAULT_MAX_TOKENS = 4000


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add ``evaluate``."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a checkpoint: nll, KL, ELBO, mutual information, active units, BLEU",
        description="Measures a checkpoint over a subset of the data and prints a table, or with "
        "--json one object.  docs/measures.md says what each figure means.  No figure depends on "
        "--batch-size or --max-tokens.",
    )
    parser.add_argument("data", metavar="DATA", help="folder made by fairseq-preprocess")
    parser.add_argument("--path", metavar="CHECKPOINT", required=True)
    parser.add_argument(
        "--gen-subset", default="test", metavar="SPLIT", help="default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--cpu", action="store_true", help="leave a CUDA device alone")
    _add_int(parser, "--first", "measure only the first N sentences", least=1)
    parser.add_argument(
        "--truncate", action="store_true", help="cut sentences that are too long for the model"
    )
    _add_int(parser, "--batch-size", "sentences at a time", least=1)
    _add_int(
        parser,
        "--max-tokens",
        f"tokens at a time, padding counted (default: {_DEFAULT_MAX_TOKENS} without --batch-size)",
        least=1,
    )
    parser.add_argument(
        "--prior-std",
        type=float,
        metavar="S",
        help="standard deviation of the latents' prior in the measures (default: the training's); "
        "the latents' noise stays that of the training",
    )
    _add_int(parser, "--seed", "of the draws", default=1)
    _add_int(parser, "--samples", "draws a sentence for the nll from samples", 1, least=1)
    _add_int(
        parser,
        "--iw-samples",
        "draws a sentence, K, for the importance-weighted nll; 0: leave it out",
        default=50,
        least=0,
    )
    _add_int(
        parser,
        "--mi-draws",
        "draws over which mutual information is averaged; its spread is over them",
        default=5,
        least=1,
    )
    _add_int(parser, "--mi-batch", "sentences a batch of mutual information", 32, least=1)
    _add_int(
        parser,
        "--mi-latents",
        "mutual information over the whole set takes so many latents at most, chosen by chance: "
        "its time grows with their square",
        default=20000,
        least=1,
    )
    _add_int(parser, "--beam", "width of the beam search for BLEU", 5, least=1)
    parser.add_argument("--no-bleu", action="store_true", help="leave beam search and BLEU out")
    _add_int(parser, "--bleu-sentences", "BLEU of the first N sentences only", least=1)
    parser.add_argument(
        "--remove-bpe",
        choices=("auto", "none", "sentencepiece", "subword_nmt", "gpt2"),
        default="auto",
        help="how pieces are joined into words; auto goes by what the dictionary's entries "
        "look like (default: %(default)s)",
    )
    parser.add_argument(
        "--gpt2-encoder-json",
        metavar="FILE",
        help="vocab.json, where the entries are GPT-2's numbers (default: the one in DATA or the "
        "folder around it)",
    )
    parser.set_defaults(run=run)


def _add_int(
    parser: argparse.ArgumentParser,
    flag: str,
    text: str,
    default: int | None = None,
    least: int | None = None,
) -> None:
    suffix = "" if default is None else " (default: %(default)s)"
    parser.add_argument(flag, type=int, metavar="N", default=default, help=text + suffix)
    if least is not None:
        limits = parser.get_default("least") or {}
        parser.set_defaults(least={**limits, flag: least})


def run(args: argparse.Namespace) -> None:
    """Load, measure, print."""
    _check(args)
    with quiet():
        from fairseq_vat.hub.loading import load_model

        truncate = {"truncate": True} if args.truncate else {}  # else as in the training
        loaded = load_model(args.path, args.data, "cpu" if args.cpu else None, **truncate)
        found = _evaluate(loaded, args)
    if args.json:
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
    else:
        for line in table(found):
            print(line)


def _check(args: argparse.Namespace) -> None:
    for flag, least in args.least.items():
        value = getattr(args, flag[2:].replace("-", "_"))
        if value is not None and value < least:
            raise VATError(f"{flag} {value}: must be at least {least}")
    if args.prior_std is not None and not 0 < args.prior_std < math.inf:
        raise VATError(f"--prior-std {args.prior_std}: must be a standard deviation above 0")
    if args.batch_size is None and args.max_tokens is None:
        args.max_tokens = _DEFAULT_MAX_TOKENS


def _evaluate(loaded: Any, args: argparse.Namespace) -> dict[str, Any]:
    from fairseq_vat.evaluation import evaluate, reconstruction
    from fairseq_vat.evaluation.subset import Subset
    from fairseq_vat.hub.loading import prior_of
    from fairseq_vat.measures import collapse

    model, task, device = loaded.model, loaded.task, loaded.device
    subset = Subset(task, args.gen_subset, args.first)
    vocabulary = _gpt2_vocabulary(args)
    if args.remove_bpe == "auto":
        pieces = reconstruction.Pieces.of(task.target_dictionary, vocabulary)
    else:
        pieces = reconstruction.Pieces(args.remove_bpe, vocabulary)
    prior_std = None
    if model.has_latents:
        prior_std = prior_of(loaded.cfg, model, args.prior_std).std
    settings = evaluate.Settings(
        prior_std=prior_std or 1.0,
        samples=args.samples,
        iw_samples=args.iw_samples,
        seed=args.seed,
        mi_draws=args.mi_draws,
        mi_batch=args.mi_batch,
        mi_latents=args.mi_latents,
    )
    with _progress("measures", len(subset)) as advance:
        batches = subset.batches(args.max_tokens, args.batch_size, device)
        measured = evaluate.measure(model, batches, settings, advance)
    words, tokens = subset.words(pieces), subset.tokens
    found = {
        "checkpoint": args.path,
        "updates": model.num_updates,
        "data": args.data,
        "subset": args.gen_subset,
        "sentences": len(subset),
        "words": words,
        "tokens": tokens,
        "cut": subset.cut,
        "blank": subset.blank,
        "pieces": pieces.kind,
        "latent_level": str(model.encoder.latent_level) if model.has_latents else None,
        "prior_std": prior_std,
        "latent_noise": str(model.cfg.latent_noise) if model.has_latents else None,
        "noise_std": model.encoder.noise_std if model.has_latents else None,
        "seed": args.seed,
        **evaluate.figures(measured, tokens, words, settings, device),
        "reconstruction": None,
    }
    if model.has_latents and not args.no_bleu:
        count = min(args.bleu_sentences or len(subset), len(subset))
        with _progress("beam search", count) as advance:
            reconstructions = reconstruction.reconstruct(
                model,
                task,
                subset.batches(args.max_tokens, args.batch_size, device, first=count),
                args.beam,
                subset.longest + _EXTRA_LENGTH,
                pieces,
                advance,
            )
        found["reconstruction"] = {
            "beam": args.beam,
            **reconstruction.bleu_figures(reconstructions, pieces),
        }
    found["warning"] = collapse.warning(found)
    return found


def _gpt2_vocabulary(args: argparse.Namespace) -> Path | None:
    """Where `fairseq-vat tokenize --gpt2` leaves it, unless a flag says otherwise."""
    if args.gpt2_encoder_json is not None:
        return Path(args.gpt2_encoder_json)
    folder = Path(args.data)
    paths = (place / "vocab.json" for place in (folder, folder.parent))
    return next((path for path in paths if path.is_file()), None)


@contextmanager
def _progress(name: str, sentences: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; on anything else nothing."""
    from tqdm import tqdm

    # disable=None: where standard error is no terminal
    with tqdm(
        desc=name,
        total=sentences,
        unit=" sentences",
        unit_scale=True,
        leave=False,
        disable=None,
    ) as bar:
        yield bar.update
