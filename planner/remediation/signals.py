"""What tells of congestion: busy or dropping ports, dropping meters of groups and regions, unmet demand.

What is not measured is NaN, and tells nothing. Queues are not seen: a meter polices and has none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from planner.config_remediation import Congestion
from planner.explain import Decided
from planner.pool_rows import BOTTOM_UP
from planner.remediation.steps import Signal
from planner.remediation.troubles import Key
from planner.snapshot import Level
from planner.structure import Structure
from telemetry.samples import DOWN, GAP, UP, SampleBatch

F64 = npt.NDArray[np.float64]

PORT_UTILISATION: Final = "port_utilisation"
PORT_DROPS: Final = "port_drops"
METER_DROPS: Final = "meter_drops"
UNMET_DEMAND: Final = "unmet_demand"

#: Numbers above this are not ports that carry cables.
_LAST_PORT: Final = 0xFFFF_FF00
#: A pool of which this share of its ceiling is wanted has no room for more.
FULL: Final = 0.95
#: So much of a pool's users must be known before anything is said of it.
_KNOWN: Final = 0.9


@dataclass(frozen=True, eq=False)
class Sight:
    """What one tick saw."""

    decided: Decided
    #: The newest poll of each switch that answered lately.
    batches: Mapping[int, SampleBatch]
    #: What each port carries, by dpid and number; absent: not known.
    port_bps: Mapping[tuple[int, int], float]

    @cached_property
    def needs(self) -> Needs:
        """What pools are too small for."""
        return needs_of(self.decided)

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Row of each pool that is no user, by path."""
        s = self.decided.structure
        return {path: row for row, path in enumerate(s.path[: s.first_user])}


def congestion(sight: Sight, rules: Congestion, watched: Collection[Key]) -> Iterator[Signal]:
    """The figures that are high, and those of the places that are watched."""
    yield from port_signals(sight, rules, watched)
    yield from pool_signals(sight, rules, watched)


def port_place(dpid: int, port_no: int) -> str:
    """What a port is called on record."""
    return f"port {dpid:016x}/{port_no}"


def port_of(place: str) -> tuple[int, int] | None:
    """The port that ``port_place`` named; None for pools."""
    if not place.startswith("port "):
        return None
    dpid, _, port_no = place.removeprefix("port ").partition("/")
    return int(dpid, 16), int(port_no)


def port_signals(sight: Sight, rules: Congestion, watched: Collection[Key]) -> Iterator[Signal]:
    """How busy ports are in each direction, and what they drop. Direction 0 is into the switch."""
    for dpid, batch in sorted(sight.batches.items()):
        ports = batch.ports
        number = ports.port_no.astype(np.int64)
        capacity = np.array([sight.port_bps.get((dpid, one), math.nan) for one in number.tolist()])
        capacity[~(capacity > 0)] = np.nan
        for direction, rate in ((UP, ports.rx_bps), (DOWN, ports.tx_bps)):
            share = rate / capacity
            for row in np.flatnonzero(number <= _LAST_PORT).tolist():
                place = port_place(dpid, int(number[row]))
                if share[row] >= rules.port_utilisation or (place, direction) in watched:
                    evidence = {"rate_bps": float(rate[row]), "capacity_bps": float(capacity[row])}
                    value = float(share[row])
                    yield _signal(
                        PORT_UTILISATION, (place, direction), value, rules.port_utilisation, rules, evidence
                    )
        for row in np.flatnonzero(number <= _LAST_PORT).tolist():
            place, lost = port_place(dpid, int(number[row])), float(ports.dropped_pps[row])
            if lost >= rules.port_drops_pps or (place, DOWN) in watched:
                evidence = {"dropped_pps": lost, "rate_bps": float(ports.tx_bps[row])}
                yield _signal(PORT_DROPS, (place, DOWN), lost, rules.port_drops_pps, rules, evidence)


