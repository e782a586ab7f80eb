"""Sentences as text, and how well beam search gives them back.

Shape legend: S target positions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fairseq.data.data_utils import post_process
from fairseq.data.encoders.gpt2_bpe_utils import Encoder
from fairseq.dataclass.configs import GenerationConfig
from torch import Tensor

from fairseq_vat.errors import VATError

KINDS = ("none", "sentencepiece", "subword_nmt", "gpt2")


class Pieces:
    """How a dictionary's entries are joined into words.

    Args:
        kind: one of `KINDS`: what fairseq's ``--remove-bpe`` knows, or ``gpt2``, whose entries are
            token numbers.
        gpt2_vocabulary: the vocab.json that belongs to the numbers; for ``gpt2`` only.

    Raises:
        VATError: if that file isn't one.
    """

    def __init__(self, kind: str, gpt2_vocabulary: Path | None = None):
        self.kind = kind
        if kind == "gpt2":
            if gpt2_vocabulary is None:
                raise VATError("--remove-bpe gpt2 needs --gpt2-encoder-json, GPT-2's vocab.json")
            try:
                vocabulary = json.loads(gpt2_vocabulary.read_text(encoding="utf-8"))
                self._gpt2 = Encoder(vocabulary, bpe_merges=[])
            except (ValueError, AttributeError) as error:
                raise VATError(
                    f"--gpt2-encoder-json {gpt2_vocabulary} is not GPT-2's vocab.json, an object "
                    "with a number for every token"
                ) from error

    @classmethod
    def of(cls, dictionary: Any, gpt2_vocabulary: Path | None = None) -> Pieces:
        """What the entries look like; GPT-2's numbers can be told only with their vocabulary."""
        symbols = dictionary.symbols[dictionary.nspecial :]
        symbols = [symbol for symbol in symbols if not symbol.startswith("madeupword")]
        if any(symbol.startswith("\u2581") for symbol in symbols):
            return cls("sentencepiece")
        if any(symbol.endswith("@@") for symbol in symbols):
            return cls("subword_nmt")
        if gpt2_vocabulary is not None and all(symbol.isdecimal() for symbol in symbols):
            return cls("gpt2", gpt2_vocabulary)
        return cls("none")

    def join(self, line: str) -> str:
        """A line of pieces, with spaces between them, as text."""
        if self.kind != "gpt2":
            return post_process(line, self.kind)
        pieces = [int(piece) if piece.isdecimal() else piece for piece in line.split()]
        return self._gpt2.decode(pieces).strip()


def to_text(tokens_S: Tensor, dictionary: Any, pieces: Pieces, escape_unk: bool = False) -> str:
    """A sentence's text, its pieces joined.

    Args:
        tokens_S: indices; padding and the sentence's two ends are left out.
        dictionary: of the tokens.
        pieces: how they are joined.
        escape_unk: write ``<<unk>>`` for the unknown, as fairseq does in references: an output's
            ``<unk>`` then never counts as right.
    """
    tokens_S = tokens_S[tokens_S.ne(dictionary.pad())]
    return pieces.join(dictionary.string(tokens_S, escape_unk=escape_unk))


@dataclass
class Reconstructions:
    """Sentences and what beam search made of them, as text, by the sentence's number.

    Attributes:
        references: the sentences.
        outputs: the best hypotheses.
    """

    references: dict[int, str] = field(default_factory=dict)
    outputs: dict[int, str] = field(default_factory=dict)


@torch.no_grad()
def reconstruct(
    model: Any,
    task: Any,
    batches: Iterable[dict[str, Any]],
    beam: int,
    max_length: int,
    pieces: Pieces,
    progress: Callable[[int], None] = lambda sentences: None,
) -> Reconstructions:
    """Decode sentences from their latents' mean with fairseq's beam search.

    Args:
        model: with latents, in evaluation mode.
        task: its task.
        batches: fairseq's batches, on the model's device.
        beam: width of the search.
        max_length: longest output, its end of sentence not counted.  The same for all sentences, so
            that no output depends on what it is batched with.
        pieces: how they are joined into words.
        progress: told the number of sentences after each batch.
    """
    settings = GenerationConfig(beam=beam, nbest=1, max_len_a=0, max_len_b=max_length)
    generator = task.build_generator([model], settings)
    dictionary = task.target_dictionary
    found = Reconstructions()
    for batch in batches:
        numbers = batch["id"].tolist()
        hypotheses = task.inference_step(generator, [model], batch)
        for number, target_S, best in zip(numbers, batch["target"], hypotheses, strict=True):
            found.references[number] = to_text(target_S.cpu(), dictionary, pieces, escape_unk=True)
            found.outputs[number] = to_text(best[0]["tokens"].cpu(), dictionary, pieces)
        progress(len(numbers))
    return found


def bleu_figures(found: Reconstructions, pieces: Pieces) -> dict[str, Any]:
    """Corpus BLEU of the outputs, and how many equal their sentence.

    Joined pieces are text, which sacrebleu tokenises itself (13a); words of a dictionary are tokens
    already and are left as they are.

    Returns:
        ``bleu`` (0 to 100), ``exact_match`` (a share), ``sentences``, and sacrebleu's
        ``signature``, which says how it was measured.
    """
    from sacrebleu.metrics import BLEU  # here, because it takes long to import

    numbers = sorted(found.references)
    outputs = [found.outputs[number] for number in numbers]
    references = [found.references[number] for number in numbers]
    # force: text of a corpus that was tokenised before looks to sacrebleu like a mistake
    metric = BLEU(tokenize="none" if pieces.kind == "none" else "13a", force=True)
    score = metric.corpus_score(outputs, [references]).score
    equal = sum(output == reference for output, reference in zip(outputs, references, strict=True))
    return {
        "bleu": score,
        "exact_match": equal / len(numbers),
        "sentences": len(numbers),
        "signature": str(metric.get_signature()),
    }
