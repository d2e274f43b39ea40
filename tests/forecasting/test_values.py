"""Settings, history and the forecast value: what they refuse and what they give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forecasting.forecast import Forecast
from forecasting.history import History, clean
from forecasting.settings import ForecastSettings
from tests.forecasting.traffic import history_of, recurring

BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"step_s": 0.0}, "step_s must be > 0, got 0.0"),
    ({"horizons_s": ()}, "horizons_s must be rising"),
    ({"horizons_s": (90.0,)}, "horizons_s must be positive multiples of step_s 60"),
    ({"quantiles": (0.5, 0.5)}, "quantiles must be rising"),
    ({"quantiles": (0.5, 1.0)}, r"quantiles must lie inside \(0, 1\)"),
    (
        {"model": "prophet"},
        "model must be one of ensemble, catboost, network, hist_gradient_boosting, lstm, got 'prophet'",
    ),
    ({"min_history_steps": 65}, "min_history_steps must lie in 2 .. window_steps 64, got 65"),
    ({"holdout_share": 0.9}, "holdout_share must lie in"),
    ({"threads": 0}, "threads must be >= 1, got 0"),
]


@pytest.mark.parametrize(("values", "message"), BROKEN)
def test_broken_settings_name_the_rule_and_the_value(values: dict[str, Any], message: str) -> None:
    """A setting outside its bounds is refused in one line that says which, why and what."""
    with pytest.raises(ValueError, match=message):
        ForecastSettings(**values)


def test_horizons_are_counted_in_steps() -> None:
    """Fifteen one-minute horizons are rows 1 to 15 after the cutoff."""
    assert ForecastSettings().horizon_steps.tolist() == list(range(1, 16))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"demand_bps": np.zeros(3)}, r"demand_bps must have shape \(T, S\)"),
        ({"censored": np.zeros((2, 2), bool)}, "censored must have shape"),
        ({"step_s": 0.0}, "step_s must be > 0"),
        ({"level": np.zeros(9, int)}, r"level must have shape \(3,\)"),
        ({"level": np.array([0, -1, 0])}, "level must be >= 0"),
    ],
)
def test_history_refuses_shapes_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    """A caller's mistake is told at once, not found later in a wrong column."""
    good: dict[str, Any] = {"demand_bps": np.zeros((2, 3)), "censored": np.zeros((2, 3), bool)}
    good |= {"step_s": 5.0, "end_time": 0.0}
    with pytest.raises(ValueError, match=message):
        History(**{**good, **values})


def test_parts_of_a_history_keep_their_time_and_names() -> None:
    """The oldest rows end earlier; the latest rows end when the whole does."""
    history = history_of(recurring(10, 3), end_time=1000.0, series_id=np.array([7, 8, 9]))
    assert history.until(4).end_time == 1000.0 - 6 * 5
    assert history.until(4).n_steps == history.tail(4).n_steps == 4
    assert history.tail(4).end_time == 1000.0
    assert history.tail(99).n_steps == 10
    assert history.pick(np.array([2])).series_id.tolist() == [9]


@given(arrays(np.float32, (5, 3), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)))
def test_cleaned_rates_are_bounded_or_gaps(demand: np.ndarray) -> None:
    """Whatever comes in, what goes on is a rate in bounds or NaN; good rates are untouched."""
    cleaned = clean(demand, 1e10)
    known = cleaned[~np.isnan(cleaned)]
    assert ((known >= 0) & (known <= 1e10)).all()
    good = np.isfinite(demand) & (demand >= 0) & (demand <= 1e10)
    assert np.array_equal(cleaned[good], demand[good])
    assert np.isnan(cleaned[~np.isfinite(demand) | (demand < 0)]).all()


def _forecast(demand: np.ndarray) -> Forecast:
    return Forecast(
        np.array([0.1, 0.5, 0.9]), np.array([60.0, 120.0]), demand, np.zeros(len(demand), np.uint8)
    )


def test_a_forecast_answers_by_horizon_and_quantile() -> None:
    """``at`` picks one, ``peak`` the highest over the horizons, ``peak_curve`` that for each quantile."""
    forecast = _forecast(np.array([[[1, 2, 6], [0, 3, 5]]], np.float32))
    assert forecast.at(120, 0.5).tolist() == [3]
    assert forecast.peak(0.9).tolist() == [6]
    assert forecast.peak_curve().tolist() == [[1, 3, 6]]
    with pytest.raises(ValueError, match=r"horizon_s must be one of 60, 120, got 90"):
        forecast.at(90, 0.5)
    with pytest.raises(ValueError, match=r"quantile must be one of 0.1, 0.5, 0.9, got 0.7"):
        forecast.peak(0.7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_forecast_refuses_what_is_no_forecast(bad: float) -> None:
    """NaN, infinite, negative or crossing quantiles cannot be made into a forecast."""
    for k in range(3):
        demand = np.tile(np.array([1, 2, 3], np.float32), (2, 2, 1))
        demand[1, 0, k] = bad
        with pytest.raises(ValueError, match="must be finite, >= 0"):
            _forecast(demand)
    with pytest.raises(ValueError, match="must have shape"):
        _forecast(np.zeros((2, 1, 3), np.float32))
