"""Features: right by hand, blind to the future, at ease with gaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forecasting.features import (
    LEVEL_FLOOR_BPS,
    NAMES,
    FeatureRows,
    FeatureSpec,
    best_period,
    feature_rows,
    recurring_periods,
)
from tests.forecasting.traffic import recurring

SPEC = FeatureSpec(step_s=5.0, window_steps=16, periods=(4,), use_day=True)
AHEAD = np.array([1, 6])


def rows_of(demand: np.ndarray, spec: FeatureSpec = SPEC, end_time: float = 0.0) -> FeatureRows:
    return feature_rows(demand, np.zeros(demand.shape, np.bool_), end_time, AHEAD, spec)


def column(rows: FeatureRows, name: str) -> np.ndarray:
    """One feature, shape (n, H)."""
    return rows.x[:, NAMES.index(name)].reshape(-1, len(AHEAD))


def test_features_by_hand() -> None:
    """On a ramp of 16 steps every feature is what a reader computes on paper."""
    ramp = (np.arange(1, 17, dtype=np.float32) * 1e6)[:, None]
    rows = rows_of(ramp, end_time=6 * 3600 - 5)
    scale = rows.scale_bps[0]
    assert scale == pytest.approx((8.5e6 + 12.5e6) / 2)
    assert column(rows, "lag_0")[0] * scale == pytest.approx([16e6, 16e6])
    assert column(rows, "lag_5")[0] * scale == pytest.approx([11e6, 11e6])
    assert column(rows, "mean_4")[0] * scale == pytest.approx([14.5e6, 14.5e6])
    assert column(rows, "max_8")[0] * scale == pytest.approx([16e6, 16e6])
    assert column(rows, "std_8")[0, 0] * scale == pytest.approx(np.std(np.arange(8)) * 1e6, rel=1e-4)
    assert column(rows, "trend_8")[0, 0] * scale == pytest.approx(4e6)
    assert column(rows, "since_sample_steps")[0].tolist() == [0, 0]
    assert column(rows, "horizon_steps")[0].tolist() == [1, 6]
    # One step ahead, a period of 4 back: 3 rows before the cutoff. Six ahead: two periods, 2 before.
    assert column(rows, "one_period_ago")[0] * scale == pytest.approx([13e6, 14e6])
    assert column(rows, "periods_ago_mean")[0] * scale == pytest.approx([11e6, 12e6])
    assert column(rows, "day_sin")[0, 0] == pytest.approx(1)
    assert np.isnan(column(rows, "week_sin")).all()


@given(st.integers(12, 40))
def test_nothing_after_the_cutoff_matters(cutoff: int) -> None:
    """Everything after the cutoff may change: the features do not."""
    demand = recurring(48, 5)
    changed = demand.copy()
    changed[cutoff:] = 1e12
    before, after = rows_of(demand[:cutoff]), rows_of(changed[:cutoff])
    assert np.array_equal(before.x, after.x, equal_nan=True)


@given(st.floats(0.01, 1000))
def test_features_do_not_depend_on_the_unit(factor: float) -> None:
    """A series a hundred times larger looks the same to the model, but for its level."""
    demand = recurring(32, 4)
    one, other = rows_of(demand), rows_of((demand * np.float32(factor)).astype(np.float32))
    alike = [i for i, name in enumerate(NAMES) if name != "log_level"]
    np.testing.assert_allclose(one.x[:, alike], other.x[:, alike], rtol=1e-3, atol=2e-3)


def test_a_series_means_the_same_in_any_company() -> None:
    """Features of a series do not depend on its neighbours or its column."""
    demand = recurring(32, 6)
    whole, turned = rows_of(demand), rows_of(demand[:, ::-1])
    x = whole.x.reshape(6, len(AHEAD), -1)
    np.testing.assert_array_equal(x[::-1], turned.x.reshape(6, len(AHEAD), -1))


def test_a_short_window_reads_as_gaps_before_it() -> None:
    """Ten rows give what ten rows after six gaps give."""
    demand = recurring(10, 3)
    padded = np.concatenate([np.full((6, 3), np.nan, np.float32), demand])
    assert np.array_equal(rows_of(demand).x, rows_of(padded).x, equal_nan=True)
    assert rows_of(demand).n_present.tolist() == [10, 10, 10]


@given(arrays(np.float32, (16, 3), elements=st.one_of(st.just(np.nan), st.floats(0, 2.0**40, width=32))))
def test_any_window_gives_a_scale_and_an_origin(demand: np.ndarray) -> None:
    """Gaps and spikes leave the target's unit finite, and the way there and back the identity."""
    rows = rows_of(demand)
    assert (rows.scale_bps >= LEVEL_FLOOR_BPS).all()
    assert np.isfinite(rows.origin_bps).all()
    assert not np.isinf(rows.x).any()
    wanted = np.full((3, len(AHEAD)), 5e6, np.float32)
    back = rows.from_target(rows.to_target(wanted).reshape(-1, 1))[:, :, 0]
    room = 1e-4 * np.maximum(np.maximum(rows.scale_bps, rows.origin_bps)[:, None], 5e6)
    assert (np.abs(back - wanted) <= room).all()


def test_the_time_since_a_sample_is_counted() -> None:
    """Three gaps at the end are three steps without news; only gaps are a whole window of it."""
    demand = recurring(16, 2)
    demand[-3:, 0] = np.nan
    demand[:, 1] = np.nan
    rows = rows_of(demand)
    assert rows.since_sample.tolist() == [3, 16]
    assert rows.n_present.tolist() == [13, 0]


def test_the_shared_period_is_found_among_noise_and_gaps() -> None:
    """Traffic that recurs every 12 steps says so; noise and constants have no period."""
    demand = recurring(96, 40)
    demand[np.random.default_rng(1).random(demand.shape) < 0.1] = np.nan
    assert set(recurring_periods(demand, 64)) & {12, 24}
    rng = np.random.default_rng(2)
    assert recurring_periods(np.full((64, 5), 3e6, np.float32), 64) == ()
    assert recurring_periods(rng.lognormal(0, 1, (4, 5)).astype(np.float32), 64) == ()


def test_each_series_takes_its_own_period() -> None:
    """Of two periods offered, each series gets the one it follows; too long ones are passed over."""
    steps = np.arange(48)
    both = np.stack([np.sin(2 * np.pi * steps / 6), np.sin(2 * np.pi * steps / 8)], axis=1)
    period, strength = best_period(both.astype(np.float32), (6, 8, 99))
    assert period.tolist() == [6, 8]
    assert (strength > 0.9).all()
    assert best_period(both.astype(np.float32), ())[0].tolist() == [0, 0]
