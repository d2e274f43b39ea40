"""What every pool offered and got through since the last tick, from the newest samples of its meters.

Missing is not zero: a pool of which a meter is silent is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from planner.pool_rows import BOTTOM_UP
from planner.snapshot import Level
from planner.structure import Structure
from telemetry.samples import CENSORED, GAP, SampleBatch

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

#: For want of newer samples a pool is taken to use what it last did, so long: the mean that auto-bandwidth takes.
USE_HELD_S: Final = 300.0
#: A pool is estimated from its members as long as at least this share of them is known.
KNOWN_SHARE: Final = 0.9
#: A pool is censored when more than this share of what its members offer is.
CENSORED_SHARE: Final = 0.5
#: A source that loses more than this to a meter is not slowed by losing.
BACKS_OFF_SHARE: Final = 0.2


@dataclass(frozen=True)
class Observed:
    """Rates of every pool, shape (2, n_pools), bit/s; NaN where nothing is known."""

    offered_bps: F64
    delivered_bps: F64
    censored: Bool
    #: shape (n_entries,): offered through each meter.
    entry_offered_bps: F64
    #: What metered pools last offered, also where that is too old to be shown (``USE_HELD_S``): nobody is cut
    #: for want of samples. NaN where that is not known either, and for pools above the metered ones.
    last_offered_bps: F64


class NewestSamples:
    """The newest sample of each meter; forgets what is older than ``max_age_s``."""

    def __init__(self, structure: Structure, max_age_s: float) -> None:
        self.structure = structure
        self.max_age_s = max_age_s
        n = len(structure.entries.pool)
        self._offered = np.full(n, np.nan)
        self._dropped = np.full(n, np.nan)
        self._censored = np.zeros(n, bool)
        self._time = np.full(n, -np.inf)

    def carry_over(self, before: NewestSamples) -> None:
        """Take over what an earlier structure's meters said, where switch, pool and direction are the same."""
        old, new = before.structure, self.structure
        rows = {
            (old.dpids[s], old.series[p], d): row
            for row, (s, p, d) in enumerate(
                zip(
                    old.entries.switch.tolist(),
                    old.entries.pool.tolist(),
                    old.entries.direction.tolist(),
                    strict=True,
                )
            )
        }
        e = new.entries
        for row, (s, p, d) in enumerate(
            zip(e.switch.tolist(), e.pool.tolist(), e.direction.tolist(), strict=True)
        ):
            source = rows.get((new.dpids[s], new.series[p], d))
            if source is not None:
                self._offered[row] = before._offered[source]
                self._dropped[row] = before._dropped[source]
                self._censored[row] = before._censored[source]
                self._time[row] = before._time[source]

    def take(self, batch: SampleBatch) -> None:
        """Note one poll of one switch. Meters that are not in the structure are passed over."""
        table = self.structure.entry_of_meter.get(batch.dpid)
        if table is None or not len(batch.meters.meter_id):
            return
        ids = batch.meters.meter_id.astype(np.int64)
        known = ids < len(table)
        rows = np.where(known, table[np.where(known, ids, 0)], -1)
        offered = batch.meters.offered_bps
        usable = (rows >= 0) & ((batch.meters.flags & GAP) == 0) & np.isfinite(offered) & (offered >= 0)
        rows = rows[usable]
        # Polls may arrive out of order.
        newer = batch.time >= self._time[rows]
        rows, usable = rows[newer], np.flatnonzero(usable)[newer]
        self._offered[rows] = offered[usable]
        # A meter cannot drop more than came in; where it does not tell, nothing is taken to be lost.
        dropped = np.nan_to_num(batch.meters.dropped_bps[usable], nan=0.0)
        self._dropped[rows] = np.clip(dropped, 0, self._offered[rows])
        flagged = (batch.meters.flags[usable] & CENSORED) != 0
        # A meter counts before it drops. Who loses this much and sends on does not back off
        # (TCP settles at a few per cent): what came in is what was wanted, and not an understatement.
        backs_off = self._dropped[rows] <= BACKS_OFF_SHARE * self._offered[rows]
        self._censored[rows] = flagged & backs_off
        self._time[rows] = batch.time

    def observe(self, now: float, given_up: frozenset[int] = frozenset()) -> Observed:
        """The pools as of now. What switches that were given up last told is no use any more."""
        s, e = self.structure, self.structure.entries
        # A clock was set back: nobody knows when these were measured, and they must not outshine new ones.
        self._time[self._time > now + self.max_age_s] = -np.inf
        stale = (now - self._time > self.max_age_s) | ~e.alone
        offered = np.where(stale, np.nan, self._offered)
        passed = offered - np.where(stale, np.nan, self._dropped)
        n = len(s.path)
        pool_offered = np.full((2, n), np.nan)
        pool_passed = np.full((2, n), np.nan)
        censored = np.zeros((2, n), bool)
        for d in range(2):
            mine = e.direction == d
            # A sum with NaN in it is NaN: a pool is known when all its meters are.
            sums = [np.bincount(e.pool[mine], values[mine], n) for values in (offered, passed)]
            metered = np.bincount(e.pool[mine], minlength=n) > 0
            dropping = np.bincount(e.pool[mine], (self._censored & ~stale)[mine], n) > 0
            pool_offered[d] = np.where(metered, sums[0], np.nan)
            pool_passed[d] = np.where(metered, sums[1], np.nan)
            censored[d] = dropping
            _sum_up(s, pool_offered[d], pool_passed[d], censored[d])
        return Observed(pool_offered, pool_passed, censored, offered, self._last_offered(now, given_up))

    def _last_offered(self, now: float, given_up: frozenset[int]) -> F64:
        """What each pool's own meters last told, shape (2, n_pools)."""
        s, e = self.structure, self.structure.entries
        forgotten = (now - self._time > max(USE_HELD_S, self.max_age_s)) | ~e.alone
        if given_up:
            forgotten |= np.array([dpid in given_up for dpid in s.dpids])[e.switch]
        told = np.where(forgotten, np.nan, self._offered)
        n = len(s.path)
        place = e.direction * n + e.pool
        total = np.bincount(place, told, 2 * n)
        metered = np.bincount(place, minlength=2 * n) > 0
        last: F64 = np.where(metered, total, np.nan).reshape(2, n)
        return last


