"""Grants that also fit the links they cross.

A pool tree knows who shares with whom; it does not know that two regions use
the same fibre. Where paths are known, each flow (a pool on a path) is held to
what the links of its path can carry, by weighted max-min over all links at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from allocation.compiled import Bits, Indices, Rates, compiled
from allocation.shares import split

#: How near a link's level must be to the lowest for rounding to be all there is between them.
_NEAR: Final = 1e-12


@dataclass(frozen=True, eq=False)
class Paths:
    """Which links each flow crosses: those of flow ``f`` are ``link[first[f] : first[f + 1]]``.

    Raises
    ------
    ValueError : if a bound below is broken, or a flow crosses a link twice.
    """

    #: shape (n_flows + 1,), from 0, not falling, to len(link).
    first: Indices
    #: shape (n_crossings,), 0 to n_links - 1.
    link: Indices
    n_links: int
    #: The flows on link ``l`` are ``flow[first_flow[l] : first_flow[l + 1]]``.
    first_flow: Indices = field(init=False, repr=False)
    flow: Indices = field(init=False, repr=False)

    def __post_init__(self) -> None:
        first, link = np.array(self.first, np.int32), np.array(self.link, np.int32)
        if len(first) == 0 or first[0] != 0 or first[-1] != len(link) or (np.diff(first) < 0).any():
            raise ValueError(f"first must rise from 0 to {len(link)}, the number of crossings")
        if len(link) and not (link.min() >= 0 and link.max() < self.n_links):
            raise ValueError(f"link must be 0 to {self.n_links - 1}, got {link.min()} to {link.max()}")
        flow = np.repeat(np.arange(len(first) - 1), np.diff(first))
        crossing = np.sort(flow * np.int64(max(self.n_links, 1)) + link)
        twice = np.flatnonzero(crossing[1:] == crossing[:-1])
        if len(twice):
            f, again = divmod(int(crossing[twice[0]]), self.n_links)
            raise ValueError(f"a flow must cross a link once, flow {f} crosses link {again} again")
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "link", link)
        first_flow = np.zeros(self.n_links + 1, np.int32)
        np.cumsum(np.bincount(link, minlength=self.n_links), out=first_flow[1:])
        object.__setattr__(self, "first_flow", first_flow)
        object.__setattr__(self, "flow", _by_link(first, link, first_flow))

    @classmethod
    def of(cls, paths: Sequence[Sequence[int]], n_links: int) -> Paths:
        """From a list of links for each flow."""
        first = np.cumsum([0, *map(len, paths)])
        return cls(first.astype(np.int32), np.array([x for path in paths for x in path], np.int32), n_links)


def fill_links(
    paths: Paths,
    capacity_bps: Rates,
    demand_bps: Rates,
    weight: Rates | None = None,
    guarantee_bps: Rates | None = None,
) -> Bits:
    """Weighted max-min over links: nobody can gain without somebody poorer on a shared link losing.

    All flows rise together, by weight, above their guarantees, until each has its demand or meets a
    link that is full.

    Parameters
    ----------
    paths :
    capacity_bps : shape (n_links,)    What the flows may use of each link, >= 0; infinity for no limit.
    demand_bps : shape (n_flows,)      Most that each flow can use, >= 0, finite. A flow without links gets it.
    weight : shape (n_flows,)          > 0, finite; only ratios matter. All alike by default.
    guarantee_bps : shape (n_flows,)   What each has before anyone rises, >= 0; no more of it than it
        demands. None by default.

    Returns
    -------
    shape (n_flows,), whole bit/s. On no link do they sum to more than its capacity.

    Raises
    ------
    ValueError : if a bound above is broken, or if guarantees do not fit a link; names link and numbers.

    Source
    ------
    Progressive filling: D. Bertsekas and R. Gallager, "Data Networks", 2nd ed., section 6.5.2.
    """
    n_flows = len(paths.first) - 1
    capacity = _checked("capacity_bps", capacity_bps, paths.n_links)
    demand = np.floor(_checked("demand_bps", demand_bps, n_flows))
    if not np.isfinite(demand).all():
        raise ValueError("demand_bps must be finite")
    weight = np.ones(n_flows) if weight is None else _checked("weight", weight, n_flows)
    if not ((weight > 0) & np.isfinite(weight)).all():
        raise ValueError("weight must be > 0 and finite")
    least = np.zeros(n_flows) if guarantee_bps is None else _checked("guarantee_bps", guarantee_bps, n_flows)
    least = np.floor(np.minimum(least, demand))
    promised = _link_totals(paths.first, paths.link, paths.n_links, least)
    room: Rates = np.floor(capacity) - promised
    if (room < 0).any():
        i = int((room < 0).argmax())
        raise ValueError(
            f"link {i}: guarantees need {promised[i]:.0f} bit/s, above its capacity {capacity[i]:.0f} bit/s"
        )
    above: Rates = demand - least
    order = np.argsort(above / weight, kind="stable").astype(np.int32)
    rise = _fill(paths.first, paths.link, paths.first_flow, paths.flow, room, above, weight, order)
    return least.astype(np.int64) + _whole(rise, room, paths.first_flow, paths.flow)


def limit_to_links(
    stages_bps: Bits,
    pool: Indices,
    rate_bps: Rates,
    paths: Paths,
    capacity_bps: Rates,
    weight: Rates | None = None,
) -> Bits:
    """Grants of leaves cut to what the links of their paths can carry, the most urgent part last.

    What each pool holds is split over its flows by where its traffic goes; then the flows are filled into the
    links stage by stage, so that nobody's present use is cut for what others may want. A pool may then have
    what keeps every one of its flows within its share, as long as its traffic is split as it was. Grants
    never rise, so what fitted a tree still does.

    Parameters
    ----------
    stages_bps : shape (n_stages, n_pools)   What each pool held after each stage, as
        ``Allocation.stages_bps``; the last row are the grants. Of leaves, or of any pools whose flows are told apart.
    pool : shape (n_flows,)                  Whose flow it is.
    rate_bps : shape (n_flows,)              What flowed that way, > 0; only ratios within a pool matter.
    paths, capacity_bps :                    As in ``fill_links``.
    weight : shape (n_pools,)                As the tree's: that of each of the pool's flows.

    Returns
    -------
    The grants, shape (n_pools,). A pool without flows keeps its grant: nothing is known of where it goes.
    """
    grant, pool = np.asarray(stages_bps[-1], np.int64), np.asarray(pool, np.int32)
    rate = _checked("rate_bps", rate_bps, len(pool))
    known = np.bincount(pool, rate, len(grant))
    part = rate / np.where(known > 0, known, 1.0)[pool]
    capacity = _checked("capacity_bps", capacity_bps, paths.n_links)
    if (_link_totals(paths.first, paths.link, paths.n_links, part * grant[pool]) <= capacity).all():
        return grant
    flow_weight = None if weight is None else np.asarray(weight, np.float64)[pool]
    carried = np.zeros(len(pool), np.int64)
    for held in stages_bps:
        wanted = split(np.asarray(held, np.int64), pool, part * held[pool], equal_part=0)
        most = np.maximum(wanted, carried).astype(np.float64)
        carried = fill_links(paths, capacity, most, flow_weight, carried.astype(np.float64))
    # Nothing holds a pool to its flows one by one: the one that is cut most says how much it may have.
    most_of = np.where(carried < most, np.floor(carried / np.where(part > 0, part, 1.0)), np.inf)
    limit = np.full(len(grant), np.inf)
    np.minimum.at(limit, pool, most_of)
    cut: Bits = np.minimum(grant, limit).astype(np.int64)
    return cut


def _checked(name: str, values: Rates, size: int) -> Rates:
    column = np.asarray(values, np.float64)
    if column.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), got {column.shape}")
    bad = ~(column >= 0)
    if bad.any():
        i = int(bad.argmax())
        raise ValueError(f"{name}[{i}] must be >= 0 and not NaN, got {column[i]}")
    return column


@compiled
def _by_link(first: Indices, link: Indices, first_flow: Indices) -> Indices:
    """The flows of each link, side by side."""
    flows = np.empty(len(link), np.int32)
    following = first_flow.copy()
    for flow in range(len(first) - 1):
        for k in range(first[flow], first[flow + 1]):
            flows[following[link[k]]] = flow
            following[link[k]] += 1
    return flows


@compiled
def _link_totals(first: Indices, link: Indices, n_links: int, values: Rates) -> Rates:
    total = np.zeros(n_links)
    for flow in range(len(first) - 1):
        for k in range(first[flow], first[flow + 1]):
            total[link[k]] += values[flow]
    return total


@compiled
def _fill(
    first: Indices,
    link: Indices,
    first_flow: Indices,
    by_link: Indices,
    room: Rates,
    demand: Rates,
    weight: Rates,
    order: Indices,
) -> Rates:
    """The flows' shares; ``order`` lists them by rising ``demand / weight``.

    Links wait in a heap by the level at which they would be full if nobody stopped rising before. Those levels only
    rise as flows stop, so a link whose level has risen since is put back, and one whose level has not is full.
    """
    n_links, n_flows = len(room), len(demand)
    share = np.full(n_flows, -1.0)  # still rising
    left, rising = room.copy(), np.zeros(n_links)
    for at in range(n_links):
        for k in range(first_flow[at], first_flow[at + 1]):
            rising[at] += weight[by_link[k]]
    key, heap, size = np.empty(n_links), np.empty(n_links, np.int32), 0
    for at in range(n_links):
        if rising[at] > 0 and left[at] < np.inf:
            key[at] = left[at] / rising[at]
            heap[size] = at
            size += 1
    for place in range(size // 2 - 1, -1, -1):
        _sink(heap, size, key, place)
    following = 0
    while size > 0:
        at = heap[0]
        while following < n_flows and demand[order[following]] <= key[at] * weight[order[following]]:
            flow = order[following]
            following += 1
            if share[flow] < 0:
                share[flow] = demand[flow]
                for k in range(first[flow], first[flow + 1]):
                    left[link[k]] -= share[flow]
                    rising[link[k]] -= weight[flow]
        now = left[at] / rising[at] if rising[at] > 0 else np.inf
        if now <= key[at] * (1 + _NEAR):
            # Differences may have eaten the digits; summed anew, it is certain.
            left[at], rising[at] = room[at], 0.0
            for k in range(first_flow[at], first_flow[at + 1]):
                flow = by_link[k]
                if share[flow] < 0:
                    rising[at] += weight[flow]
                else:
                    left[at] -= share[flow]
            now = max(left[at], 0.0) / rising[at] if rising[at] > 0 else np.inf
        if now > key[at] * (1 + _NEAR) and now < np.inf:
            key[at] = now
            _sink(heap, size, key, 0)
            continue
        if now < np.inf:
            for k in range(first_flow[at], first_flow[at + 1]):
                flow = by_link[k]
                if share[flow] < 0:
                    share[flow] = min(now * weight[flow], demand[flow])
                    for j in range(first[flow], first[flow + 1]):
                        left[link[j]] -= share[flow]
                        rising[link[j]] -= weight[flow]
        size -= 1
        heap[0] = heap[size]
        _sink(heap, size, key, 0)
    for flow in range(n_flows):
        if share[flow] < 0:
            share[flow] = demand[flow]
    return share


@compiled
def _sink(heap: Indices, size: int, key: Rates, place: int) -> None:
    """Let an entry of the heap sink to where it belongs."""
    moving = heap[place] if place < size else 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and key[heap[child + 1]] < key[heap[child]]:
            child += 1
        if key[heap[child]] >= key[moving]:
            break
        heap[place] = heap[child]
        place = child
    if place < size:
        heap[place] = moving


@compiled
def _whole(rise: Rates, room: Rates, first_flow: Indices, by_link: Indices) -> Bits:
    """Rounded down; and by single bits further where rounding errors would overfill a link."""
    share = np.empty(len(rise), np.int64)
    for flow in range(len(rise)):
        # A share that is whole but for the last digits is whole.
        share[flow] = int(rise[flow] * (1 + 1e-15) + 1e-9)
    for at in range(len(room)):
        total = 0.0
        for k in range(first_flow[at], first_flow[at + 1]):
            total += share[by_link[k]]
        while total > room[at]:
            for k in range(first_flow[at], first_flow[at + 1]):
                flow = by_link[k]
                if total > room[at] and share[flow] > 0:
                    share[flow] -= 1
                    total -= 1
    return share
