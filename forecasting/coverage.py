"""How often what came lay below each forecast quantile, over the last hour and the last day."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.history import Floats, Ints

Doubles = npt.NDArray[np.float64]

HOUR_S: Final = 3600.0
DAY_S: Final = 86_400.0
#: Coverage further from its aim than this is drift, if it is also beyond chance.
DRIFT: Final = 0.1
#: The day is counted in parts of so many seconds.
JOIN_S: Final = 300.0
#: Steps, of the last hour, without which nothing is called drift.
LEAST_STEPS: Final = 20
#: Standard errors that chance may take.
ERRORS: Final = 3.0


@dataclass(frozen=True)
class Coverage:
    """Of one level at one horizon: the share of truths at or below each quantile."""

    level: int
    horizon_s: float
    #: shape (K,); NaN without evidence. A truth that equals its quantile counts half.
    hour: Doubles
    day: Doubles
    #: Truths of the last day.
    n_day: int
    #: Whether the central band of the last hour is too narrow or too wide by more than chance.
    drifting: bool


@dataclass
class _Part:
    """What came of a level's forecasts at a horizon in one step, or in the steps of a few minutes."""

    end_time: float
    truths: int
    #: shape (K,), truths below each quantile.
    below: Doubles
    #: Share of the truths between the outermost quantiles.
    inside: float


class _Window:
    """The parts of a stretch of time, with their sums: asking costs the same however many there are."""

    def __init__(self, length_s: float, join_s: float, n_quantiles: int) -> None:
        self._length_s = length_s
        #: Steps within so long are one part; 0: each is.
        self._join_s = join_s
        self._parts: deque[_Part] = deque()
        self.truths = 0
        self._below = np.zeros(n_quantiles)
        self._inside = self._inside_squared = 0.0

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, part: _Part) -> None:
        """Note one step."""
        # What a clock that was set back left in the future did not happen.
        while self._parts and self._parts[-1].end_time > part.end_time:
            self._count(self._parts.pop(), -1)
        self._count(part, 1)
        last = self._parts[-1] if self._parts else None
        if (
            last is not None
            and self._join_s
            and last.end_time // self._join_s == part.end_time // self._join_s
        ):
            # A new value: the other window holds the step as it was.
            self._parts[-1] = _Part(
                part.end_time, last.truths + part.truths, last.below + part.below, last.inside + part.inside
            )
        else:
            self._parts.append(part)
        self.forget(part.end_time)

    def forget(self, now: float) -> None:
        """Drop what is older than the window at ``now``."""
        while self._parts and self._parts[0].end_time <= now - self._length_s:
            self._count(self._parts.popleft(), -1)
        if not self._parts:
            # Rounding does not add up for ever.
            self._inside = self._inside_squared = 0.0

    def share(self) -> Doubles:
        """Truths below each quantile, shape (K,); NaN without any."""
        return self._below / self.truths if self.truths else np.full(len(self._below), np.nan)

    def inside(self) -> tuple[float, float]:
        """Mean and standard deviation over the steps of the share between the outermost quantiles; where steps are not joined."""
        mean = self._inside / len(self._parts)
        return mean, float(np.sqrt(max(self._inside_squared / len(self._parts) - mean**2, 0.0)))

    def _count(self, part: _Part, sign: int) -> None:
        self.truths += sign * part.truths
        # Counts are halves, so sums and differences are exact.
        self._below = self._below + sign * part.below
        self._inside += sign * part.inside
        self._inside_squared += sign * part.inside**2


class CoverageRecord:
    """Counts by level and horizon, of an hour and of a day."""

    def __init__(self, quantile: Doubles, horizon_s: Doubles) -> None:
        self._quantile = quantile
        self._horizon_s = horizon_s
        self._windows: dict[tuple[int, int], tuple[_Window, _Window]] = {}

    def add(self, end_time: float, horizon: int, issued_bps: Floats, came_bps: Floats, level: Ints) -> None:
        """Note what came of one horizon's forecasts, as issued.

        Parameters
        ----------
        end_time :                    Epoch seconds.
        issued_bps : shape (n, K)
        came_bps : shape (n,)         NaN is skipped.
        level : shape (n,)
        """
        known = np.isfinite(came_bps)
        came = came_bps[:, None]
        below = (came < issued_bps) + 0.5 * (came == issued_bps)
        for one in np.unique(level[known]):
            members = known & (level == one)
            truths, total = int(np.count_nonzero(members)), below[members].sum(axis=0)
            part = _Part(end_time, truths, total, float(total[-1] - total[0]) / truths)
            for window in self._windows_of(int(one), horizon):
                window.add(part)

    def table(self, now: float) -> tuple[Coverage, ...]:
        """The live figures, by level and horizon."""
        rows = []
        for (level, horizon), (hour, day) in sorted(self._windows.items()):
            hour.forget(now)
            day.forget(now)
            horizon_s = float(self._horizon_s[horizon])
            rows.append(
                Coverage(level, horizon_s, hour.share(), day.share(), day.truths, self._drift(hour) != 0)
            )
        return tuple(rows)

    def too_narrow(self, now: float) -> tuple[int, ...]:
        """Levels whose bands of the last hour caught too little at most horizons, by more than chance."""
        narrow: dict[int, list[bool]] = {}
        for (level, _), (hour, _) in self._windows.items():
            hour.forget(now)
            narrow.setdefault(level, []).append(self._drift(hour) < 0)
        return tuple(sorted(level for level, found in narrow.items() if 2 * sum(found) > len(found)))

    def _windows_of(self, level: int, horizon: int) -> tuple[_Window, _Window]:
        found = self._windows.get((level, horizon))
        if found is None:
            n = len(self._quantile)
            # A day of steps of seconds would be a hundred megabytes: minutes are as good.
            found = self._windows[level, horizon] = (_Window(HOUR_S, 0.0, n), _Window(DAY_S, JOIN_S, n))
        return found

    def _drift(self, hour: _Window) -> int:
        """-1 where the band from the lowest to the highest quantile is too narrow, 1 too wide, else 0."""
        if len(hour) < LEAST_STEPS:
            return 0
        mean, spread = hour.inside()
        off = mean - float(self._quantile[-1] - self._quantile[0])
        # Steps, not series, are what is independent here.
        if abs(off) <= max(DRIFT, ERRORS * spread / np.sqrt(len(hour))):
            return 0
        return 1 if off > 0 else -1
