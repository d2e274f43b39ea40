"""ETS and ARIMA, fitted anew to each series at each forecast; an optional extra.

For comparison, and for a handful of series at most: they learn from one series
at a time, so they cost seconds where the global model costs milliseconds.
Both fit ``log(1 + demand / mean)``: demand is skewed and never negative, and
normal quantiles of demand itself were worse on bursty links by two thirds.
"""

from __future__ import annotations

import warnings
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from forecasting.history import Floats, Ints
from forecasting.quantile_model import ModelFailed

#: Samples below which there is nothing to fit.
MIN_SAMPLES: Final = 12
#: The band, percent, that the library is asked for; normal quantiles follow from its width.
BAND_PERCENT: Final = 80
#: A trend in logarithms carried far ahead must not overflow.
LARGEST_LOG: Final = 20.0

F64 = npt.NDArray[np.float64]


class SeriesModel(Protocol):
    """Forecasts each series from its own past alone; keeps nothing between two calls."""

    def forecast(self, demand_bps: Floats, horizon_steps: Ints, quantile: F64) -> Floats:
        """Quantiles of each series at each horizon.

        demand_bps : shape (T, S), NaN is a gap; the last row is the cutoff.
        horizon_steps : shape (H,), >= 1. quantile : shape (K,), inside (0, 1).

        Gives shape (S, H, K), bit/s, >= 0, not falling along K; NaN for a
        series with fewer than ``MIN_SAMPLES`` samples or that could not be fitted.
        """


class Ets:
    """Exponential smoothing with additive errors on the log scale; trend and damping by AICc.

    Raises
    ------
    ModelFailed : when statsforecast is not installed.
    """

    def __init__(self) -> None:
        # Additive errors have their band in closed form and may meet zeros; a
        # season of a day does not fit in a window.
        self._model: Any = _library().AutoETS(season_length=1, model="AZN")

    def forecast(self, demand_bps: Floats, horizon_steps: Ints, quantile: F64) -> Floats:
        """As the protocol says."""
        return _each_series(self._model, demand_bps, horizon_steps, quantile)


class Arima:
    """ARIMA without season, its order by stepwise search on AICc.

    Raises
    ------
    ModelFailed : when statsforecast is not installed.
    """

    def __init__(self, *, max_order: int = 2) -> None:
        self._model: Any = _library().AutoARIMA(
            max_p=max_order, max_q=max_order, max_d=1, seasonal=False, approximation=True
        )

    def forecast(self, demand_bps: Floats, horizon_steps: Ints, quantile: F64) -> Floats:
        """As the protocol says."""
        return _each_series(self._model, demand_bps, horizon_steps, quantile)


def _library() -> Any:
    try:
        from statsforecast import models  # takes seconds, and is optional
    except ImportError:
        raise ModelFailed("ETS and ARIMA need statsforecast: pip install 'tidegate[arima]'") from None
    return models


def _each_series(model: Any, demand_bps: Floats, horizon_steps: Ints, quantile: F64) -> Floats:
    result = np.full((demand_bps.shape[1], len(horizon_steps), len(quantile)), np.nan, np.float32)
    with warnings.catch_warnings():
        # A search that stops early still gives a forecast, and says so once per series.
        warnings.simplefilter("ignore")
        for index, series in enumerate(demand_bps.T):
            known = np.isfinite(series)
            if np.count_nonzero(known) >= MIN_SAMPLES:
                result[index] = _one_series(model, _without_gaps(series, known), horizon_steps, quantile)
    return result


def _one_series(model: Any, series: F64, horizon_steps: Ints, quantile: F64) -> Floats:
    scale = float(np.abs(series).mean())
    if np.ptp(series) <= 1e-9 * scale:
        # A constant has no likelihood to search, and its forecast is known.
        return np.full((len(horizon_steps), len(quantile)), series[-1], np.float32)
    try:
        found = model.forecast(np.log1p(series / scale), h=int(horizon_steps[-1]), level=[BAND_PERCENT])
    except Exception:  # noqa: BLE001 - the library documents no kinds of errors, and others may still fit
        return np.full((len(horizon_steps), len(quantile)), np.nan, np.float32)
    mean = np.asarray(found["mean"], np.float64)[horizon_steps - 1]
    upper = np.asarray(found[f"hi-{BAND_PERCENT}"], np.float64)[horizon_steps - 1]
    sigma = np.maximum(upper - mean, 0) / ndtri(0.5 + BAND_PERCENT / 200)
    normal = mean[:, None] + sigma[:, None] * ndtri(quantile)
    demand: F64 = np.expm1(np.clip(normal, 0, LARGEST_LOG)) * scale
    return demand.astype(np.float32)


def _without_gaps(series: Floats, known: npt.NDArray[np.bool_]) -> F64:
    """From the first sample on, with straight lines across gaps: both models need every step.

    A gap at the end holds the last sample, as nothing is known beyond it.
    """
    step = np.arange(len(series))
    first = int(np.argmax(known))
    return np.interp(step[first:], step[known], series[known].astype(np.float64))
