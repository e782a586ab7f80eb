"""Labelled files as they are classified: labels in order, sentences in a model's subwords."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.folds import numbered
from fairseq_vat.text.columns import LabelledLine, read_labelled

if TYPE_CHECKING:
    from fairseq_vat.hub.interface import VATHubInterface


@dataclass(frozen=True)
class LabelledFiles:
    """Labelled sentences, or pairs of them, of one or several files; the training file is first."""

    paths: Mapping[str, str]  # by the files' names (``train``, ``valid``, ``test``, or ``cv``)
    lines: Mapping[str, Sequence[LabelledLine]]
    # of each line, the sentence in subwords, a pair's two joined; from `in_subwords`
    pieces: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # numbers of the lines that nothing is left of in subwords
    left_out: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @classmethod
    def read(cls, paths: Mapping[str, str], sentences: int = 1) -> LabelledFiles:
        """The files, of one sentence a line or two."""
        files = cls(paths, {name: read_labelled(path, sentences) for name, path in paths.items()})
        _ = files.labels  # what is wrong with them is said here
        return files

    @property
    def labels(self) -> list[str]:
        """The labels of the training file in order.

        Raises:
            VATError: if they are fewer than two, or another file has one more.
        """
        train, *others = self.paths
        labels = sorted({line.label for line in self.lines[train]})
        if len(labels) < 2:
            raise VATError(
                f"{self.paths[train]} has only the label {labels[0]!r}; two at least are needed"
            )
        for name in others:
            for line in self.lines[name]:
                if line.label not in labels:
                    some = ", ".join(map(repr, labels[:5])) + (", ..." if len(labels) > 5 else "")
                    raise VATError(
                        f"{self.paths[name]}:{line.line}: label {line.label!r} isn't in "
                        f"{self.paths[train]}, which has {some}"
                    )
        return labels

    def in_subwords(self, vat: VATHubInterface) -> LabelledFiles:
        """The lines that something is left of in a model's subwords, and those.

        A pair's two sentences have the end-of-sentence symbol between: fairseq's ``</s>`` is in
        every vocabulary, and what a model of single sentences knows as the end of one.
        """
        separator = f" {vat.task.source_dictionary.eos_word} "
        lines: dict[str, list[LabelledLine]] = {name: [] for name in self.paths}
        pieces: dict[str, list[str]] = {name: [] for name in self.paths}
        left_out: dict[str, list[int]] = {name: [] for name in self.paths}
        for name, path in self.paths.items():
            for line in self.lines[name]:
                sentences = [vat.apply_bpe(sentence) for sentence in line.sentences]
                if all(sentence.strip() for sentence in sentences):
                    lines[name].append(line)
                    pieces[name].append(separator.join(sentences))
                else:
                    left_out[name].append(line.line)
            if not lines[name]:
                raise VATError(f"{path} has no line with a sentence in it")
        files = replace(self, lines=lines, pieces=pieces, left_out=left_out)
        _ = files.labels
        return files

    @property
    def all_lines(self) -> list[LabelledLine]:
        """Of all files, in their order; an example's number is its place here."""
        return [line for some in self.lines.values() for line in some]

    @property
    def all_pieces(self) -> list[str]:
        return [sentence for some in self.pieces.values() for sentence in some]

    @property
    def label_numbers(self) -> Tensor:
        """Every example's label by its place in `labels`, int64."""
        index = {label: number for number, label in enumerate(self.labels)}
        return torch.tensor([index[line.label] for line in self.all_lines])

    @property
    def parts(self) -> dict[str, Tensor]:
        """The examples' numbers by file."""
        return numbered({name: len(some) for name, some in self.lines.items()})

    def described(self) -> dict[str, dict[str, int]]:
        """Counts, for JSON: labels of the training file, examples of each file, lines left out."""
        first = next(iter(self.lines.values()))
        return {
            "labels": dict(Counter(sorted(line.label for line in first))),
            "examples": {name: len(some) for name, some in self.lines.items()},
            "left_out": {name: len(some) for name, some in self.left_out.items()},
        }
