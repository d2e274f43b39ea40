"""What became of earlier forecasts, and what is learnt from it.

A sample of the series of each level is followed. At every step each contestant
forecasts them; when a forecast comes due it is calibrated, scored and counted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.calibration import Calibration
from forecasting.contest import CONTESTANTS, Change, Contest, Contestant
from forecasting.coverage import Coverage, CoverageRecord
from forecasting.history import Floats, History, Ints, clean
from forecasting.quantiles import nearest
from forecasting.scoring import pinball_loss
from forecasting.settings import ForecastSettings

Doubles = npt.NDArray[np.float64]

#: Levels whose band is too narrow are looked for this often; until the next look theirs is wider.
DRIFT_EVERY_STEPS: Final = 10
#: By how much the band of a drifting level is widened about the median.
WIDER: Final = 1.25


@dataclass(frozen=True)
class Issued:
    """Forecasts of the followed series, kept until they come due."""

    end_time: float
    #: shape (n,)
    series_id: Ints
    level: Ints
    segment: Ints
    #: shape (n,), bit/s; what losses are measured in.
    scale_bps: Floats
    #: shape (C, n, H, K): each contestant's, calibrated.
    contestants_bps: Floats
    #: shape (n, H, K): what was given out.
    issued_bps: Floats


class TrackRecord:
    """Calibration, contest and coverage, fed by ``remember`` and ``observe``."""

    def __init__(self, settings: ForecastSettings) -> None:
        self.settings = settings
        self._quantile = np.asarray(settings.quantiles, np.float64)
        self._horizon_s = np.asarray(settings.horizons_s, np.float64)
        self._rng = np.random.default_rng(settings.seed)
        self._issued: deque[Issued] = deque()
        self._observed_until = -np.inf
        self._looked_at = -np.inf
        #: Levels whose band is widened at present.
        self.narrow_levels: tuple[int, ...] = ()
        self.contest = Contest(len(self._horizon_s))
        self.coverage = CoverageRecord(self._quantile, self._horizon_s)
        self.calibrations = self._fresh_calibrations()

    def start_anew(self) -> None:
        """There is a new model: the contest begins afresh.

        Its calibration goes on from the last one's: a model trained on a little more errs much as
        the one before, and offsets start closer than from nothing.
        """
        self.contest.fresh_model()
        self._issued.clear()

    def calibrate(self, contestant: Contestant, demand_bps: Floats, segment: Ints) -> Floats:
        """A contestant's quantiles of shape (n, H, K), corrected in place by what was learnt of it."""
        return self.calibrations[contestant].apply(demand_bps, segment)

    def widen(self, demand_bps: Floats, level: Ints) -> None:
        """Widen the bands of levels that catch too little, about the median and in place."""
        if not self.narrow_levels:
            return
        rows = np.flatnonzero(np.isin(level, self.narrow_levels))
        middle = demand_bps[rows][..., [nearest(self._quantile)]]
        demand_bps[rows] = np.maximum(middle + WIDER * (demand_bps[rows] - middle), 0)

    def followed(self, level: Ints, able: Ints) -> Ints:
        """Which of the series in ``able`` to follow: a sample of each level's, rows of ``level``."""
        at_most = self.settings.calibration_series
        if self.settings.calibration_rate == 0:
            return np.empty(0, np.int64)
        kept = []
        for one in np.unique(level[able]):
            members = able[level[able] == one]
            many = len(members) > at_most
            # With replacement is far cheaper and as good for a mean.
            kept.append(members[self._rng.integers(0, len(members), at_most)] if many else members)
        return np.concatenate(kept) if kept else np.empty(0, np.int64)

    def waits_for(self, end_time: float) -> bool:
        """Whether forecasts made at this moment would be news."""
        return not self._issued or self._issued[-1].end_time < end_time

    def remember(self, issued: Issued) -> None:
        """Keep forecasts until they come due."""
        self._issued.append(issued)

    def observe(self, history: History) -> tuple[Change, ...]:
        """Learn from what came; gives the champions that changed.

        Gaps and censored samples are skipped. A clock that stepped back drops
        the forecasts made in what is now the future.
        """
        now, step_s = history.end_time, self.settings.step_s
        if now < self._observed_until or history.n_steps == 0:
            self._issued = deque(issued for issued in self._issued if issued.end_time < now)
            self._observed_until = min(now, self._observed_until)
            return ()
        if now == self._observed_until:
            return ()
        order = np.argsort(history.series_id, kind="stable")
        for issued in self._issued:
            due = issued.end_time + self._horizon_s
            fresh = (due > self._observed_until + step_s / 2) & (due <= now + step_s / 2)
            for horizon in np.flatnonzero(fresh):
                row = history.n_steps - 1 - round((now - due[horizon]) / step_s)
                if 0 <= row < history.n_steps:
                    came = self._came(history, order, int(row), issued)
                    self._learn(int(horizon), float(due[horizon]), issued, came)
        self._observed_until = now
        while self._issued and self._issued[0].end_time + self._horizon_s[-1] <= now:
            self._issued.popleft()
        if not 0 <= now - self._looked_at < DRIFT_EVERY_STEPS * step_s:
            self._looked_at = now
            self.narrow_levels = self.coverage.too_narrow(now)
        return self.contest.review(now)

    def live_coverage(self) -> tuple[Coverage, ...]:
        """Coverage of the last hour and day, by level and horizon."""
        return self.coverage.table(self._observed_until)

    def _learn(self, horizon: int, due: float, issued: Issued, came: Floats) -> None:
        made = issued.contestants_bps[:, :, horizon]
        losses = [pinball_loss(one, came, self._quantile) / issued.scale_bps for one in made]
        self.contest.update(horizon, np.stack(losses, axis=1), issued.segment)
        for contestant in CONTESTANTS:
            self.calibrations[contestant].update(horizon, made[contestant], came, issued.segment)
        self.coverage.add(due, horizon, issued.issued_bps[:, horizon], came, issued.level)

    def _came(self, history: History, order: Ints, row: int, issued: Issued) -> Floats:
        """What came for the followed series in one row; NaN where that is unknown."""
        ids = history.series_id[order]
        if ids.size == 0:
            return np.full(len(issued.series_id), np.nan, np.float32)
        place = np.minimum(np.searchsorted(ids, issued.series_id), ids.size - 1)
        column = order[place]
        came = clean(history.demand_bps[row, column], self.settings.max_rate_bps)
        known = (ids[place] == issued.series_id) & ~history.censored[row, column]
        return np.where(known, came, np.float32(np.nan))

    def _fresh_calibrations(self) -> list[Calibration]:
        rate, ahead = self.settings.calibration_rate, self.settings.horizon_steps
        return [Calibration(self._quantile, ahead, rate) for _ in CONTESTANTS]
