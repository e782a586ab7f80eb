"""What a model makes of the words of sentences, layer by layer, and how isotropic that is.

Words only: the start token and the end of sentence are left out, as they are the same in every
sentence.  A word is a *piece*, an entry of the dictionary: with subwords the paper's "token".  The
unknown symbol stands for any word, so that it counts as a token and not as a type.

Shape legend: B sentences of a batch, T source positions, N word tokens of a batch, C model width,
L latent width.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from fairseq.data.encoders.gpt2_bpe import GPT2BPE
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.measures.isotropy import IsotropySums, TypeSimilarity, random_words, words_of
from fairseq_vat.text.lines import clean_line

if TYPE_CHECKING:
    from fairseq_vat.hub.interface import VATHubInterface


class WordBatch(NamedTuple):
    """The words of a batch of sentences, on the CPU; sentences without a word are left out."""

    # (N, C) of each encoder layer, from the embeddings' output to the last; a recurrent encoder
    # gives its last layer only
    layers: list[Tensor]
    latents: Tensor  # the posteriors' means, (N, L), or (B, L) with one latent a sentence
    types: Tensor  # (N,), numbers of the pieces in the dictionary
    sentences: Tensor  # (N,), numbers of their sentences
    random: Tensor  # (N,), true for one token of each sentence, chosen by the seed and the sentence


def word_representations(
    vat: VATHubInterface, sentences: Sequence[str], seed: int = 1
) -> Iterator[WordBatch]:
    """Representations of the sentences' words, batch by batch in the order of their length."""
    dictionary, encoder = vat.task.source_dictionary, vat.model.encoder
    for sample in vat.batches(sentences):
        tokens_BT = sample["net_input"]["src_tokens"]
        with torch.no_grad():
            layers, posterior = encoder.layers_and_posterior(
                tokens_BT, sample["net_input"]["src_lengths"]
            )
        word_BT = words_of(tokens_BT, dictionary)
        random_BT = random_words(tokens_BT, dictionary, seed)
        if encoder.latent_level == "token":
            latents = posterior.mean.transpose(0, 1)[word_BT]
        else:
            latents = posterior.mean[0][word_BT.any(dim=1)]
        yield WordBatch(
            [x_TBC.transpose(0, 1)[word_BT].cpu() for x_TBC in layers],
            latents.cpu(),
            tokens_BT[word_BT].cpu(),
            sample["id"].unsqueeze(1).expand_as(tokens_BT)[word_BT].cpu(),
            random_BT[word_BT].cpu(),
        )


def choose_sentences(sentences: Iterable[str], count: int, seed: int) -> tuple[list[str], int]:
    """At most `count` different sentences, cleaned, and how many lines they were chosen from.

    A sentence's lot is a hash of the seed and its text, and the lowest lots win: the choice doesn't
    depend on the order, equal sentences count once, and no more than `count` are held in memory.
    """
    key = str(seed).encode()
    held: list[tuple[int, str]] = []  # a heap with the highest lot on top
    members: set[str] = set()
    lines = 0
    for sentence in map(clean_line, sentences):
        lines += 1
        if not sentence or sentence in members:
            continue
        digest = hashlib.blake2b(sentence.encode(), digest_size=8, key=key).digest()
        entry = (-int.from_bytes(digest, "big"), sentence)
        members.add(sentence)
        if len(held) < count:
            heapq.heappush(held, entry)
        else:
            members.remove(heapq.heappushpop(held, entry)[1])
    return [sentence for _, sentence in sorted(held, reverse=True)], lines


