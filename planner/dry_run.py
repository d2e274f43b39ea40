"""What a write would change in the switches, without making it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planner.decision import Decision, decide
from planner.loop import Planner
from planner.metering import meter_tables
from planner.plan import MeterTable
from planner.policy import Policies
from planner.snapshot import Refused
from planner.structure import Structure, repriced


@dataclass(frozen=True)
class MeterChange:
    """One meter that would get another rate."""

    dpid: int
    meter_id: int
    #: Path of the pool that it polices, and 0 for upload, 1 for download; shared ones have their switch's.
    pool: str
    direction: int
    before_kbps: int
    after_kbps: int


def changed_meters(
    planner: Planner, change: Callable[[Policies], None], now: float
) -> tuple[MeterChange, ...]:
    """The meters that the newest decision would have set otherwise under changed policies, the largest change first.

    ``change`` is given policies of its own and may raise Refused. Use, forecasts and the grants in force
    are those of the newest decision for both, so nothing differs but by the change. ``now`` is when
    it is in force: for what begins later its beginning.

    Raises
    ------
    Refused : before the first plan, and what ``change`` raises.
    """
    with planner.lock:
        decided = planner.decided
        if decided is None:
            raise Refused("plan must have been decided before a write can be tried, got none yet")
        # A shallow copy: making one anew would read the policy file again.
        policies = copy.copy(planner.policies)
        policies.boosts, policies.overrides = dict(policies.boosts), dict(policies.overrides)
        change(policies)
        load, limits = planner.region_load(), planner.link_limits(decided.structure, now)
    policies.step(now, load)
    config, before = planner.config, decided.structure
    # What takes long is done without the lock: all of it is values.
    after = repriced(before, config, policies)

    def made(s: Structure) -> Decision:
        was = decided.decision
        in_force = was.grant_bps.astype(np.float64)
        return decide(config.allocation, s, decided.observed, was.forecast, in_force, was.asked, limits)

    tables = [meter_tables(s, made(s).share_bps, config.allocation) for s in (before, after)]
    return _differences(before, *tables)


def _differences(
    s: Structure, before: dict[int, MeterTable], after: dict[int, MeterTable]
) -> tuple[MeterChange, ...]:
    found = []
    for dpid, table in after.items():
        owners = {owner.meter_id: owner for owner in s.layouts[dpid].owners}
        old = before[dpid].rates()
        for meter, (rate_kbps, _) in table.rates().items():
            if rate_kbps != old[meter][0]:
                owner = owners[meter]
                found.append(MeterChange(dpid, meter, owner.pool, owner.direction, old[meter][0], rate_kbps))
    return tuple(sorted(found, key=lambda one: -abs(one.after_kbps - one.before_kbps)))
