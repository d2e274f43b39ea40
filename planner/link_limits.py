"""Which links users' grants cross, and what those can carry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from allocation.allocate import Allocation
from allocation.links import Paths, limit_to_links
from planner.fleet import Fleet
from planner.snapshot import Level
from planner.structure import Structure
from topology.identity import Attachment
from topology.routes import Flows, Routes, part_flows
from topology.traffic import TrafficView

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: Where traffic goes is looked at anew this often; it goes through all edges of the traffic graph.
LOOK_EVERY_S: Final = 60.0


@dataclass(frozen=True, eq=False)
class LinkLimits:
    """Where each user's traffic goes, upload and download apart, and what the links on the way carry."""

    #: Row of the structure by flow, shape (n_flows,), and what flowed that way, bit/s.
    pool: tuple[I64, I64]
    rate_bps: tuple[F64, F64]
    paths: tuple[Paths, Paths]
    #: shape (n_links,), bit/s; infinite where nobody says.
    capacity_bps: F64
    #: shape (n_pools,): the structure's, with each user's divided among its application classes.
    weight: F64

    def within(self, allocation: Allocation, direction: int) -> npt.NDArray[np.int64]:
        """Every pool's grant, cut where links are full; see ``allocation.links.limit_to_links``."""
        return limit_to_links(
            allocation.stages_bps,
            self.pool[direction].astype(np.int32),
            self.rate_bps[direction],
            self.paths[direction],
            self.capacity_bps,
            self.weight,
        )


class LinkWatch:
    """Keeps the limits up to date: after a change of users or links at once, else once a minute."""

    def __init__(self) -> None:
        self._known_for: tuple[Structure, Routes] | None = None
        self._looked = float("-inf")
        self._limits: LinkLimits | None = None

    def limits(
        self, s: Structure, fleet: Fleet, view: Callable[[float], TrafficView], now: float
    ) -> LinkLimits | None:
        """The limits now; ``view`` gives the traffic graph and is asked only when they are reckoned anew."""
        routes = fleet.routes
        same = self._known_for is not None and self._known_for[0] is s and self._known_for[1] is routes
        if not same or not 0 <= now - self._looked < LOOK_EVERY_S:
            self._known_for, self._looked = (s, routes), now
            self._limits = link_limits(s, routes, fleet.link_capacity_bps(), view(now), fleet.attachments)
        return self._limits


def link_limits(
    s: Structure,
    routes: Routes,
    capacity_bps: F64,
    view: TrafficView,
    attachments: Mapping[str, tuple[Attachment, ...]],
) -> LinkLimits | None:
    """What bounds the grants of this structure; None where no link's capacity is known.

    ``capacity_bps`` has shape (n_links,), NaN where it is not known.
    """
    capacity = np.where(np.isnan(capacity_bps), np.inf, capacity_bps)
    if not np.isfinite(capacity).any():
        return None
    row_of = {user: s.first_user + number for number, user in enumerate(s.users)}
    places = {
        user: tuple(dict.fromkeys(device.dpid for device in devices))
        for user, devices in attachments.items()
        if user in row_of
    }
    found = part_flows(routes, view, places)
    row = np.array([row_of[user] for user, _ in found.parts], np.int64)

    def paths(flows: Flows) -> Paths:
        return Paths(flows.first.astype(np.int32), flows.link.astype(np.int32), len(capacity))

    (up_row, up), (down_row, down) = (_of_classes(s, row, flows) for flows in (found.up, found.down))
    return LinkLimits(
        (up_row, down_row), (up.rate_bps, down.rate_bps), (paths(up), paths(down)), capacity, _weight(s)
    )


def _weight(s: Structure) -> F64:
    """Weights among leaves of any user; those of classes only say how they share what is their user's."""
    classes = np.flatnonzero(s.level == Level.APPLICATION)
    user = s.parent[classes]
    weight = s.weight.copy()
    weight[classes] *= (s.weight / np.bincount(user, s.weight[classes], len(weight)).clip(min=1e-300))[user]
    return weight


def _of_classes(s: Structure, row: I64, flows: Flows) -> tuple[I64, Flows]:
    """Whose each flow is, by row, with the flows of users that have application classes as those classes' own.

    Which class goes where is not known: each is taken to go where the user's traffic does.
    row : shape (n_parts,), each part's user.
    """
    pool = row[flows.part]
    # Classes are the last rows, in the order of their users.
    first_class = s.user_rows.stop
    begin, end = (np.searchsorted(s.parent[first_class:], pool, side) for side in ("left", "right"))
    if (begin == end).all():
        return pool, flows
    at, place = _repeated(np.maximum(end - begin, 1))
    pool = np.where((end > begin)[at], first_class + begin[at] + place, pool[at])
    crossing, within = _repeated(np.diff(flows.first)[at])
    first = np.concatenate([[0], np.cumsum(np.diff(flows.first)[at])])
    link = flows.link[flows.first[at[crossing]] + within]
    return pool, Flows(flows.part[at], flows.rate_bps[at], first, link)


def _repeated(times: I64) -> tuple[I64, I64]:
    """Each number so many times, and which of its own it is: for 2, 0, 1 these are 0, 0, 2 and 0, 1, 0."""
    number = np.repeat(np.arange(len(times)), times)
    return number, np.arange(len(number)) - np.repeat(np.cumsum(times) - times, times)
