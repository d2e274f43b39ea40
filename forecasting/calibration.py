"""Quantiles that mean what they say, corrected online.

Quantile tracking: if more than 90 % of what came lay below the 90 % quantile,
it moves down a little, else up. One offset per level, horizon and quantile,
in units of each series' own spread, so that a quiet and a busy series share
it. See Gibbs and Candes (2021) and Angelopoulos, Candes and Tibshirani (2023)
for why this holds coverage under any drift.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.history import Floats, Ints
from forecasting.quantiles import nearest

Doubles = npt.NDArray[np.float64]

#: Offsets stay within this many spreads: past it the model, not its calibration, is wrong.
MAX_OFFSET: Final = 10.0
#: A spread is at least this share of the median, so that a forecast too sure
#: of itself to have any width can still be corrected.
MIN_SPREAD: Final = 0.02
#: A miss by less than this is not a miss.
TIE_BPS: Final = 1.0
#: Levels with few series learn more slowly: their misses are mostly noise.
SHRINK_SERIES: Final = 4.0


def spread(demand_bps: Floats, median: int) -> Floats:
    """The unit in which each quantile is moved, shape (..., K) as given.

    Its distance from the median; for those near the median the distance
    between its neighbours, where that is more. So the long tail of a bursty series says
    nothing about how far off its median can be.

    demand_bps : shape (..., K); median : which of the K is, or is nearest to, the median.
    """
    n = demand_bps.shape[-1]
    middle = demand_bps[..., median]
    least = np.float32(MIN_SPREAD) * middle
    wide = np.empty_like(demand_bps)
    for k in range(n):
        gap = demand_bps[..., min(k + 1, n - 1)] - demand_bps[..., max(k - 1, 0)]
        away = np.abs(demand_bps[..., k] - middle)
        wide[..., k] = np.maximum(np.maximum(gap, away), least)
    return wide


class Calibration:
    """Offsets of shape (L, H, K), learnt from what came."""

    def __init__(self, quantile: Doubles, horizon_steps: Ints, rate: float) -> None:
        self._quantile = np.asarray(quantile, np.float64)
        self._median = nearest(self._quantile)
        # Forecasts h steps ahead miss together h times in a row: that is one surprise, not h.
        self._rate = rate / np.sqrt(np.asarray(horizon_steps, np.float64))
        self.offset: Doubles = np.zeros((0, len(self._rate), len(self._quantile)))

    def apply(self, demand_bps: Floats, level: Ints) -> Floats:
        """The calibrated quantiles, >= 0 and not crossing; works in place.

        demand_bps : shape (n, H, K); level : shape (n,).
        """
        self._reach(level)
        if self.offset.any():
            demand_bps += spread(demand_bps, self._median) * self.offset.astype(np.float32)[level]
        np.maximum(demand_bps, 0, out=demand_bps)
        # Values that offsets pushed past a neighbour take the neighbour's place.
        demand_bps.sort(axis=-1)
        return demand_bps

    def update(self, horizon: int, forecast_bps: Floats, realised_bps: Floats, level: Ints) -> None:
        """Learn from forecasts, as issued, that have come due.

        Parameters
        ----------
        horizon :                      Index of the horizon, 0 .. H-1.
        forecast_bps : shape (n, K)
        realised_bps : shape (n,)      NaN where nothing was measured or the sample was censored.
        level : shape (n,)
        """
        known = np.isfinite(realised_bps)
        rate = self._rate[horizon]
        if not known.any() or rate == 0:
            return
        self._reach(level)
        came, made, of = realised_bps[known, None], forecast_bps[known], level[known]
        below = np.where(came < made, 1.0, 0.0)
        # An idle series meets its quantiles to the bit, or nearly: no evidence either way.
        below = np.where(np.abs(came - made) <= TIE_BPS, self._quantile, below)
        for one in np.unique(of):
            miss = self._quantile - below[of == one]
            weight = len(miss) / (len(miss) + SHRINK_SERIES)
            moved = self.offset[one, horizon] + rate * weight * miss.mean(axis=0)
            self.offset[one, horizon] = np.clip(moved, -MAX_OFFSET, MAX_OFFSET)

    def _reach(self, level: Ints) -> None:
        """Make room for levels that have not been seen before."""
        needed = int(level.max(initial=-1)) + 1 - len(self.offset)
        if needed > 0:
            self.offset = np.concatenate([self.offset, np.zeros((needed, *self.offset.shape[1:]))])
