"""Online calibration: reaches its coverage, never crosses, skips what is not known."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forecasting.calibration import MAX_OFFSET, Calibration, spread
from forecasting.scoring import coverage

QUANTILE = np.array([0.1, 0.5, 0.9])
#: One horizon, the next step.
ONE_STEP = np.array([1])
ZERO = np.zeros(400, np.int64)


def raw(n: int) -> np.ndarray:
    """The same forecast for each, far too narrow: 9, 10 and 11 Mbit/s."""
    return np.tile(np.array([9e6, 10e6, 11e6], np.float32), (n, 1, 1))


def test_a_narrow_forecast_widens_until_it_covers() -> None:
    """Truth spreads three times as wide as forecast; after 300 steps each quantile covers its share."""
    rng = np.random.default_rng(0)
    calibration = Calibration(QUANTILE, ONE_STEP, 0.1)
    for _ in range(300):
        issued = calibration.apply(raw(400), ZERO)
        came = rng.normal(11e6, 3e6, 400).astype(np.float32)
        calibration.update(0, issued[:, 0], came, ZERO)
    issued = calibration.apply(raw(400), ZERO)[:, 0]
    came = rng.normal(11e6, 3e6, 400).astype(np.float32)
    assert np.abs(coverage(issued, came) - QUANTILE).max() < 0.05


@given(
    arrays(np.float64, (2, 1, 3), elements=st.floats(-MAX_OFFSET, MAX_OFFSET)),
    arrays(np.float32, (4, 1, 3), elements=st.floats(0, 2.0**40, width=32)),
)
def test_offsets_never_make_quantiles_cross(offset: np.ndarray, demand: np.ndarray) -> None:
    """Whatever was learnt, what comes out rises and is not negative."""
    calibration = Calibration(QUANTILE, ONE_STEP, 0.05)
    calibration.offset = offset
    made = calibration.apply(np.sort(demand, axis=-1), np.array([0, 1, 0, 1]))
    assert (made >= 0).all()
    assert (np.diff(made, axis=-1) >= 0).all()


def test_what_is_not_known_teaches_nothing() -> None:
    """Gaps, and idle series that meet their zero quantiles exactly, move no offset."""
    calibration = Calibration(QUANTILE, ONE_STEP, 0.05)
    calibration.update(0, raw(400)[:, 0], np.full(400, np.nan, np.float32), ZERO)
    calibration.update(0, np.zeros((400, 3), np.float32), np.zeros(400, np.float32), ZERO)
    assert not calibration.offset.any()
    still = Calibration(QUANTILE, ONE_STEP, 0.0)
    still.update(0, raw(400)[:, 0], np.full(400, 5e7, np.float32), ZERO)
    assert not still.offset.any()


def test_levels_and_horizons_learn_apart() -> None:
    """What one level misses at one horizon moves nothing else."""
    calibration = Calibration(QUANTILE, np.array([1, 2]), 0.05)
    calibration.update(1, raw(400)[:, 0], np.full(400, 5e7, np.float32), ZERO + 2)
    assert calibration.offset.shape == (3, 2, 3)
    assert (calibration.offset[2, 1] > 0).all()
    assert not calibration.offset[:2].any()
    assert not calibration.offset[2, 0].any()


def test_offsets_are_bounded() -> None:
    """A truth that is always far above does not push the offset beyond its bound."""
    calibration = Calibration(QUANTILE, ONE_STEP, 1.0)
    for _ in range(100):
        calibration.update(0, raw(400)[:, 0], np.full(400, 1e12, np.float32), ZERO)
    assert (calibration.offset <= MAX_OFFSET).all()


def test_spread_is_local_and_never_nothing() -> None:
    """Each quantile's neighbours say its width; a forecast without width still has a little."""
    assert spread(np.array([1e6, 2e6, 9e6], np.float32), 1).tolist() == [1e6, 8e6, 7e6]
    assert (spread(np.full(3, 1e6, np.float32), 1) > 0).all()


def test_far_horizons_learn_more_slowly() -> None:
    """Forecasts sixteen steps ahead miss together: each moves the offset a quarter as far as one step ahead."""
    calibration = Calibration(QUANTILE, np.array([1, 16]), 0.05)
    for horizon in (0, 1):
        calibration.update(horizon, raw(400)[:, 0], np.full(400, 5e7, np.float32), ZERO)
    np.testing.assert_allclose(calibration.offset[0, 1], calibration.offset[0, 0] / 4)


def test_few_series_learn_more_slowly() -> None:
    """The misses of one series are mostly noise."""
    few, many = (Calibration(QUANTILE, ONE_STEP, 0.05) for _ in range(2))
    for calibration, n in ((few, 1), (many, 400)):
        calibration.update(0, raw(n)[:, 0], np.full(n, 5e7, np.float32), ZERO[:n])
    np.testing.assert_allclose(few.offset / many.offset, (1 / 5) / (400 / 404))
