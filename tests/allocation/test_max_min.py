"""The water level, in real numbers and in whole bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocation import max_min
from allocation.max_min import fill_siblings, weighted_max_min
from tests.allocation.trees import RATES, WEIGHTS, fill_progressively, many, plain

CLAIMS = st.lists(st.tuples(RATES, WEIGHTS), min_size=1, max_size=12)


def shares(demand, weight, capacity):
    return weighted_max_min(np.array(demand, float), np.array(weight, float), capacity)


def check(demand, weight, capacity):
    """Compare with the exact reference and with what must hold of any answer."""
    demand, weight = np.array(demand, float), np.array(weight, float)
    got = shares(demand, weight, capacity)
    exact = fill_progressively(capacity, [0] * len(demand), demand, weight)
    scale = max(1.0, min(capacity, demand.sum()))
    np.testing.assert_allclose(got, [float(x) for x in exact], rtol=1e-9, atol=1e-12 * scale)
    assert (got <= demand).all()
    assert got.sum() == pytest.approx(min(capacity, demand.sum()), rel=1e-12)


@given(CLAIMS, RATES)
@many(500)
def test_real_shares_equal_progressive_filling(claims, capacity):
    """Any claims and any capacity give what raising the level knee by knee gives."""
    demand, weight = zip(*claims, strict=True)
    check(demand, weight, capacity)


@given(CLAIMS, st.integers(-3, 3))
@many(500)
def test_capacity_within_rounding_steps_of_the_total(claims, steps):
    """A capacity that is the total but for the last bits of a float still gives everyone its demand."""
    demand, weight = zip(*claims, strict=True)
    capacity = float(np.sum(demand))
    for _ in range(abs(steps)):
        capacity = max(0.0, math.nextafter(capacity, math.copysign(math.inf, steps)))
    check(demand, weight, capacity)


@pytest.mark.parametrize(
    ("demand", "weight", "capacity", "expected"),
    [
        ([5, 5, 5], [1, 1, 1], 9, [3, 3, 3]),
        ([5, 5, 5], [1, 2, 3], 6, [1, 2, 3]),
        ([0, 0], [1, 1], 10, [0, 0]),
        ([0, 4], [1, 1], 3, [0, 3]),
        ([4, 6], [1, 1], 10, [4, 6]),
        ([7], [3], 2, [2]),
        ([7], [3], 0, [0]),
        ([1e-9, 1e12], [1, 1], 1e12, [1e-9, 1e12 - 1e-9]),
        ([10, 10], [1e-9, 1e12], 15, [5, 10]),
        ([3, 4], [1, 1], math.inf, [3, 4]),
        ([], [], 5, []),
    ],
)
def test_razor_edges(demand, weight, capacity, expected):
    """Equal demands, zeros, total equal to capacity, one child, far orders of magnitude."""
    np.testing.assert_allclose(shares(demand, weight, capacity), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("demand", "weight", "capacity", "rule"),
    [
        ([1, 2], [1], 5, "one row each"),
        ([-1], [1], 5, "demand_bps must be >= 0"),
        ([math.nan], [1], 5, "demand_bps must be >= 0"),
        ([1], [0], 5, "weight must be > 0"),
        ([1], [math.inf], 5, "weight must be > 0"),
        ([1], [1], math.nan, "capacity_bps must be >= 0"),
        ([1], [1], -1, "capacity_bps must be >= 0"),
    ],
)
def test_real_shares_refuse_what_has_no_meaning(demand, weight, capacity, rule):
    """An error names the rule."""
    with pytest.raises(ValueError, match=rule):
        shares(demand, weight, capacity)


@st.composite
def sibling_sets(draw):
    """Siblings with bounds, over wide and narrow scales, and a budget that covers the lower bounds."""
    n = draw(st.integers(1, 10))
    scale = draw(st.sampled_from([3, 100, 10**6, 10**12, 2**50]))
    rate = st.one_of(st.integers(0, 3), st.integers(0, scale))
    lower = np.array([draw(rate) for _ in range(n)], np.int64)
    upper = lower + np.array([draw(rate) for _ in range(n)], np.int64)
    weights = draw(st.sampled_from([WEIGHTS, st.just(1.0), st.sampled_from([1e-9, 1.0, 1e12])]))
    weight = np.array([draw(weights) for _ in range(n)])
    extra = draw(st.one_of(st.just(0), st.integers(0, max(int((upper - lower).sum()) + 2, 1))))
    return int(lower.sum()) + extra, lower, upper, weight


def fill(function, budget, lower, upper, weight):
    grant = np.full(len(lower), -1, np.int64)
    function(budget, np.arange(len(lower), dtype=np.int32), lower, upper, weight, grant)
    return grant


@given(sibling_sets())
@many(600)
def test_whole_shares_are_within_a_bit_of_the_exact_ones(siblings):
    """Bounds hold, the budget is used to the bit, and each share is the exact one, rounded."""
    budget, lower, upper, weight = siblings
    got = fill(fill_siblings, budget, lower, upper, weight)
    assert (got >= lower).all()
    assert (got <= upper).all()
    assert got.sum() == min(budget, upper.sum())
    exact = fill_progressively(budget, lower.tolist(), upper.tolist(), weight)
    allowed = 1.02 + min(len(got), 1e-12 * budget)  # the level is a float
    assert max(abs(int(x) - y) for x, y in zip(got, exact, strict=True)) <= allowed


@given(sibling_sets())
@many(100)
def test_compiled_and_plain_loops_agree(siblings):
    """The machine code does what its source says; also shows the source to coverage."""
    budget, lower, upper, weight = siblings
    np.testing.assert_array_equal(
        fill(plain(fill_siblings), budget, lower, upper, weight),
        fill(fill_siblings, budget, lower, upper, weight),
    )
    grant = np.zeros_like(lower)
    members = np.arange(len(lower), dtype=np.int32)
    if not plain(max_min._fill_if_plain)(budget, members, lower, upper, grant):
        level = plain(max_min._search_level)(budget, members, lower, upper, weight)
        assert level == max_min._search_level(budget, members, lower, upper, weight)


def test_a_level_between_neighbouring_floats_still_ends():
    """Siblings that all step at one level share the odd bits, first come first served."""
    n = 1000
    lower, upper = np.zeros(n, np.int64), np.full(n, 10, np.int64)
    got = fill(fill_siblings, 4321, lower, upper, np.ones(n))
    assert sorted(set(got.tolist())) == [4, 5]
    assert got.sum() == 4321


def test_lower_bounds_far_apart_need_halving():
    """Knees spread over orders of magnitude, where Newton's steps alone would wander."""
    lower = np.array([10**k for k in range(13)], np.int64)
    upper = lower * 2
    for budget in (int(lower.sum()) + 1, int(lower.sum()) + 10**6, int(upper.sum()) - 1):
        for weight in (np.ones(13), 10.0 ** -np.arange(13), 10.0 ** np.arange(-6, 7)):
            got = fill(plain(fill_siblings), budget, lower, upper, weight)
            assert got.sum() == budget
            exact = fill_progressively(budget, lower.tolist(), upper.tolist(), weight)
            assert max(abs(int(x) - y) for x, y in zip(got, exact, strict=True)) <= 1


def test_a_level_on_flat_ground_is_left_by_halving():
    """All who may rise lie beyond a gap of levels at which nobody does."""
    lower, upper = np.array([0, 100], np.int64), np.array([10, 1000], np.int64)
    assert fill(plain(fill_siblings), 150, lower, upper, np.ones(2)).tolist() == [10, 140]
    args = (150, np.arange(2, dtype=np.int32), lower, upper, np.ones(2))
    assert plain(max_min._search_level)(*args) == pytest.approx(140)
