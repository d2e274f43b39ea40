"""Confidence: the calibrated probability that demand stays within a band of the point forecast.

One definition for everybody who asks how sure a forecast is:

    confidence = P(|D - m| <= max(band x m, floor)), m being the median.

D follows the calibrated quantiles. Between two of them probability is spread evenly, and quantiles
that are equal hold an atom. Beyond the outermost it falls off exponentially, at the rate at which it
does from the median up or down to there; what would lie below no demand is no demand.

Over the next horizon it is the confidence of its least certain step. That demand stays in the band at
every step is at most so likely; how steps err together is not known, so there is no figure for that itself.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.quantiles import nearest

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

#: So many scales out in a tail there is nothing left that a double could add to 1.
_TAIL_END: Final = 40.0
#: Series at once: what is in between stays in the CPU's cache.
_CHUNK: Final = 1024


def probability_below(forecast_bps: Floats, quantile: Doubles, demand_bps: npt.ArrayLike) -> Doubles:
    """P(D <= demand), shape (S, H); an atom at the demand counts whole.

    Parameters
    ----------
    forecast_bps : shape (S, H, K)   Quantiles, >= 0, not falling along K.
    quantile : shape (K,)            Rising, inside (0, 1).
    demand_bps : shape (S, H)        Or anything that broadcasts to it.
    """
    return _below(forecast_bps, quantile, np.asarray(demand_bps, np.float64), whole=True)


def confidence(forecast_bps: Floats, quantile: Doubles, band: float, floor_bps: float = 0.0) -> Doubles:
    """P(|D - m| <= max(band x m, floor_bps)), shape (S, H), in [0, 1]; m is the quantile nearest 0.5.

    Parameters
    ----------
    forecast_bps : shape (S, H, K)   Quantiles, >= 0, not falling along K.
    quantile : shape (K,)            Rising, inside (0, 1).
    band :                           Share of the point forecast, >= 0: 0.2 is "within 20 %".
    floor_bps :                      The band is at least so wide to either side: a few kbit/s either
                                     way are no error of an idle series. >= 0.

    Raises
    ------
    ValueError : if a bound of ``band`` or ``floor_bps`` is broken.
    """
    for name, value in (("band", band), ("floor_bps", floor_bps)):
        if not 0 <= value < np.inf:
            raise ValueError(f"{name} must be >= 0 and finite, got {value!r}")
    result = np.empty(forecast_bps.shape[:-1])
    for start in range(0, len(result), _CHUNK):
        part = slice(start, start + _CHUNK)
        fan = forecast_bps[part]
        median = fan[..., nearest(quantile)].astype(np.float64)
        width = np.maximum(band * median, floor_bps)
        # The band holds both its ends.
        inside = _below(fan, quantile, median + width, whole=True)
        inside -= _below(fan, quantile, median - width, whole=False)
        np.clip(inside, 0, 1, out=result[part])
    return result


def _below(forecast_bps: Floats, quantile: Doubles, demand: Doubles, *, whole: bool) -> Doubles:
    """P(D <= demand) if ``whole``, else P(D < demand): they differ by the atom that lies there."""
    middle, last = nearest(quantile), len(quantile) - 1
    # Rates of exponential laws that have the outermost quantiles where they are.
    falls = np.log(quantile[middle] / quantile[0]), np.log((1 - quantile[middle]) / (1 - quantile[last]))
    rate_low, rate_high = (fall if fall > 0 else 1.0 for fall in falls)
    left = forecast_bps[..., 0].astype(np.float64)
    median = forecast_bps[..., middle].astype(np.float64)
    # Where the median is itself the outermost, its own size is the scale.
    scale = median - left if middle > 0 else median
    started = demand >= 0 if whole else demand > 0
    result = started * quantile[0] * np.exp(-rate_low * _passed(left - demand, scale, met=not whole))
    for k in range(last):
        right = forecast_bps[..., k + 1].astype(np.float64)
        part = np.minimum(_passed(demand - left, right - left, met=whole), 1)
        result += (quantile[k + 1] - quantile[k]) * part
        left = right
    scale = left - median if middle < last else median
    result -= (1 - quantile[last]) * np.expm1(-rate_high * _passed(demand - left, scale, met=whole))
    return np.asarray(result)


def _passed(distance: Doubles, width: Doubles, *, met: bool) -> Doubles:
    """Distance in widths, from 0 to ``_TAIL_END``; an atom met exactly, 0 / 0, is behind if ``met``."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = distance / width
    # fmin and fmax pass over NaN, whichever comes first.
    if met:
        return np.asarray(np.maximum(np.fmin(ratio, _TAIL_END), 0))
    return np.asarray(np.minimum(np.fmax(ratio, 0), _TAIL_END))
