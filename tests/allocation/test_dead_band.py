"""Rates that stay put."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocation import dead_band
from allocation.allocate import allocate
from allocation.checks import is_feasible
from allocation.dead_band import hold, hold_tree
from tests.allocation.trees import RATES, many, plain, problems, tree_of


@pytest.mark.parametrize(
    ("previous", "wanted", "expected"),
    [
        (100.0, 104, 100),
        (100.0, 105, 105),
        (100.0, 99, 99),
        (100.0, 100, 100),
        (0.0, 1, 1),
        (math.nan, 7, 7),
        (100.0, 0, 0),
    ],
)
def test_only_small_rises_are_withheld(previous, wanted, expected):
    """A band of 5 %: smaller rises wait, falls and first rates do not."""
    assert hold(np.array([previous]), np.array([wanted]), 0.05).tolist() == [expected]


def test_slow_growth_gets_through():
    """Steps of 1 % add up against the rate in force."""
    rate = np.array([1000.0])
    for wanted in range(1010, 1060, 10):
        rate = hold(rate, np.array([wanted]), 0.05).astype(float)
    assert rate.tolist() == [1050]


def test_a_parent_rises_when_its_children_need_it():
    """Held back by itself, the parent would be below what its children were given."""
    tree = tree_of(("g", 0, 200, 1), ("g/a", 0, 200, 1), ("g/b", 0, 200, 1))
    previous, wanted = np.array([100.0, 50, 50]), np.array([102, 90, 12])
    assert hold(previous, wanted, 0.05).tolist() == [100, 90, 12]
    assert hold_tree(tree, previous, wanted, 0.05).tolist() == [102, 90, 12]


def test_a_raised_guarantee_is_not_withheld():
    """An operator's promise holds at once."""
    tree = tree_of(("g", 0, 200, 1), ("g/a", 101, 200, 1))
    assert hold_tree(tree, np.array([100.0, 100]), np.array([102, 101]), 0.05).tolist() == [101, 101]


@given(problems(), st.data(), st.floats(0, 1))
@many(120)
def test_a_held_tree_is_feasible_and_never_above_the_wanted_one(problem, data, fraction):
    """Whatever was in force before."""
    tree, capacity, claims, reserve = problem
    wanted = allocate(tree, claims, reserve, capacity).grant_bps
    previous = np.array([data.draw(st.one_of(RATES, st.just(math.nan))) for _ in range(len(tree))])
    held = hold_tree(tree, previous, wanted, fraction)
    assert is_feasible(tree, held, capacity)
    assert (held <= wanted).all()
    again = np.maximum(hold(previous, wanted, fraction), np.minimum(tree.reserved_bps, wanted))
    plain(dead_band._make_room)(tree.parent, again)
    np.testing.assert_array_equal(again, held)


@pytest.mark.parametrize(
    ("previous", "fraction", "rule"),
    [([1.0], 1.5, "fraction must be 0 to 1, got 1.5"), ([1.0, 2.0], 0.1, "must be alike")],
)
def test_what_has_no_meaning_is_refused(previous, fraction, rule):
    """An error names rule and value."""
    with pytest.raises(ValueError, match=rule):
        hold(np.array(previous), np.array([1]), fraction)
