"""How bursty and how surprising a series is: bounded figures that ignore its size.

Everything here is scale-free (all rates times two gives the same answer) and
takes a gap for a gap. ``classes`` is the cheap one: it splits series into the
few kinds whose forecasts err alike.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.history import Floats

Classes = npt.NDArray[np.uint8]

#: What ``classes`` gives, by number.
CLASS_NAMES: Final = ("idle", "steady", "varying", "bursty")
IDLE, STEADY, VARYING, BURSTY = range(4)
#: At or below this share of its own mean a series is quiet.
QUIET_SHARE: Final = 0.1
#: A series is idle when at least this share of its samples is quiet.
IDLE_AT: Final = 0.9
#: Mean change from one step to the next, as a share of the mean, from which a series
#: is varying, and bursty. Measured: docs/archetypes.md.
VARYING_AT: Final = 0.1
BURSTY_AT: Final = 0.4
#: With fewer samples nothing is said, and a series counts as varying.
FEWEST_SAMPLES: Final = 3
#: Columns at once: their window stays in the CPU's cache.
_CHUNK: Final = 2048


def classes(demand_bps: Floats) -> Classes:
    """The kind of each series, shape (S,): an index into ``CLASS_NAMES``.

    Idle: nearly all samples quiet, or all zero. Else by the mean absolute step
    over the mean, which lies in 0 .. 2: steady below 0.1, bursty from 0.4 on,
    varying between. A slow swing is therefore steady, as its next step is well known.

    demand_bps : shape (T, S), >= 0; NaN is a gap.
    """
    result = np.empty(demand_bps.shape[1], np.uint8)
    for start in range(0, len(result), _CHUNK):
        part = slice(start, start + _CHUNK)
        result[part] = _classes(np.asarray(demand_bps[:, part], np.float32))
    return result


def _classes(demand: Floats) -> Classes:
    present = np.isfinite(demand)
    whole = bool(present.all())
    known = demand if whole else np.where(present, demand, np.float32(0))
    count = np.count_nonzero(present, axis=0)
    mean = known.sum(axis=0) / np.maximum(count, 1)
    quiet = known <= np.float32(QUIET_SHARE) * mean
    with np.errstate(invalid="ignore"):
        step = np.abs(demand[1:] - demand[:-1])
    if whole:
        pairs = np.full(len(count), max(len(demand) - 1, 1))
    else:
        quiet &= present
        pair = np.isfinite(step)
        step = np.where(pair, step, np.float32(0))
        pairs = np.maximum(np.count_nonzero(pair, axis=0), 1)
    # Multiplied out, so that a mean of 0 needs no exception.
    change = step.sum(axis=0) / pairs
    result = np.full(len(count), STEADY, np.uint8)
    result[change >= VARYING_AT * mean] = VARYING
    result[change >= BURSTY_AT * mean] = BURSTY
    result[np.count_nonzero(quiet, axis=0) >= IDLE_AT * count] = IDLE
    result[count < FEWEST_SAMPLES] = VARYING
    return result
