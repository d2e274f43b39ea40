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
from topology.damping import FlapDamping, steady_cables, without_held
from topology.learning import HostChange, HostTable, LearningRules, Sighting, expire, observe_all
from topology.network import Host, Link, Network, Port
from topology.paths import FloodPorts, NextHops, flood_ports, next_hops


def host_series(mac: str) -> int:
    """The number of a host in cookies: the same in every process. Two hosts may share one, which only
    keeps one of them from being forgotten while the other sends.
    """
    return zlib.crc32(mac.encode()) & MAX_SERIES


@dataclass(frozen=True)
class _Picture:
    """The network at one moment, and what follows from it."""

    network: Network = field(default_factory=Network)
    hops: NextHops = field(default_factory=dict)
    flood: FloodPorts = field(default_factory=dict)
    hosts_on: Mapping[int, tuple[Host, ...]] = field(default_factory=dict)
    #: MAC and port by switch and number in cookies.
    by_series: Mapping[tuple[int, int], tuple[str, int]] = field(default_factory=dict)
    #: Number in cookies by MAC.
    series_of: Mapping[str, int] = field(default_factory=dict)
    #: Output ports by MAC, by switch, of those that were asked for.
    towards: dict[int, dict[str, int]] = field(default_factory=dict)


@dataclass
class Fabric:
    """Switches, ports, links and hosts as discovered, and where each switch sends."""

    config: Config
    discovery: Discovery
    rules: LearningRules
    damping: FlapDamping[Link] = field(default_factory=FlapDamping)
    table: HostTable = field(default_factory=HostTable)
    facts: dict[int, SwitchFacts] = field(default_factory=dict)
    connected: frozenset[int] = frozenset()
    #: Connected, or lost while their data plane may live on.
    known: frozenset[int] = frozenset()
    ports: dict[tuple[int, int], Port] = field(default_factory=dict)
    version: int = 0
    #: None: something changed since it was drawn.
    _drawn: _Picture | None = None
    _before: _Picture = field(default_factory=_Picture)
    _applications: tuple[ApplicationPort, ...] = ()

    @classmethod
    def of(cls, config: Config) -> Fabric:
        """An empty picture with the rules of this configuration."""
        openflow = config.openflow
        return cls(
            config,
            Discovery(openflow.settle_s, openflow.link_timeout_s),
            LearningRules(host_ttl_s=openflow.host_timeout_s, address_ttl_s=openflow.host_timeout_s),
            FlapDamping(config.topology.damping),
            _applications=application_ports(config),
        )

    # Events.

    def switch_up(self, dpid: int, facts: SwitchFacts, now: float) -> None:
        """A switch is connected and known."""
        self.facts[dpid] = facts
        self.connected |= {dpid}
        self.known |= {dpid}
        self.discovery.reprieve(dpid, now)
        self._changed()

    def switch_facts(self, dpid: int, facts: SwitchFacts) -> None:
        """A connected switch is known better than before."""
        self.facts[dpid] = facts
        self._changed()

    def switch_down(self, dpid: int) -> None:
        """A control channel is lost. The switch may well go on forwarding, so it stays on the map."""
        self.connected -= {dpid}
        self._changed()

    def port(self, port: Port, now: float, afresh: bool = False) -> None:
        """A port is there, up or down."""
        before = self.ports.get((port.dpid, port.port_no))
        self.ports[port.dpid, port.port_no] = port
        if not port.up:
            self.discovery.port_down(port.dpid, port.port_no)
        else:
            replaced = before is not None and before.name != port.name
            self.discovery.port_up(port.dpid, port.port_no, now, afresh or replaced)
        self._damp(now)
        self._changed()

    def port_gone(self, dpid: int, port_no: int) -> None:
        """A port was removed."""
        self.ports.pop((dpid, port_no), None)
        self.discovery.port_down(dpid, port_no)
        self._changed()

    def heard(self, source: tuple[int, int], at: tuple[int, int], now: float) -> bool:
        """An LLDP probe came in. True if that changed the picture."""
        # A probe under way when its port went down would make it a link port for good.
        if not (self._is_up(source) and self._is_up(at)):
            return False
        if not self.discovery.heard(source, at, now):
            return False
        self._damp(now)
        self._changed()
        return True

    def seen(self, sightings: Iterable[Sighting], now: float, proven: bool = False) -> tuple[HostChange, ...]:
        """Hosts sent something. What that changed, in order.

        Only edge ports count, unless the place is ``proven`` by the switch's own entries.
        """
        usable = [s for s in sightings if proven or self.discovery.is_edge(s.dpid, s.port_no)]
        self.table, changes = observe_all(self.table, usable, now, rules=self.rules)
        if changes:
            self._changed()
        return changes

    def settle(self, now: float) -> None:
        """Time passed: quiet ports become edges, links not heard of die, and links that were held may be steady."""
        changed = self.discovery.advance(now, self.connected)
        if self._damp(now) or changed:
            self._changed()

    def expire(self, now: float) -> tuple[HostChange, ...]:
        """Forget hosts that were silent for too long, and those on ports that turned out to be links."""
        self.table, changes = expire(
            self.table, now, inter_switch=self.network.inter_switch_ports, rules=self.rules
        )
        if changes:
            self._changed()
        return changes

    def _damp(self, now: float) -> bool:
        """Note which links are up. True if others are held down than before."""
        return self.damping.observe(steady_cables(self.discovery.links), now)

    def _changed(self) -> None:
        # Drawn when next asked for: a switch that connects brings fifty ports at once.
        self.version += 1
        self._drawn = None

    def _picture(self) -> _Picture:
        if self._drawn is None:
            self._drawn = self._before = self._draw(self._before)
        return self._drawn

    def _draw(self, old: _Picture) -> _Picture:
        whole = Network(self.known, dict(self.ports), self.discovery.links, self.table.by_mac)
        network = without_held(whole, self.damping.held)
        hops, flood = old.hops, old.flood
        if (network.switches, network.links, network.ports) != (
            old.network.switches,
            old.network.links,
            old.network.ports,
        ):
            hops, flood = next_hops(network), flood_ports(network)
        hosts: dict[int, list[Host]] = {}
        for host in network.hosts.values():
            hosts.setdefault(host.dpid, []).append(host)
        return _Picture(
            network,
            hops,
            flood,
            {dpid: tuple(found) for dpid, found in hosts.items()},
            {(host.dpid, host_series(mac)): (mac, host.port_no) for mac, host in network.hosts.items()},
            {mac: host_series(mac) for mac in network.hosts},
        )

    # Answers.

    @property
    def network(self) -> Network:
        """The picture as a value."""
        return self._picture().network

    def host_of_series(self, dpid: int, series: int) -> tuple[str, int] | None:
        """MAC and port of the local host with this number in cookies."""
        return self._picture().by_series.get((dpid, series))

    def ports_towards(self, dpid: int) -> Mapping[str, int]:
        """On which port a switch sends to each host it can reach, by MAC."""
        picture = self._picture()
        if dpid not in picture.towards:
            towards = {}
            for mac, host in picture.network.hosts.items():
                # A host whose port is gone is looked for everywhere, as one never seen.
                if not self._is_up((host.dpid, host.port_no)):
                    continue
                port = host.port_no if host.dpid == dpid else picture.hops.get((dpid, host.dpid))
                if port is not None:
                    towards[mac] = port
            picture.towards[dpid] = towards
        return picture.towards[dpid]

    def _is_up(self, place: tuple[int, int]) -> bool:
        port = self.ports.get(place)
        return port is not None and port.up

    def view(self, dpid: int, pipeline: Pipeline, plan: Plan | None, report_pairs: bool) -> SwitchView:
        """All that decides the entries of one switch."""
        picture = self._picture()
        hosts = picture.hosts_on.get(dpid, ())
        return SwitchView(
            pipeline=pipeline,
            layout=plan.layouts.get(dpid, SwitchLayout()) if plan else SwitchLayout(),
            edge_ports=self.discovery.edge_ports(dpid),
            link_ports=self.discovery.link_ports(dpid),
            flood_ports=picture.flood.get(dpid, ()),
            hosts=hosts,
            ports_towards=self.ports_towards(dpid),
            host_series=picture.series_of,
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
            links=self.network.links,
            hosts=dict(self.network.hosts),
            held=self.discovery.links - self.network.links,
        )
