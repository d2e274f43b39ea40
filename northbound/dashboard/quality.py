"""How good forecasts have been, as the page shows it: coverage beside its aim, losses beside the baselines'."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecasting.contest import Contestant
from forecasting.segments import class_of, level_of
from northbound import views
from planner.snapshot import ForecastQuality


@dataclass(frozen=True)
class CoverageRow:
    """One level and direction at one horizon: aims and what came of them, as shares of one."""

    #: Level and direction.
    place: tuple[str, str]
    horizon_s: float
    aims: list[float]
    day: list[float]
    n_day: int
    drifting: bool

    @property
    def band(self) -> tuple[float, float]:
        """The outermost band: its aim, and the share of the last day that lay within."""
        return self.aims[-1] - self.aims[0], self.day[-1] - self.day[0]


@dataclass(frozen=True)
class LossRow:
    """One kind of traffic at one horizon; losses in units of a series' own level."""

    #: Level and direction.
    place: tuple[str, str]
    traffic: str
    horizon_s: float
    champion: str
    model: float
    persistence: float
    recent: float

    @property
    def gain(self) -> float:
        """How much less the model loses than the better baseline, as a share of one."""
        best = (
            np.nanmin([self.persistence, self.recent])
            if np.isfinite([self.persistence, self.recent]).any()
            else np.nan
        )
        return float(1 - self.model / best) if best > 0 else float("nan")


def coverage_rows(found: ForecastQuality) -> list[CoverageRow]:
    """Shortest and longest horizon of each level and direction."""
    ends = {float(one.horizon_s) for one in found.coverage}
    shown = {min(ends), max(ends)} if ends else set()
    return [
        CoverageRow(
            views.forecaster_level(one.level),
            one.horizon_s,
            found.quantile.tolist(),
            one.day.tolist(),
            one.n_day,
            one.drifting,
        )
        for one in found.coverage
        if one.horizon_s in shown
    ]


def loss_rows(found: ForecastQuality) -> list[LossRow]:
    """Every segment that anything is known of."""
    known = np.argwhere(np.isfinite(found.loss).any(axis=2)).tolist()
    return [
        LossRow(
            views.forecaster_level(level_of(segment)),
            class_of(segment),
            float(found.horizon_s[at]),
            Contestant(int(found.champion[segment, at])).name.lower(),
            *(float(found.loss[segment, at, one]) for one in Contestant),
        )
        for segment, at in known
    ]
