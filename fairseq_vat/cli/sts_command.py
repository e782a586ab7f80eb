"""``fairseq-vat sts``: semantic textual similarity of a checkpoint, and of other encoders."""

import argparse
from collections.abc import Iterator
from typing import Any

from fairseq_vat.cli.checkpoint import (
    add_checkpoint_arguments,
    add_hf_argument,
    load_encoders,
    names_of,
)
from fairseq_vat.cli.flags import add_list
from fairseq_vat.cli.tables import add_output_flags, prose, show, table
from fairseq_vat.cli.terminal import quiet, warn, warn_of_unknown
from fairseq_vat.latent.choices import POOLINGS

_MEASURES = {"spearman": "Spearman", "pearson": "Pearson"}
_AVERAGES = {
    "mean": "mean of subsets",
    "weighted_mean": "mean, weighted by pairs",
    "all_pairs": "all pairs together",
}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "sts",
        help="semantic textual similarity: correlation of cosines with people's scores",
        description="Correlates the cosine of two sentences' vectors with people's scores.  A "
        "folder is a task, each .tsv file in it, of score<TAB>sentence<TAB>sentence, a subset; a "
        "file alone is a task of one.  docs/sentence-embeddings.md says what each figure means.",
    )
    add_checkpoint_arguments(parser)
    text = "folders of .tsv files, or files; a file may be .gz or .xz"
    add_list(parser, "--sts", text, "PATH", required=True)
    add_list(
        parser,
        "--pooling",
        "one vector out of a latent for every token: the start token's, the mean, the sum "
        "(default: all that the model has); without meaning where a sentence has one latent",
        choices=POOLINGS,
    )
    add_hf_argument(parser)
    add_output_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from fairseq_vat.text.columns import read_task

    names = names_of(args.sts)
    tasks = {name: read_task(path) for name, path in zip(names, args.sts, strict=True)}
    with quiet():
        from fairseq_vat.evaluation.sts import sentences_of, sts

        # each once: the sets share sentences
        subsets = [pairs for some in tasks.values() for pairs in some.values()]
        sentences = sentences_of([pair for pairs in subsets for pair in pairs])
        systems = sts(load_encoders(args, sentences), sentences, tasks, args.pooling)
    for system in systems:
        for task, share in system["unknown_share"].items():
            warn_of_unknown(task, share, system["path"], ours="updates" in system)
    if reasons := _reasons(systems):
        warn(f"{len(reasons):,} correlations are undefined, the first: {reasons[0]}")
    show(args, {"data": args.data, "systems": systems}, _tables)


def _tables(found: dict[str, Any], style: str) -> str:
    """Both correlations, times 100, and why some are undefined."""
    systems = found["systems"]
    lines = prose(style, *map(_description, systems), "")
    columns = {
        f"{number} {pooling}": (system, pooling)
        for number, system in enumerate(systems)
        for pooling in system["poolings"]
    }
    shown = [(key, f"{system['name']} {p}", ".2f") for key, (system, p) in columns.items()]
    for measure, title in _MEASURES.items():
        rows = [
            {"name": name, "pairs": pairs}
            | {
                key: _cell(_at(system["poolings"][pooling], path)[measure])
                for key, (system, pooling) in columns.items()
            }
            for name, pairs, path in _rows(systems[0])
        ]
        heads = [("name", f"{title} x 100", ""), ("pairs", "pairs", ","), *shown]
        lines += [table(rows, heads, style), ""]
    lines.pop()
    if reasons := _reasons(systems):
        lines += prose(style, "", *(f"undefined: {reason}" for reason in reasons))
    return "\n".join(lines)


def _reasons(systems: list[dict[str, Any]]) -> list[str]:
    """What is undefined, and why."""
    return [
        f"{system['name']}, {pooling}: {name}: {correlation['undefined']}"
        for system in systems
        for pooling, results in system["poolings"].items()
        for name, _, path in _rows(systems[0])
        if (correlation := _at(results, path))["undefined"]
    ]


def _description(system: dict[str, Any]) -> str:
    shares = ", ".join(f"{task} {share:.1%}" for task, share in system["unknown_share"].items())
    what = f"vectors of width {system['width']}"
    if "updates" in system:
        one = "each token" if system["latent_level"] == "token" else "each sentence"
        what = f"{system['updates']:,} updates, a latent of width {system['width']} for {one}"
    return f"{system['name']}: {system['path']}: {what}; unknown pieces: {shares}"


def _rows(system: dict[str, Any]) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Title, number of pairs, and where the correlation stands among a pooling's results."""
    results = next(iter(system["poolings"].values()))
    for task, result in results["tasks"].items():
        for subset, correlation in result["subsets"].items():
            yield f"{task} {subset}", correlation["pairs"], ("tasks", task, "subsets", subset)
        for kind, title in _AVERAGES.items():
            yield f"{task}, {title}", result[kind]["pairs"], ("tasks", task, kind)
    if len(results["tasks"]) > 1:
        for kind, title in _AVERAGES.items():
            pairs = results["average_of_tasks"][kind]["pairs"]
            yield f"mean over tasks of: {title}", pairs, ("average_of_tasks", kind)


def _at(results: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path:
        results = results[key]
    return results


def _cell(value: float | None) -> float | str:
    return "undefined" if value is None else 100 * value
