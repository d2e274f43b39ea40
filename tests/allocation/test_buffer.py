"""Reserves from the forecast's tail."""

from __future__ import annotations

import math

import numpy as np
import pytest

from allocation.buffer import reserve_from_tail, tail_bps


@pytest.mark.parametrize(
    ("median", "high", "expected"),
    [
        (50, 60, 10),
        (50, 50.5, 2),
        (50, 500, 20),
        (50, 40, 2),  # quantiles that cross reserve the least
        (math.nan, 60, 2),
        (50, math.nan, 2),
    ],
)
def test_the_tail_between_its_bounds(median, high, expected):
    """Capacity 100, 2 to 20 % of it; without a forecast the least."""
    assert reserve_from_tail(np.array([median]), np.array([high]), np.array([100.0])).tolist() == [expected]


@pytest.mark.parametrize(
    ("capacity", "least", "most", "rule"),
    [
        (math.inf, 0.1, 0.2, "capacity_bps must be >= 0 and finite"),
        (-1, 0.1, 0.2, "capacity_bps must be >= 0 and finite"),
        (1, 0.3, 0.2, "got min_fraction 0.3 and max_fraction 0.2"),
        (1, 0.1, math.nan, "got min_fraction 0.1 and max_fraction nan"),
    ],
)
def test_what_has_no_meaning_is_refused(capacity, least, most, rule):
    """An error names rule and value."""
    with pytest.raises(ValueError, match=rule):
        reserve_from_tail(np.zeros(1), np.ones(1), np.array([capacity], float), least, most)


def test_tail_reaches_as_far_as_asked():
    """The next quantile that is no lower; beyond the last the last."""
    quantile = np.array([0.5, 0.9, 0.95, 0.98])
    demand = np.tile([1.0, 2.0, 3.0, 4.0], (5, 1))
    reach = np.array([0.5, 0.9, 0.91, 0.98, 0.999])
    assert tail_bps(demand, quantile, reach).tolist() == [1, 2, 3, 4, 4]
