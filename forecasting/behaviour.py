"""How a series behaves, as the vector by which series are told apart."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.burstiness import measure
from forecasting.history import Floats

Doubles = npt.NDArray[np.float64]

DAY_S: Final = 86_400.0
#: Parts of the day, hours from and until.
DAY_PARTS: Final = {"night": (0, 6), "work": (8, 18), "evening": (18, 24)}
_FIGURES: Final = (
    "burstiness",
    "peakiness",
    "idle_share",
    "entropy",
    "variance_short",
    "variance_long",
)
#: The columns of ``behaviour``.
BEHAVIOUR: Final = ("log_mean", *_FIGURES, *DAY_PARTS)
#: A rate below this is as good as none.
FLOOR_BPS: Final = 1e3


def behaviour(demand_bps: Floats, step_s: float, end_time: float, utc_offset_s: float = 0.0) -> Doubles:
    """One row a series, shape (S, len(BEHAVIOUR)); NaN rows where there are too few samples.

    ``log_mean`` is log10 of the mean and 1 kbit/s, the figures are those of ``Burstiness``, and
    ``night``, ``work`` and ``evening`` are shares of a day's demand: NaN with less than a day.

    Parameters
    ----------
    demand_bps : shape (T, S)   >= 0; NaN is a gap.
    end_time :                  Epoch seconds at which the last row ended.
    utc_offset_s :              What local time is ahead of UTC.
    """
    present = np.isfinite(demand_bps)
    known = np.where(present, demand_bps, np.float32(0))
    count = np.count_nonzero(present, axis=0)
    mean = known.sum(axis=0, dtype=np.float64) / np.maximum(count, 1)
    figures = measure(demand_bps)
    columns = [np.log10(mean + FLOOR_BPS), *(getattr(figures, name) for name in _FIGURES)]
    columns += _day_shares(known, present, step_s, end_time + utc_offset_s)
    result = np.column_stack(columns).astype(np.float64)
    result[np.isnan(figures.burstiness)] = np.nan
    return result


def _day_shares(
    known: Floats, present: npt.NDArray[np.bool_], step_s: float, end_local: float
) -> list[Doubles]:
    n_steps, n_series = known.shape
    n_days = int(n_steps * step_s // DAY_S)
    if n_days == 0:
        return [np.full(n_series, np.nan) for _ in DAY_PARTS]
    # Whole days only: a part that is in the window twice would weigh double.
    rows = min(round(n_days * DAY_S / step_s), n_steps)
    middle = end_local - (np.arange(rows, 0, -1) - 0.5) * step_s
    hour = middle % DAY_S / 3600
    hourly = []
    for first, until in DAY_PARTS.values():
        inside = (hour >= first) & (hour < until)
        total = known[-rows:][inside].sum(axis=0, dtype=np.float64)
        samples = np.count_nonzero(present[-rows:][inside], axis=0)
        # The mean of what was measured, over the whole part: gaps take nothing from it.
        hourly.append(total / np.maximum(samples, 1) * (until - first))
    whole = known[-rows:].sum(axis=0, dtype=np.float64)
    samples = np.maximum(np.count_nonzero(present[-rows:], axis=0), 1)
    day = whole / samples * 24
    # Silence has no habit: it counts as spread evenly.
    even = [(until - first) / 24 for first, until in DAY_PARTS.values()]
    return [
        np.where(day > 0, np.minimum(part / np.where(day > 0, day, 1), 1), share)
        for part, share in zip(hourly, even, strict=True)
    ]
