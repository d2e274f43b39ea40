"""What others would have granted."""

from __future__ import annotations

import math

import numpy as np

from allocation.baselines import served, static_equal
from tests.allocation.trees import INF, tree_of


def test_static_caps_are_equal_whatever_the_weights():
    """Equal among siblings, but what a ceiling leaves goes to the others."""
    tree = tree_of(
        ("g", 0, 120, 1),
        ("g/w", 0, INF, 5),
        ("g/e", 0, INF, 1),
        ("g/w/a", 0, 10, 1),
        ("g/w/b", 0, INF, 3),
        ("g/e/c", 0, INF, 1),
        ("g/e/d", 0, INF, 9),
    )
    assert static_equal(tree).grant_bps.tolist() == [120, 60, 60, 10, 50, 30, 30]
    assert static_equal(tree, 60).grant_bps.tolist() == [60, 30, 30, 10, 20, 15, 15]


def test_served_is_the_lesser_and_missing_stays_missing():
    """A demand that was not measured is not a demand of zero."""
    got = served(np.array([10, 10, 10]), np.array([4, 14, math.nan]))
    np.testing.assert_array_equal(got, [4, 10, math.nan])