def _sum_up(s: Structure, offered: F64, passed: F64, censored: Bool) -> None:
    """What pools offer is what their users offer, or the users' classes, measured before any drop; in place.

    What got through a group or region its own meters tell; the whole network has
    none, so there it is the sum of its regions.
    """
    for level in BOTTOM_UP:
        rows = np.flatnonzero(s.level == level)
        parent = s.parent[rows]
        n = len(offered)
        known = ~np.isnan(offered[rows])
        count = np.bincount(parent, minlength=n)
        seen = np.bincount(parent[known], minlength=n)
        total = np.bincount(parent[known], offered[rows][known], n)
        above = np.flatnonzero(count > 0)
        enough = seen[above] >= KNOWN_SHARE * count[above]
        with np.errstate(divide="ignore", invalid="ignore"):
            # The few that are unknown are taken to be like the others.
            estimate = total[above] * count[above] / seen[above]
        # Where users share meters these tell of nobody; then the pool's own meters speak for it.
        offered[above] = np.where(enough & (seen[above] > 0), estimate, offered[above])
        understated = np.bincount(parent[known], (offered[rows] * censored[rows])[known], n)
        # Estimates of what censored demand may be are factors: they fit a pool only where
        # most of what it offers is held back.
        censored[above] = understated[above] > CENSORED_SHARE * total[above]
        if level == Level.REGION:
            passed[0] = passed[rows].sum() if len(rows) else np.nan
