"""The report's figures and marks, each by itself."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from fairseq_vat.evaluation.training_log import Record
from fairseq_vat.report import figures
from fairseq_vat.report.differences import Run, differences
from fairseq_vat.report.gather import principal_components
from fairseq_vat.report.page import marked
from fairseq_vat.report.sentences import choose_examples


def test_differences():
    assert differences("the cat sat", "the cat sat") == [Run("same", "the cat sat")]
    assert differences("the cat sat down", "the dog sat") == [
        *(Run("same", "the"), Run("missing", "cat"), Run("new", "dog"), Run("same", "sat")),
        Run("missing", "down"),
    ]
    # hardly anything in common: what is missing would only be in the way
    assert differences("a b c d e", "x b y") == [Run("new", "x"), Run("same", "b"), Run("new", "y")]
    # a script without spaces is compared by characters
    assert differences("猫座下", "狗座下") == [
        *(Run("missing", "猫"), Run("new", "狗"), Run("same", "座下")),
    ]


def test_marks():
    assert marked("a <b> c", "a b c") == "a <del>b</del> <ins>&lt;b&gt;</ins> c"
    assert marked("a x c", "a b c", missing=False) == "a <ins>x</ins> c"
    assert "empty" in marked("", "a b c")


def test_principal_components():
    # along (3, 4) with lengths -2 .. 2, and a tenth of that across
    along, across = np.array([0.6, 0.8]), np.array([-0.8, 0.6])
    steps = np.array([[-2.0], [-1.0], [0.0], [1.0], [2.0]])
    vectors = 5 + steps * along + 0.1 * (steps**2 - 2) * across
    coordinates, explained = principal_components(vectors)
    assert coordinates[:, 0] == pytest.approx(steps[:, 0])
    whole = 10 + 0.01 * 14
    assert explained == pytest.approx([10 / whole, 0.14 / whole])
    # the largest entry of (-0.8, 0.6) is made positive
    assert coordinates[:, 1] == pytest.approx(-0.1 * (steps[:, 0] ** 2 - 2))
    # the sign doesn't depend on the order, and what vectors don't have is 0
    assert principal_components(vectors[::-1])[0][::-1] == pytest.approx(coordinates)
    coordinates, explained = principal_components(np.ones((3, 1), dtype=np.float32))
    assert coordinates.tolist() == [[0, 0]] * 3 and explained.tolist() == [0, 0]


def test_examples_are_different_sentences_of_a_good_length():
    texts = ["one", "a b c d", "a b c d", "e f g h", "w " * 40, "i j k l m"]
    assert choose_examples(texts, 3) == [1, 3, 5]
    assert choose_examples(texts, 2) == [1, 3]
    assert choose_examples(texts, 9) == [0, 1, 3, 4, 5]


def test_places_and_ticks_of_axes():
    axis = figures.Axis("", 0, 0.11, start=100, end=0)
    assert [axis.place(value) for value in (0, 0.055, 0.11)] == pytest.approx([100, 50, 0])
    assert [text for _, text in axis.ticks] == ["0", "0.02", "0.04", "0.06", "0.08", "0.1"]
    axis = figures.Axis("", 0, 2600, integer=True)
    assert [text for _, text in axis.ticks] == ["0", "500", "1,000", "1,500", "2,000", "2,500"]
    axis = figures.Axis("", 1e-3, 10, log=True, start=0, end=4)
    assert axis.ticks == [
        (pytest.approx(n), text)
        for n, text in enumerate(
            ["10\u207b\u00b3", "10\u207b\u00b2", "10\u207b\u00b9", "10\u2070", "10\u00b9"]
        )
    ]
    assert len(figures.Axis("", 1e-30, 1, log=True).ticks) <= 10
    assert [text for _, text in figures.Axis("", 0, 2, names=["0", "1", "z"]).ticks] == [
        "0",
        "1",
        "z",
    ]


def test_bars_are_as_high_as_their_kl():
    figure = figures.kl_per_dimension(
        torch.tensor([0.5, 2.0, 1.0]), torch.tensor([False, True, True])
    )
    blue, quiet = figure.marks
    floor = figure.y.place(0)

    def heights(mark):
        return [
            (floor - float(top)) / (floor - figure.y.place(1))
            for top in re.findall(r"V([\d.]+)H", mark.path)
        ]

    assert (blue.style, quiet.style) == ("area blue", "area quiet")
    assert heights(blue) == pytest.approx([2, 1], abs=0.01)  # sorted
    assert heights(quiet) == pytest.approx([0.5], abs=0.01)
    assert "from 2.000 to 0.500 nats; 2 are active" in figure.description


def test_curves_have_gaps_where_a_log_has_none():
    stats = {"kl_nats": 0.0, "kl_weight": 0.0}
    records = [
        Record("train_inner", 1, update, {**stats, "nll_loss": nll})
        for update, nll in enumerate((9.0, 8.0, math.nan, 6.0, math.inf, 5.0), 1)
    ]
    reconstruction = figures.learning_curves(records, 4)[0]
    line, dotted = (mark.path for mark in reconstruction.marks)
    assert line.count("M") == 3 and line.count("L") == 1 and "n" not in line  # neither nan nor inf
    place = reconstruction.x.place(4)
    assert dotted.startswith(f"M{place:.1f},")
    assert len(figures.learning_curves(records, 6)[0].marks) == 1  # the log doesn't go on


def test_sentences_on_the_map():
    coordinates = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 2.0]])
    texts = ["a b", "<c> d e f", "w " * 200]
    figure = figures.sentence_map(coordinates, np.array([0.8, 0.2]), texts, {1: 7})
    *points, ring = figure.marks
    assert [point.tooltip for point in points[:2]] == texts[:2]
    assert len(points[2].tooltip) == 240 and ring.style == "ring" and not ring.tooltip
    # a unit is as long on both axes
    assert figure.x.place(2) - figure.x.place(0) == pytest.approx(
        figure.y.place(0) - figure.y.place(2)
    )
    assert [text for *_, text in figure.texts] == ["7"]
    assert [text for *_, text in figure.legend] == ["2", "4", "200"]
