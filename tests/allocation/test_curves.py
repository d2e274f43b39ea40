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
    preset_curves,
    quantile_knots,
)
from allocation.expected_loss import allocate_by_curves
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


def test_presets_end_at_the_full_rate_at_a_common_level():
    """So that with capacity for all each kind has all it can use."""
    tree = tree_of(("g", 0, INF, 1), *((f"g/{kind}", 0, INF, 1) for kind in PRESETS))
    curves = preset_curves(tree, list(PRESETS), np.full(len(PRESETS), 8.0))
    np.testing.assert_allclose(curves.at(3.0), 8)


def test_under_pressure_calls_and_games_keep_their_rate_and_bulk_waits():
    """A tenth of the capacity short of what all could use is taken from those that bear it."""
    kinds = ["gaming", "conferencing", "video", "bulk"]
    tree = tree_of(("g", 0, INF, 1), *((f"g/{kind}", 0, INF, 1) for kind in kinds))
    tree = replace(tree, sharing=np.ones(len(tree), np.uint8))
    curves = preset_curves(tree, kinds, np.full(4, 10e6))
    got = allocate_by_curves(tree, curves, capacity_bps=24e6).grant_bps[1:] / 10e6
    assert got[0] == 1
    assert got[1] > 0.9
    assert got[0] > got[1] > got[2] > got[3] > 0


def test_an_unknown_kind_names_the_pool():
    """And lists those there are."""
    with pytest.raises(
        ValueError, match="g/b: curve must be one of bulk, conferencing, gaming, video, got fax"
    ):
        preset_curves(tree_of(*FLAT), ["bulk", "fax"], np.ones(2))
