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


@dataclass(frozen=True)
class _Step:
    """What came of one step's forecasts of a level at a horizon."""

    end_time: float
    truths: int
    #: shape (K,), truths below each quantile.
    below: Doubles


class CoverageRecord:
    """Counts by level, horizon and step; a day of them."""

    def __init__(self, quantile: Doubles, horizon_s: Doubles) -> None:
        self._quantile = quantile
        self._horizon_s = horizon_s
        self._steps: dict[tuple[int, int], deque[_Step]] = {}

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
            steps = self._steps.setdefault((int(one), horizon), deque())
            # Also what a clock that was set back left in the future.
            while steps and not 0 <= end_time - steps[0].end_time < DAY_S:
                steps.popleft()
            steps.append(_Step(end_time, int(np.count_nonzero(members)), below[members].sum(axis=0)))

    def table(self, now: float) -> tuple[Coverage, ...]:
        """The live figures, by level and horizon."""
        rows = []
        for (level, horizon), steps in sorted(self._steps.items()):
            recent = _since(steps, now - HOUR_S)
            n_day = sum(step.truths for step in steps)
            hour, day = self._share(recent), self._share(list(steps))
            horizon_s = float(self._horizon_s[horizon])
            rows.append(Coverage(level, horizon_s, hour, day, n_day, self._drift(recent) != 0))
        return tuple(rows)

    def too_narrow(self, now: float) -> tuple[int, ...]:
        """Levels whose bands of the last hour caught too little at most horizons, by more than chance."""
        narrow: dict[int, list[bool]] = {}
        for (level, _), steps in self._steps.items():
            narrow.setdefault(level, []).append(self._drift(_since(steps, now - HOUR_S)) < 0)
        return tuple(sorted(level for level, found in narrow.items() if 2 * sum(found) > len(found)))

    def _share(self, steps: list[_Step]) -> Doubles:
        truths = sum(step.truths for step in steps)
        if truths == 0:
            return np.full(len(self._quantile), np.nan)
        return np.asarray(np.sum([step.below for step in steps], axis=0) / truths)

    def _drift(self, steps: list[_Step]) -> int:
        """-1 where the band from the lowest to the highest quantile is too narrow, 1 too wide, else 0."""
        if len(steps) < LEAST_STEPS:
            return 0
        aim = self._quantile[-1] - self._quantile[0]
        inside = np.array([(step.below[-1] - step.below[0]) / step.truths for step in steps])
        off = float(inside.mean() - aim)
        # Steps, not series, are what is independent here.
        if abs(off) <= max(DRIFT, ERRORS * float(inside.std()) / np.sqrt(len(inside))):
            return 0
        return 1 if off > 0 else -1


def _since(steps: deque[_Step], since: float) -> list[_Step]:
    found = []
    for step in reversed(steps):
        if step.end_time <= since:
            break
        found.append(step)
    return found
