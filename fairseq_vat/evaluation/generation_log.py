"""Read what fairseq-generate wrote, and say how well it gives sentences back."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.texts import bleu_figures

_LINE = re.compile(r"(?P<kind>[STDI])-(?P<id>\d+)\t(?P<rest>.*)")


@dataclass
class Generated:
    """One sentence of a generation file."""

    id: int
    source: str = ""  # the sentence itself (``T-``, or ``S-`` where there is no target)
    # the detokenised outputs (``D-``), in the order of the file
    outputs: list[str] = field(default_factory=list)
    # their scores, base 2, as fairseq prints them
    scores: list[float] = field(default_factory=list)
    # what each was decoded from (``I-``), such as ``mean`` and ``draw 2``; empty if the file
    # doesn't say, as those of earlier versions
    latents: list[str] = field(default_factory=list)

    @property
    def reference(self) -> str:
        """The sentence for readers, with a mark for what the dictionary doesn't have."""
        return self.source.replace("<<unk>>", "\u2047")


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
                score, tab, text = match["rest"].partition("\t")
                if not tab:
                    raise VATError(f"{path} is cut off within an output of sentence {number}")
                try:
                    sentence.scores.append(float(score))
                except ValueError:
                    raise VATError(
                        f"{path}: the score {score!r} of sentence {number} is no number"
                    ) from None
                sentence.outputs.append(text)
            elif match["kind"] == "I":
                sentence.latents.append(match["rest"].removeprefix("latents: "))
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
        of `bleu_figures`, with the sentence as the reference: ``sentences``, ``exact_match``, and
        ``bleu`` or ``bleu_of_pieces``.
    """
    return _figures([sentence.outputs[0] for sentence in sentences], [s.source for s in sentences])


def sample_figures(sentences: list[Generated]) -> dict[str, float]:
    """How far variational samples keep to their sentences, and how much they differ.

    Returns:
        ``sentences`` and ``samples_per_sentence``; of `bleu_figures`, over all samples against
        their sentence, ``exact_match`` and ``bleu`` or ``bleu_of_pieces``;
        ``distinct_per_sentence``: mean count of different samples.
    """
    outputs = [output for sentence in sentences for output in sentence.outputs]
    sources = [sentence.source for sentence in sentences for _ in sentence.outputs]
    distinct = sum(len(set(sentence.outputs)) for sentence in sentences)
    return {
        **_figures(outputs, sources),
        "sentences": len(sentences),
        "samples_per_sentence": len(outputs) / len(sentences),
        "distinct_per_sentence": distinct / len(sentences),
    }


def _figures(outputs: list[str], sources: list[str]) -> dict[str, Any]:
    found = bleu_figures(outputs, sources)
    del found["signature"]
    return found


def compare_generations(
    mean: str | os.PathLike, samples: str | os.PathLike | None = None
) -> dict[str, Any]:
    """Sentences beside their reconstructions and samples, and figures over all of them.

    Returns:
        ``latents``: of ``mean`` and ``samples``, what they were decoded from, ``mean`` or
        ``draws``, None where the file doesn't say; ``sentences``: a list with ``id``,
        ``sentence``, ``mean`` and ``samples`` of each; ``figures``:
        `reconstruction_figures` as ``mean``, and with samples `sample_figures` as ``samples``.

    Raises:
        VATError: as `read_generation`, if the two are of different sentences, and if a file says
            that it is the other's.
    """
    means = read_generation(mean)
    drawn = {sentence.id: sentence for sentence in read_generation(samples)} if samples else {}
    latents = {"mean": _latents_of(means), "samples": _latents_of(drawn.values())}
    if latents["mean"] == "draws":
        raise VATError(
            f"{mean} was generated with --latent-sampling, and so isn't from the mean: give it as "
            "--samples, and as --mean what is generated without"
        )
    if latents["samples"] == "mean":
        raise VATError(
            f"{samples} was generated without --latent-sampling, and so has no samples: they are "
            "from the mean"
        )
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
        one = {"id": sentence.id, "sentence": sentence.reference, "mean": sentence.outputs[0]}
        sentences.append({**one, "samples": outputs})
    return {"latents": latents, "sentences": sentences, "figures": figures}


def _latents_of(sentences: Iterable[Generated]) -> str | None:
    """``mean``, ``draws`` (if any is one), or None where an output has none said of it."""
    sentences = list(sentences)
    if not sentences or any(len(one.latents) != len(one.outputs) for one in sentences):
        return None
    return "mean" if {name for one in sentences for name in one.latents} == {"mean"} else "draws"
