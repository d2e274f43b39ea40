"""The recent past of every series, as the planner reads it each tick.

Time is cut into steps of one width. A row of the ring is one step, a column
one series, so "the last hour of everything" is one block copy. A step holds
the mean of what was seen of it, weighted by the seconds seen; NaN where
nothing was seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_Kind = TypeVar("_Kind", bound=np.generic)

#: Rows beyond the capacity: the step under way, and the next one for a sensor whose clock runs ahead.
_OPEN_STEPS = 2
#: Marks a row that holds no step; below every step number in use.
_EMPTY = np.iinfo(np.int64).min
#: What a float32 can hold; a rate beyond it is no rate.
_MOST_BPS = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Window:
    """Demand of all series over consecutive steps, oldest first.

    ``demand_bps`` and ``censored`` have shape (n_steps, n_series). NaN is a
    gap: a step in which nothing was measured. The last row ends at
    ``end_time``, epoch seconds.
    """

    step_s: float
    end_time: float
    demand_bps: F32
    censored: Bools

    def __post_init__(self) -> None:
        if self.demand_bps.ndim != 2 or self.demand_bps.shape != self.censored.shape:
            raise ValueError(
                "demand_bps and censored must share one shape (n_steps, n_series), "
                f"got {self.demand_bps.shape} and {self.censored.shape}"
            )

    @property
    def times(self) -> F64:
        """End of each step, epoch seconds, shape (n_steps,)."""
        behind: F64 = np.arange(len(self.demand_bps) - 1, -1, -1, dtype=np.float64)
        return self.end_time - self.step_s * behind


@dataclass(frozen=True)
class _Samples:
    """Usable samples of one batch, all columns of shape (n,)."""

    series: I64
    rate_bps: F64
    interval_s: F64
    censored: Bools

    def where(self, keep: Bools) -> _Samples:
        if keep.all():
            return self
        return _Samples(self.series[keep], self.rate_bps[keep], self.interval_s[keep], self.censored[keep])


class SeriesRing:
    """A ring of fixed-width steps for a growing set of series.

    Not safe for threads: the planner's loop owns it, others get windows.

    Parameters
    ----------
    step_s :           Width of a step, > 0.
    capacity_steps :   Complete steps remembered, >= 1.
    n_series :         Columns to begin with, >= 0.
    """

    def __init__(self, step_s: float, capacity_steps: int, n_series: int) -> None:
        if not (math.isfinite(step_s) and step_s > 0):
            raise ValueError(f"step_s must be > 0, got {step_s}")
        if capacity_steps < 1:
            raise ValueError(f"capacity_steps must be >= 1, got {capacity_steps}")
        if n_series < 0:
            raise ValueError(f"n_series must be >= 0, got {n_series}")
        self.step_s = step_s
        self.capacity_steps = capacity_steps
        self.n_series = n_series
        #: Samples refused because their time or interval cannot be used.
        self.dropped = 0
        self._step_of_row = np.full(capacity_steps + _OPEN_STEPS, _EMPTY, dtype=np.int64)
        self._allocate(n_series)

    def add(
        self,
        time: float,
        series: npt.ArrayLike,
        rate_bps: npt.ArrayLike,
        interval_s: npt.ArrayLike,
        censored: npt.ArrayLike,
        *,
        now: float,
    ) -> None:
        """Take in the samples of one poll.

        A sample is the mean rate over the ``interval_s`` before ``time`` and
        weighs in each step by the seconds that it covers there. A rate of NaN
        is a gap and changes nothing. Samples older than the ring, or of the
        step after the next, are counted in ``dropped``; so are rates and
        intervals that no counter can give (negative, infinite).

        Parameters
        ----------
        time :                      When the poll was answered, epoch seconds.
        series : shape (n,)         Columns, 0 <= series < n_series, in any order.
        rate_bps : shape (n,)       Offered load, >= 0, NaN for a gap.
        interval_s : shape (n,)     Seconds measured, > 0; a scalar holds for all.
        censored : shape (n,)       Whether the rate understates demand.
        now :                       The planner's clock, epoch seconds.

        Raises
        ------
        ValueError : if shapes differ or a series has no column.
        """
        samples = _as_samples(series, rate_bps, interval_s, censored)
        if len(samples.series) == 0:
            return
        low, high = samples.series.min(), samples.series.max()
        if low < 0 or high >= self.n_series:
            raise ValueError(f"series must be in 0..{self.n_series - 1}, got {low}..{high}")
        newest = self._step_at(now) + 1
        self._forget_after(newest)
        if not self._holds(time, newest):
            self.dropped += len(samples.series)
            return
        sound = self._sound(samples)
        if len(sound.series):
            self._spread(time, sound, newest)

    def window(self, now: float, steps: int, series: I64 | None = None) -> Window:
        """The last ``steps`` complete steps at ``now``, a copy; of these series, or of all.

        Raises
        ------
        ValueError : if ``steps`` is not in 1..capacity_steps, or a series is not in 0..n_series - 1.
        """
        if not 1 <= steps <= self.capacity_steps:
            raise ValueError(f"steps must be in 1..{self.capacity_steps}, got {steps}")
        end = self._step_at(now)
        wanted = np.arange(end - steps, end, dtype=np.int64)
        rows = wanted % len(self._step_of_row)
        demand, censored = self._rows(self._mean_bps, rows, series), self._rows(self._censored, rows, series)
        # A row is reused only when a later step needs it, so it may still hold an older lap.
        stale = self._step_of_row[rows] != wanted
        demand[stale] = np.nan
        censored[stale] = False
        return Window(self.step_s, self.last_end(now), demand, censored)

    def means(self, now: float, steps: I64, series: I64 | None = None) -> F32:
        """Mean demand in these steps, a copy; of these series, or of all.

        Parameters
        ----------
        steps : shape (n,)   Numbers of steps: step i covers epoch seconds [i x step_s, (i + 1) x step_s).

        Returns
        -------
        shape (n, n_series), bit/s; NaN for steps that the ring holds no more, or not yet to their end.

        Raises
        ------
        ValueError : if a series is not in 0..n_series - 1.
        """
        rows = steps % len(self._step_of_row)
        means = self._rows(self._mean_bps, rows, series)
        means[(self._step_of_row[rows] != steps) | (steps >= self._step_at(now))] = np.nan
        return means

    @property
    def steps_held(self) -> int:
        """Steps of which anything was noted and is still here, the one under way among them."""
        return int(np.count_nonzero(self._step_of_row != _EMPTY))

    def last_end(self, now: float) -> float:
        """When the last complete step at ``now`` ended: the ``end_time`` of a window asked for now."""
        return self._step_at(now) * self.step_s

    def view(self, now: float) -> Window:
        """All complete steps remembered at ``now``, a copy."""
        return self.window(now, self.capacity_steps)

    def grow(self, n_series: int) -> None:
        """Make room for series n_series - 1 and below; new columns are gaps.

        Raises
        ------
        ValueError : if that would take columns away.
        """
        if n_series < self.n_series:
            raise ValueError(f"n_series cannot shrink from {self.n_series}, got {n_series}")
        if n_series > self._mean_bps.shape[1]:
            old_mean, old_weight, old_censored = self._mean_bps, self._seen_s, self._censored
            # Users turn up one by one; half as much again keeps the copies few.
            self._allocate(max(n_series, self.n_series + self.n_series // 2))
            self._mean_bps[:, : self.n_series] = old_mean[:, : self.n_series]
            self._seen_s[:, : self.n_series] = old_weight[:, : self.n_series]
            self._censored[:, : self.n_series] = old_censored[:, : self.n_series]
        self.n_series = n_series

    def clear(self, series: I64) -> None:
        """Forget all of these series: their columns are given to others.

        Raises
        ------
        ValueError : if a series is not in 0..n_series - 1.
        """
        self._check(series)
        self._mean_bps[:, series] = np.nan
        self._seen_s[:, series] = 0.0
        self._censored[:, series] = False

    def restore(self, window: Window, series: I64 | None = None, *, over: bool = False) -> None:
        """Put back a window read from the store, after a restart: of these series, or of all.

        Only steps that the ring has not seen itself are taken, unless it is to be written ``over`` what
        was seen; steps of the window that are NaN never are. Of a window longer than the ring, the end.

        Raises
        ------
        ValueError : if its steps or series are not this ring's.
        """
        columns = np.arange(self.n_series) if series is None else series
        self._check(columns)
        if window.step_s != self.step_s or window.demand_bps.shape[1] != len(columns):
            raise ValueError(
                f"window must have steps of {self.step_s} s and {len(columns)} series, "
                f"got {window.step_s} s and {window.demand_bps.shape[1]}"
            )
        end = round(window.end_time / self.step_s)
        taken = min(len(window.demand_bps), self.capacity_steps)
        for behind in range(taken, 0, -1):
            row = self._claim(end - behind)
            if row is None:
                continue
            demand, flags = window.demand_bps[-behind], window.censored[-behind]
            fresh = np.flatnonzero((over | (self._seen_s[row, columns] == 0)) & ~np.isnan(demand))
            to = columns[fresh]
            self._mean_bps[row, to] = demand[fresh]
            self._censored[row, to] = flags[fresh]
            self._seen_s[row, to] = self.step_s

    def _allocate(self, columns: int) -> None:
        shape = (len(self._step_of_row), columns)
        self._mean_bps: F32 = np.full(shape, np.nan, dtype=np.float32)
        self._seen_s: F32 = np.zeros(shape, dtype=np.float32)
        self._censored: Bools = np.zeros(shape, dtype=np.bool_)

    def _rows(self, values: npt.NDArray[_Kind], rows: I64, series: I64 | None) -> npt.NDArray[_Kind]:
        """A copy of some rows, of these columns or of all."""
        if series is None:
            return values[:, : self.n_series][rows]
        self._check(series)
        found = np.empty((len(rows), len(series)), values.dtype)
        # Row by row into place: five times as fast as an index over both axes. The bounds were
        # checked above; mode "raise" would go through a buffer of its own.
        for to, row in enumerate(rows.tolist()):
            np.take(values[row], series, out=found[to], mode="clip")
        return found

    def _check(self, series: I64) -> None:
        if len(series) and not (series.min() >= 0 and series.max() < self.n_series):
            raise ValueError(f"series must be in 0..{self.n_series - 1}, got {series.min()}..{series.max()}")

    def _step_at(self, time: float) -> int:
        return math.floor(time / self.step_s)

    def _holds(self, time: float, newest: int) -> bool:
        if not math.isfinite(time):
            return False
        return newest - len(self._step_of_row) < _last_step(time, self.step_s) <= newest

    def _forget_after(self, newest: int) -> None:
        # After a clock was set back, steps that lie in the future are another day's data under
        # these numbers; left alone they would be mixed with what comes next.
        self._step_of_row[self._step_of_row > newest] = _EMPTY

    def _sound(self, samples: _Samples) -> _Samples:
        """The samples that say something; impossible ones are counted."""
        rate_bps, interval_s = samples.rate_bps, samples.interval_s
        possible = (rate_bps >= 0) & (rate_bps <= _MOST_BPS) & (interval_s > 0) & np.isfinite(interval_s)
        self.dropped += int(np.count_nonzero(~possible & ~np.isnan(rate_bps)))
        return samples.where(possible)

    def _spread(self, time: float, samples: _Samples, newest: int) -> None:
        """Share the samples out over the steps that they cover."""
        last = _last_step(time, self.step_s)
        covered_since = self._step_at(time - samples.interval_s.max())
        oldest = max(covered_since, newest - len(self._step_of_row) + 1)
        for step in range(last, oldest - 1, -1):
            from_start_s = time - step * self.step_s
            after_end_s = max(from_start_s - self.step_s, 0.0)
            samples = samples.where(samples.interval_s > after_end_s)
            # Rounding may put a time on a boundary into the step that it only touches.
            row = self._claim(step) if from_start_s > 0 else None
            if row is not None and len(samples.series):
                self._blend(row, samples, np.minimum(samples.interval_s, from_start_s) - after_end_s)

    def _claim(self, step: int) -> int | None:
        """The row for this step, emptied of an older lap; None if a newer one has it."""
        row = step % len(self._step_of_row)
        held = int(self._step_of_row[row])
        if held > step:
            return None
        if held < step:
            self._mean_bps[row] = np.nan
            self._seen_s[row] = 0.0
            self._censored[row] = False
            self._step_of_row[row] = step
        return row

    def _blend(self, row: int, samples: _Samples, covered_s: F64) -> None:
        """Move the means of one step towards the samples, by the seconds that each adds."""
        series, rate_bps, censored = samples.series, samples.rate_bps, samples.censored
        if (series[1:] <= series[:-1]).any():
            # Assigning through an index keeps only the last of two equal ones, so join them first.
            series, joined = np.unique(series, return_inverse=True)
            weighted = np.bincount(joined, weights=rate_bps * covered_s)
            censored = np.bincount(joined, weights=censored) > 0
            covered_s = np.bincount(joined, weights=covered_s).astype(np.float64)
            rate_bps = weighted / covered_s
        seen_s = self._seen_s[row, series] + covered_s
        mean_bps = self._mean_bps[row, series].astype(np.float64)
        unseen = np.isnan(mean_bps)
        mean_bps[unseen] = rate_bps[unseen]
        mean_bps += (rate_bps - mean_bps) * (covered_s / seen_s)
        self._mean_bps[row, series] = mean_bps
        self._seen_s[row, series] = seen_s
        self._censored[row, series] |= censored


def _last_step(time: float, step_s: float) -> int:
    """The step in which something that ended at ``time`` last was.

    On a boundary that is the step before: what ended there covered no second
    of the next.
    """
    return math.ceil(time / step_s) - 1


def _as_samples(
    series: npt.ArrayLike, rate_bps: npt.ArrayLike, interval_s: npt.ArrayLike, censored: npt.ArrayLike
) -> _Samples:
    columns = np.asarray(series, dtype=np.int64)
    rates = np.asarray(rate_bps, dtype=np.float64)
    seconds = np.asarray(interval_s, dtype=np.float64)
    flags = np.asarray(censored, dtype=np.bool_)
    if seconds.ndim == 0:
        seconds = np.broadcast_to(seconds, columns.shape)
    if columns.ndim != 1 or not columns.shape == rates.shape == seconds.shape == flags.shape:
        raise ValueError(
            "series, rate_bps, interval_s and censored must share one shape (n,), "
            f"got {columns.shape}, {rates.shape}, {seconds.shape}, {flags.shape}"
        )
    return _Samples(columns, rates, seconds, flags)
