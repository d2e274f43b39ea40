"""What a write would change in the switches, without making it: the write is made to a copy, and decided on."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from forecasting.burstiness import VARYING
from forecasting.forecast import Forecast, Rung
from planner.decision import Decision, decide
from planner.group_desk import GroupDesk
from planner.loop import Planner
from planner.meter_ids import MeterIds
from planner.metering import meter_tables
from planner.observation import Observed
from planner.plan_changes import MeterChange, Meters, meter_changes
from planner.policy_desk import PolicyDesk
from planner.shape_desk import ShapeDesk
from planner.shapes import Shapes
from planner.snapshot import Level, Refused
from planner.structure import Structure, build, repriced

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class Rehearsal:
    """A stand-in for the planner that takes writes to groups, boosts and traffic shapes, and keeps them to itself.

    Use, forecasts and the grants in force are those of the newest decision, with the write and without it, so
    nothing differs but by the write.
    """

    def __init__(self, planner: Planner, now: float) -> None:
        """Raises Refused before the first plan."""
        with planner.lock:
            if planner.decided is None:
                raise Refused("plan must have been decided before a write can be tried, got none yet")
            self._decided: Final = planner.decided
            self._planner, self._now = planner, now
            self.config, self.fleet = planner.config, planner.fleet
            self.policies = planner.policies.copied()
            self._boosts = frozenset(self.policies.boosts)
            self._grouping = planner.grouping.copied()
            own = planner.shapes
            self.shapes = Shapes(
                self.policies, self._grouping, self.fleet, dict(own.shapes), own.users, own.found_for
            )
            self._meter_ids = MeterIds.restore(planner.meter_ids.state())
            self._load = planner.region_load()
        self.lock = threading.RLock()
        self._stale = False
        # The desks ask no more of a planner than what is here.
        stand_in = cast("Planner", _StandIn(self))
        self.policy = PolicyDesk(stand_in, _nothing, lambda: now)
        self.grouping = GroupDesk(stand_in, _nothing, lambda: now)
        self.shaping = ShapeDesk(stand_in, _nothing, lambda: now)

    def create_group(self, group_id: str, members: tuple[str, ...], policy: dict[str, Any]) -> None:
        """See ``Operations``."""
        self.grouping.create(group_id, members, policy)

    def set_group_bandwidth(self, group_id: str, policy: dict[str, Any]) -> None:
        """See ``Operations``."""
        self.grouping.set_bandwidth(group_id, policy)

    def restructure(self) -> None:
        """A group changed: who is in which pool is not what it was."""
        self._stale = True

    def outcome(self) -> tuple[MeterChange, ...]:
        """The meters that the newest decision would have set otherwise, the largest change first.

        What begins later is looked at as if it had begun.
        """
        begins = [boost.start for name, boost in self.policies.boosts.items() if name not in self._boosts]
        now = max([self._now, *begins])
        self.policies.step(now, self._load)
        before = self._decided.structure
        after = self._rebuilt() if self._stale else repriced(before, self.config, self.policies)
        tables = [
            meter_tables(s, self._decision(s, now).share_bps, self.config.allocation) for s in (before, after)
        ]
        return meter_changes(Meters(tables[0], before.layouts), Meters(tables[1], after.layouts))

    def _rebuilt(self) -> Structure:
        fleet = self.fleet
        return build(
            self.config,
            self.policies,
            fleet.regions,
            fleet.attachments,
            self._grouping.groups,
            self._meter_ids,
            fleet.max_meters,
            fleet.n_tables,
        )

    def _decision(self, s: Structure, now: float) -> Decision:
        was, observed = self._decided.decision, self._decided.observed
        forecast, asked, in_force = was.forecast, was.asked, was.grant_bps.astype(np.float64)
        if s.series != self._decided.structure.series:
            moved = _Moved(self._decided.structure, s)
            observed, forecast = moved.observed(observed), moved.forecast(forecast)
            in_force = moved.columns(in_force)
        with self._planner.lock:
            limits = self._planner.link_limits(s, now)
            if s is not self._decided.structure and asked is not None:
                # It only replaces what it holds: a shallow copy keeps it apart from the loop's.
                asked = copy.copy(self._planner.requests).step(s, observed, forecast, now)
        return decide(self.config.allocation, s, observed, forecast, in_force, asked, limits)


class _StandIn:
    """What the desks know of a planner, of a rehearsal."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.config, self.lock = rehearsal.config, rehearsal.lock
        self.policies, self.grouping = rehearsal.policies, rehearsal._grouping
        self.shapes, self.restructure = rehearsal.shapes, rehearsal.restructure


def _nothing(_what: str) -> None:
    """Nothing is written down."""


class _Moved:
    """The figures of one structure's pools by the rows of another."""

    def __init__(self, old: Structure, new: Structure) -> None:
        self._old, self._new = old, new
        row_of = {series: row for row, series in enumerate(old.series)}
        #: Row in the old structure; -1 for pools that are new.
        self._source: I64 = np.array([row_of.get(series, -1) for series in new.series], np.int64)

    def columns(self, values: Any) -> Any:
        """Columns of shape (2, n_pools); NaN for new pools."""
        moved = values[:, self._source].astype(np.float64)
        moved[:, self._source < 0] = np.nan
        return moved

    def observed(self, was: Observed) -> Observed:
        """What was measured; of new groups the sum of their members."""
        offered, delivered = (
            self._with_sums(self.columns(one)) for one in (was.offered_bps, was.delivered_bps)
        )
        censored = was.censored[:, self._source] & (self._source >= 0)
        old, new = _entries(self._old), _entries(self._new)
        at = {key: row for row, key in enumerate(old)}
        rows = np.array([at.get(key, -1) for key in new], np.int64)
        entry = np.where(rows < 0, np.nan, was.entry_offered_bps[rows]) if len(old) else np.empty(0)
        return Observed(offered, delivered, censored, entry, self.columns(was.last_offered_bps))

    def forecast(self, was: Forecast) -> Forecast:
        """What is forecast; of new groups the sum of their members, as if all were high at once."""
        n = len(self._old.path)
        rows = np.concatenate([self._source, np.where(self._source < 0, -1, self._source + n)])
        shape = was.demand_bps.shape[1:]
        flat = was.demand_bps.reshape(2, n, -1)[:, self._source].astype(np.float64)
        flat[:, self._source < 0] = np.nan
        summed = np.stack([self._with_sums(flat[:, :, k]) for k in range(flat.shape[2])], axis=2)
        demand = np.nan_to_num(summed).astype(np.float32).reshape(-1, *shape)
        rung = np.where(rows < 0, np.uint8(Rung.LAST_PLAN), was.rung[rows])
        kind = None if was.kind is None else np.where(rows < 0, np.uint8(VARYING), was.kind[rows])
        return replace(was, demand_bps=demand, rung=rung, kind=kind, champion=None)

    def _with_sums(self, columns: F64) -> F64:
        """Groups that are new as the sum of their members."""
        s = self._new
        users = np.flatnonzero(s.level == Level.USER)
        new = (self._source < 0) & (s.level == Level.GROUP)
        for d in range(2):
            sums = np.bincount(s.parent[users], columns[d, users], len(s.path))
            columns[d, new] = sums[new]
        return columns


def _entries(s: Structure) -> Sequence[tuple[int, str, int]]:
    """Switch, series and direction of each meter."""
    e = s.entries
    rows = zip(e.switch.tolist(), e.pool.tolist(), e.direction.tolist(), strict=True)
    return [(s.dpids[switch], s.series[pool], direction) for switch, pool, direction in rows]
