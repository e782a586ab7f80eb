"""Pieces to text, words and BLEU."""

from __future__ import annotations

import pytest
from fairseq.data import Dictionary

from fairseq_vat.evaluation.reconstruction import (
    Reconstructions,
    bleu_figures,
    kind_of_pieces,
    to_text,
)


def _dictionary(*symbols):
    dictionary = Dictionary()
    for symbol in symbols:
        dictionary.add_symbol(symbol)
    return dictionary


@pytest.mark.parametrize(
    ("line", "pieces", "text"),
    [
        ("the cat sat", "none", "the cat sat"),
        ("\u2581the \u2581c at \u2581sat", "sentencepiece", "the cat sat"),
        ("the c@@ at sat", "subword_nmt", "the cat sat"),
        ("the \u0120c at \u0120na\u00c3\u00af ve", "bytes", "the cat na\u00efve"),
    ],
)
def test_pieces_are_recognised_and_joined(line, pieces, text):
    dictionary = _dictionary(*line.split())
    tokens = dictionary.encode_line(line, add_if_not_exist=False).long()
    assert kind_of_pieces(dictionary) == pieces
    padded = tokens.new_tensor([dictionary.bos(), *tokens.tolist(), dictionary.pad()])
    assert to_text(padded, dictionary, pieces) == text


@pytest.mark.parametrize("pieces", ["none", "bytes", "sentencepiece"])
def test_an_unknown_never_equals_an_unknown(pieces):
    dictionary = _dictionary("\u2581a", "\u0120b")
    tokens = dictionary.encode_line("x", add_if_not_exist=False).long()
    assert to_text(tokens, dictionary, pieces) == "<unk>"
    assert to_text(tokens, dictionary, pieces, escape_unk=True) == "<<unk>>"


def test_bleu_says_how_it_was_measured():
    same = {0: "a small cat sat on the mat .", 3: "the dog barked at the small cat ."}
    whole = bleu_figures(Reconstructions(same, dict(same)), "none")
    assert whole["bleu"] == pytest.approx(100)
    assert (whole["exact_match"], whole["sentences"]) == (1, 2)
    assert "tok:none" in whole["signature"]
    half = bleu_figures(Reconstructions(same, {**same, 3: "the dog slept ."}), "sentencepiece")
    assert 0 < half["bleu"] < 100 and half["exact_match"] == 0.5
    assert "tok:13a" in half["signature"]
