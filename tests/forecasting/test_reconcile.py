"""Reconciled figures add up the tree and are the nearest that do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.forecast import Forecast, Rung
from forecasting.reconcile import LEAST_BPS, point_forecast, reconcile, shared_out

NAN = np.nan


@st.composite
def trees(draw: st.DrawFn) -> np.ndarray:
    """One or several trees of any shape, parents first."""
    n = draw(st.integers(1, 14))
    return np.array([draw(st.integers(-1, row - 1)) for row in range(n)])


def children_sum(values: np.ndarray, parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows with children, and the sums of these."""
    rows = np.unique(parent[parent >= 0])
    return rows, np.array([values[parent == row].sum(axis=0) for row in rows])


def dense(point: np.ndarray, variance: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Weighted least squares over the leaves, with every pool written as a sum of leaves."""
    n = len(parent)
    leaves = np.setdiff1d(np.arange(n), parent)
    summing = np.zeros((n, len(leaves)))
    for column, leaf in enumerate(leaves):
        row = leaf
        while row >= 0:
            summing[row, column] = 1
            row = parent[row]
    root = 1 / np.sqrt(variance)
    return np.asarray(summing @ np.linalg.lstsq(root[:, None] * summing, root * point, rcond=None)[0])


@given(trees(), st.integers(0, 2**32 - 1))
def test_it_is_the_dense_solution(parent: np.ndarray, seed: int) -> None:
    """Two passes over the tree give what least squares over all leaves at once gives, where nothing goes below 0."""
    rng = np.random.default_rng(seed)
    variance = rng.uniform(0.5, 2, len(parent))
    # Nearly coherent and far from 0, so that the bound does not bind.
    point = np.full(len(parent), 1000.0)
    for row in range(len(parent) - 1, -1, -1):
        below = point[parent == row]
        point[row] = below.sum() if below.size else 1000.0
    point += rng.normal(0, 5, len(parent))
    np.testing.assert_allclose(
        reconcile(point[:, None], variance[:, None], parent)[:, 0], dense(point, variance, parent), rtol=1e-9
    )


@given(trees(), st.integers(0, 2**32 - 1))
def test_whatever_is_given_adds_up(parent: np.ndarray, seed: int) -> None:
    """Any figures, known or not, of any certainty: the sums hold to the rounding, nothing is below 0."""
    rng = np.random.default_rng(seed)
    shape = (len(parent), 3)
    point = rng.choice([0.0, 1.0, 1e3, 1e12, NAN], shape)
    variance = rng.choice([1e-6, 1.0, 1e24, np.inf, NAN], shape)
    made = reconcile(point, variance, parent)
    assert (made >= 0).all()
    rows, sums = children_sum(made, parent)
    np.testing.assert_allclose(made[rows], sums.reshape(len(rows), 3), rtol=1e-12, atol=0)


@given(trees(), st.integers(0, 2**32 - 1))
def test_what_adds_up_is_left_alone(parent: np.ndarray, seed: int) -> None:
    """Coherent figures come back as they were, whatever their variances."""
    rng = np.random.default_rng(seed)
    point = rng.choice([0.0, 1.0, 1e6], (len(parent), 2))
    for row in range(len(parent) - 1, -1, -1):
        below = point[parent == row]
        point[row] = below.sum(axis=0) if len(below) else point[row]
    made = reconcile(point, rng.lognormal(0, 4, point.shape), parent)
    np.testing.assert_allclose(made, point, rtol=1e-9, atol=1e-6)


FAMILY = np.array([-1, 0, 0, 0])


def solved(point: list[float], variance: list[float]) -> list[float]:
    """One parent, three children, one horizon."""
    made = reconcile(np.array(point)[:, None], np.array(variance)[:, None], FAMILY)[:, 0]
    return [round(value, 6) for value in made.tolist()]


def test_the_surer_moves_less() -> None:
    """A difference of 12 is shared in proportion to the variances, the parent's among them."""
    assert solved([42, 10, 10, 10], [1, 1, 2, 8]) == [41, 11, 12, 18]


def test_a_child_that_would_be_negative_is_nothing() -> None:
    """The parent's figure holds, and the siblings take what the child could not give."""
    # Alone against 12 the parent stays; 8 too many: the unsure child gives what it has, the others the rest.
    assert solved([12, 9, 9, 2], [1e-9, 1, 1, 100]) == [12, 6, 6, 0]


def test_what_is_not_known_takes_what_is_left() -> None:
    """Unknown children share what the known leave; an unknown parent is what its children are."""
    assert solved([20, 4, NAN, NAN], [1, 1, 1, 1]) == [20, 4, 8, 8]
    assert solved([NAN, 4, 5, 6], [1, 1, 1, 1]) == [15, 4, 5, 6]
    assert solved([20, 4, 5, 6], [np.inf, 1, np.inf, 1]) == [15, 4, 5, 6]
    assert solved([3, 4, NAN, NAN], [1, 1, 1, 1]) == [3, 3, 0, 0]
    assert solved([NAN, NAN, NAN, NAN], [1, 1, 1, 1]) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("point", "variance", "parent", "rule"),
    [
        ([1, 1], [1], [-1, 0], "variance must have shape"),
        ([1, 1], [1, 1], [-1], "parent must have shape"),
        ([1, 1], [1, 1], [1, -1], "parent must be -1 or an earlier row, got 1 in row 0"),
        ([1, 1], [1, 1], [-2, 0], "parent must be -1 or an earlier row, got -2 in row 0"),
        ([1, -1], [1, 1], [-1, 0], "point_bps must be >= 0, got -1"),
        ([1, 1], [1, 0], [-1, 0], "variance must be > 0, got 0"),
    ],
)
def test_what_is_no_tree_is_refused(
    point: list[int], variance: list[int], parent: list[int], rule: str
) -> None:
    """A caller's mistake is told with the rule and the value."""
    with pytest.raises(ValueError, match=rule):
        reconcile(point, variance, parent)


