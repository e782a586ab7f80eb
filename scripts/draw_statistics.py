"""What draws change in their sentences, as text, and whether exchanged words are of the same kind.

For scripts/rate_distortion.py. Pure functions of text; WordNet is read where `open_wordnet` is
called, and anything with its method `synsets` stands in for it.
"""

from __future__ import annotations

import difflib
import io
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from fairseq_vat.errors import VATError

OPEN_CLASSES = "nvar"  # WordNet's: noun, verb, adjective, adverb
# WordNet has only open classes, but nouns that are written like these words (he, helium)
CLOSED_CLASSES = {
    "determiner": "a an the this that these those each every either neither some any no all both "
    "half such what which whose my your his her its our their another many much few several",
    "pronoun": "i you he she it we they me him her us them mine yours his hers ours theirs myself "
    "yourself himself herself itself ourselves themselves who whom which that this these those "
    "what someone anyone everyone nobody something anything everything nothing one none",
    "preposition": "of in to for on by with from at as into about after through over between "
    "under against during without within along among before behind beyond near off onto since "
    "toward towards until upon via across around above below beside despite except like per than",
    "conjunction": "and or but nor so yet if because although though while when where whereas "
    "unless since until before after as that than whether",
    "auxiliary": "be am is are was were been being have has had having do does did will would "
    "shall should can could may might must",
}
RANDOM_WORDS = 10  # a replacement is compared with
SENSES = 3  # of a word and a part of speech that are compared, the most frequent ones
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")


def kept_words(source: str, draw: str) -> int:
    """How many of the source's words, as white space separates them, the draw has, each once."""
    return (Counter(source.split()) & Counter(draw.split())).total()


def substitutions(source: str, draw: str) -> tuple[list[tuple[str, str]], bool]:
    """The single words that a draw exchanges for single other ones.

    Words, numbers and punctuation marks are aligned by `difflib`; counted is a stretch of one word
    that became a stretch of one word, both of letters alone and different in lower case.

    Returns:
        (old, new) pairs, and whether the draw differs by nothing else.
    """
    old, new = _WORD.findall(source), _WORD.findall(draw)
    found, only = [], True
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            continue
        single = tag == "replace" and i_end - i == j_end - j == 1
        if single and old[i].isalpha() and new[j].isalpha() and old[i].lower() != new[j].lower():
            found.append((old[i], new[j]))
        else:
            only = False
    return found, only and bool(found)


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator is not None and denominator else None


