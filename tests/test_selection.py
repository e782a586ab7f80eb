"""Latents drawn at given positions, or of marked words."""

from __future__ import annotations

import re

import pytest
import torch
from helpers import commands

from fairseq_vat.errors import VATError
from fairseq_vat.tasks.selection import LatentSelection, parse_positions

DRAWN = ("--latent-sampling", "--latent-samples", "6", "--latent-temperature", "30")


@pytest.mark.parametrize(
    ("text", "expected"), [("3", [3]), ("7-9,3", [3, 7, 8, 9]), (" 1 , 1-2", [1, 2]), ("0", [0])]
)
def test_positions(text, expected):
    assert parse_positions(text) == expected


@pytest.mark.parametrize("text", ["", "a", "3-", "5-3", "-1", "1;2", "1.5", "\u0663"])
def test_positions_that_are_none(text):
    with pytest.raises(VATError, match="give positions and ranges, such as 3,7-9"):
        parse_positions(text)


def test_a_batch_s_positions():
    tokens = torch.tensor([[0, 9, 9, 9, 2], [0, 9, 9, 2, 1]])
    sample = {"net_input": {"src_tokens": tokens}}
    drawn, rest = LatentSelection("1,3", None).into_batch(sample, tokens, 1, start_token=True)
    assert rest is tokens and drawn["net_input"] is sample["net_input"]
    assert drawn["latent_positions"].int().tolist() == [[0, 1, 0, 1, 0]] * 2
    with pytest.raises(VATError, match=r"--latent-positions 4: sentence 1 has 2 subwords"):
        LatentSelection("4", None).into_batch(sample, None, 1, start_token=True)
    # without a start token the first subword comes first
    headless = {"net_input": {"src_tokens": tokens[:, 1:]}}
    drawn, _ = LatentSelection("1", None).into_batch(headless, None, 1, start_token=False)
    assert drawn["latent_positions"].int().tolist() == [[1, 0, 0, 0]] * 2
    with pytest.raises(VATError, match="--no-start-token"):
        LatentSelection("0", None).into_batch(sample, None, 1, start_token=False)
    marks = torch.ones_like(tokens)  # from `take_marked`
    drawn, rest = LatentSelection(None, "[]").into_batch(sample, marks, 1, start_token=True)
    assert rest is None and drawn["latent_positions"].all()
    assert LatentSelection(None, None).into_batch(sample, marks, 1, True) == (sample, marks)


def test_lines_keep_their_marks_until_a_dataset_is_made():
    selection = LatentSelection(None, "[]")
    lines = selection.read_lines(["a [b] c", "a b", "[c"], 1, str, str)
    assert lines == ["a b c", "a b", "[c"]
    masks = selection.take_marked([5, 4, 3], start_token=True)
    assert [mask.tolist() for mask in masks] == [[0, 0, 1, 0, 0], [0] * 4, [0] * 3]
    assert selection.take_marked([5], start_token=True) is None
    # two spaces met where a mark was: an encoder that keeps spaces must not see them
    assert selection.read_lines(["a [ b ] c"], 1, str, str) == ["a b c"]
    assert selection.take_marked([5], start_token=True)[0].tolist() == [0, 0, 1, 0, 0]


def test_generate_draws_at_the_positions_only(vat, data_dir, text_dir, checkpoint):
    """What generate prints for position 2 is what `vary` makes of a marked second word."""
    flags = (*DRAWN, "--latent-positions", "2", "--gen-subset", "test")
    printed = commands.hypotheses(commands.generate(data_dir, checkpoint, *flags))
    lines = (text_dir / "test").read_text(encoding="utf-8").splitlines()
    marked = [re.sub(r"^(\S+) (\S+)", r"\1 [\2]", line) for line in lines]
    assert len(printed) == len(marked) == 20
    varied = vat.vary(marked, samples=6, temperature=30, beam=2, max_len_b=30)
    assert varied == [printed[number] for number in range(20)]
    assert sum(len(set(found)) > 1 for found in varied) > 10


def test_interactive_draws_the_marked_words(data_dir, checkpoint):
    text = b"w1 w2 [w3] w4\nw1 w2 w3 w4\nw1 [w2 w3 w4\n"
    flags = (*DRAWN, "--latent-marks", "[]", "--buffer-size", "3", "--batch-size", "3")
    found = commands.hypotheses(commands.interactive(data_dir, checkpoint, text, *flags))
    assert len(set(found[0])) > 1  # drawn
    assert len(set(found[1])) == len(set(found[2])) == 1  # from the mean


def test_interactive_names_the_line_that_is_too_short(data_dir, checkpoint):
    text = b"w1 w2 w3 w4\nw1 w2 w3\nw1\nw1 w2 w3\n"
    flags = (*DRAWN, "--latent-positions", "3", "--buffer-size", "2")
    with pytest.raises(VATError, match=r"--latent-positions 3: line 3 has 1 subwords"):
        commands.interactive(data_dir, checkpoint, text, *flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--latent-positions", "1"], "--latent-positions needs --latent-sampling"),
        (["--latent-marks", "[]"], "--latent-marks needs --latent-sampling"),
        ([*DRAWN, "--latent-positions", "x"], "give positions and ranges"),
        ([*DRAWN, "--latent-positions", "40"], r"test: sentence 0 has \d subwords"),
        ([*DRAWN, "--latent-marks", "[["], "opening and a closing mark"),
        ([*DRAWN, "--latent-marks", "[]"], "--latent-marks is for fairseq-interactive"),
        ([*DRAWN, "--latent-marks", "[]", "--latent-positions", "1"], "can't be combined"),
    ],
)
def test_flags_that_do_not_fit(data_dir, checkpoint, flags, message):
    with pytest.raises(VATError, match=message):
        commands.generate(data_dir, checkpoint, *flags)


def test_one_latent_a_sentence_has_no_positions():
    class Encoder:
        latent_level = "sentence"

    class Model:
        encoder = Encoder()

    for selection in (LatentSelection("1", None), LatentSelection(None, "[]")):
        with pytest.raises(VATError, match="needs a latent for every token"):
            selection.check_models([Model()])
    LatentSelection(None, None).check_models([Model()])
