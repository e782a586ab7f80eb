"""Labelled files as subcommands that train classifiers take them: labels, pieces, spread."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fairseq_vat.errors import VATError

if TYPE_CHECKING:
    from fairseq_vat.hub.interface import VATHubInterface
    from fairseq_vat.text.labelled import LabelledPair, LabelledSentence

    Line = LabelledSentence | LabelledPair

# more unknown pieces than this in a file, and the subwords aren't the model's
_UNKNOWN_WARNING = 0.2


def labels_of(
    paths: Mapping[str, str],
    lines: Mapping[str, Sequence[Line]],
) -> list[str]:
    """The labels of the training file in order.

    Args:
        paths: the files, the training file first.
        lines: what they hold, under the same names.

    Raises:
        VATError: if they are fewer than two, or another file has one more.
    """
    train, *others = paths
    labels = sorted({line.label for line in lines[train]})
    if len(labels) < 2:
        raise VATError(f"{paths[train]} has only the label {labels[0]!r}; two at least are needed")
    known = set(labels)
    for name in others:
        for line in lines[name]:
            if line.label not in known:
                some = ", ".join(map(repr, labels[:5])) + (", ..." if len(labels) > 5 else "")
                raise VATError(
                    f"{paths[name]}:{line.line}: label {line.label!r} isn't in "
                    f"{paths[train]}, which has {some}"
                )
    return labels


def with_sentences(
    path: str, vat: VATHubInterface, lines: Sequence[Line]
) -> tuple[list[Line], list[str]]:
    """The lines that something is left of in subwords, and their pieces.

    A pair's two sentences have the end-of-sentence symbol between: fairseq's ``</s>`` is in every
    vocabulary, and what a model of single sentences knows as the end of one. How many lines are
    left out, since a sentence of theirs is empty, is said on standard error.

    Raises:
        VATError: if that is all of them.
    """
    separator = f" {vat.task.source_dictionary.eos_word} "
    kept, pieces, empty = [], [], []
    for line in lines:
        sentences = [vat.apply_bpe(sentence) for sentence in line[1:-1]]
        if all(sentence.strip() for sentence in sentences):
            kept.append(line)
            pieces.append(separator.join(sentences))
        else:
            empty.append(line.line)
    if not kept:
        raise VATError(f"{path} has no line with a sentence in it")
    if empty:
        print(
            f"fairseq-vat: warning: {path}: {len(empty):,} of {len(lines):,} lines have an empty "
            f"sentence and are left out, the first is line {empty[0]}",
            file=sys.stderr,
        )
    return kept, pieces


def label_shares(counts: Mapping[str, int]) -> str:
    """The labels and their shares of the sentences counted, the most frequent first, for people."""
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    more = f" and {len(ordered) - 10} more" if len(ordered) > 10 else ""
    return ", ".join(f"{label} {count / total:.1%}" for label, count in ordered[:10]) + more


def unknown_share(vat: VATHubInterface, pieces: Sequence[str]) -> float:
    """Share of pieces that the model's dictionary doesn't have."""
    unknown = total = 0
    for sentence in pieces:
        words = vat.binarize(sentence)[:-1]
        total += len(words)
        unknown += int(words.eq(vat.task.source_dictionary.unk()).sum())
    return unknown / max(1, total)


def warn_of_unknown(path: str, share: float, model: str = "the model", ours: bool = True) -> None:
    """Say so on standard error if a file's subwords can't be the model's.

    Args:
        path: the file, or its name for people.
        share: of its pieces, those unknown.
        model: its name for people.
        ours: whether its subwords are for flags to give.
    """
    if share > _UNKNOWN_WARNING:
        advice = ": is --bpe, with its files, that of the training?" if ours else ""
        print(
            f"fairseq-vat: warning: {share:.0%} of the pieces in {path} are unknown to "
            f"{model}{advice}",
            file=sys.stderr,
        )


def spread(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation (n - 1) under `name`; of one value there is no deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {name: statistics.fmean(values), f"{name}_std": deviation}
