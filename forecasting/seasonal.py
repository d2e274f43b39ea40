"""What demand was at the same time yesterday and a week ago.

A single measurement of yesterday is mostly noise, and a week of steps is too
much to carry for every series. So the past is kept as means over blocks of a
quarter of an hour, and read between the middles of two blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

#: Length of a block, seconds; steps longer than this are blocks themselves.
BLOCK_S: Final = 900.0
DAY_S: Final = 86_400.0
WEEK_S: Final = 7 * DAY_S
#: How far back the seasons lie, seconds.
SEASONS_S: Final = (DAY_S, WEEK_S)


@dataclass(frozen=True)
class Blocks:
    """Mean demand over consecutive blocks of time, aligned to the epoch.

    Raises
    ------
    ValueError : when the block is not > 0 or the means have no two axes.
    """

    #: shape (B, S), bit/s, oldest first; NaN where nothing was measured.
    mean_bps: Floats
    #: The first block covers epoch seconds [first x block_s, (first + 1) x block_s).
    first: int
    block_s: float

    def __post_init__(self) -> None:
        if not self.block_s > 0:
            raise ValueError(f"block_s must be > 0, got {self.block_s!r}")
        if self.mean_bps.ndim != 2:
            raise ValueError(f"mean_bps must have shape (B, S), got {self.mean_bps.shape}")

    def pick(self, series: npt.NDArray[np.intp]) -> Blocks:
        """The same blocks for some series, given by their columns."""
        return replace(self, mean_bps=self.mean_bps[:, series])

    def at(self, middle: Doubles, series: Ints | None = None) -> Floats:
        """Demand at moments of the past, between the middles of the two nearest blocks.

        Parameters
        ----------
        middle : shape (m,) or (m, n)   Epoch seconds.
        series : shape (n,)             Columns; all where absent.

        Returns
        -------
        shape (m, n), bit/s; NaN where neither block was measured.
        """
        columns = np.arange(self.mean_bps.shape[1]) if series is None else series
        place = np.asarray(middle, np.float64) / self.block_s - 0.5 - self.first
        if place.ndim == 1:
            place = place[:, None]
        low = np.floor(place)
        share = (place - low).astype(np.float32)
        before, after = (self._block(low + step, columns) for step in (0, 1))
        mixed = before + (after - before) * share
        return np.where(np.isnan(before), after, np.where(np.isnan(after), before, mixed))

    def _block(self, index: Doubles, columns: Ints) -> Floats:
        inside = (index >= 0) & (index < len(self.mean_bps))
        if not len(self.mean_bps):
            return np.full(np.broadcast_shapes(index.shape, columns.shape), np.nan, np.float32)
        row = np.where(inside, index, 0).astype(np.int64)
        return np.where(inside, self.mean_bps[row, columns], np.float32(np.nan))


def block_s_for(step_s: float) -> float:
    """The length of a block for steps of this length, seconds."""
    return max(BLOCK_S, step_s)


def blocks_of(demand_bps: Floats, step_s: float, end_time: float) -> Blocks:
    """The block means of demand on a grid of steps; the last row ended at ``end_time``.

    demand_bps : shape (T, S), NaN is a gap and counts in no mean.
    """
    block_s = block_s_for(step_s)
    n_steps, n_series = demand_bps.shape
    if n_steps == 0:
        return Blocks(np.empty((0, n_series), np.float32), 0, block_s)
    middle = end_time - (np.arange(n_steps - 1, -1, -1) + 0.5) * step_s
    block = np.floor(middle / block_s).astype(np.int64)
    first, n_blocks = int(block[0]), int(block[-1] - block[0]) + 1
    starts = np.flatnonzero(np.diff(block, prepend=block[0] - 1))
    known = ~np.isnan(demand_bps)
    total = np.add.reduceat(np.where(known, demand_bps, np.float32(0)), starts, axis=0)
    count = np.add.reduceat(known, starts, axis=0, dtype=np.int32)
    mean = np.full((n_blocks, n_series), np.nan, np.float32)
    with np.errstate(invalid="ignore"):
        mean[block[starts] - first] = total / np.where(count > 0, count, np.nan)
    return Blocks(mean, first, block_s)


def moments(end_time: Doubles | float, horizon_steps: Ints, step_s: float) -> Doubles:
    """The middles of the steps whose past counts, shape (len(SEASONS_S), H + 1, n), epoch seconds.

    For each season the step that ends at the cutoff, then the targets, all so much earlier.

    end_time : shape (n,) or one for all.
    """
    ahead = np.concatenate([[0], horizon_steps])[None, :, None] * step_s - step_s / 2
    season = np.asarray(SEASONS_S)[:, None, None]
    # Whole seasons, so many that the two blocks around the moment had ended at the cutoff.
    back = np.maximum(np.ceil((ahead + 2 * block_s_for(step_s)) / season), 1) * season
    return np.asarray(np.atleast_1d(end_time)[None, None, :] + ahead - back, np.float64)


def recalled(blocks: Blocks, end_time: Doubles | float, horizon_steps: Ints, step_s: float,
             series: Ints | None = None) -> Floats:  # fmt: skip
    """Demand one day and one week before the cutoff and each target.

    Parameters
    ----------
    end_time : shape (n,) or one for all   Epoch seconds of the cutoff.
    horizon_steps : shape (H,)
    series : shape (n,)                    Columns of the blocks; all where absent.

    Returns
    -------
    shape (len(SEASONS_S), H + 1, n), bit/s; NaN where unknown.
    """
    n_series = blocks.mean_bps.shape[1] if series is None else len(series)
    when = moments(end_time, horizon_steps, step_s)
    result = np.empty((*when.shape[:2], n_series), np.float32)
    for season in range(when.shape[0]):
        result[season] = blocks.at(when[season], series)
    return result
