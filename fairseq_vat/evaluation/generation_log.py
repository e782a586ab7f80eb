"""Read what fairseq-generate wrote, and say how well it gives sentences back."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.texts import bleu_figures

_LINE = re.compile(r"(?P<kind>[STD])-(?P<id>\d+)\t(?P<rest>.*)")


@dataclass
class Generated:
    """One sentence of a generation file.

    Attributes:
        id: its number in the data set.
        source: the sentence itself (``T-``, or ``S-`` where there is no target).
        outputs: the detokenised outputs (``D-``), in the order of the file.
        scores: their scores, base 2, as fairseq prints them.
    """

    id: int
    source: str = ""
    outputs: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def read_generation(path: str | os.PathLike) -> list[Generated]:
    """The sentences of an output file of fairseq-generate, by number.

    A sentence with unknown symbols is never equal to an output: fairseq writes ``<<unk>>`` for them
    in the target and ``<unk>`` in the output, so that nothing is gained by giving them back.

    Args:
        path: the file, or the folder that was given as ``--results-path``.

    Raises:
        VATError: when there is no sentence in the file, or one without an output.
    """
    path = _result_file(Path(path))
    sentences: dict[int, Generated] = {}
    sources: dict[str, dict[int, str]] = {"S": {}, "T": {}}
    # Only \n ends a line: text mode would take a \r within a sentence for a line's end as well.
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        for line in file:
            match = _LINE.match(line.rstrip("\n"))
            if not match:
                continue
            number = int(match["id"])
            sentence = sentences.setdefault(number, Generated(number))
            if match["kind"] == "D":
                score, _, text = match["rest"].partition("\t")
                sentence.scores.append(float(score))
                sentence.outputs.append(text)
            else:
                sources[match["kind"]][number] = match["rest"]
    for number, sentence in sentences.items():
        sentence.source = sources["T"].get(number, sources["S"].get(number, ""))
        if not sentence.outputs:
            raise VATError(
                f"{path} has no output (D-{number}) for sentence {number}: it is cut off"
            )
    if not sentences:
        raise VATError(
            f"{path} has no sentences; give the generate-SUBSET.txt that fairseq-generate writes "
            "under --results-path, without --quiet"
        )
    return [sentences[number] for number in sorted(sentences)]


def _result_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = sorted(path.glob("generate-*.txt"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise VATError(
            f"{path} should hold one generate-SUBSET.txt (it has {names}); name the file"
        )
    return files[0]


def reconstruction_figures(sentences: list[Generated]) -> dict[str, float]:
    """How well the first outputs give the sentences back.

    Returns:
        ``sentences``: how many; ``bleu`` with the sentence as the reference and ``exact_match``,
        as `bleu_figures` has them.
    """
    outputs = [sentence.outputs[0] for sentence in sentences]
    found = bleu_figures(outputs, [sentence.source for sentence in sentences])
    return {name: found[name] for name in ("sentences", "bleu", "exact_match")}


def sample_figures(sentences: list[Generated]) -> dict[str, float]:
    """How far variational samples keep to their sentences, and how much they differ.

    Returns:
        ``sentences`` and ``samples_per_sentence``; ``bleu`` and ``exact_match`` of all samples
        against their sentence; ``distinct_per_sentence``: mean count of different samples.
    """
    outputs = [output for sentence in sentences for output in sentence.outputs]
    sources = [sentence.source for sentence in sentences for _ in sentence.outputs]
    distinct = sum(len(set(sentence.outputs)) for sentence in sentences)
    found = bleu_figures(outputs, sources)
    return {
        "sentences": len(sentences),
        "samples_per_sentence": len(outputs) / len(sentences),
        "bleu": found["bleu"],
        "exact_match": found["exact_match"],
        "distinct_per_sentence": distinct / len(sentences),
    }


def compare_generations(
    mean: str | os.PathLike, samples: str | os.PathLike | None = None
) -> dict[str, Any]:
    """Sentences beside their reconstructions and samples, and figures over all of them.

    Args:
        mean: output of fairseq-generate that decodes from the mean, as for `read_generation`.
        samples: the same with ``--latent-sampling``.

    Returns:
        ``sentences``: a list with ``id``, ``sentence``, ``mean`` and ``samples`` of each;
        ``figures``: `reconstruction_figures` as ``mean``, and with samples `sample_figures` as
        ``samples``.

    Raises:
        VATError: as `read_generation`, and if the two are of different sentences.
    """
    means = read_generation(mean)
    drawn = {sentence.id: sentence for sentence in read_generation(samples)} if samples else {}
    for sentence in means:
        if sentence.id in drawn and drawn[sentence.id].source != sentence.source:
            raise VATError(
                f"{samples} and {mean} differ in sentence {sentence.id}; give outputs over the "
                "same subset of the same data"
            )
    figures = {"mean": reconstruction_figures(means)}
    if drawn:
        figures["samples"] = sample_figures(list(drawn.values()))
    sentences = []
    for sentence in means:
        outputs = drawn[sentence.id].outputs if sentence.id in drawn else []
        one = {"id": sentence.id, "sentence": sentence.source, "mean": sentence.outputs[0]}
        sentences.append({**one, "samples": outputs})
    return {"sentences": sentences, "figures": figures}
