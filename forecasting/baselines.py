"""What a forecast has to beat, and what stands in for one."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from forecasting.history import Floats, Ints


def mean_present(demand_bps: Floats) -> Floats:
    """Mean over the rows that were measured, shape (S,); NaN where none was."""
    total = np.where(np.isnan(demand_bps), 0, demand_bps).sum(axis=0, dtype=np.float64)
    count = np.count_nonzero(~np.isnan(demand_bps), axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def last_value(demand_bps: Floats) -> Floats:
    """The latest measurement of each series, shape (S,); NaN where there is none.

    demand_bps : shape (T, S), NaN where nothing was measured.
    """
    latest = np.full(demand_bps.shape[1], np.nan, np.float32)
    for row in demand_bps[::-1]:
        missing = np.isnan(latest)
        if not missing.any():
            break
        latest[missing] = row[missing]
    return latest


def auto_bandwidth(
    demand_bps: Floats, step_s: float, *, mean_s: float = 300.0, window_s: float = 900.0
) -> Floats:
    """Max of 5-minute means over the last 15 minutes, shape (S,).

    As router vendors do for label-switched paths. Blocks are counted back
    from the latest row; an older block that is not full is left out, unless it
    is all there is: then it is the mean of the whole history. NaN where nothing
    was measured in that time.

    demand_bps : shape (T, S), NaN where nothing was measured.
    """
    block = max(math.floor(mean_s / step_s + 0.5), 1)
    n_steps = demand_bps.shape[0]
    n_blocks = max(min(math.floor(window_s / mean_s + 0.5), n_steps // block), 1)
    best = np.full(demand_bps.shape[1], np.nan, np.float32)
    for index in range(n_blocks):
        stop = n_steps - index * block
        best = np.fmax(best, mean_present(demand_bps[max(stop - block, 0) : stop]))
    return best


def heyp(demand_bps: Floats, step_s: float, *, window_s: float = 300.0, headroom: float = 1.1) -> Floats:
    """1.1 times the largest of the last samples, shape (S,); NaN where there is none.

    The estimator of the HEYP host agents (NSDI 2022).

    demand_bps : shape (T, S), NaN where nothing was measured.
    """
    rows = max(math.floor(window_s / step_s + 0.5), 1)
    recent = demand_bps[-rows:]
    if recent.shape[0] == 0:
        return np.full(demand_bps.shape[1], np.nan, np.float32)
    largest: Floats = np.fmax.reduce(recent, axis=0) * np.float32(headroom)
    return largest


def persistence_quantiles(
    last_bps: Floats,
    scale_bps: Floats,
    residual: Floats,
    quantile: npt.NDArray[np.float64],
) -> Floats:
    """Last value plus the quantiles of past residuals: the honest naive forecast.

    Parameters
    ----------
    last_bps : shape (n,)        Latest measurement.
    scale_bps : shape (n,)       What residuals are multiplied by.
    residual : shape (m, H)      Past (what came - last value) / scale; NaN is skipped.
    quantile : shape (K,)

    Returns
    -------
    shape (n, H, K), bit/s, >= 0.
    """
    curve = np.stack([_quantiles(column, quantile) for column in residual.T])
    shifted = last_bps[:, None, None] + scale_bps[:, None, None] * curve[None]
    return np.maximum(shifted, 0).astype(np.float32)


def _quantiles(values: Floats, quantile: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    known = values[np.isfinite(values)]
    if known.size == 0:
        return np.zeros(len(quantile))
    return np.asarray(np.quantile(known.astype(np.float64), quantile))


def window_quantiles(demand_bps: Floats, quantile: npt.NDArray[np.float64]) -> Floats:
    """The empirical quantiles of each series' own window, shape (S, K); NaN where nothing was measured.

    demand_bps : shape (T, S), NaN where nothing was measured.
    """
    ordered = np.sort(demand_bps, axis=0)  # puts NaN last
    last = np.count_nonzero(~np.isnan(demand_bps), axis=0) - 1
    place = np.maximum(last, 0)[:, None] * np.asarray(quantile)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(last, 0)[:, None])
    series = np.arange(demand_bps.shape[1])[:, None]
    before, after = ordered[low, series], ordered[high, series]
    return np.asarray(before + (after - before) * (place - low), np.float32)


def seasonal_naive(demand_bps: Floats, horizon_steps: Ints, period_steps: int) -> Floats:
    """The value one period before each target, shape (S, H); NaN before the first row.

    The weakest of the baselines on most traffic: a win over it proves little.
    """
    n_steps, n_series = demand_bps.shape
    result = np.full((n_series, len(horizon_steps)), np.nan, np.float32)
    for column, ahead in enumerate(horizon_steps):
        row = n_steps - 1 + int(ahead) - math.ceil(ahead / period_steps) * period_steps
        if row >= 0:
            result[:, column] = demand_bps[row]
    return result
