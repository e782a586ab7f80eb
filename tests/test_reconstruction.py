"""Pieces to text, words and BLEU."""

from __future__ import annotations

import json

import pytest
from fairseq.data import Dictionary

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.texts import bleu_figures
from fairseq_vat.text.pieces import PIECE_KINDS, Pieces, find_gpt2_vocabulary, to_text


def _dictionary(*symbols):
    dictionary = Dictionary()
    for symbol in symbols:
        dictionary.add_symbol(symbol)
    return dictionary


@pytest.fixture
def vocabulary(tmp_path):
    """In GPT-2's symbols for bytes, \u0120 is a space and \u00c3\u00af an i with dots."""
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"the": 0, "\u0120c": 1, "at": 2, "\u0120na\u00c3": 3, "\u00af": 4}))
    return path


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        ("the cat sat", "none", "the cat sat"),
        ("\u2581the \u2581c at \u2581sat", "sentencepiece", "the cat sat"),
        ("the c@@ at sat", "subword_nmt", "the cat sat"),
        ("0 1 2 3 4", "gpt2", "the cat na\u00ef"),
    ],
)
def test_pieces_are_recognised_and_joined(line, kind, text, vocabulary):
    dictionary = _dictionary(*line.split(), "madeupword0000")
    tokens = dictionary.encode_line(line, add_if_not_exist=False).long()
    pieces = Pieces.of(dictionary, vocabulary)
    assert pieces.kind == kind
    padded = tokens.new_tensor([dictionary.bos(), *tokens.tolist(), dictionary.pad()])
    assert to_text(padded, dictionary, pieces) == text


@pytest.mark.parametrize("kind", PIECE_KINDS)
def test_an_unknown_never_equals_an_unknown(kind, vocabulary):
    dictionary = _dictionary("0")
    tokens = dictionary.encode_line("x", add_if_not_exist=False).long()
    pieces = Pieces(kind, vocabulary)
    assert to_text(tokens, dictionary, pieces) == "<unk>"
    assert to_text(tokens, dictionary, pieces, escape_unk=True) == "<<unk>>"


def test_gpt2_s_numbers_need_their_vocabulary(vocabulary):
    assert Pieces.of(_dictionary("0", "1")).kind == "none"
    with pytest.raises(VATError, match="needs --gpt2-encoder-json"):
        Pieces("gpt2")
    with pytest.raises(VATError, match="has no token 7, which the dictionary has"):
        Pieces.of(_dictionary("0", "7"), vocabulary)
    for wrong in ("no json", "[1, 2]", '{"a": [0]}'):
        vocabulary.write_text(wrong)
        with pytest.raises(VATError, match="is not GPT-2's vocab"):
            Pieces("gpt2", vocabulary)


def test_bleu_says_how_it_was_measured():
    same = ["a small cat sat on the mat .", "the dog barked at the small cat ."]
    whole = bleu_figures(same, list(same), Pieces("none").bleu_tokenizer)
    assert whole["bleu"] == pytest.approx(100)
    assert (whole["exact_match"], whole["sentences"]) == (1, 2)
    assert "tok:none" in whole["signature"]
    half = bleu_figures([same[0], "the dog slept ."], same, Pieces("sentencepiece").bleu_tokenizer)
    assert 0 < half["bleu"] < 100 and half["exact_match"] == 0.5
    assert "tok:13a" in half["signature"]


def test_what_is_unknown_is_never_right():
    reference = "the cat sat on the <<unk>> and the <<unk>> ran away today"
    for tokenize in ("13a", "none"):
        scores = [
            bleu_figures([reference.replace("<<unk>>", word)], [reference], tokenize)["bleu"]
            for word in ("<unk>", "dog")
        ]
        # 13a has three tokens for the mark in an output, all wrong
        assert scores[0] <= scores[1] < 50


def test_where_gpt2_s_vocabulary_is_looked_for(vocabulary):
    data = vocabulary.parent / "data-bin"
    assert find_gpt2_vocabulary(data) == vocabulary
    assert find_gpt2_vocabulary(data / "more") is None
