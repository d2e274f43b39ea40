"""A forecast for those about whom little is known: as the others of their level.

Pooled quantiles of what other series did after a stretch of a few samples,
in units of that stretch's mean. A newcomer with two samples gets the curve
of stretches of two; one with none gets the level's plain distribution. One
archetype per level; splitting a level by kind of user can come later without
changing what is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.history import Floats, Ints

#: Numbers of own samples for which a curve is kept; a newcomer takes the largest it can fill.
SAMPLES: Final = (0, 1, 2, 4, 8)
#: Fewer peers than this are not a population.
MIN_PEERS: Final = 3
#: Peers and cutoffs looked at per level: enough for a q98 of a pooled sample.
MAX_PEERS: Final = 256
MAX_CUTOFFS: Final = 16
#: Share of the level's median demand added to both sides of a ratio: idle
#: stretches would make it infinite otherwise.
EASE: Final = 0.05


@dataclass(frozen=True)
class Archetypes:
    """Curves per level; ``nan`` where a level has too few peers."""

    #: shape (L, len(SAMPLES), H, K); ratios, or bit/s in the row of 0 samples.
    curve: npt.NDArray[np.float64]
    #: shape (L,), bit/s.
    ease_bps: npt.NDArray[np.float64]

    def forecast(self, demand_bps: Floats, level: Ints) -> Floats:
        """Quantiles of shape (n, H, K), bit/s; NaN for levels without an archetype.

        demand_bps : shape (T, n), what the newcomers have; NaN where nothing.
        """
        recent = demand_bps[-SAMPLES[-1] :]
        present = ~np.isnan(recent)
        count = np.count_nonzero(present, axis=0)
        mean = np.where(present, recent, 0).sum(axis=0, dtype=np.float64) / np.maximum(count, 1)
        bucket = np.searchsorted(SAMPLES, count, side="right") - 1
        known = level < len(self.curve)
        at = np.where(known, level, 0)
        if len(self.curve) == 0:
            return np.full((len(level), *self.curve.shape[2:]), np.nan, np.float32)
        own = bucket > 0
        unit = np.where(own, mean + self.ease_bps[at], 1.0)[:, None, None]
        ease = np.where(own, self.ease_bps[at], 0.0)[:, None, None]
        result = np.maximum(self.curve[at, bucket] * unit - ease, 0)
        result[~known] = np.nan
        return np.asarray(result, np.float32)


def learn_archetypes(
    demand_bps: Floats,
    level: Ints,
    is_peer: npt.NDArray[np.bool_],
    horizon_steps: Ints,
    quantile: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> Archetypes:
    """Archetypes of each level, from the series that have history.

    Horizons that reach beyond the window use the longest that fits.

    Parameters
    ----------
    demand_bps : shape (T, S)   NaN is a gap.
    level : shape (S,)          >= 0.
    is_peer : shape (S,)        True for series with enough history to learn from.
    """
    n_levels = int(level.max(initial=-1)) + 1
    curve = np.full((n_levels, len(SAMPLES), len(horizon_steps), len(quantile)), np.nan)
    ease = np.zeros(n_levels)
    for one in range(n_levels):
        peers = np.flatnonzero(is_peer & (level == one))
        if len(peers) < MIN_PEERS or demand_bps.shape[0] < 2:
            continue
        if len(peers) > MAX_PEERS:
            peers = rng.choice(peers, MAX_PEERS, replace=False)
        curve[one], ease[one] = _curves(demand_bps[:, peers], horizon_steps, quantile)
    return Archetypes(curve, ease)


def _curves(
    demand: Floats, horizon_steps: Ints, quantile: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], float]:
    n_steps = demand.shape[0]
    ease = max(EASE * float(np.nanmedian(demand)), 1.0) if not np.isnan(demand).all() else 1.0
    curve = np.full((len(SAMPLES), len(horizon_steps), len(quantile)), np.nan)
    for row, n_samples in enumerate(SAMPLES):
        for column, ahead in enumerate(horizon_steps):
            # A young window cannot hold both; the shorter stretch is still a fair sample.
            stretch = min(max(n_samples, 1), n_steps - 1)
            reach = min(int(ahead), n_steps - stretch)
            cutoffs = _spread_out(stretch - 1, n_steps - reach)
            came = demand[cutoffs + reach].astype(np.float64)
            if n_samples > 0:
                before = demand[cutoffs[:, None] - np.arange(stretch)].astype(np.float64)
                came = (came + ease) / (before.mean(axis=1) + ease)
            known = came[np.isfinite(came)]
            if known.size:
                curve[row, column] = np.quantile(known, quantile)
    return curve, ease


def _spread_out(first: int, stop: int) -> Ints:
    """At most ``MAX_CUTOFFS`` rows in [first, stop), evenly spaced, the latest among them."""
    stride = max((stop - first) // MAX_CUTOFFS, 1)
    return np.arange(stop - 1, first - 1, -stride, dtype=np.int64)[:MAX_CUTOFFS]
