"""``fairseq-vat probe --relatedness``: scores of pairs, learned as SentEval does it."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fairseq_vat.cli.checkpoint import load_hub
from fairseq_vat.cli.hf import load_hf
from fairseq_vat.cli.labelled_input import spread
from fairseq_vat.cli.probe_encoders import described, encoders_of, poolings_of
from fairseq_vat.cli.probe_table import hf_line, title
from fairseq_vat.cli.quiet import quiet
from fairseq_vat.errors import VATError

if TYPE_CHECKING:
    from torch import Tensor

    from fairseq_vat.text.scored_pairs import ScoredPair

_FILES = ("train", "valid", "test")
_FIGURES = {
    "pearson": ("Pearson x 100", 100),
    "spearman": ("Spearman x 100", 100),
    "mse": ("MSE", 1),
}


def run(args: argparse.Namespace) -> None:
    """Read, embed, train, print."""
    _check(args)
    import torch
    from tqdm import tqdm

    from fairseq_vat.evaluation.relatedness import agreement, fit_relatedness, pair_features
    from fairseq_vat.text.scored_pairs import read_pairs

    least, most = args.grades or (1, 5)
    pairs = {name: read_pairs(getattr(args, name)) for name in _FILES}
    for name, some in pairs.items():
        _check_scores(getattr(args, name), some, least, most)
    scores = {
        name: torch.tensor([pair.score for pair in some], dtype=torch.double)
        for name, some in pairs.items()
    }
    every = [pair for some in pairs.values() for pair in some]
    sentences = list(dict.fromkeys(s for pair in every for s in (pair.first, pair.second)))
    number = {sentence: row for row, sentence in enumerate(sentences)}
    with quiet():
        vat = load_hub(args)
        beside = load_hf(args.hf, vat.device)
        poolings = poolings_of(args, vat)
        pieces = [vat.apply_bpe(sentence) for sentence in sentences]
        encoders = encoders_of(vat, beside, pieces, [sentences], args.train)
        results = []
        for encoder in encoders:
            ours = encoder is encoders[0]
            vectors = encoder.embed(poolings if ours else list(dict.fromkeys(args.pooling)))
            for pooling, vectors_NL in vectors.items():
                features = {
                    name: pair_features(
                        vectors_NL[[number[pair.first] for pair in some]],
                        vectors_NL[[number[pair.second] for pair in some]],
                    )
                    for name, some in pairs.items()
                }
                seeds = tqdm(
                    range(1, args.seeds + 1),
                    desc=f"{encoder.name}, {pooling}",
                    **{"unit": " runs", "leave": False, "disable": None},
                )
                runs = [
                    {"seed": seed, **asdict(fit_relatedness(features, scores, least, most, seed))}
                    for seed in seeds
                ]
                what = {"encoder": encoder.name, "mode": "features", "pooling": pooling}
                results.append({**what, **_over_runs(runs), "runs": runs})
                if ours and vat.model.encoder.latent_level != "token":
                    results[-1]["pooling"] = None
    found = {
        **described(args, vat, encoders),
        "grades": [least, most],
        "examples": {name: len(some) for name, some in pairs.items()},
        "seeds": args.seeds,
        "results": results,
        "mean_score": {
            name: asdict(agreement(_mean_for(scores["train"], scores[name]), scores[name]))
            for name in ("valid", "test")
        },
    }
    print(json.dumps(found, ensure_ascii=False, allow_nan=False) if args.json else _table(found))


def _check(args: argparse.Namespace) -> None:
    """Flags that don't go with --relatedness."""
    if args.cv is not None or None in (args.valid, args.test):
        raise VATError("--relatedness: give --train, --valid and --test")
    if "finetune" in args.mode:
        raise VATError("--mode finetune: --relatedness is learned from features alone")
    for name in ("pairs", "save", "hidden"):
        if getattr(args, name) is not None and getattr(args, name) is not False:
            raise VATError(f"--{name} doesn't go with --relatedness")
    if args.grades is not None and args.grades[0] >= args.grades[1]:
        raise VATError(f"--grades {args.grades[0]} {args.grades[1]}: the first must be the smaller")


def _check_scores(path: str, pairs: list[ScoredPair], least: int, most: int) -> None:
    """SentEval's grades begin at 1 for STS-B too, whose scores begin at 0."""
    scores = [pair.score for pair in pairs]
    if min(scores) < least - 1 or max(scores) > most:
        raise VATError(
            f"{path}: scores from {min(scores):g} to {max(scores):g} don't fit the grades {least} "
            f"to {most}; give --grades {math.floor(min(scores))} {math.ceil(max(scores))}"
        )


def _mean_for(train_N: Tensor, scores_N: Tensor) -> Tensor:
    """The training part's mean score as every prediction."""
    return train_N.mean().expand(len(scores_N))


def _over_runs(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Each figure over runs; None where it is undefined in one."""
    found: dict[str, Any] = {}
    for part in ("valid", "test"):
        found[part] = {}
        for name in _FIGURES:
            values = [run[part][name] for run in runs]
            undefined = {name: None, f"{name}_std": None}
            found[part].update(undefined if None in values else spread(name, values))
    return found


def _table(found: dict[str, Any]) -> str:
    files = ", ".join(f"{count:,} {name}" for name, count in found["examples"].items())
    least, most = found["grades"]
    lines = [
        f"{found['checkpoint']}: {found['updates']:,} updates",
        f"pairs: {files}; grades: {least} to {most}; seeds: {found['seeds']}; "
        f"{found['unknown_share']:.1%} of the pieces unknown",
        *map(hf_line, found["hf"]),
    ]
    rows = {title(found, result): result for result in found["results"]}
    rows["mean score"] = found["mean_score"]
    column = max(24, *(len(name) + 2 for name in rows))
    heads = "".join(f"{head:>18}" for head, _ in _FIGURES.values())
    for part, name in (("valid", "dev"), ("test", "test")):
        lines += ["", f"{name:{column}}{heads}"]
        for row, result in rows.items():
            lines.append(f"{row:{column}}" + "".join(_cells(result[part])))
    return "\n".join(lines)


def _cells(score: dict[str, float | None]) -> list[str]:
    cells = []
    for name, (_, scale) in _FIGURES.items():
        value, deviation = score[name], score.get(f"{name}_std")
        cell = "undefined" if value is None else f"{scale * value:.2f}"
        cells.append(f"{cell if deviation is None else f'{cell} ± {scale * deviation:.2f}':>18}")
    return cells
