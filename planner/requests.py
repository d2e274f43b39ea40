"""What users ask for by their forecasts: tiers by confidence, and the standbys kept for the doubtful ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from allocation.tiers import (
    Phase,
    StandbyCount,
    Standbys,
    Tier,
    TierRules,
    asked_share,
    kept_bps,
    step_standbys,
    tiers,
)
from forecasting.forecast import Forecast
from planner.config_tiers import Tiers
from planner.observation import Observed
from planner.structure import Structure

F64 = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Asked:
    """How far each pool's forecast is asked for. Shapes (2, n_pools); only users ask, or their classes."""

    #: NaN where the forecast has none.
    confidence: F64
    #: Codes of ``allocation.tiers.Tier``.
    tier: Codes
    #: The part of the forecast that the pool asks for itself, 0 to 1.
    share: F64
    #: What its parent keeps for it.
    kept_bps: F64
    #: Rows: upload of all pools, then download.
    standbys: Standbys

    def reserve_bps(self, parent: npt.NDArray[np.int32], direction: int) -> F64:
        """What each pool keeps for its children, shape (n_pools,)."""
        # The root has no parent and asks for nothing.
        kept = self.kept_bps[direction, 1:]
        reserve: F64 = np.bincount(parent[1:], kept, len(parent)).astype(np.float64)
        return reserve


@dataclass(frozen=True)
class Standby:
    """One standby as readers see it."""

    #: Path of the pool that it is for.
    owner: str
    #: Path of the pool that keeps it.
    parent: str
    #: 0 upload, 1 download.
    direction: int
    #: ``waiting`` or ``active``.
    phase: str
    #: What is kept beyond the owner's use; 0 while active.
    kept_bps: float
    forecast_bps: float
    #: Epoch seconds at which it ends if use does not rise.
    until: float


@dataclass(frozen=True)
class StandbyReport:
    """All standbys of one tick, and what became of earlier ones."""

    standbys: tuple[Standby, ...] = ()
    counts: StandbyCount = StandbyCount()


class Requests:
    """The tiers and standbys of the loop. Not safe for threads."""

    def __init__(self, settings: Tiers) -> None:
        self.settings = settings
        self.rules = TierRules(
            settings.full_above,
            settings.partial_above,
            settings.partial_share,
            settings.standby_ttl_s,
        )
        self.counts = StandbyCount()
        self._structure: Structure | None = None
        self._standbys = Standbys.none(0)
        self._sure: tuple[Forecast, F64] | None = None

    def step(self, s: Structure, observed: Observed, forecast: Forecast, now: float) -> Asked | None:
        """What each pool asks for now; None where tiers are switched off: then forecasts are asked for in full."""
        if not self.settings.enabled:
            return None
        n = len(s.path)
        self._realign(s)
        confidence = self._confidence(forecast)
        # Without a confidence it is no forecast: the lower rungs repeat what was measured. Held back
        # like a doubtful forecast they cost demand that was there (docs/design/policies.md).
        tier = np.where(np.isnan(confidence), np.uint8(Tier.FULL), tiers(confidence, self.rules))
        median = forecast.peak(0.5).astype(np.float64)
        median[~np.tile(s.asks, 2)] = np.nan
        use = observed.offered_bps.reshape(-1)
        before = self._standbys
        self._standbys = after = step_standbys(before, tier, median, use, now, self.rules)
        self.counts = self.counts.counted(before, after)
        # Where nothing was measured there is no use to ask for: the forecast speaks alone, sure or not.
        unknown = np.isnan(use)
        share = np.where(unknown, 1.0, asked_share(tier, after, self.rules))
        kept = np.where(unknown, 0.0, kept_bps(after, use))
        return Asked(
            confidence.reshape(2, n), tier.reshape(2, n), share.reshape(2, n), kept.reshape(2, n), after
        )

    def _realign(self, s: Structure) -> None:
        old = self._structure
        if old is s:
            return
        if old is None or old.series != s.series:
            row_of = {} if old is None else {series: row for row, series in enumerate(old.series)}
            rows = np.array([row_of.get(series, -1) for series in s.series], np.int64)
            down = np.where(rows < 0, -1, rows + len(row_of))
            self._standbys = self._standbys.at_rows(np.concatenate([rows, down]))
        self._structure = s

    def _confidence(self, forecast: Forecast) -> F64:
        """Reckoned once a forecast: a forecast serves many ticks."""
        if self._sure is None or self._sure[0] is not forecast:
            floor_bps = self.settings.floor_mbps * 1e6
            self._sure = (forecast, forecast.confidence_ahead(self.settings.band, floor_bps))
        return self._sure[1]


def standby_report(s: Structure, asked: Asked | None, counts: StandbyCount, ttl_s: float) -> StandbyReport:
    """The standbys that are alive, by direction and pool."""
    if asked is None:
        return StandbyReport((), counts)
    own, n = asked.standbys, len(s.path)
    alive = np.flatnonzero(np.isin(own.phase, [Phase.WAITING, Phase.ACTIVE]))
    return StandbyReport(
        tuple(_standby(s, asked, row, row % n, row // n, ttl_s) for row in alive.tolist()), counts
    )


def _standby(s: Structure, asked: Asked, row: int, pool: int, direction: int, ttl_s: float) -> Standby:
    own: Any = asked.standbys
    return Standby(
        owner=s.path[pool],
        parent=s.path[s.parent[pool]],
        direction=direction,
        phase=Phase(own.phase[row]).name.lower(),
        kept_bps=float(asked.kept_bps[direction, pool]),
        forecast_bps=float(own.forecast_bps[row]),
        until=float(own.since_s[row]) + ttl_s,
    )
