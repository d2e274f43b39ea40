"""Requests from forecasts: how much of a forecast a pool may ask for, by how sure the forecast is.

A forecast that is sure is asked for in full, one that is less sure in part. One that is not sure is
asked for not at all: it becomes a *warm standby*, a reserve that the parent keeps for this one pool
for a limited time, and that is the pool's within one step when its use rises.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from allocation.compiled import Rates

Codes = npt.NDArray[np.uint8]


class Tier(IntEnum):
    """How far a forecast is trusted."""

    FULL = 0
    PARTIAL = 1
    STANDBY = 2


class Phase(IntEnum):
    """What has become of a pool's standby."""

    #: The pool has none: its forecast is trusted, or not above its use.
    NONE = 0
    #: The parent keeps it, and use has not risen yet.
    WAITING = 1
    #: Use rose: the pool asks for its whole forecast.
    ACTIVE = 2
    #: Its time is over and use did not rise; nothing is kept until something changes.
    EXPIRED = 3


@dataclass(frozen=True)
class TierRules:
    """Where the tiers begin, and how long a standby lives."""

    full_above: float = 0.9
    partial_above: float = 0.6
    #: The part of the forecast that the middle tier asks for.
    partial_share: float = 0.75
    standby_ttl_s: float = 300.0
    #: Use has risen when it passed this share of the way from where it was to the forecast.
    rise_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.partial_above <= self.full_above <= 1:
            raise ValueError(
                "thresholds must be 0 <= partial_above <= full_above <= 1, "
                f"got partial_above {self.partial_above} and full_above {self.full_above}"
            )
        for name in ("partial_share", "rise_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be > 0 and <= 1, got {getattr(self, name)}")
        if not self.standby_ttl_s > 0:
            raise ValueError(f"standby_ttl_s must be > 0, got {self.standby_ttl_s}")


def tiers(confidence: Rates, rules: TierRules) -> Codes:
    """The ``Tier`` of each forecast.

    Parameters
    ----------
    confidence : any shape   Calibrated probability that demand stays within the band; NaN where a
        forecast has none, which is not trusted.

    Returns
    -------
    same shape, codes of ``Tier``. On a threshold the lower tier holds.
    """
    given = np.asarray(confidence, np.float64)
    tier = np.full(given.shape, Tier.STANDBY, np.uint8)
    tier[given > rules.partial_above] = Tier.PARTIAL
    tier[given > rules.full_above] = Tier.FULL
    return tier


@dataclass(frozen=True, eq=False)
class Standbys:
    """Every pool's standby; the row is the owner. All shape (S,)."""

    #: Codes of ``Phase``.
    phase: Codes
    #: The forecast that it is for, bit/s; of an expired one the forecast that did not come true.
    forecast_bps: Rates
    #: The least use since it was made, bit/s; NaN: not known yet.
    use_bps: Rates
    #: When it was made, or when an active one last was in use; epoch seconds.
    since_s: Rates

    @classmethod
    def none(cls, n: int) -> Standbys:
        """No standby for any of ``n`` pools."""
        nothing = np.full(n, np.nan)
        return cls(np.zeros(n, np.uint8), nothing, nothing.copy(), nothing.copy())

    def __len__(self) -> int:
        return len(self.phase)

    def at_rows(self, rows: npt.NDArray[np.int64]) -> Standbys:
        """The standbys by other rows, shape (n,); -1 for a pool that is new and has none."""
        if not len(self):
            return Standbys.none(len(rows))
        new = rows < 0
        kept = [column[rows].copy() for column in (self.forecast_bps, self.use_bps, self.since_s)]
        for column in kept:
            column[new] = np.nan
        phase = self.phase[rows].copy()
        phase[new] = Phase.NONE
        return Standbys(phase, *kept)


