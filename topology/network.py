"""The network as one immutable value: switches, ports, links and hosts.

Nothing here asks a switch anything; the OpenFlow process builds a ``Network``
from what it discovered, and every question below is answered from that value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Port:
    """One port of one switch. ``speed_bps`` is 0 where the switch does not say."""

    dpid: int
    port_no: int
    name: str
    speed_bps: float
    up: bool


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """One direction of a cable between two switch ports, as LLDP finds it."""

    src_dpid: int
    src_port: int
    dst_dpid: int
    dst_port: int

    @property
    def reverse(self) -> Link:
        """The same cable, the other way."""
        return Link(self.dst_dpid, self.dst_port, self.src_dpid, self.src_port)


@dataclass(frozen=True, slots=True)
class Host:
    """An end station. It is its MAC; where it is and what it is called may change."""

    mac: str
    addresses: frozenset[str]
    dpid: int
    port_no: int
    #: Epoch seconds.
    last_seen: float


@dataclass(frozen=True)
class Network:
    """What is known of the network at one moment.

    Ports are keyed by (dpid, port_no), hosts by MAC. Links may name switches
    that are not connected now; ``usable_links`` leaves those out.
    """

    switches: frozenset[int] = frozenset()
    ports: Mapping[tuple[int, int], Port] = field(default_factory=dict)
    links: frozenset[Link] = frozenset()
    hosts: Mapping[str, Host] = field(default_factory=dict)

    @cached_property
    def inter_switch_ports(self) -> frozenset[tuple[int, int]]:
        """Every (dpid, port_no) that is an end of a link, even of a link seen one way only.

        One direction is proof enough that no host sits there.
        """
        sources = {(link.src_dpid, link.src_port) for link in self.links}
        return frozenset(sources | {(link.dst_dpid, link.dst_port) for link in self.links})

    @cached_property
    def usable_links(self) -> frozenset[Link]:
        """The links that may carry traffic, always in both directions.

        Left out: a link known in one direction only, a link to a switch that
        is not connected, a cable from a switch to itself, and a link with an
        end that is reported down.
        """
        return frozenset(link for link in self.links if link.reverse in self.links and self._can_carry(link))

    @cached_property
    def link_from(self) -> Mapping[tuple[int, int], Link]:
        """The usable link that leaves each (dpid, port_no); the lowest, if a port has several."""
        return {(link.src_dpid, link.src_port): link for link in sorted(self.usable_links, reverse=True)}

    @cached_property
    def edge_switches(self) -> frozenset[int]:
        """The switches to which at least one host is attached."""
        return frozenset(host.dpid for host in self.hosts.values()) & self.switches

    @cached_property
    def core_switches(self) -> frozenset[int]:
        """The switches that only forward: no host is attached."""
        return self.switches - self.edge_switches

    def is_edge_port(self, dpid: int, port_no: int) -> bool:
        """True where a host may be: the port is not an end of a link."""
        return (dpid, port_no) not in self.inter_switch_ports

    def is_up(self, dpid: int, port_no: int) -> bool:
        """False only for a port reported down; a port not reported yet counts as up."""
        port = self.ports.get((dpid, port_no))
        return port is None or port.up

    def edge_ports(self, dpid: int) -> tuple[int, ...]:
        """The port numbers of one switch where hosts may be and that are up, ascending."""
        ports = (no for (of, no), port in self.ports.items() if of == dpid and port.up)
        return tuple(sorted(no for no in ports if self.is_edge_port(dpid, no)))

    def hosts_on(self, dpid: int) -> tuple[Host, ...]:
        """The hosts attached to one switch, by port and MAC."""
        found = (host for host in self.hosts.values() if host.dpid == dpid)
        return tuple(sorted(found, key=lambda host: (host.port_no, host.mac)))

    def with_switch(self, dpid: int) -> Network:
        """This network with one more switch."""
        return replace(self, switches=self.switches | {dpid})

    def without_switch(self, dpid: int) -> Network:
        """This network without one switch, its ports and its links.

        Its hosts stay: a switch that reconnects finds them where they were.
        """
        return replace(
            self,
            switches=self.switches - {dpid},
            ports={key: port for key, port in self.ports.items() if key[0] != dpid},
            links=frozenset(link for link in self.links if dpid not in (link.src_dpid, link.dst_dpid)),
        )

    def with_port(self, port: Port) -> Network:
        """This network with a port added or replaced."""
        return replace(self, ports={**self.ports, (port.dpid, port.port_no): port})

    def without_port(self, dpid: int, port_no: int) -> Network:
        """This network without one port and the links that end there."""
        end = (dpid, port_no)
        return replace(
            self,
            ports={key: port for key, port in self.ports.items() if key != end},
            links=frozenset(
                link
                for link in self.links
                if end not in ((link.src_dpid, link.src_port), (link.dst_dpid, link.dst_port))
            ),
        )

    def with_link(self, link: Link) -> Network:
        """This network with one direction of a link added."""
        return replace(self, links=self.links | {link})

    def without_link(self, link: Link) -> Network:
        """This network with one direction of a link taken away."""
        return replace(self, links=self.links - {link})

    def with_hosts(self, hosts: Mapping[str, Host]) -> Network:
        """This network with these hosts in place of its own."""
        return replace(self, hosts=hosts)

    def _can_carry(self, link: Link) -> bool:
        return (
            link.src_dpid != link.dst_dpid
            and link.src_dpid in self.switches
            and link.dst_dpid in self.switches
            and self.is_up(link.src_dpid, link.src_port)
            and self.is_up(link.dst_dpid, link.dst_port)
        )
