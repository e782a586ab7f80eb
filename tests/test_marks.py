"""Marked words, and the subwords they become."""

from __future__ import annotations

import pytest

from fairseq_vat.errors import VATError
from fairseq_vat.text.marks import Marked, marked_subwords, parse_marks, read_marked

SQUARE = ("[", "]")


def pieces(text, cut=3):
    """Subwords in sentencepiece's manner: words cut every three characters."""
    found = []
    for word in text.split():
        word = "\u2581" + word
        found += [word[i : i + cut] for i in range(0, len(word), cut)]
    return " ".join(found)


def text(joined):
    return joined.replace(" ", "").replace("\u2581", " ").strip()


def test_marks_are_taken_out_and_remembered():
    found = read_marked("shown great [promise] in [modeling data].", SQUARE)
    assert found.sentence == "shown great promise in modeling data."
    assert [found.sentence[start:end] for start, end in found.spans] == ["promise", "modeling data"]


def test_a_backslash_makes_a_mark_text():
    found = read_marked(r"a \[note\] on [this] C:\dir \\[that]", SQUARE)
    assert found.sentence == r"a [note] on this C:\dir \that"
    assert [found.sentence[start:end] for start, end in found.spans] == ["this", "that"]
    assert read_marked("nothing", SQUARE) == Marked("nothing", ())


def test_marks_of_several_characters():
    marks = parse_marks("<v> </v>")
    found = read_marked(r"an [old] <v>house</v> \<v>", marks)
    assert found == Marked("an [old] house <v>", ((9, 14),))


def test_a_mark_that_begins_with_the_other():
    found = read_marked(r"an *old** house \** \*", parse_marks("* **"))
    assert found == Marked("an old house ** *", ((3, 6),))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a [b", r"'\[' without '\]' after it"),
        ("a b]", r"'\]' without '\[' before it"),
        ("[a [b] c]", r"'\[' within '\['"),
        ("a [ ] b", "nothing between"),
    ],
)
def test_marks_that_do_not_pair(line, message):
    with pytest.raises(VATError, match=message):
        read_marked(line, SQUARE)


@pytest.mark.parametrize("marks", ["", "[", "[ [", "{|}", "a b c", "\\ ]"])
def test_marks_that_are_none(marks):
    with pytest.raises(VATError, match="opening and a closing mark"):
        parse_marks(marks)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[ab] cdefgh", ["\u2581ab"]),
        ("ab [cdefgh]", ["\u2581cd", "efg", "h"]),
        ("ab [cdefgh].", ["\u2581cd", "efg", "h."]),  # the stop shares the last subword
        ("ab cd[e]fgh", ["efg"]),
        ("[ab cd]efgh", ["\u2581ab", "\u2581cd"]),
        ("ab [ cdefgh ] ij", ["\u2581cd", "efg", "h"]),
    ],
)
def test_subwords_of_marked_words(line, expected):
    marked = read_marked(line, SQUARE)
    numbers = marked_subwords(marked, pieces, text)
    assert [pieces(marked.sentence).split()[number] for number in numbers] == expected


def test_a_word_boundary_alone_belongs_to_the_word_after_it():
    marked = read_marked("ab [cd] ef", SQUARE)
    assert marked_subwords(marked, lambda line: pieces(line, 1), text) == [3, 4, 5]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a [\U0001f600]x", "f0 9f 98 80"),
        ("a \U0001f600[x] y", "78"),
        ("\xe9[\xe8]\u4e2d", "c3 a8"),
    ],
)
def test_bytes_of_a_character_stay_together(line, expected):
    """A GPT-2's subwords may be parts of a character, which it decodes as U+FFFD."""

    def decode(pieces):
        return bytes.fromhex(pieces).decode("utf-8", errors="replace")

    marked = read_marked(line, SQUARE)
    numbers = marked_subwords(marked, lambda text: text.encode().hex(" "), decode)
    found = [marked.sentence.encode().hex(" ").split()[number] for number in numbers]
    assert [piece for piece in found if piece != "20"] == expected.split()


@pytest.mark.parametrize(("line", "expected"), [("a [\ufffd] b", [1]), ("a \ufffd [b]", [2])])
def test_a_replacement_character_that_is_text(line, expected):
    assert marked_subwords(read_marked(line, SQUARE), str, str) == expected


def test_marked_characters_that_the_encoder_drops():
    marked = read_marked("a [\u200b] b", SQUARE)
    assert marked_subwords(marked, lambda line: pieces(line.replace("\u200b", "")), text) == []


def test_an_encoder_that_changes_characters():
    """As sentencepiece's normalisation does: one character may become several."""

    def encode(line):
        return pieces(line.replace("\ufb01", "fi"))

    marked = read_marked("\ufb01ne \ufb01sh [\ufb01lm] end", SQUARE)
    numbers = marked_subwords(marked, encode, text)
    assert [encode(marked.sentence).split()[number] for number in numbers] == ["\u2581fi", "lm"]
