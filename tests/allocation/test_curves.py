"""Value curves: forecasts, presets and straight lines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from allocation.curves import (
    PRESETS,
    forecast_curves,
    linear_curves,
    path_weight,
    preset_demand,
    quantile_knots,
)
from allocation.expected_loss import allocate_by_forecast
from tests.allocation.trees import INF, tree_of

FLAT = (("g", 0, INF, 1), ("g/a", 0, INF, 1), ("g/b", 0, INF, 1))


def test_quantiles_become_knots():
    """Nothing at probability 0, the quantiles, and a tail whose mean is that of an exponential one."""
    probability, rate = quantile_knots(np.array([0.5, 0.75]), np.array([[10.0, 20.0]]))
    assert probability.tolist() == [0, 0.5, 0.75, 1]
    scale = 10 / np.log(2)
    np.testing.assert_allclose(rate, [[0, 10, 20, 20 + 2 * scale]])


def test_one_figure_for_all_quantiles_has_no_tail():
    """Where nothing is known of the spread, more than the figure is not asked for."""
    _, rate = quantile_knots(np.array([0.1, 0.5, 0.9]), np.full((1, 3), 7.0))
    assert rate.tolist() == [[0, 7, 7, 7, 7]]


@pytest.mark.parametrize("quantile", [[0.5, 0.5], [0.9, 0.5], [0.0, 0.5], [0.5, 1.0], [np.nan, 0.5]])
def test_quantiles_must_rise_inside_the_unit_interval(quantile):
    """Refused with the values."""
    with pytest.raises(ValueError, match="quantile must rise"):
        quantile_knots(np.array(quantile), np.ones((1, 2)))


def test_weights_multiply_down_the_path():
    """But for the root's, which has no siblings."""
    tree = tree_of(("g", 0, INF, 9), ("g/x", 0, INF, 2), ("g/x/a", 0, INF, 3), ("g/b", 0, INF, 5))
    assert path_weight(tree).tolist() == [6, 5]


def test_a_forecast_curve_is_the_quantile_function():
    """At minus a probability of falling short each leaf has the quantile of the rest."""
    tree = tree_of(*FLAT)
    curves = forecast_curves(tree, np.array([0.25, 0.5, 0.75]), np.array([[1, 2, 3], [10, 20, 40]], float))
    np.testing.assert_allclose(curves.at(-0.5), [2, 20])
    np.testing.assert_allclose(curves.at(-0.375), [2.5, 30])
    np.testing.assert_allclose(curves.at(np.array([-1.0, -0.25])), [0, 40])


def test_a_straight_curve_is_weight_times_level():
    """Up to the leaf's own rate."""
    tree = tree_of(("g", 0, INF, 1), ("g/a", 0, INF, 2), ("g/b", 0, INF, 1))
    curves = linear_curves(tree, np.array([100.0, 30.0]))
    np.testing.assert_allclose(curves.at(20.0), [40, 20])
    np.testing.assert_allclose(curves.at(99.0), [100, 30])


QUANTILE = np.array([0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98])


def test_under_pressure_calls_and_games_keep_their_rate_and_bulk_waits():
    """Each could use 10 Mbit/s and there are 24 for four: those give way that bear it."""
    kinds = ["gaming", "conferencing", "video", "bulk"]
    tree = tree_of(("g", 0, INF, 1), *((f"g/{kind}", 0, INF, 1) for kind in kinds))
    tree = replace(tree, sharing=np.ones(len(tree), np.uint8))
    demand = np.concatenate([preset_demand(kind, QUANTILE, np.array([10e6])) for kind in kinds])
    got = allocate_by_forecast(tree, QUANTILE, demand, capacity_bps=24e6).grant_bps[1:] / 10e6
    assert got[0] > 0.95
    assert got[1] > 0.85
    assert got[0] > got[1] > got[2] > got[3] > 0


@pytest.mark.parametrize("kind", list(PRESETS))
def test_presets_rise_to_nearly_all_that_can_be_used(kind):
    """At quantile 0.98, of two that could use 3 and 6; never falling."""
    demand = preset_demand(kind, QUANTILE, np.array([3.0, 6.0]))
    assert demand.shape == (2, len(QUANTILE))
    assert (np.diff(demand, axis=1) >= 0).all()
    np.testing.assert_allclose(demand[:, -1], [3.0, 6.0], rtol=0.05)


def test_an_unknown_kind_is_refused():
    """And those there are, are listed."""
    with pytest.raises(ValueError, match="curve must be one of bulk, conferencing, gaming, video, got fax"):
        preset_demand("fax", QUANTILE, np.ones(1))
