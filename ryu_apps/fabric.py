"""What this process knows of the network, and the entries that follow from it.

Fed with events, asked for views; it sends nothing and reads no clock.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from planner.config import Config
from planner.plan import Plan, SwitchLayout
from planner.report import NetworkReport, SwitchFacts
from ryu_apps.accounting import application_ports
from ryu_apps.cookies import MAX_SERIES
from ryu_apps.discovery import Discovery
from ryu_apps.pipeline import ApplicationPort, Pipeline, SwitchView
from topology.learning import HostChange, HostTable, LearningRules, Sighting, expire, observe_all
from topology.network import Host, Network, Port
from topology.paths import FloodPorts, NextHops, flood_ports, next_hops


def host_series(mac: str) -> int:
    """The number of a host in cookies: the same in every process. Two hosts may share one, which only
    keeps one of them from being forgotten while the other sends.
    """
    return zlib.crc32(mac.encode()) & MAX_SERIES


@dataclass
class Fabric:
    """Switches, ports, links and hosts as discovered, and where each switch sends."""

    config: Config
    discovery: Discovery
    rules: LearningRules
    table: HostTable = field(default_factory=HostTable)
    facts: dict[int, SwitchFacts] = field(default_factory=dict)
    connected: frozenset[int] = frozenset()
    #: Connected, or lost while their data plane may live on.
    known: frozenset[int] = frozenset()
    ports: dict[tuple[int, int], Port] = field(default_factory=dict)
    version: int = 0
    _network: Network = field(default_factory=Network)
    _hops: NextHops = field(default_factory=dict)
    _flood: FloodPorts = field(default_factory=dict)
    _towards: dict[int, dict[str, int]] = field(default_factory=dict)
    _hosts_on: dict[int, tuple[Host, ...]] = field(default_factory=dict)
    _by_series: dict[tuple[int, int], tuple[str, int]] = field(default_factory=dict)
    _applications: tuple[ApplicationPort, ...] = ()

    @classmethod
    def of(cls, config: Config) -> Fabric:
        """An empty picture with the rules of this configuration."""
        openflow = config.openflow
        return cls(
            config,
            Discovery(openflow.settle_s, openflow.link_timeout_s),
            LearningRules(host_ttl_s=openflow.host_timeout_s, address_ttl_s=openflow.host_timeout_s),
            _applications=application_ports(config),
        )

    # Events.

    def switch_up(self, dpid: int, facts: SwitchFacts, now: float) -> None:
        """A switch is connected and known."""
        self.facts[dpid] = facts
        self.connected |= {dpid}
        self.known |= {dpid}
        self.discovery.reprieve(dpid, now)
        self._rebuild()

    def switch_down(self, dpid: int) -> None:
        """A control channel is lost. The switch may well go on forwarding, so it stays on the map."""
        self.connected -= {dpid}
        self._rebuild()

    def port(self, port: Port, now: float, afresh: bool = False) -> None:
        """A port is there, up or down."""
        before = self.ports.get((port.dpid, port.port_no))
        self.ports[port.dpid, port.port_no] = port
        if not port.up:
            self.discovery.port_down(port.dpid, port.port_no)
        else:
            replaced = before is not None and before.name != port.name
            self.discovery.port_up(port.dpid, port.port_no, now, afresh or replaced)
        self._rebuild()

    def port_gone(self, dpid: int, port_no: int) -> None:
        """A port was removed."""
        self.ports.pop((dpid, port_no), None)
        self.discovery.port_down(dpid, port_no)
        self._rebuild()

    def heard(self, source: tuple[int, int], at: tuple[int, int], now: float) -> bool:
        """An LLDP probe came in. True if that changed the picture."""
        if source[0] not in self.known or not self.discovery.heard(source, at, now):
            return False
        self._rebuild()
        return True

    def seen(self, sightings: Iterable[Sighting], now: float, proven: bool = False) -> tuple[HostChange, ...]:
        """Hosts sent something. What that changed, in order.

        Only edge ports count, unless the place is ``proven`` by the switch's own entries.
        """
        usable = [s for s in sightings if proven or self.discovery.is_edge(s.dpid, s.port_no)]
        self.table, changes = observe_all(self.table, usable, now, rules=self.rules)
        if changes:
            self._rebuild()
        return changes

    def settle(self, now: float) -> None:
        """Time passed: quiet ports become edges, links not heard of die."""
        if self.discovery.advance(now, self.connected):
            self._rebuild()

    def expire(self, now: float) -> tuple[HostChange, ...]:
        """Forget hosts that were silent for too long, and those on ports that turned out to be links."""
        self.table, changes = expire(
            self.table, now, inter_switch=self._network.inter_switch_ports, rules=self.rules
        )
        if changes:
            self._rebuild()
        return changes

    def _rebuild(self) -> None:
        network = Network(self.known, dict(self.ports), self.discovery.links, self.table.by_mac)
        old = self._network
        if (network.switches, network.links, network.ports) != (old.switches, old.links, old.ports):
            self._hops, self._flood = next_hops(network), flood_ports(network)
        self._network = network
        hosts: dict[int, list[Host]] = {}
        for host in network.hosts.values():
            hosts.setdefault(host.dpid, []).append(host)
        self._hosts_on = {dpid: tuple(found) for dpid, found in hosts.items()}
        self._by_series = {
            (host.dpid, host_series(mac)): (mac, host.port_no) for mac, host in network.hosts.items()
        }
        self._towards = {}
        self.version += 1

    # Answers.

    @property
    def network(self) -> Network:
        """The picture as a value."""
        return self._network

    def host_of_series(self, dpid: int, series: int) -> tuple[str, int] | None:
        """MAC and port of the local host with this number in cookies."""
        return self._by_series.get((dpid, series))

    def ports_towards(self, dpid: int) -> Mapping[str, int]:
        """On which port a switch sends to each host it can reach, by MAC."""
        if dpid not in self._towards:
            towards = {}
            for mac, host in self._network.hosts.items():
                # A host whose port is gone is looked for everywhere, as one never seen.
                if not self._has_port(host):
                    continue
                port = host.port_no if host.dpid == dpid else self._hops.get((dpid, host.dpid))
                if port is not None:
                    towards[mac] = port
            self._towards[dpid] = towards
        return self._towards[dpid]

    def _has_port(self, host: Host) -> bool:
        port = self.ports.get((host.dpid, host.port_no))
        return port is not None and port.up

    def view(self, dpid: int, pipeline: Pipeline, plan: Plan | None, report_pairs: bool) -> SwitchView:
        """All that decides the entries of one switch."""
        hosts = self._hosts_on.get(dpid, ())
        return SwitchView(
            pipeline=pipeline,
            layout=plan.layouts.get(dpid, SwitchLayout()) if plan else SwitchLayout(),
            edge_ports=self.discovery.edge_ports(dpid),
            link_ports=self.discovery.link_ports(dpid),
            flood_ports=self._flood.get(dpid, ()),
            hosts=hosts,
            ports_towards=self.ports_towards(dpid),
            host_series={host.mac: host_series(host.mac) for host in hosts},
            applications=self._applications,
            report_pairs=report_pairs,
        )

    def report(self, speaker: str) -> NetworkReport:
        """The picture as the planner is told it."""
        return NetworkReport(
            speaker=speaker,
            version=self.version,
            switches={dpid: self.facts[dpid] for dpid in sorted(self.connected)},
            ports=tuple(self.ports.values()),
            links=self._network.links,
            hosts=dict(self._network.hosts),
        )