def pool_signals(sight: Sight, rules: Congestion, watched: Collection[Key]) -> Iterator[Signal]:
    """What meters of groups and regions drop, and what is wanted of pools that are too small."""
    s = sight.decided.structure
    offered, dropped = meter_loads(sight)
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = np.where(offered > 0, dropped / offered, np.where(offered == 0, 0.0, np.nan))
    needs = sight.needs
    for direction in (UP, DOWN):
        for row in np.flatnonzero(s.level < Level.USER).tolist():
            key = (s.path[row], direction)
            share = float(lost[direction, row])
            if share >= rules.meter_drops or key in watched:
                evidence = {
                    "offered_bps": float(offered[direction, row]),
                    "dropped_bps": float(dropped[direction, row]),
                }
                yield _signal(METER_DROPS, key, share, rules.meter_drops, rules, evidence)
            share = float(needs.share[direction, row])
            if share >= rules.unmet_demand or key in watched:
                evidence = {
                    "wanted_bps": float(needs.wanted_bps[direction, row]),
                    "unmet_bps": float(needs.unmet_bps[direction, row]),
                    "ceiling_bps": float(s.ceiling_bps[direction, row]),
                }
                yield _signal(UNMET_DEMAND, key, share, rules.unmet_demand, rules, evidence)


def _signal(
    kind: str, key: Key, value: float, high: float, rules: Congestion, evidence: Mapping[str, float]
) -> Signal:
    return Signal(kind, *key, value, high, rules.clear_share * high, evidence)


def meter_loads(sight: Sight) -> tuple[F64, F64]:
    """What came to each pool's own meters and what they dropped, bit/s, shape (2, n_pools); NaN: not known."""
    s = sight.decided.structure
    e = s.entries
    offered, dropped = np.zeros((2, len(s.path))), np.zeros((2, len(s.path)))
    seen = np.zeros((2, len(s.path)), bool)
    for dpid, batch in sight.batches.items():
        table, meters = s.entry_of_meter.get(dpid), batch.meters
        if table is None or not len(meters.meter_id):
            continue
        ids = meters.meter_id.astype(np.int64)
        rows = np.where(ids < len(table), table[np.minimum(ids, len(table) - 1)], -1)
        usable = (rows >= 0) & ((meters.flags & GAP) == 0)
        usable &= np.isfinite(meters.offered_bps) & np.isfinite(meters.dropped_bps)
        at = e.direction[rows[usable]], e.pool[rows[usable]]
        np.add.at(offered, at, meters.offered_bps[usable])
        np.add.at(dropped, at, meters.dropped_bps[usable])
        seen[at] = True
    offered[~seen] = dropped[~seen] = np.nan
    return offered, dropped


@dataclass(frozen=True, eq=False)
class Needs:
    """What is wanted of each pool and is more than it may have. Shapes (2, n_pools), bit/s."""

    #: Of ``wanted_bps``, what is unmet; NaN where too little is known.
    share: F64
    #: What the pools below want together, each within its own ceiling.
    wanted_bps: F64
    #: The part of it above this pool's own ceiling: it is counted where it is stopped, and nowhere else.
    unmet_bps: F64


def needs_of(decided: Decided) -> Needs:
    """What pools are too small for, from what users and their classes offer now."""
    s, n = decided.structure, len(decided.structure.path)
    asking = np.flatnonzero(s.asks)
    share, wanted, unmet = (np.zeros((2, n)) for _ in range(3))
    for d in (UP, DOWN):
        ceiling = s.ceiling_bps[d]
        offered = decided.observed.offered_bps[d, asking]
        wanted[d, asking] = np.nan_to_num(np.minimum(offered, ceiling[asking]))
        for level in BOTTOM_UP:
            rows = np.flatnonzero(s.level == level)
            passed = np.minimum(wanted[d, rows], ceiling[rows])
            wanted[d] += np.bincount(s.parent[rows], passed, n)
        unmet[d] = np.maximum(wanted[d] - ceiling, 0.0)
        users = decided.observed.offered_bps[d, s.user_rows]
        members, known = _below(s, np.ones(len(users))), _below(s, np.isfinite(users))
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where(wanted[d] > 0, unmet[d] / wanted[d], 0.0)
        share[d] = np.where((members > 0) & (known >= _KNOWN * members), part, np.nan)
    return Needs(share, wanted, unmet)


def has_room(needs: Needs, s: Structure, row: int, direction: int) -> bool:
    """Whether all pools above this one hold more than is wanted of them."""
    above = int(s.parent[row])
    while above >= 0:
        if not needs.wanted_bps[direction, above] <= FULL * s.ceiling_bps[direction, above]:
            return False
        above = int(s.parent[above])
    return True


def _below(s: Structure, values: npt.NDArray[np.generic]) -> F64:
    """Sums over the users below each pool, shape (n_pools,)."""
    total = np.zeros(len(s.path))
    total[s.user_rows] = values
    for level in (Level.USER, Level.GROUP, Level.REGION):
        rows = np.flatnonzero(s.level == level)
        total += np.bincount(s.parent[rows], total[rows], len(s.path))
    return total
