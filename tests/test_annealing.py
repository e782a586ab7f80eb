"""Schedules against the papers' formulas, at their corners above all."""

from __future__ import annotations

import math

import pytest

from fairseq_vat.latent.annealing import Annealing, Schedule, cyclic, linear, logistic, slope_from


def test_constant_is_one():
    assert [Annealing().weight(t) for t in (0, 1, 10**9)] == [1.0, 1.0, 1.0]


def test_linear():
    assert [linear(t, 10) for t in (0, 1, 5, 10, 11, 10**9)] == [0.0, 0.1, 0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("updates", [2, 7, 1000, 50000])
@pytest.mark.parametrize("init", [0.00025, 0.1, 0.499])
def test_logistic_corners_from_its_first_weight(updates, init):
    weight = Annealing(Schedule.logistic, updates, init=init).weight
    assert weight(0) == pytest.approx(init, rel=1e-9)
    assert weight(updates) == pytest.approx(1 - init, rel=1e-9)
    if updates % 2 == 0:
        assert weight(updates // 2) == pytest.approx(0.5, rel=1e-12)
    k = 2 / updates * math.log((1 - init) / init)
    for t in (1, updates // 3, 2 * updates):
        expected = 1 / (1 + math.exp(-k * (t - updates / 2)))
        assert weight(t) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("slope", [0.00025, 0.003, 1.0])
def test_logistic_by_its_slope(slope):
    weight = Annealing(Schedule.logistic, 50_000, slope=slope).weight
    assert weight(25_000) == 0.5
    # ln(w / (1 - w)) rises by k an update
    for t in (24_990, 24_999, 25_003, 25_010):
        odds = weight(t) / (1 - weight(t))
        assert odds == pytest.approx(math.exp(slope * (t - 25_000)), rel=1e-6)
    assert weight(0) == pytest.approx(1 / (1 + math.exp(min(700, slope * 25_000))), rel=1e-9)


def test_the_paper_s_number_in_both_readings():
    first, slope = ({"init": 0.00025}, {"slope": 0.00025})
    weights = [Annealing(Schedule.logistic, 50_000, **x).weight(0) for x in (first, slope)]
    assert weights == pytest.approx([0.00025, 1 / (1 + math.exp(6.25))])
    assert Annealing(Schedule.logistic, 50_000).weight(0) == pytest.approx(0.00025)


def test_logistic_neither_overflows_nor_turns_back():
    weights = [logistic(t, 1000, slope_from(1e-300, 1000)) for t in range(0, 2001, 10)]
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
        ({"slope": 0.0}, "--kl-annealing-slope must be above 0, not 0.0"),
        ({"slope": math.nan}, "--kl-annealing-slope must be above 0, not nan"),
        ({"slope": 0.1, "init": 0.1}, "can't be combined with --kl-annealing-slope"),
    ],
)
def test_values_out_of_range_name_their_flag(values, message):
    with pytest.raises(ValueError, match=message):
        Annealing(**values)
