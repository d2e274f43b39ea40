"""The baselines against plain references, one series and one row at a time."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.baselines import (
    auto_bandwidth,
    heyp,
    last_value,
    mean_present,
    persistence_quantiles,
    seasonal_naive,
)
from forecasting.scoring import coverage, pinball_loss

RATES = st.lists(st.one_of(st.just(float("nan")), st.floats(0, 1e9, width=32)), min_size=1, max_size=60)


def plain_auto_bandwidth(series: list[float], step_s: float) -> float:
    """Max over the full 5-minute blocks of the last 15 minutes, else the mean of all."""
    size = round(300 / step_s)
    n_full = min(len(series) // size, 3)
    full = [series[len(series) - (i + 1) * size :][:size] for i in range(n_full)] or [series]
    means = [np.mean([v for v in b if not isnan(v)]) for b in full if any(not isnan(v) for v in b)]
    return float(max(means)) if means else float("nan")


@given(RATES, st.sampled_from([60.0, 30.0, 300.0]))
def test_auto_bandwidth_is_the_plain_one(series: list[float], step_s: float) -> None:
    """The vectorised estimate equals the one written as the vendors describe it."""
    demand = np.array(series, np.float32)[:, None]
    expected = plain_auto_bandwidth([float(v) for v in demand[:, 0]], step_s)
    assert auto_bandwidth(demand, step_s)[0] == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_a_young_history_is_averaged_whole() -> None:
    """With two minutes measured, auto-bandwidth is the mean of those two minutes."""
    assert auto_bandwidth(np.array([[10], [30]], np.float32), 60.0).tolist() == [20]


@given(RATES)
def test_last_value_mean_and_heyp_are_the_plain_ones(series: list[float]) -> None:
    """Each skips gaps, and says NaN only where there is nothing else."""
    demand = np.array(series, np.float32)[:, None]
    known = [float(v) for v in demand[:, 0] if not isnan(v)]
    recent = [float(v) for v in demand[-5:, 0] if not isnan(v)]
    nan = float("nan")
    assert last_value(demand)[0] == pytest.approx(known[-1] if known else nan, nan_ok=True)
    assert mean_present(demand)[0] == pytest.approx(np.mean(known) if known else nan, rel=1e-5, nan_ok=True)
    assert heyp(demand, 60.0)[0] == pytest.approx(max(recent) * 1.1 if recent else nan, rel=1e-5, nan_ok=True)


def test_baselines_of_nothing_are_nan() -> None:
    """No rows at all is a gap, not a zero."""
    nothing = np.empty((0, 2), np.float32)
    for value in (auto_bandwidth(nothing, 60.0), last_value(nothing), heyp(nothing, 60.0)):
        assert np.isnan(value).all()
        assert value.shape == (2,)


def test_seasonal_naive_takes_the_same_phase() -> None:
    """Two steps ahead in a period of four is the value two steps before the cutoff's period end."""
    demand = np.arange(8, dtype=np.float32)[:, None]
    assert seasonal_naive(demand, np.array([1, 4, 5]), 4).tolist() == [[4, 7, 4]]
    assert np.isnan(seasonal_naive(demand[:2], np.array([1]), 4)).all()


def test_persistence_spreads_by_its_own_past_misses() -> None:
    """Past residuals of -1, 0 and 1 scales give a median at the last value and a width of two."""
    residual = np.array([[-1.0], [0.0], [1.0], [np.nan]], np.float32)
    last, scale = np.array([10.0, 0.0], np.float32), np.array([2.0, 2.0], np.float32)
    made = persistence_quantiles(last, scale, residual, np.array([0.0, 0.5, 1.0]))
    assert made[:, 0].tolist() == [[8, 10, 12], [0, 0, 2]]
    unknown = persistence_quantiles(last, scale, residual[3:], np.array([0.5]))
    assert unknown[:, 0, 0].tolist() == [10, 0]


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(0.01, 0.99))
def test_pinball_is_its_definition(forecast: float, came: float, q: float) -> None:
    """Over-forecasting costs 1 - q per unit, under-forecasting q."""
    expected = q * (came - forecast) if came >= forecast else (1 - q) * (forecast - came)
    loss = pinball_loss(np.array([forecast]), np.array(came), np.array([q]))
    assert float(loss) == pytest.approx(expected, abs=1e-9)


def test_coverage_counts_known_truths_only() -> None:
    """A gap neither confirms nor refutes; without any truth coverage is NaN."""
    forecast = np.array([[1.0, 5.0], [1.0, 5.0], [1.0, 5.0]], np.float32)
    assert coverage(forecast, np.array([0.5, 3.0, np.nan], np.float32)).tolist() == [0.5, 1.0]
    assert np.isnan(coverage(forecast, np.full(3, np.nan, np.float32))).all()
