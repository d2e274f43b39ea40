"""ETS and ARIMA through their one protocol; skipped where their extra is not installed."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from forecasting.quantile_model import ModelFailed
from forecasting.statistical import MIN_SAMPLES, Arima, Ets, SeriesModel

QUANTILE = np.array([0.1, 0.5, 0.9])
AHEAD = np.array([1, 4])

needs_extra = pytest.mark.skipif(
    importlib.util.find_spec("statsforecast") is None,
    reason="statsforecast is not installed: pip install 'tidegate[arima]'",
)


@pytest.fixture(params=[Ets, Arima], scope="module")
def model(request: pytest.FixtureRequest) -> SeriesModel:
    made: SeriesModel = request.param()
    return made


def wandering(n_steps: int, n_series: int, seed: int = 0) -> np.ndarray:
    """Random walks of the logarithm: what comes next lies around the last value."""
    rng = np.random.default_rng(seed)
    return np.exp(14 + np.cumsum(rng.normal(0, 0.1, (n_steps, n_series)), axis=0)).astype(np.float32)


@needs_extra
def test_each_series_gets_rising_quantiles_around_its_last_value(model: SeriesModel) -> None:
    """The shape is (S, H, K), and a random walk is forecast where it stands."""
    demand = wandering(80, 6)
    forecast = model.forecast(demand, AHEAD, QUANTILE)
    assert forecast.shape == (6, 2, 3)
    assert forecast.dtype == np.float32
    assert (np.diff(forecast, axis=2) > 0).all()
    assert (forecast >= 0).all()
    assert np.abs(np.log(forecast[:, :, 1] / demand[-1][:, None])).max() < 0.4


@needs_extra
def test_bands_widen_ahead_and_hold_what_they_promise(model: SeriesModel) -> None:
    """About four of five truths lie between the 10 % and the 90 % quantile."""
    demand = wandering(84, 40, seed=1)
    forecast = model.forecast(demand[:80], AHEAD, QUANTILE)
    width = np.log(forecast[:, :, 2] / forecast[:, :, 0])
    assert (width[:, 1] > width[:, 0]).mean() > 0.8
    truth = demand[79 + AHEAD].T
    inside = (forecast[:, :, 0] <= truth) & (truth <= forecast[:, :, 2])
    assert 0.6 < inside.mean() < 0.95


@needs_extra
def test_a_gap_is_bridged_and_too_few_samples_are_not_forecast(model: SeriesModel) -> None:
    """Missing is not zero: a gap does not pull the forecast down, and no history is no forecast."""
    demand = wandering(60, 3, seed=2)
    demand[20:30, 0] = np.nan
    demand[-2:, 0] = np.nan
    demand[: 60 - MIN_SAMPLES + 1, 1] = np.nan
    demand[:, 2] = np.nan
    forecast = model.forecast(demand, AHEAD, QUANTILE)
    assert forecast[0, 0, 1] > 0.5 * np.nanmin(demand[:, 0])
    assert np.isnan(forecast[1:]).all()


@needs_extra
def test_series_that_do_not_move_are_forecast_as_they_are(model: SeriesModel) -> None:
    """A constant and a silent series have no spread."""
    demand = np.tile(np.array([5e6, 0.0], np.float32), (40, 1))
    forecast = model.forecast(demand, AHEAD, QUANTILE)
    assert (forecast[0] == 5e6).all()
    assert (forecast[1] == 0).all()


@needs_extra
def test_series_do_not_depend_on_one_another(model: SeriesModel) -> None:
    """A series alone is forecast as among others."""
    demand = wandering(60, 3, seed=3)
    among = model.forecast(demand, AHEAD, QUANTILE)
    alone = model.forecast(demand[:, 1:2], AHEAD, QUANTILE)
    assert np.array_equal(alone[0], among[1])


@pytest.mark.parametrize("make", [Ets, Arima])
def test_without_the_library_the_error_names_the_extra(
    make: type[SeriesModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for ETS on a bare installation reads what to install."""
    monkeypatch.setitem(sys.modules, "statsforecast", None)
    with pytest.raises(ModelFailed, match=r"pip install 'tidegate\[arima\]'"):
        make()
