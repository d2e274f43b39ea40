"""From grants to meters: shares for each switch, in whole kbit/s.

This is the one place where bit/s become kbit/s.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from allocation.shares import split
from planner.away import FREE, HeldShares
from planner.config import Allocation
from planner.plan import MeterTable
from planner.pool_rows import BOTTOM_UP
from planner.snapshot import Level
from planner.structure import Structure

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

#: A group's burst is larger than a user's, and a region's than a group's: bursts that
#: one meter lets through should not be dropped by the next.
BURST_FACTOR: Final = np.array([4.0, 4.0, 2.0, 1.0, 1.0])
#: Of a user that has application classes: it is to them what a group is to users.
_SHARED_USER_FACTOR: Final = 2.0

#: A TCP with fewer frames under way waits for a time-out at each loss: nothing comes behind to tell of it.
_LEAST_WINDOW_BITS: Final = 4 * 1514 * 8
#: What the saw-tooth of a TCP with more under way needs, in seconds of the rate, up to 100 ms of round trip.
_SAWTOOTH_S: Final = 0.1

#: What a band's 32 bits can say, some 4.3 Tbit/s.
_MOST_KBPS: Final = 2**32 - 1


def switch_shares(
    structure: Structure,
    grant_bps: I64,
    user_demand_bps: F64,
    direction: int,
    floor_bps: float = 0.0,
    held: HeldShares | None = None,
) -> I64:
    """Each meter's part of its pool's grant in one direction, shape (n_entries,); 0 for the other direction.

    ``grant_bps`` has shape (n_pools,), ``user_demand_bps`` shape (n_entries,). A user on
    several switches is split by demand; groups and regions by what their
    users were given there, so that a user's share always fits the meters behind it. Where a user has
    application classes, these are split by demand, and the user by what they were given.
    A switch on which a region has no user yet gets ``floor_bps``, off the top: the first
    packets of somebody new pass there.
    What a switch out of reach holds is left to it: it is told the least that it may enforce, and the others share
    what its pools have besides the most. Where that leaves less than ``floor_bps`` for each of them, they have
    the floor (of a small grant half an equal part), so a pool may then be above its grant by so much. Where that leaves
    a group less on a switch than its users have there, they are cut with it.
    """
    e = structure.entries
    share = np.zeros(len(e.pool), np.int64)
    given = np.zeros(len(e.pool), np.int64)
    mine = free = e.direction == direction
    asks = structure.asks[e.pool]
    if held is not None:
        free = mine & (held.told_bps == FREE)
        share[mine & ~free] = held.told_bps[mine & ~free]
        grant_bps = _beside_held(structure, grant_bps, mine, free, held, floor_bps)
    for level in BOTTOM_UP:
        at_level = mine & (structure.level[e.pool] == level)
        if level >= Level.USER:
            rows = np.flatnonzero(at_level & free & asks)
            share[rows] = split(grant_bps, e.pool[rows].astype(np.int32), user_demand_bps[rows])
        rows = np.flatnonzero(at_level & free & ~asks)
        # Strangers are of no user: only what is above users keeps a floor for them.
        floor = floor_bps if level < Level.USER else 0.0
        share[rows] = _around_idle(grant_bps, e.pool[rows].astype(np.int32), given[rows], floor)
        rows = np.flatnonzero(at_level)
        above = e.parent[rows]
        has = above >= 0
        np.add.at(given, above[has], share[rows][has])
    return share if held is None else _fitted(structure, share, mine & free)


def _fitted(structure: Structure, share_bps: I64, free: Bool) -> I64:
    """Shares cut in proportion to what the meter behind them has, from above.

    Grants know nothing of what is held: what other switches leave of a group may be less than its users have here.
    """
    e, share = structure.entries, share_bps.copy()
    for level in reversed(BOTTOM_UP):
        rows = np.flatnonzero(free & (e.parent >= 0) & (structure.level[e.pool] == level))
        above = e.parent[rows]
        below = np.zeros(len(share), np.int64)
        np.add.at(below, above, share[rows])
        over = below[above] > share[above]
        rows, above = rows[over], above[over]
        # A hair less, so that rounding never makes the parts more than the whole.
        part = share[above] / below[above] * (1 - 2.0**-48)
        share[rows] = np.floor(share[rows] * part).astype(np.int64)
    return share


def _beside_held(
    structure: Structure, grant_bps: I64, mine: Bool, free: Bool, held: HeldShares, floor_bps: float
) -> I64:
    """What each pool has for the meters whose shares are free, shape (n_pools,)."""
    pool, n = structure.entries.pool, len(grant_bps)
    kept = np.zeros(n, np.int64)
    np.add.at(kept, pool[mine & ~free], held.most_bps[mine & ~free])
    n_all, n_free = (np.bincount(pool[rows], minlength=n) for rows in (mine, free))
    floor = np.minimum(floor_bps, grant_bps / (2 * np.maximum(n_all, 1))).astype(np.int64)
    beside: I64 = np.where(kept > 0, np.maximum(grant_bps - kept, floor * n_free), grant_bps)
    return beside


def _around_idle(grant_bps: I64, pool: npt.NDArray[np.int32], given_bps: I64, floor_bps: float) -> I64:
    """What users were given on each switch and an equal part of the rest, with a floor where none was."""
    idle = given_bps == 0
    n_idle = np.bincount(pool[idle], minlength=len(grant_bps))
    n_all = np.maximum(np.bincount(pool, minlength=len(grant_bps)), 1)
    floor = np.where(n_idle < n_all, np.minimum(floor_bps, grant_bps / (2 * n_all)), 0).astype(np.int64)
    rest = grant_bps - floor * n_idle
    below = np.zeros(len(grant_bps), np.int64)
    np.add.at(below, pool, given_bps)
    # Added to what users were given, in whole numbers: a proportion of it may round a bit below it.
    # Only where the floor leaves less than users were given are they cut, in proportion.
    fits = below <= rest
    more = split(
        np.where(fits, rest - below, rest), pool, np.where(fits[pool], 0.0, given_bps), equal_part=0.0
    )
    share: I64 = more + np.where(fits[pool], given_bps, 0) + np.where(idle, floor[pool], 0)
    return share


def meter_tables(structure: Structure, share_bps: I64, settings: Allocation) -> dict[int, MeterTable]:
    """The meters of each switch; ``share_bps`` has shape (n_entries,), both directions.

    Rates are rounded down, so that children do not outgrow their parent. Pools that
    share a meter share its rate.
    """
    e = structure.entries
    shared = (structure.level == Level.USER) & ~structure.asks
    factor = np.where(shared, _SHARED_USER_FACTOR, BURST_FACTOR[structure.level])[e.pool]
    tables = {}
    for row, dpid in enumerate(structure.dpids):
        mine = np.flatnonzero((e.switch == row) & (e.meter_id > 0))
        ids, place = np.unique(e.meter_id[mine], return_inverse=True)
        rate_bps = np.bincount(place, share_bps[mine].astype(np.float64), len(ids))
        largest = np.zeros(len(ids))
        np.maximum.at(largest, place, factor[mine])
        rate_kbps = np.clip(np.floor(rate_bps / 1e3), 1, _MOST_KBPS)
        burst_kbit = np.minimum(np.ceil(burst_bits(rate_kbps * 1e3, settings, largest) / 1e3), _MOST_KBPS)
        tables[dpid] = MeterTable(
            ids.astype(np.uint32), rate_kbps.astype(np.uint32), burst_kbit.astype(np.uint32)
        )
    return tables


def burst_bits(rate_bps: F64, settings: Allocation, factor: F64 | float = 1.0) -> F64:
    """The least burst with which TCP reaches these rates; rises with the rate, never in steps.

    Where less than four frames fit into the round trip, TCP is held back by time-outs of 0.2 s, and
    ``settings.burst_s`` seconds of the rate must outlast one. A faster meter needs no more bits for that, until
    the saw-tooth of the window does. Measured: docs/design/enforcement.md.

    Parameters
    ----------
    rate_bps : any shape
    factor :   broadcasts to it; what the burst is multiplied by, unless it is the least there is.
    """
    # The rate from which so many frames are under way.
    knee_bps = _LEAST_WINDOW_BITS / (settings.rtt_ms / 1e3)
    time_out = np.minimum(rate_bps, knee_bps) * settings.burst_s
    saw_tooth = rate_bps * min(_SAWTOOTH_S, settings.burst_s)
    return np.maximum(np.maximum(time_out, saw_tooth) * factor, settings.min_burst_kbit * 1e3)
