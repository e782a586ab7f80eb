"""``fairseq-vat evaluate``: every measure of a checkpoint over a subset of the data."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
        help="the prior's standard deviation (default: the checkpoint's)",
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
        from fairseq_vat import hub

        truncate = {"truncate": True} if args.truncate else {}  # else as in the training
        loaded = hub.load_model(args.path, args.data, "cpu" if args.cpu else None, **truncate)
        found = _evaluate(loaded, args)
    if args.json:
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
    else:
        for line in _table(found):
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
    from fairseq_vat.evaluation import measures, reconstruction
    from fairseq_vat.evaluation.subset import Subset

    model, task, device = loaded.model, loaded.task, loaded.device
    subset = Subset(task, args.gen_subset, args.first)
    vocabulary = _gpt2_vocabulary(args)
    if args.remove_bpe == "auto":
        pieces = reconstruction.Pieces.of(task.target_dictionary, vocabulary)
    else:
        pieces = reconstruction.Pieces(args.remove_bpe, vocabulary)
    prior_std = args.prior_std
    if prior_std is None:
        prior_std = getattr(loaded.cfg.criterion, "prior_std", None)
    if prior_std is None and model.has_latents:
        raise VATError(f"--prior-std is needed: {args.path} wasn't trained with one")
    settings = measures.Settings(
        prior_std=prior_std or 1.0,
        samples=args.samples,
        iw_samples=args.iw_samples,
        seed=args.seed,
        mi_batch=args.mi_batch,
        mi_latents=args.mi_latents,
    )
    with _progress("measures", len(subset)) as advance:
        batches = subset.batches(args.max_tokens, args.batch_size, device)
        measured = measures.measure(model, batches, settings, advance)
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
        "pieces": pieces.kind,
        "latent_level": str(model.encoder.latent_level) if model.has_latents else None,
        "prior_std": prior_std if model.has_latents else None,
        "seed": args.seed,
        **measures.figures(measured, tokens, words, settings, device),
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
    found["warning"] = measures.collapse_warning(found)
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


_PIECES = {
    "none": "the dictionary's entries",
    "sentencepiece": "white space between joined sentencepiece pieces",
    "gpt2": "white space between joined byte-level pieces",
    "subword_nmt": "white space between joined subword-nmt pieces",
}


def _table(found: dict[str, Any]) -> list[str]:
    """The figures for a reader."""
    level = found["latent_level"]
    latents = "a language model, no latents"
    if level is not None:
        width = found["active_units"]["of"]
        latents = f"a latent of width {width} for each {level}, prior std {found['prior_std']:g}"
    lines = [
        f"{found['checkpoint']}: {found['updates']:,} updates, {latents}",
        f"{found['data']}, {found['subset']}: {found['sentences']:,} sentences, "
        f"{found['words']:,} words ({_PIECES[found['pieces']]}), {found['tokens']:,} tokens"
        + (f", {found['cut']:,} sentences cut to the model's positions" if found["cut"] else ""),
        "",
        f"{'':36}{'nats per':>10}{'nats per':>10}{'nats per':>10}{'bits per':>10}"
        f"{'perplexity':>14}{'perplexity':>12}",
        f"{'':36}{'sentence':>10}{'word':>10}{'token':>10}{'token':>10}"
        f"{'per word':>14}{'per token':>12}",
    ]
    draws = "" if level is None else f" ({found['samples']} a sentence)"
    k = f" (K = {found['iw_samples']})" if found["iw_samples"] else ""
    rows = {
        "nll, exact (a language model's)": "nll",
        "nll from the mean": "nll_mean",
        f"nll from samples{draws}": "nll_samples",
        "KL": "kl",
        "negative ELBO (samples + KL)": "neg_elbo",
        f"nll, importance-weighted{k}": "iw_nll",
    }
    lines += [f"{label:<36}{_spread(found[key])}" for label, key in rows.items()]
    lines += ["", *_latent_lines(found)]
    if found["warning"]:
        lines += ["", f"warning: {found['warning']}"]
    return lines


def _spread(spread: dict[str, float | None] | None) -> str:
    if spread is None:
        return "".join(f"{'-':>{width}}" for width in (10, 10, 10, 10, 14, 12))
    nats = "".join(
        f"{spread[name]:>10.3f}"
        for name in ("per_sentence", "per_word", "per_token", "bits_per_token")
    )
    words, tokens = (
        _large(spread[name]) if name in spread else "-"
        for name in ("ppl_per_word", "ppl_per_token")
    )
    return f"{nats}{words:>14}{tokens:>12}"


def _large(x: float | None) -> str:
    if x is None:
        return "inf"
    return f"{x:,.2f}" if x < 1e6 else f"{x:.2e}"


def _latent_lines(found: dict[str, Any]) -> list[str]:
    kl, ess, batches, whole = (found[key] for key in ("kl_nats", "ess", "mi_batches", "mi"))
    level, bleu = found["latent_level"], found["reconstruction"]
    lines = {
        "KL per latent": "-",
        "effective sample size": "-",
        "MI in batches": "-",
        "MI in the whole set": "-",
        "KL(q(z), prior)": "-",
        "active units": "-",
        "reconstruction": "-",
    }
    keys = list(lines)
    if kl is not None:
        lines[keys[0]] = f"{kl:.3f} nats, of {found['latents']:,} latents, one for each {level}"
        lines[keys[2]] = (
            f"{_mi(batches)}, batches of {batches['batch_sentences']} sentences: "
            f"{batches['batches']:,}"
        )
        chosen = " chosen by chance" if whole["latents"] < found["latents"] else ""
        lines[keys[3]] = f"{_mi(whole)}, {whole['latents']:,} latents{chosen}"
        lines[keys[4]] = f"{found['marginal_kl']:.3f} nats (KL per latent - MI of the whole set)"
        plain, scaled = found["active_units"], found["active_units_scaled"]
        lines[keys[5]] = (
            f"{plain['count']} of {plain['of']} (variance of the mean at least "
            f"{plain['threshold']:g}); {scaled['count']} (at least 0.01 s^2 = "
            f"{scaled['threshold']:g})"
        )
    if ess is not None:
        lines[keys[1]] = (
            f"of K = {found['iw_samples']}: mean {ess['mean']:.2f}, median {ess['median']:.2f}, "
            f"5th percentile {ess['percentile_5']:.2f}, least {ess['min']:.2f}"
        )
        if ess["median"] < 2 < found["iw_samples"]:
            lines[keys[1]] += " (one draw has all the weight: the bound is loose)"
    if bleu is not None:
        lines[keys[6]] = (
            f"BLEU {bleu['bleu']:.2f}, {bleu['exact_match']:.1%} equal; beam {bleu['beam']}, "
            f"{bleu['sentences']:,} sentences ({bleu['signature']})"
        )
    return [f"{label:<24}{text}" for label, text in lines.items()]


def _mi(found: dict[str, Any]) -> str:
    return (
        f"{found['nats']:.3f} nats (paired draws {found['paired']:.3f}), "
        f"ceiling {found['ceiling']:.3f}"
    )
