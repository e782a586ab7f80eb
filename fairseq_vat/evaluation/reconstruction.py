"""How well beam search gives sentences back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from fairseq.dataclass.configs import GenerationConfig

from fairseq_vat.text.pieces import Pieces, to_text


@torch.no_grad()
def reconstruct(
    model: Any,
    task: Any,
    batches: Iterable[dict[str, Any]],
    beam: int,
    max_length: int,
    pieces: Pieces,
    progress: Callable[[int], None] = lambda sentences: None,
) -> tuple[list[str], list[str]]:
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

    Returns:
        outputs and sentences as text, in the data set's order.
    """
    settings = GenerationConfig(beam=beam, nbest=1, max_len_a=0, max_len_b=max_length)
    generator = task.build_generator([model], settings)
    dictionary = task.target_dictionary
    found: dict[int, tuple[str, str]] = {}
    for batch in batches:
        numbers = batch["id"].tolist()
        hypotheses = task.inference_step(generator, [model], batch)
        for number, target_S, best in zip(numbers, batch["target"], hypotheses, strict=True):
            found[number] = (
                to_text(best[0]["tokens"].cpu(), dictionary, pieces),
                to_text(target_S.cpu(), dictionary, pieces, escape_unk=True),
            )
        progress(len(numbers))
    outputs, sentences = zip(*(found[number] for number in sorted(found)), strict=True)
    return list(outputs), list(sentences)
