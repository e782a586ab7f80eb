"""Sentences as text, and how well beam search gives them back.

Shape legend: S target positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.data.data_utils import post_process
from fairseq.data.encoders.gpt2_bpe_utils import bytes_to_unicode
from fairseq.dataclass.configs import GenerationConfig
from torch import Tensor

# how a vocabulary shows where words begin or go on, and what fairseq calls it; "bytes" is GPT-2's,
# which fairseq undoes in its encoders only
_MARKERS = {
    "sentencepiece": lambda symbol: symbol.startswith("\u2581"),
    "bytes": lambda symbol: symbol.startswith("\u0120"),
    "subword_nmt": lambda symbol: symbol.endswith("@@"),
}
PIECES = ("none", *_MARKERS)
_BYTES = {symbol: byte for byte, symbol in bytes_to_unicode().items()}


def kind_of_pieces(dictionary: Any) -> str:
    """One of `PIECES`: what the dictionary's entries are made like, ``none`` if they are words."""
    for kind, is_marked in _MARKERS.items():
        if any(is_marked(symbol) for symbol in dictionary.symbols[dictionary.nspecial :]):
            return kind
    return "none"


def to_text(tokens_S: Tensor, dictionary: Any, pieces: str, escape_unk: bool = False) -> str:
    """A sentence's text, its pieces joined.

    Args:
        tokens_S: indices; padding and the sentence's two ends are left out.
        dictionary: of the tokens.
        pieces: one of `PIECES`.
        escape_unk: write ``<<unk>>`` for the unknown, as fairseq does in references: an output's
            ``<unk>`` then never counts as right.
    """
    tokens_S = tokens_S[tokens_S.ne(dictionary.pad())]
    text = dictionary.string(tokens_S, escape_unk=escape_unk)
    if pieces != "bytes":
        return post_process(text, pieces)
    joined = text.replace(" ", "")
    values = b"".join(bytes([_BYTES[c]]) if c in _BYTES else c.encode() for c in joined)
    return values.decode("utf-8", errors="replace").strip()


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
    pieces: str,
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
        pieces: one of `PIECES`.
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


def bleu_figures(found: Reconstructions, pieces: str) -> dict[str, Any]:
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
    metric = BLEU(tokenize="none" if pieces == "none" else "13a", force=True)
    score = metric.corpus_score(outputs, [references]).score
    equal = sum(output == reference for output, reference in zip(outputs, references, strict=True))
    return {
        "bleu": score,
        "exact_match": equal / len(numbers),
        "sentences": len(numbers),
        "signature": str(metric.get_signature()),
    }
