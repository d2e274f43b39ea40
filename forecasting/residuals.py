"""Persistence with honest quantiles: the last value plus what usually came on top of it.

Residuals of a segment are pooled over its series, each in units of its own
recent level, so that a few windows already tell their quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.history import Floats, Ints

Doubles = npt.NDArray[np.float64]

#: Series and cutoffs of a segment that are looked at.
MAX_SERIES: Final = 64
MAX_CUTOFFS: Final = 12


@dataclass(frozen=True)
class ResidualCurves:
    """Quantiles of (what came - last value) / level."""

    #: shape (G, H, K); zeros for segments that nobody is in.
    curve: Doubles

    def around(self, last_bps: Floats, scale_bps: Floats, segment: Ints) -> Floats:
        """Last value plus residual quantiles, >= 0, shape (n, H, K), bit/s; arguments of shape (n,)."""
        inside = np.minimum(segment, len(self.curve) - 1)
        made = self.curve[inside].astype(np.float32)
        made *= scale_bps[:, None, None]
        made += last_bps[:, None, None]
        result: Floats = np.maximum(made, 0, out=made)
        return result


def learn_residuals(
    demand_bps: Floats,
    able: Ints,
    segment: Ints,
    scale_bps: Floats,
    horizon_steps: Ints,
    quantile: Doubles,
    rng: np.random.Generator,
) -> ResidualCurves:
    """Residual curves by segment, from the window.

    A horizon that the window cannot hold takes the longest that fits.

    Parameters
    ----------
    demand_bps : shape (W, S)   NaN is a gap.
    able : shape (n,)           Columns to learn from.
    segment, scale_bps : shape (n,)
    """
    n_steps = len(demand_bps)
    curve = np.zeros((int(segment.max(initial=-1)) + 1, len(horizon_steps), len(quantile)))
    if n_steps < 2:
        return ResidualCurves(curve)
    for one in np.unique(segment):
        rows = np.flatnonzero(segment == one)
        if len(rows) > MAX_SERIES:
            rows = rng.choice(rows, MAX_SERIES, replace=False)
        columns = able[rows]
        for horizon, ahead in enumerate(horizon_steps):
            reach = min(int(ahead), n_steps - 1)
            stride = max((n_steps - reach) // MAX_CUTOFFS, 1)
            cutoffs = np.arange(n_steps - reach - 1, -1, -stride)[:MAX_CUTOFFS, None]
            came, last = demand_bps[cutoffs + reach, columns], demand_bps[cutoffs, columns]
            residual = (came - last) / scale_bps[rows]
            known = residual[np.isfinite(residual)]
            if known.size:
                curve[one, horizon] = np.quantile(known.astype(np.float64), quantile)
    return ResidualCurves(curve)