def measure_isotropy(
    vat: VATHubInterface,
    sentences: Iterable[str],
    seed: int = 1,
    max_sentences: int = 10_000,
    words: int = 20,
    min_sentences: int = 5,
) -> dict[str, Any]:
    """Isotropy of every encoder layer and of the latents' means, with plain numbers for JSON.

    Args:
        seed: of the choice of sentences, if there are more than `max_sentences`, and of the random
            tokens.
        max_sentences: bounds time and memory, which grow with the sentences' tokens and types.
        min_sentences: that have each of these types (5: Ethayarajh 2019).

    Returns:
        ``updates``; ``lines`` given, different ``sentences`` measured, their ``tokens`` and
        ``unknown_share``; ``seed``; ``latent_level`` and ``latent_dim``; ``layers`` and ``latents``
        with ``random_cosine``, ``self_similarity``, ``intra_sentence_similarity`` and ``iso_score``
        (None where there is nothing to measure: one latent a sentence has neither self- nor
        intra-sentence similarity), each layer with its number ``layer``, 0 for the embeddings'
        output; ``words`` with ``word``, ``self_similarity``, ``occurrences`` and ``sentences``, by
        the representations named in ``words_of``; ``types`` in two sentences or more, and
        ``min_sentences``.

    Raises:
        VATError: for numbers that are too small, for sentences that hold no word, and for
            representations that are zero or not finite.
    """
    if max_sentences < 1 or words < 0 or min_sentences < 1:
        raise VATError(
            f"{max_sentences} sentences, {words} words, each in {min_sentences} sentences: give at "
            "least 1, 0 and 1"
        )
    chosen, lines = choose_sentences(sentences, max_sentences, seed)
    encoder, dictionary = vat.model.encoder, vat.task.source_dictionary
    token_level = encoder.latent_level == "token"
    layers: list[IsotropySums] = []
    latents = IsotropySums(encoder.latent_dim)
    measured = tokens = unknown = 0
    for batch in word_representations(vat, chosen, seed):
        if not layers:
            layers = [IsotropySums(vectors_NC.size(1)) for vectors_NC in batch.layers]
        known_N = batch.types.ne(dictionary.unk())
        where = (batch.types.where(known_N, -1), batch.sentences)
        for sums, vectors_NC in zip(layers, batch.layers, strict=True):
            sums.add(vectors_NC, batch.random, *where)
        if token_level:
            latents.add(batch.latents, batch.random, *where)
        else:
            latents.add(batch.latents, torch.ones(len(batch.latents), dtype=torch.bool))
        measured += int(batch.random.sum())
        tokens += len(batch.types)
        unknown += int((~known_N).sum())
    if not tokens:
        raise VATError(f"{lines:,} lines were given, and none holds a word: there is no isotropy")
    last = vat.model.cfg.encoder.layers
    numbers = range(last + 1 - len(layers), last + 1)
    similarity = (latents if token_level else layers[-1]).types.result()
    return {
        "updates": vat.model.num_updates,
        "lines": lines,
        "sentences": measured,
        "tokens": tokens,
        "unknown_share": unknown / tokens,
        "seed": seed,
        "latent_level": str(encoder.latent_level),
        "latent_dim": encoder.latent_dim,
        "layers": [
            {"layer": number, **sums.result()} for number, sums in zip(numbers, layers, strict=True)
        ],
        "latents": latents.result(),
        "types": len(similarity.types),
        "words_of": "latents" if token_level else f"layer {last}",
        "min_sentences": min_sentences,
        "words": _least_similar(vat, similarity, words, min_sentences),
    }


def _least_similar(
    vat: VATHubInterface, found: TypeSimilarity, count: int, min_sentences: int
) -> list[dict[str, Any]]:
    """The types with the least self-similarity, of those in `min_sentences` or more."""
    order = found.similarity.argsort(stable=True)
    order = order[found.sentences[order] >= min_sentences][:count]
    return [
        {
            "word": _spelling(vat, int(found.types[row])),
            "self_similarity": float(found.similarity[row]),
            "occurrences": int(found.occurrences[row]),
            "sentences": int(found.sentences[row]),
        }
        for row in order.tolist()
    ]


def _spelling(vat: VATHubInterface, type_: int) -> str:
    """A dictionary's entry; GPT-2's are numbers, which say nothing."""
    symbol = vat.task.source_dictionary[type_]
    return vat.bpe.decode(symbol) if isinstance(vat.bpe, GPT2BPE) else symbol
