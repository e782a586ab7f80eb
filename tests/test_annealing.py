"""Schedules against the papers' formulas, at their corners above all."""

from __future__ import annotations

import math

import pytest

from fairseq_vat.annealing import Annealing, Schedule, cyclic, linear, logistic


def test_constant_is_one():
    assert [Annealing().weight(t) for t in (0, 1, 10**9)] == [1.0, 1.0, 1.0]


def test_linear():
    assert [linear(t, 10) for t in (0, 1, 5, 10, 11, 10**9)] == [0.0, 0.1, 0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("updates", [2, 7, 1000, 50000])
@pytest.mark.parametrize("init", [0.00025, 0.1, 0.499])
def test_logistic_corners(updates, init):
    assert logistic(0, updates, init) == pytest.approx(init, rel=1e-9)
    assert logistic(updates, updates, init) == pytest.approx(1 - init, rel=1e-9)
    if updates % 2 == 0:
        assert logistic(updates // 2, updates, init) == pytest.approx(0.5, rel=1e-12)
    k = 2 / updates * math.log((1 - init) / init)
    for t in (1, updates // 3, 2 * updates):
        expected = 1 / (1 + math.exp(-k * (t - updates / 2)))
        assert logistic(t, updates, init) == pytest.approx(expected, rel=1e-12)


def test_logistic_neither_overflows_nor_turns_back():
    weights = [logistic(t, 1000, 1e-300) for t in range(0, 2001, 10)]
    assert weights == sorted(weights)
    assert weights[0] > 0 and weights[-1] <= 1


@pytest.mark.parametrize(("updates", "cycles"), [(100, 5), (103, 5), (7, 3), (10, 1), (5, 5)])
@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0])
def test_cyclic_is_equation_9(updates, cycles, ratio):
    for t in range(updates):
        tau = math.fmod(t, math.ceil(updates / cycles)) / (updates / cycles)
        expected = tau / ratio if tau <= ratio else 1.0
        assert cyclic(t, updates, cycles, ratio) == pytest.approx(expected, abs=1e-12)


def test_cyclic_borders():
    # two cycles of ten: up for five updates, one for five, and down to zero again
    weights = [cyclic(t, 20, 2, 0.5) for t in range(20)]
    assert weights[:11] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 0])
    assert weights[10:] == pytest.approx(weights[:10])
    # after its span the last cycle's weight is held
    assert [cyclic(t, 20, 2, 0.5) for t in (19, 20, 21, 10**6)] == [1.0] * 4


def test_one_cycle_is_linear():
    assert [cyclic(t, 10, 1, 1.0) for t in range(10)] == [linear(t, 10) for t in range(10)]


def test_cyclic_without_a_ramp_is_one():
    assert {cyclic(t, 10, 2, 0.0) for t in range(12)} == {1.0}


@pytest.mark.parametrize("schedule", list(Schedule))
def test_weights_are_between_zero_and_one(schedule):
    annealing = Annealing(schedule, updates=37, cycles=4)
    assert all(0 <= annealing.weight(t) <= 1 for t in range(120))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": Schedule.linear}, "--kl-annealing linear needs the number of updates"),
        ({"schedule": Schedule.cyclic}, "--kl-annealing-updates N"),
        ({"schedule": Schedule.logistic, "updates": -5}, "--kl-annealing-updates must be > 0"),
        ({"cycles": 0}, "--kl-annealing-cycles must be at least 1, not 0"),
        ({"cycles": -2}, "--kl-annealing-cycles must be at least 1, not -2"),
        ({"ratio": 1.5}, "--kl-annealing-ratio must be from 0 to 1"),
        ({"init": 0.0}, "--kl-annealing-init must be above 0"),
        ({"init": 0.5}, "--kl-annealing-init must be above 0 and below 0.5"),
    ],
)
def test_values_out_of_range_name_their_flag(values, message):
    with pytest.raises(ValueError, match=message):
        Annealing(**values)
