"""``fairseq-vat sts``: semantic textual similarity of a checkpoint, and of other encoders."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from fairseq_vat.cli.checkpoint import add_checkpoint_arguments, load_hub
from fairseq_vat.cli.hf import add_hf_argument, load_hf, names_of
from fairseq_vat.cli.labelled_input import warn_of_unknown
from fairseq_vat.cli.quiet import quiet
from fairseq_vat.cli.sts_table import table

if TYPE_CHECKING:
    import numpy as np

    from fairseq_vat.text.scored_pairs import ScoredPair

_POOLINGS = ("start", "mean", "sum")

Tasks = dict[str, dict[str, list["ScoredPair"]]]


class Vectors(NamedTuple):
    """What an encoder made of N different sentences.

    Attributes:
        vectors: (N, L) by pooling.
        pieces: (N,), subwords of a sentence.
        unknown: (N,), how many of them the encoder doesn't know.
    """

    vectors: dict[str, np.ndarray]
    pieces: np.ndarray
    unknown: np.ndarray


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add ``sts``."""
    parser = subparsers.add_parser(
        "sts",
        help="semantic textual similarity: correlation of cosines with people's scores",
        description="Correlates the cosine of two sentences' vectors with people's scores.  A "
        "folder is a task, each .tsv file in it, of score<TAB>sentence<TAB>sentence, a subset; a "
        "file alone is a task of one.  docs/sentence-embeddings.md says what each figure means.",
    )
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--sts",
        metavar="PATH",
        nargs="+",
        required=True,
        help="folders of .tsv files, or files; a file may be .gz or .xz",
    )
    parser.add_argument(
        "--pooling",
        choices=_POOLINGS,
        nargs="+",
        help="one vector out of a latent for every token: the start token's, the mean, the sum "
        "(default: all that the model has); without meaning where a sentence has one latent",
    )
    add_hf_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read, embed, correlate, print."""
    from fairseq_vat.text.scored_pairs import read_task

    names = names_of(args.sts)
    tasks = {name: read_task(path) for name, path in zip(names, args.sts, strict=True)}
    # each once: the sets share sentences
    sentences = list(
        dict.fromkeys(
            sentence
            for subsets in tasks.values()
            for pairs in subsets.values()
            for pair in pairs
            for sentence in (pair.first, pair.second)
        )
    )
    with quiet():
        vat = load_hub(args)
        encoders = load_hf(args.hf, vat.device)
        poolings = _poolings(args.pooling, vat)
        systems = [
            {
                "name": "checkpoint",
                "path": args.path,
                "updates": vat.model.num_updates,
                "latent_level": str(vat.model.encoder.latent_level),
                "width": vat.model.encoder.latent_dim,
                **_measure(tasks, sentences, _of_checkpoint(vat, sentences, poolings)),
            }
        ]
        hf_poolings = [name for name in _POOLINGS if name in (args.pooling or _POOLINGS)]
        for name, encoder in encoders.items():
            pieces = encoder.subwords(sentences)
            found = Vectors(
                encoder.embed(pieces, hf_poolings),
                _count(pieces),
                encoder.unknown(pieces),
            )
            system = {"name": name, "path": encoder.directory, "width": encoder.width}
            systems.append({**system, **_measure(tasks, sentences, found)})
    for system in systems:
        _warn(system)
    found = {"data": args.data, "systems": systems}
    if args.json:
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
    else:
        for line in table(found):
            print(line)


def _poolings(asked: Sequence[str] | None, vat: Any) -> list[str]:
    """What can be told apart of what was asked for."""
    if vat.model.encoder.latent_level != "token":
        return ["mean"]
    if asked is None and not vat.task.start_token:
        return ["mean", "sum"]
    return [name for name in _POOLINGS if name in (asked or _POOLINGS)]


def _of_checkpoint(vat: Any, sentences: list[str], poolings: list[str]) -> Vectors:
    posteriors = vat.embed_posteriors(sentences, poolings)
    tokens = [vat.binarize(vat.apply_bpe(sentence))[:-1] for sentence in sentences]
    unk = vat.task.source_dictionary.unk()
    vectors = {name: posterior.mean.numpy() for name, posterior in posteriors.items()}
    if vat.model.encoder.latent_level != "token":
        vectors = {"latent": vectors["mean"]}
    return Vectors(
        vectors, _count(tokens), _count(sentence[sentence == unk] for sentence in tokens)
    )


def _count(lists: Iterable[Any]) -> np.ndarray:
    import numpy as np

    return np.array([len(one) for one in lists])


def _measure(tasks: Tasks, sentences: list[str], found: Vectors) -> dict[str, Any]:
    """A system's correlations by pooling and task, and the share of pieces it doesn't know."""
    import numpy as np

    from fairseq_vat.evaluation import similarity

    number = {sentence: row for row, sentence in enumerate(sentences)}
    rows = {
        task: {
            name: (
                np.array([number[pair.first] for pair in pairs]),
                np.array([number[pair.second] for pair in pairs]),
                np.array([pair.score for pair in pairs]),
            )
            for name, pairs in subsets.items()
        }
        for task, subsets in tasks.items()
    }
    poolings = {}
    for pooling, vectors_NL in found.vectors.items():
        results = {
            task: similarity.summarize(
                {
                    name: similarity.Pairs(
                        similarity.cosines(vectors_NL[first], vectors_NL[second]), scores
                    )
                    for name, (first, second, scores) in subsets.items()
                }
            )
            for task, subsets in rows.items()
        }
        poolings[pooling] = {
            "tasks": {task: asdict(result) for task, result in results.items()},
            "average_of_tasks": {
                kind: asdict(similarity.average({t: getattr(r, kind) for t, r in results.items()}))
                for kind in ("mean", "weighted_mean", "all_pairs")
            },
        }
    shares = {}
    for task, subsets in rows.items():
        every = np.concatenate([np.concatenate(columns[:2]) for columns in subsets.values()])
        total = int(found.pieces[every].sum())
        shares[task] = int(found.unknown[every].sum()) / total if total else 0.0
    return {"unknown_share": shares, "poolings": poolings}


def _warn(system: dict[str, Any]) -> None:
    for task, share in system["unknown_share"].items():
        warn_of_unknown(task, share, system["path"], ours="updates" in system)
