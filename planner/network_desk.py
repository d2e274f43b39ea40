"""What operators ask of the network: switches, links, hosts, what changed, and what tells a user."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.loop import Planner
from planner.snapshot import NotThere, Refused
from topology.bindings import Binding
from topology.happenings import TopologyEvent
from topology.identity import Attachment
from topology.network import Host, Link
from topology.routes import capacity_of_links


@dataclass(frozen=True)
class LinkView:
    """One direction of a link. NaN: not known."""

    link: Link
    capacity_bps: float
    #: As its source port sent it in the newest sample.
    rate_bps: float
    #: Held: it flaps, and there is another way.
    held: bool

    @property
    def utilisation(self) -> float:
        """Share of the capacity that is in use."""
        return self.rate_bps / self.capacity_bps


@dataclass(frozen=True)
class HostView:
    """One host, and whose it is."""

    host: Host
    user: str | None
    region: str | None


@dataclass(frozen=True)
class TopologyView:
    """The network as one picture."""

    #: Dpid, whether it is connected, region, description.
    switches: tuple[tuple[int, bool, str | None, str], ...]
    links: tuple[LinkView, ...]
    #: Hosts in all, and some of them by MAC.
    n_hosts: int
    hosts: tuple[HostView, ...]


@dataclass(frozen=True)
class UserBindings:
    """What tells a user, and where its devices are."""

    bindings: tuple[Binding, ...]
    devices: tuple[Attachment, ...]


class NetworkDesk:
    """For any thread. Writes return when they are stored; the next tick follows them."""

    def __init__(
        self, planner: Planner, written: Callable[[str], None], now: Callable[[], float] = time.time
    ) -> None:
        """``written`` is told in words what was changed; when it returns that is on disk."""
        self._planner = planner
        self._written = written
        self._now = now

    def topology(self, offset: int = 0, limit: int = 1000) -> TopologyView:
        """Switches, links with capacity and use, and a page of hosts."""
        with self._planner.lock:
            fleet = self._planner.fleet
            network, held, facts = fleet.network, fleet.held_links, fleet.switches
            views, regions, user_of = fleet.views(), fleet.regions, fleet.resolution.user_of
            links = sorted(network.usable_links | held)
            capacity = capacity_of_links(network, links, fleet.configured_bps(links))
            rate = fleet.sent_bps(links)
        macs = sorted(network.hosts)[offset : offset + limit]
        hosts = (network.hosts[mac] for mac in macs)
        return TopologyView(
            tuple(
                (v.dpid, v.connected, v.region, facts[v.dpid].description if v.dpid in facts else "")
                for v in views
            ),
            tuple(
                LinkView(link, float(bps), float(sent), link in held)
                for link, bps, sent in zip(links, capacity, rate, strict=True)
            ),
            len(network.hosts),
            tuple(HostView(h, user_of.get(h.mac), regions.of_device(h.dpid, h.addresses)) for h in hosts),
        )

    def events(self, since: int = 0) -> tuple[tuple[TopologyEvent, ...], bool, int]:
        """What changed after the event with this id, whether none of that was forgotten, and the newest id."""
        with self._planner.lock:
            log = self._planner.fleet.log
            return (*log.since(since), log.last)

    def bindings(self, user: str) -> UserBindings:
        """What tells a user. Raises NotThere."""
        with self._planner.lock:
            self._check(user)
            fleet = self._planner.fleet
            return UserBindings(fleet.bindings.of(user), fleet.attachments.get(user, ()))

    def bind(
        self, user: str, macs: Sequence[str], addresses: Sequence[str], ttl_s: float | None
    ) -> UserBindings:
        """Bind these to a user, in place of all that was bound by REST before. Raises NotThere, Refused."""
        with self._planner.lock:
            self._check(user)
            fleet, now = self._planner.fleet, self._now()
            try:
                fleet.bindings.give(user, macs, addresses, now, math.inf if ttl_s is None else ttl_s)
            except ValueError as error:
                raise Refused(str(error)) from None
            self._rebind(now)
        self._written(f"user {user} bound to {', '.join([*macs, *addresses])}")
        return self.bindings(user)

    def unbind(self, user: str) -> None:
        """Take back what was bound by REST. Raises NotThere."""
        with self._planner.lock:
            self._check(user)
            if not self._planner.fleet.bindings.withdraw(user):
                raise NotThere(f"user must be one bound by REST, got {user!r}")
            self._rebind(self._now())
        self._written(f"user {user} no longer bound by REST")

    def _rebind(self, now: float) -> None:
        self._planner.fleet.rebind(now)
        self._planner.restructure()

    def _check(self, user: str) -> None:
        if user not in self._planner.config.users:
            raise NotThere(f"user must be one of the configuration's, got {user!r}")
