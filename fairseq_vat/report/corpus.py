"""The sentences that a report is about, as the model reads them and as people do."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fairseq_vat.errors import VATError
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.text.lines import read_lines
from fairseq_vat.text.pieces import Pieces, find_gpt2_vocabulary


@dataclass(frozen=True)
class Corpus:
    """Sentences for a hub interface without subwords.

    Attributes:
        pieces: each sentence as the dictionary's entries, with spaces between them.
        texts: the same for readers.
        join: a line of pieces as text.
        source: where they come from.
        total: how many are there, of which these were chosen, evenly spaced.
        too_long: chosen ones left out because they don't fit the model's positions.
        unknown_share: of their pieces, those that the dictionary doesn't have.
    """

    pieces: list[str]
    texts: list[str]
    join: Callable[[str], str]
    source: str
    total: int
    too_long: int
    unknown_share: float


def of_subset(vat: VATHubInterface, split: str, count: int) -> Corpus:
    """At most `count` sentences of a split of the data directory, as they were binarised.

    The task must not cut sentences (``truncate=False``).

    Raises:
        VATError: if there is no such split, no sentence in it fits the model, or its entries are
            GPT-2's numbers and their vocabulary isn't there.
    """
    vat.task.load_dataset(split)
    dataset, dictionary = vat.task.dataset(split), vat.task.target_dictionary
    join = _join(vat)
    lines = [
        dictionary.string(dataset[number]["target"]) for number in _spread(len(dataset), count)
    ]
    return _corpus(
        vat, lines, [join(line) for line in lines], join, f"{split} of {vat.task.cfg.data}",
        len(dataset),
    )  # fmt: skip


def of_file(vat: VATHubInterface, path: str | os.PathLike, count: int) -> Corpus:
    """At most `count` sentences of a text file, a sentence a line, put into the model's subwords.

    Raises:
        VATError: if there is no sentence in it, or none that fits the model.
    """
    lines = list(read_lines(path))
    pieces = [vat.apply_bpe(lines[number]) for number in _spread(len(lines), count)]
    # as the subwords have it: sentencepiece writes some characters otherwise, and so does the model
    join = _join(vat)
    texts = [join(line) for line in pieces]
    return _corpus(vat, pieces, texts, join, os.fspath(path), len(lines))


def _spread(total: int, count: int) -> list[int]:
    """At most `count` numbers under `total`, evenly spaced: a file's parts often differ."""
    count = min(total, count)
    return [place * total // count for place in range(count)]


def _join(vat: VATHubInterface) -> Callable[[str], str]:
    if vat.bpe is not None:
        return vat.remove_bpe
    vocabulary = find_gpt2_vocabulary(vat.task.cfg.data.split(":")[0])
    return Pieces.of(vat.task.target_dictionary, vocabulary).join


def _corpus(
    vat: VATHubInterface,
    pieces: list[str],
    texts: list[str],
    join: Callable[[str], str],
    source: str,
    total: int,
) -> Corpus:
    room = vat.task.room
    tokens = [vat.binarize(line) for line in pieces]
    # the end of sentence alone is no sentence
    rows = [row for row, sentence in enumerate(tokens) if 1 < len(sentence) <= room]
    too_long = sum(len(sentence) > room for sentence in tokens)
    if len(rows) < 2:
        raise VATError(
            f"{source}: a report needs at least 2 sentences that fit the model's {room - 1} "
            f"positions; of {len(tokens):,} looked at {too_long:,} are longer"
        )
    words = sum(len(tokens[row]) - 1 for row in rows)
    unknown = sum(int(tokens[row].eq(vat.task.source_dictionary.unk()).sum()) for row in rows)
    return Corpus(
        [pieces[row] for row in rows],
        [texts[row] for row in rows],
        join,
        source,
        total,
        too_long,
        unknown / words,
    )


def with_target(batch: dict[str, Any], task: Any) -> dict[str, Any]:
    """A batch of `VATHubInterface.batches` with what the decoder is to write, as in training.

    The target is the source without its start token, which `measures.measure` needs; the decoder's
    input is the target moved by one, after an end of sentence.
    """
    source_BT = batch["net_input"]["src_tokens"]
    target_BS = source_BT[:, int(task.start_token) :]
    pad, eos = task.target_dictionary.pad(), task.target_dictionary.eos()
    previous_BS = target_BS.roll(1, dims=1)
    previous_BS[:, 0] = eos
    # the end of a shorter sentence would be where the training has padding
    previous_BS = previous_BS.masked_fill(target_BS.eq(pad), pad)
    net_input = {**batch["net_input"], "prev_output_tokens": previous_BS}
    return {**batch, "net_input": net_input, "target": target_BS}
