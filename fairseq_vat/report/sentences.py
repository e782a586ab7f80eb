"""The sentences that a report is about, as the model reads them and as people do."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from fairseq import utils

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.texts import unknown_share
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.text.lines import read_lines
from fairseq_vat.text.pieces import Pieces, find_gpt2_vocabulary

# of examples, so that a page can be read; in words
_SHORTEST, _LONGEST = 4, 25


@dataclass(frozen=True)
class Sentences:
    """What a report measures, for a hub interface without subwords."""

    pieces: list[str]  # each sentence as the dictionary's entries, with spaces between them
    texts: list[str]
    join: Callable[[str], str]
    source: str
    total: int  # how many are there, of which these were chosen, evenly spaced
    too_long: int  # chosen ones left out because they don't fit the model's positions
    unknown_share: float  # of their pieces, those that the dictionary doesn't have


def read_subset(vat: VATHubInterface, split: str, count: int) -> Sentences:
    """At most `count` sentences of a split of the data directory, as they were binarised.

    The task must not cut sentences (``truncate=False``).

    Raises:
        VATError: if there is no such split, fewer than two sentences in it fit the model, or its
            entries are GPT-2's numbers and their vocabulary isn't there.
    """
    vat.task.load_dataset(split)
    dataset, dictionary = vat.task.dataset(split), vat.task.target_dictionary
    chosen = _spread(len(dataset), count)
    lines = [dictionary.string(dataset[number]["target"]) for number in chosen]
    return _fitting(vat, lines, f"{split} of {vat.task.cfg.data}", len(dataset))


def read_text(vat: VATHubInterface, path: str | os.PathLike, count: int) -> Sentences:
    """At most `count` sentences of a text file, a sentence a line, in the model's subwords."""
    if os.path.isfile(path):  # in two passes, so that a large one isn't held
        total = sum(1 for _ in read_lines(path))
        chosen = {*_spread(total, count)}
        lines = [line for number, line in enumerate(read_lines(path)) if number in chosen]
    else:
        whole = list(read_lines(path))
        total, lines = len(whole), [whole[number] for number in _spread(len(whole), count)]
    return _fitting(vat, [vat.apply_bpe(line) for line in lines], os.fspath(path), total)


def _fitting(vat: VATHubInterface, pieces: list[str], source: str, total: int) -> Sentences:
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
    if vat.bpe is not None:
        join = vat.remove_bpe
    else:
        vocabulary = find_gpt2_vocabulary(utils.split_paths(vat.task.cfg.data)[0])
        join = Pieces.of(vat.task.target_dictionary, vocabulary).join
    chosen = [pieces[row] for row in rows]
    # texts as the subwords have them: sentencepiece writes some characters otherwise, and so does
    # the model; an unknown one as fairseq has it in references, so that no output equals it
    unk = vat.task.target_dictionary.unk_word
    texts = [
        join(" ".join(f"<{unk}>" if piece == unk else piece for piece in line.split()))
        for line in chosen
    ]
    return Sentences(chosen, texts, join, source, total, too_long, unknown_share(vat, chosen))


def choose_examples(texts: list[str], count: int) -> list[int]:
    """Rows of at most `count` different sentences, evenly spaced among those of a good length.

    Where too few have 4 to 25 words, any length is good.
    """
    different = sorted({text: row for row, text in reversed(list(enumerate(texts)))}.values())
    fitting = [row for row in different if _SHORTEST <= len(texts[row].split()) <= _LONGEST]
    if len(fitting) < count:
        fitting = different
    return [fitting[place] for place in _spread(len(fitting), count)]


def _spread(total: int, count: int) -> list[int]:
    """At most `count` numbers under `total`, evenly spaced: a file's parts often differ."""
    count = min(total, count)
    return [place * total // count for place in range(count)]