def draw_figures(
    sources: Sequence[str],
    draws: Sequence[Sequence[str]],
    perplexity: Callable[[Sequence[str]], float | None],
    judge: Callable[[Sequence[tuple[str, str]]], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """What draws change in their sentences, and how fluent they are.

    Args:
        sources: the sentences.
        draws: of each sentence, as many for each.
        perplexity: of sentences, None for no sentence.
        judge: `same_kind` of pairs of words; asked of the draws that differ from their source by
            exchanged words alone, and under ``of_all_changed`` of all that differ.
    """
    pairs = [(source, draw) for source, every in zip(sources, draws, strict=True) for draw in every]
    changed = [(source, draw) for source, draw in pairs if source != draw]

    def kept(pairs: Sequence[tuple[str, str]]) -> float | None:
        words = sum(len(source.split()) for source, _ in pairs)
        return _ratio(sum(kept_words(source, draw) for source, draw in pairs), words)

    def fluency(pairs: Sequence[tuple[str, str]]) -> float | None:
        return _ratio(
            perplexity([draw for _, draw in pairs]), perplexity([source for source, _ in pairs])
        )

    found = [substitutions(source, draw) for source, draw in changed]
    figures = {
        "changed": len(changed) / len(pairs),
        "distinct": sum(len(set(texts)) for texts in draws) / len(draws),
        "kept": kept(pairs),
        "kept_changed": kept(changed),
        "ppl_sources": perplexity(sources),
        "ppl_ratio": fluency(pairs),
        "ppl_ratio_changed": fluency(changed),
        "only_substitutions": _ratio(sum(only for _, only in found), len(changed)),
    }
    if judge is not None:
        figures |= judge([pair for words, only in found if only for pair in words])
        figures["of_all_changed"] = judge([pair for words, _ in found for pair in words])
    return figures


class Frequencies:
    """A text's words, in lower case and of letters alone, in bins of like frequency.

    The 64 most frequent words are a bin, and each further bin goes to twice the rank: by equal
    shares of the vocabulary nearly all words that occur in a text would be in the first bin.

    Args:
        lines: the text.

    Raises:
        VATError: for a text without words.
    """

    def __init__(self, lines: Iterable[str]):
        words = (word.lower() for line in lines for word in _WORD.findall(line))
        counts = Counter(word for word in words if word.isalpha())
        if not counts:
            raise VATError("--train-text: no word is in it; give the text of the training")
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        self._bin_of = {word: max(6, rank.bit_length()) for rank, word in enumerate(ranked)}
        self._bins: dict[int, list[str]] = {}
        for word in ranked:
            self._bins.setdefault(self._bin_of[word], []).append(word)

    def like(self, word: str, count: int, seed: object, other_than: Sequence[str]) -> list[str]:
        """`count` random words of the bin of `word`, which is the last bin for an unknown one.

        The same word can come twice; none is of `other_than`, unless the bin has nothing else.
        """
        words = self._bins[self._bin_of.get(word.lower(), max(self._bins))]
        left_out = {other.lower() for other in other_than}
        words = [choice for choice in words if choice not in left_out] or words
        return random.Random(f"{seed}").choices(words, k=count)


class Kinds:
    """Parts of speech and similarity of words by WordNet.

    Args:
        wordnet: nltk's reader.
    """

    def __init__(self, wordnet: Any):
        self._wordnet = wordnet
        self._senses: dict[str, dict[str, list[Any]]] = {}
        self._similar: dict[tuple[str, str], float] = {}

    @cached_property
    def _closed(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for name, words in CLOSED_CLASSES.items():
            for word in words.split():
                found.setdefault(word, set()).add(name)
        return found

    def senses(self, word: str) -> dict[str, list[Any]]:
        """The first synsets of a word or its base form (WordNet's morphy), by part of speech.

        Nothing for a word of a closed class, and for one that WordNet doesn't have.
        """
        word = word.lower()
        if word not in self._senses:
            found = {}
            if word not in self._closed:
                found = {pos: self._wordnet.synsets(word, pos)[:SENSES] for pos in OPEN_CLASSES}
            self._senses[word] = {pos: synsets for pos, synsets in found.items() if synsets}
        return self._senses[word]

    def parts_of_speech(self, word: str) -> set[str]:
        """All that a word can be: closed classes, else WordNet's, else ``unlisted`` (a name)."""
        return self._closed.get(word.lower()) or set(self.senses(word)) or {"unlisted"}

    def same_part_of_speech(self, old: str, new: str) -> bool:
        """Whether two words can be of the same."""
        return bool(self.parts_of_speech(old) & self.parts_of_speech(new))

    def similarity(self, old: str, new: str) -> float:
        """WordNet's path similarity of the nearest senses of the same part of speech.

        1 / (1 + edges between them); 0 where they share no part of speech.
        """
        pair = (old.lower(), new.lower())
        if pair not in self._similar:
            mine, other = self.senses(old), self.senses(new)
            self._similar[pair] = max(
                (
                    a.path_similarity(b) or 0.0
                    for p in mine
                    for a in mine[p]
                    for b in other.get(p, [])
                ),
                default=0.0,
            )
        return self._similar[pair]


def same_kind(
    pairs: Sequence[tuple[str, str]], kinds: Kinds, frequencies: Frequencies, seed: int
) -> dict[str, float | int | None]:
    """Shares of replacements that are of the replaced word's kind, and of random words that are.

    Each new word is compared with `RANDOM_WORDS` random words of its own frequency, and each of
    these takes its place for the baseline. A word is similar if its part of speech can be the
    same and its path similarity to the replaced word is above the mean of the random words';
    this is asked of replaced words with a sense in WordNet only.

    Returns:
        ``substitutions`` and ``open_class`` (numbers of pairs), and ``same_pos``,
        ``same_pos_random``, ``similar``, ``similar_random``, each None where there is no pair.
    """
    same, same_random, similar, similar_random = [], [], [], []
    for old, new in pairs:
        others = frequencies.like(new, RANDOM_WORDS, (seed, old, new), other_than=(old, new))
        same.append(kinds.same_part_of_speech(old, new))
        same_random += [kinds.same_part_of_speech(old, other) for other in others]
        if kinds.senses(old):
            values = [kinds.similarity(old, other) for other in others]
            mean = sum(values) / len(values)
            similar.append(kinds.similarity(old, new) > mean)
            similar_random += [value > mean for value in values]
    return {
        "substitutions": len(pairs),
        "open_class": len(similar),
        "same_pos": _share(same),
        "same_pos_random": _share(same_random),
        "similar": _share(similar),
        "similar_random": _share(similar_random),
    }


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def open_wordnet(folder: str) -> Any:
    """nltk's reader of WordNet's database, as Debian's wordnet-base has it in /usr/share/wordnet.

    Raises:
        VATError: without nltk, and for a folder without the database.
    """
    missing = [f"{kind}.{pos}" for kind in ("data", "index") for pos in ("noun", "verb", "adj")]
    missing = [name for name in missing if not (Path(folder) / name).is_file()]
    if missing:
        raise VATError(
            f"--wordnet {folder}: {missing[0]} isn't in it; give the folder of WordNet's database, "
            "/usr/share/wordnet with Debian's package wordnet-base"
        )
    try:
        import nltk
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
    except ImportError:
        raise VATError("--wordnet needs nltk: pip install '.[draws]'") from None

    class Reader(WordNetCorpusReader):
        def open(self, file: str) -> Any:
            if file == "lexnames" and not (Path(folder) / file).exists():
                # names of the lexicographers' files, which Debian leaves out; only counted here
                return io.StringIO("".join(f"{number:02}\t{number}\t0\n" for number in range(45)))
            return super().open(file)

        def map_wn(self, version: str = "wordnet") -> None:
            """For other languages' WordNets alone, with a file that Debian leaves out."""

    nltk.data.path.append(folder)  # nltk reads from such folders only
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no other languages
        return Reader(folder, None)
