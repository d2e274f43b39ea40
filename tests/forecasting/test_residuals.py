"""Residual curves: what usually came on top of the last value."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.residuals import ResidualCurves, learn_residuals

QUANTILE = np.array([0.1, 0.5, 0.9])
AHEAD = np.array([1, 4])


def learnt(
    demand: np.ndarray, segment: np.ndarray, scale: np.ndarray, ahead: np.ndarray = AHEAD
) -> np.ndarray:
    able = np.arange(demand.shape[1])
    curves = learn_residuals(
        demand.astype(np.float32), able, segment, scale, ahead, QUANTILE, np.random.default_rng(0)
    )
    return curves.curve


def test_a_ramp_is_its_slope() -> None:
    """Demand that rises by 10 a step comes 10 and 40 higher, in units of the level, at every quantile."""
    demand = np.tile(10.0 * np.arange(64)[:, None], (1, 3))
    curve = learnt(demand, np.zeros(3, np.int64), np.full(3, 100.0))
    np.testing.assert_allclose(curve[0], [[0.1] * 3, [0.4] * 3], rtol=1e-5)


def test_segments_learn_apart_and_gaps_are_skipped() -> None:
    """A constant and a noisy segment have each their own curve; one in which nobody is has zeros."""
    rng = np.random.default_rng(1)
    demand = np.concatenate([np.full((64, 8), 50.0), rng.uniform(0, 100, (64, 60))], axis=1)
    demand[rng.random(demand.shape) < 0.2] = np.nan
    segment = np.repeat([0, 2], [8, 60])
    curve = learnt(demand, segment, np.full(68, 50.0))
    assert not curve[:2].any()
    # The difference of two uniform draws: its tenth lies at 100 x (sqrt(0.2) - 1).
    assert curve[2, 0, 0] * 50 == pytest.approx(-55, abs=8)
    assert curve[2, 0, 1] * 50 == pytest.approx(0, abs=8)


def test_a_horizon_beyond_the_window_takes_what_fits() -> None:
    """Sixteen rows know at most fifteen steps ahead."""
    demand = 10.0 * np.arange(16)[:, None]
    curve = learnt(demand, np.zeros(1, np.int64), np.ones(1), np.array([15, 100]))
    np.testing.assert_allclose(curve[0], 150)


@pytest.mark.parametrize("n_steps", [0, 1])
def test_without_two_rows_nothing_is_learnt(n_steps: int) -> None:
    """Zeros: last value as it is."""
    assert not learnt(np.ones((n_steps, 2)), np.zeros(2, np.int64), np.ones(2)).any()


def test_a_segment_of_gaps_teaches_nothing() -> None:
    """Series of which nothing is known leave zeros, not NaN."""
    assert not learnt(np.full((64, 2), np.nan), np.zeros(2, np.int64), np.ones(2)).any()


def test_a_large_segment_is_sampled_alike() -> None:
    """A sample of a thousand series tells the same quantiles, and the same seed the same ones."""
    demand = np.random.default_rng(2).uniform(0, 100, (64, 1000))
    one, other = (learnt(demand, np.zeros(1000, np.int64), np.ones(1000)) for _ in range(2))
    assert np.array_equal(one, other)
    assert one[0, 0].tolist() == pytest.approx([-55, 0, 55], abs=8)


def test_curves_are_laid_around_the_last_value() -> None:
    """Scaled by each level, never below 0; a segment not met before takes the last one's."""
    curves = ResidualCurves(np.array([[[-1.0, 0, 1]], [[-2.0, 0, 2]]]))
    last, scale = np.array([100, 100, 30], np.float32), np.array([10, 10, 20], np.float32)
    made = curves.around(last, scale, np.array([0, 1, 7]))
    assert made[:, 0].tolist() == [[90, 100, 110], [80, 100, 120], [0, 30, 70]]
