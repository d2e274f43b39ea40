"""Figures that stand beside a forecast for readers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.coverage import Coverage
from forecasting.forecast import Forecast

F64 = npt.NDArray[np.float64]

#: Shown as confidence: that demand stays within this share of its median.
CONFIDENCE_BAND: Final = 0.2


def coverage_of(coverage: Iterable[Coverage], level: int, forecast: Forecast) -> F64 | None:
    """Share of the last day's truths below each quantile, of one level, shape (2, H, K); None: not known.

    ``level`` is that of upload, as the forecaster numbers levels; download's is the next.
    """
    place = {horizon_s: at for at, horizon_s in enumerate(forecast.horizon_s.tolist())}
    found = np.full((2, len(place), len(forecast.quantile)), np.nan)
    for one in coverage:
        if one.level in (level, level + 1) and one.horizon_s in place:
            found[one.level - level, place[one.horizon_s]] = one.day
    return None if np.isnan(found).all() else found