def test_no_pools_are_no_figures() -> None:
    """An empty tree is a tree."""
    assert reconcile(np.empty((0, 3)), np.empty((0, 3)), np.empty(0, np.int64)).shape == (0, 3)


def fan(*series: tuple[float, float, float], rung: list[Rung]) -> Forecast:
    demand = np.array(series, np.float32)[:, None]
    return Forecast(np.array([0.25, 0.5, 0.75]), np.array([60.0]), demand, np.array(rung, np.uint8))


def test_medians_add_up_and_fans_stay() -> None:
    """The narrower fan moves less; the forecast itself is not touched."""
    made = fan((9e6, 10e6, 11e6), (3e6, 4e6, 5e6), (1e6, 4e6, 7e6), rung=[Rung.MODEL] * 3)
    before = made.demand_bps.copy()
    point = point_forecast(made, [-1, 0, 0])[:, 0]
    # Deviations of 1 : 1 : 3; the children's variances, 1 x 4 and 3 x 4, add up to that of 1 + 3.
    np.testing.assert_allclose(point / 1e6, [10 - 2 / 17, 4 + 8 / 17, 4 + 24 / 17], rtol=1e-6)
    assert (made.demand_bps == before).all()
    with pytest.raises(ValueError, match="parent must have shape"):
        point_forecast(made, [-1, 0])


def test_a_guess_gives_way() -> None:
    """One figure for all quantiles is no certainty, and a guess of nothing is none at all."""
    guess = [Rung.MODEL, Rung.MODEL, Rung.AUTO_BANDWIDTH]
    held = point_forecast(fan((9e6, 10e6, 11e6), (3e6, 4e6, 5e6), (3e6, 3e6, 3e6), rung=guess), [-1, 0, 0])
    assert held[2, 0] - 3e6 > 2 * (held[1, 0] - 4e6) > 0
    nothing = [Rung.MODEL, Rung.MODEL, Rung.LAST_PLAN]
    left = point_forecast(fan((9e6, 10e6, 11e6), (3e6, 4e6, 5e6), (0, 0, 0), rung=nothing), [-1, 0, 0])
    np.testing.assert_allclose(left[:, 0], [10e6, 4e6, 6e6], rtol=1e-6)


def test_a_single_quantile_has_the_least_deviation() -> None:
    """Without quartiles every pool is as unsure as its size says."""
    one = Forecast(
        np.array([0.5]),
        np.array([60.0]),
        np.array([[[12 * LEAST_BPS]], [[5 * LEAST_BPS]], [[5 * LEAST_BPS]]], np.float32),
        np.zeros(3, np.uint8),
    )
    np.testing.assert_allclose(point_forecast(one, [-1, 0, 0])[:, 0] / LEAST_BPS, [11.6, 5.8, 5.8])


def parts_of(low: float, middle: float, high: float, rung: Rung = Rung.MODEL, n: int = 2) -> Forecast:
    """Parts alike, at two horizons."""
    demand = np.tile(np.array([low, middle, high], np.float32), (n, 2, 1))
    return Forecast(
        np.array([0.25, 0.5, 0.75]), np.array([60.0, 120.0]), demand, np.full(n, int(rung), np.uint8)
    )


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=6), st.floats(0, 1e9), st.integers(0, 2**32 - 1))
def test_parts_of_one_pool_add_up_to_its_figure(medians: list[float], total: float, seed: int) -> None:
    """Which stands, whatever the parts say; where they are not all of it, to no more than it."""
    width = np.random.default_rng(seed).uniform(0.01, 1, len(medians))[:, None, None]
    spread = np.array([0.0, 1.0, 1.5])
    demand = np.sort(np.array(medians)[:, None, None] * (1 + width * (spread - 1)), axis=-1)
    parts = Forecast(
        np.array([0.25, 0.5, 0.75]),
        np.array([60.0]),
        demand.astype(np.float32),
        np.zeros(len(medians), np.uint8),
    )
    found = shared_out(np.array([total]), parts, complete=True)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=0), total, rtol=1e-6, atol=1e-3)
    some = shared_out(np.array([total]), parts, complete=False)
    assert (some >= 0).all()
    assert some.sum() <= total * (1 + 1e-6) + 1e-3
    if sum(medians) <= total:
        np.testing.assert_allclose(some[:, 0], demand[:, 0, 1], rtol=1e-3, atol=1.0)


def test_unsure_part_gives_way() -> None:
    """What is missing is asked of who knows least; a guess least of all."""
    sure, unsure = parts_of(9e6, 1e7, 1.1e7, n=1), parts_of(1e6, 1e7, 2e7, n=1)
    both = Forecast(
        sure.quantile,
        sure.horizon_s,
        np.concatenate([sure.demand_bps, unsure.demand_bps]),
        np.zeros(2, np.uint8),
    )
    found = shared_out(np.array([1.6e7, 2.4e7]), both, complete=True)
    np.testing.assert_allclose(found.sum(axis=0), [1.6e7, 2.4e7])
    assert (np.abs(found[0] - 1e7) < np.abs(found[1] - 1e7) / 5).all()
    nothing = parts_of(0, 0, 0, Rung.LAST_PLAN)
    np.testing.assert_allclose(shared_out(np.array([4e6, 0]), nothing, complete=True), [[2e6, 0]] * 2)
