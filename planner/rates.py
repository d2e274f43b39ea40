"""Rates over any range of time: ticks while they are remembered, steps of the ring before, the store before that."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from planner.history import DemandHistory, Loader
from planner.record import RateRecord

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: Without a resolution an answer has about so many points at most.
_POINTS: Final = 1000
#: Steps of the store: its roll-ups are whole minutes.
_STORED_S: Final = 60


@dataclass(frozen=True)
class RateHistory:
    """What one pool, or the parts of one group together, offered and was granted. NaN: not known."""

    #: Seconds that each point is the mean of.
    resolution_s: float
    #: shape (n,), epoch seconds at which each ends.
    time: F64
    #: shape (2, n), bit/s, upload and download. Grants are remembered for as long as ticks are.
    offered_bps: F64
    grant_bps: F64
    #: shape (2, n): how many of the samples of each point are missing.
    gaps: I64


@dataclass(frozen=True)
class Samples:
    """Means over some seconds each, by time."""

    #: shape (n,), epoch seconds at which each ends, and how long each is.
    time: F64
    length_s: F64
    #: shape (2, n), bit/s; NaN where nothing is known.
    offered_bps: F64
    grant_bps: F64

    @classmethod
    def of_steps(cls, first: int, step_s: float, offered_bps: F64) -> Samples:
        """Offered rates of shape (2, n) in successive steps from step number ``first`` on."""
        n = offered_bps.shape[1]
        time = step_s * np.arange(first + 1, first + 1 + n, dtype=np.float64)
        return cls(time, np.full(n, step_s), offered_bps, np.full((2, n), np.nan))

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        """One after the other."""
        names = ("time", "length_s", "offered_bps", "grant_bps")
        return cls(*(np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in names))


def means(samples: Samples, start: float, end: float, resolution_s: float) -> RateHistory:
    """The samples' means over spans of one length, whole multiples of it since the epoch.

    A span's mean is over what is known of it, each sample by its length; the first and the last span are those
    that ``start`` and ``end`` lie in.
    """
    first, last = math.floor(start / resolution_s), math.ceil(end / resolution_s)
    n = max(1, last - first)
    span = np.ceil(samples.time / resolution_s).astype(np.int64) - 1 - first
    inside = (span >= 0) & (span < n)
    span, length = span[inside], samples.length_s[inside]

    def mean(rate_bps: F64) -> F64:
        rows = []
        for row in rate_bps[:, inside]:
            known = ~np.isnan(row)
            seconds = np.bincount(span[known], length[known], n)
            total = np.bincount(span[known], row[known] * length[known], n)
            rows.append(np.where(seconds > 0, total / np.maximum(seconds, 1e-9), np.nan))
        return np.array(rows)

    missing = np.isnan(samples.offered_bps[:, inside])
    gaps = np.array([np.bincount(span[row], minlength=n) for row in missing], np.int64).reshape(2, n)
    time = resolution_s * np.arange(first + 1, first + 1 + n, dtype=np.float64)
    return RateHistory(resolution_s, time, mean(samples.offered_bps), mean(samples.grant_bps), gaps)


@dataclass(frozen=True)
class RateSources:
    """Where rates of the past are. ``from_ring`` runs what reads the ring."""

    record: RateRecord
    history: DemandHistory
    load: Loader | None
    tick_s: float
    from_ring: Callable[[Callable[[], F64]], F64]

    def rates(
        self, series: Sequence[str], now: float, start: float, end: float, resolution_s: float | None
    ) -> RateHistory:
        """The rates of these series together from ``start`` to ``end``.

        Without a resolution: tick by tick as far as ticks are remembered, else the shortest whole number of steps
        that is a point in a thousand.
        """
        numbers = self.history.numbers(series)
        ticks = self.record.history(numbers, start, end)
        length_s = np.full(len(ticks.time), self.tick_s)
        recent = Samples(ticks.time, length_s, ticks.offered_bps, ticks.grant_bps)
        earliest = self.record.since - self.tick_s
        if start >= earliest or end <= start:
            if resolution_s is None:
                gaps = np.isnan(recent.offered_bps).astype(np.int64)
                return RateHistory(self.tick_s, recent.time, recent.offered_bps, recent.grant_bps, gaps)
            return means(recent, start, end, resolution_s)
        before = [*self._stepwise(series, numbers, now, start, min(earliest, end)), recent]
        step_s = self.history.settings.step_s
        wanted = max(1, math.ceil((end - start) / _POINTS / step_s)) * step_s
        return means(Samples.joined(before), start, end, resolution_s or wanted)

    def _stepwise(
        self, series: Sequence[str], numbers: Sequence[int], now: float, start: float, end: float
    ) -> list[Samples]:
        """Before the record: the ring where it reaches back, the store before."""
        ring, found = self.history.ring, []
        first, last = math.floor(start / ring.step_s), math.floor(end / ring.step_s)
        held = max(first, math.floor(now / ring.step_s) - ring.capacity_steps) if numbers else last
        if self.load is not None and held > first:
            found.append(self._stored(self.load, series, start, min(held, last) * ring.step_s))
        if last > held:
            steps = np.arange(held, last)

            def read() -> F64:
                columns = 2 * np.asarray(numbers, np.int64)
                return np.stack([_together(ring.means(now, steps, columns + d)) for d in range(2)])

            found.append(Samples.of_steps(held, ring.step_s, self.from_ring(read)))
        return found

    def _stored(self, load: Loader, series: Sequence[str], start: float, end: float) -> Samples:
        first, last = math.floor(start / _STORED_S), math.ceil(end / _STORED_S)
        windows = [load(first * _STORED_S, last * _STORED_S, _STORED_S, series, d) for d in range(2)]
        offered = np.stack([_together(window.demand_bps) for window in windows])
        return Samples.of_steps(first, _STORED_S, offered)


def _together(rate_bps: npt.NDArray[np.float32]) -> F64:
    """The sum of parts, shape (n, n_parts) to (n,): NaN where one of those that were ever seen is not known."""
    seen = ~np.isnan(rate_bps).all(axis=0)
    if not seen.any():
        return np.full(len(rate_bps), np.nan)
    total: F64 = rate_bps[:, seen].sum(axis=1, dtype=np.float64)
    return total