def step_standbys(
    before: Standbys, tier: Codes, forecast_bps: Rates, use_bps: Rates, now_s: float, rules: TierRules
) -> Standbys:
    """The standbys after one step.

    One is made where a forecast is not trusted and lies above use. It waits until use rises, and
    is active from that step on; it ends when its time to live is over, and is gone at once when
    the forecast is trusted or does not lie above use any more. One that expired is made again only
    for a higher forecast, or when use rises: else it would never end.

    Parameters
    ----------
    before : S rows
    tier : shape (S,)           Codes of ``Tier``.
    forecast_bps : shape (S,)   NaN: none, and so no standby.
    use_bps : shape (S,)        NaN: not known; nothing rises or falls by that.
    now_s :                     Epoch seconds.
    """
    wanted = (tier == Tier.STANDBY) & (forecast_bps > np.nan_to_num(use_bps))
    phase = before.phase
    active = (tier == Tier.STANDBY) & (phase == Phase.ACTIVE)
    lowest = np.fmin(before.use_bps, use_bps)
    rose = use_bps > lowest + rules.rise_share * np.maximum(before.forecast_bps - lowest, 0)
    # A clock that was set back makes nobody wait longer than a whole life.
    over = ~((now_s - before.since_s < rules.standby_ttl_s) & (now_s >= before.since_s))

    waiting = wanted & (phase == Phase.WAITING)
    expired = wanted & (phase == Phase.EXPIRED)
    grown = forecast_bps > before.forecast_bps * (1 + rules.rise_share)
    made = (wanted & (phase == Phase.NONE)) | (expired & (rose | grown))
    turned = waiting & rose

    after = np.full(len(phase), Phase.NONE, np.uint8)
    after[waiting] = np.where(over[waiting], Phase.EXPIRED, Phase.WAITING)
    after[expired] = Phase.EXPIRED
    after[active] = np.where(over[active] & ~rose[active], Phase.EXPIRED, Phase.ACTIVE)
    after[made] = Phase.WAITING
    after[turned] = Phase.ACTIVE
    # An active one that ends where nothing is wanted any more leaves nothing behind.
    after[(after == Phase.EXPIRED) & ~wanted] = Phase.NONE

    alive = after != Phase.NONE
    renewed = made | turned | (active & rose)
    # What expired remembers the forecast that did not come true.
    remembered = np.where(after == Phase.EXPIRED, before.forecast_bps, forecast_bps)
    return Standbys(
        after,
        np.where(alive, remembered, np.nan),
        np.where(alive, np.where(made, use_bps, lowest), np.nan),
        np.where(alive, np.where(renewed, now_s, before.since_s), np.nan),
    )


def asked_share(tier: Codes, standbys: Standbys, rules: TierRules) -> Rates:
    """The part of its forecast that each pool asks for, 0 to 1, shape (S,)."""
    share = np.where(tier == Tier.FULL, 1.0, np.where(tier == Tier.PARTIAL, rules.partial_share, 0.0))
    share[standbys.phase == Phase.ACTIVE] = 1.0
    return share


def kept_bps(standbys: Standbys, use_bps: Rates) -> Rates:
    """What each pool's parent keeps for it beyond what it uses, bit/s, shape (S,); 0 where it keeps none."""
    use = np.where(np.isnan(use_bps), standbys.use_bps, use_bps)
    above = standbys.forecast_bps - np.nan_to_num(use)
    kept: Rates = np.where(standbys.phase == Phase.WAITING, np.maximum(above, 0), 0.0)
    return kept


@dataclass(frozen=True)
class StandbyCount:
    """How many standbys came to what, since the start."""

    made: int = 0
    activated: int = 0
    expired: int = 0

    def counted(self, before: Standbys, after: Standbys) -> StandbyCount:
        """With what one step changed."""

        def entered(phase: Phase) -> int:
            return int(((after.phase == phase) & (before.phase != phase)).sum())

        return StandbyCount(
            self.made + entered(Phase.WAITING),
            self.activated + entered(Phase.ACTIVE),
            self.expired + entered(Phase.EXPIRED),
        )
