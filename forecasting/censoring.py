"""What would have been asked for, had nothing stood in the way.

A censored sample says only "at least this much". What it hid is taken from
the series itself, in two ways, whichever says more:

- It stayed below its own recent peak. If demand lies anywhere between what
  was offered and that peak, its mean is half-way.
- It is pinned for several steps. TCP backs off under a policer, so offered
  load keeps hiding demand; each further censored step raises the estimate by
  a fixed ratio. Additive growth would take minutes at 100 Mbit/s and
  overshoot at 100 kbit/s.

Both are bounded by a multiple of what was really offered, so an estimate can
not feed on the grants that it causes. The scan runs forward in time, so a row
depends on no later row.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from forecasting.history import Bools, Floats

#: Longer runs of censored samples raise no further.
_LONGEST_RUN: Final = 64
#: Series worked on at once: they stay in the CPU's cache.
_CHUNK_SERIES: Final = 4096


def unconstrained(
    demand_bps: Floats,
    censored: Bools,
    *,
    growth: float = 0.1,
    max_raise: float = 2.0,
    peak_halflife_steps: float = 32.0,
) -> Floats:
    """An estimate of demand where samples understate it; the rest untouched.

    Parameters
    ----------
    demand_bps : shape (T, S)   Offered load, oldest first; NaN is a gap and stays one.
    censored : shape (T, S)     True where the sample understates demand.
    growth :                    Raise per consecutive censored step, >= 0.
    max_raise :                 Bound on estimate / offered, >= 1.
    peak_halflife_steps :       How fast an uncensored peak is forgotten, > 0.

    Returns
    -------
    shape (T, S), bit/s; each at least what was offered and at most
    ``max_raise`` times that. The input itself when nothing is censored.

    Raises
    ------
    ValueError : if a bound above is broken.
    """
    for name, value, rule, holds in (
        ("growth", growth, ">= 0", growth >= 0),
        ("max_raise", max_raise, ">= 1", max_raise >= 1),
        ("peak_halflife_steps", peak_halflife_steps, "> 0", peak_halflife_steps > 0),
    ):
        if not holds:
            raise ValueError(f"{name} must be {rule}, got {value!r}")
    touched = np.flatnonzero(censored.any(axis=0))
    if touched.size == 0:
        return demand_bps
    # A table, since raising to a power is the dearest thing a row would do.
    raised_by = np.power(np.float32(1 + growth), np.arange(_LONGEST_RUN + 1, dtype=np.float32))
    decay = np.float32(math.exp2(-1.0 / peak_halflife_steps))
    result = demand_bps.copy()
    for start in range(0, demand_bps.shape[1], _CHUNK_SERIES):
        members = touched[slice(*np.searchsorted(touched, (start, start + _CHUNK_SERIES)))]
        if members.size == 0:
            continue
        # Where most are touched, a plain slice costs less than picking them out: the others stay as they are.
        dense = 2 * members.size > min(_CHUNK_SERIES, demand_bps.shape[1] - start)
        part = slice(start, start + _CHUNK_SERIES) if dense else members
        result[:, part] = _scan(
            demand_bps[:, part], censored[:, part], raised_by, decay, np.float32(max_raise)
        )
    return result


def _scan(
    offered: Floats, censored: Bools, raised_by: Floats, decay: np.float32, max_raise: np.float32
) -> Floats:
    estimate = offered.copy()
    peak = np.zeros(offered.shape[1], np.float32)
    run = np.zeros(offered.shape[1], np.intp)
    for row, pinned in enumerate(censored):
        now = offered[row]
        seen = ~np.isnan(now)
        peak *= decay
        # A gap neither ends a run nor prolongs it: nothing was seen.
        run = np.where(seen, np.where(pinned, run + 1, 0), run)
        if pinned.any():
            half_way = (now + np.maximum(peak, now)) / 2
            grown = now * raised_by[np.minimum(run, _LONGEST_RUN)]
            raised = np.minimum(np.maximum(half_way, grown), now * max_raise)
            np.copyto(estimate[row], raised, where=pinned & seen)
        peak = np.where(seen & ~pinned, np.fmax(peak, now), peak)
    return estimate
