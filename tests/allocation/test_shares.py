"""Grants split over switches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocation.shares import split
from tests.allocation.trees import RATES, many


@st.composite
def entries(draw):
    """Pools with grants, and entries in any order, some without a forecast."""
    grant = np.array(draw(st.lists(st.integers(0, 2**51), min_size=1, max_size=5)), np.int64)
    n = draw(st.integers(0, 12))
    pool = np.array([draw(st.integers(0, len(grant) - 1)) for _ in range(n)], np.int32)
    demand = np.array([draw(st.one_of(RATES, st.just(math.nan))) for _ in range(n)])
    return grant, pool, demand, draw(st.floats(0, 1))


@given(entries())
@many(300)
def test_shares_sum_to_the_grant_to_the_bit(case):
    """Every pool that is on a switch at all gives out its whole grant, and nothing is negative."""
    grant, pool, demand, equal_part = case
    share = split(grant, pool, demand, equal_part)
    assert (share >= 0).all()
    for i in set(pool.tolist()):
        assert share[pool == i].sum() == grant[i]
        floor = equal_part * grant[i] / (pool == i).sum()
        assert share[pool == i].min() >= floor * (1 - 1e-12) - 1


def one(grant, demand, **kwargs):
    return split(np.array([grant]), np.zeros(len(demand), int), np.array(demand, float), **kwargs).tolist()


@pytest.mark.parametrize(
    ("grant", "demand", "expected"),
    [
        (100, [90, 90], [50, 50]),
        (100, [300, 100], [74, 26]),  # 5 equally, 95 by demand
        (100, [30, 10], [60, 40]),  # demands met, 60 left over equally
        (100, [0, 0], [50, 50]),
        (100, [400, 0], [98, 2]),  # nothing forecast, yet not shut
        (100, [math.nan, math.nan], [50, 50]),
        (100, [400, math.nan], [50, 50]),  # missing is taken as the others' mean
        (7, [5], [7]),
        (0, [5, 5], [0, 0]),
        (1, [5, 5, 5], [1, 0, 0]),
    ],
)
def test_demand_first_then_equally(grant, demand, expected):
    """Proportional to demand, what is left over equally, and never less than the equal part."""
    assert one(grant, demand) == expected


def test_the_order_of_entries_only_moves_odd_bits():
    """Entries of several pools may come mixed."""
    share = split(np.array([100, 50]), np.array([1, 0, 1, 0]), np.array([10.0, 300, 30, 100]))
    assert share.tolist() == [15, 74, 35, 26]


def test_no_entries():
    """Nothing to split is fine."""
    assert one(5, []) == []


@pytest.mark.parametrize(
    ("grant", "pool", "demand", "equal_part", "rule"),
    [
        ([5], [0, 0], [1.0], 0.1, "one row each"),
        ([5], [1], [1.0], 0.1, "pool must be 0 to 0, got 1"),
        ([5], [-1], [1.0], 0.1, "pool must be 0 to 0, got -1"),
        ([-5], [0], [1.0], 0.1, "grant_bps must be >= 0, got -5"),
        ([5], [0], [-1.0], 0.1, "demand_bps must be >= 0"),
        ([5], [0], [math.inf], 0.1, "demand_bps must be >= 0"),
        ([5], [0], [1.0], 1.5, "equal_part must be 0 to 1, got 1.5"),
    ],
)
def test_what_has_no_meaning_is_refused(grant, pool, demand, equal_part, rule):
    """An error names rule and value."""
    with pytest.raises(ValueError, match=rule):
        split(np.array(grant), np.array(pool), np.array(demand), equal_part)
