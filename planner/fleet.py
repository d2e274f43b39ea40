"""The switches as their speakers report them, and which users are at which of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.config import Config
from planner.config_fields import MEGA
from planner.report import AppliedReport, NetworkReport, SwitchFacts
from planner.snapshot import SwitchView
from telemetry.samples import PortSamples, SampleBatch
from topology.bindings import Bindings
from topology.damping import cable
from topology.happenings import Thing, TopologyLog
from topology.identity import Attachment, Resolution, UserIdentity, resolve
from topology.network import Host, Link, Network
from topology.regions import RegionMap, region_map
from topology.routes import Routes, capacity_of_links, routes_of

LOG = logging.getLogger("tidegate.planner")


@dataclass
class Fleet:
    """All speakers' reports as one picture."""

    regions: RegionMap
    bindings: Bindings
    #: What happened to switches, links, ports and users.
    log: TopologyLog = field(default_factory=TopologyLog)
    #: Capacity by the two ends of a cable, dpid and port.
    cable_bps: Mapping[frozenset[tuple[int, int]], float] = field(default_factory=dict)
    reports: dict[str, NetworkReport] = field(default_factory=dict)
    resolution: Resolution = field(default_factory=Resolution)
    #: All reports together.
    network: Network = field(default_factory=Network)
    _routes: Routes | None = None
    #: The newest sample of each switch's ports.
    _ports: dict[int, PortSamples] = field(default_factory=dict)
    _views: dict[int, SwitchView] = field(default_factory=dict)
    _facts: dict[int, SwitchFacts] = field(default_factory=dict)
    #: A switch that differs from its plan, or is silent, for longer than this is a problem.
    alarm_after_s: float = 30.0
    silent_after_s: float = 60.0
    _repairs: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config) -> Fleet:
        """No switches yet; users and regions of this configuration."""
        users = (
            UserIdentity(name, frozenset(user.addresses), frozenset(user.macs))
            for name, user in config.users.items()
        )
        regions = region_map(
            {name: region.dpids for name, region in config.regions.items()},
            {name: region.prefixes for name, region in config.regions.items()},
        )
        t, polling, alarm_after_s = config.topology, config.polling, config.enforcement.alarm_after_s
        return cls(
            regions,
            Bindings(users, t.learned_ttl_s),
            TopologyLog(t.events_kept, t.damping),
            {frozenset(cable.ends): cable.capacity_mbps * MEGA for cable in config.links},
            alarm_after_s=alarm_after_s,
            silent_after_s=alarm_after_s + polling.interval_s * (1 + polling.jitter) + polling.timeout_s,
        )

    @property
    def switches(self) -> dict[int, SwitchFacts]:
        """Connected switches, of all speakers."""
        return {dpid: facts for report in self.reports.values() for dpid, facts in report.switches.items()}

    def knows(self, dpid: int) -> bool:
        """Whether a speaker reports this switch as connected."""
        return any(dpid in report.switches for report in self.reports.values())

    @property
    def max_meters(self) -> dict[int, int]:
        """How many meters each switch can hold, of all that were ever connected: one that is away keeps its own."""
        return {dpid: facts.max_meters for dpid, facts in self._facts.items()}

    @property
    def n_tables(self) -> dict[int, int]:
        """How many flow tables each switch has, of all that were ever connected."""
        return {dpid: facts.n_tables for dpid, facts in self._facts.items()}

    @property
    def attachments(self) -> Mapping[str, tuple[Attachment, ...]]:
        """Where each user's devices are."""
        return self.resolution.bindings

    def known_version(self, speaker: str) -> int:
        """The version of a speaker's newest report; -1 where there is none."""
        report = self.reports.get(speaker)
        return report.version if report else -1

    def report(self, report: NetworkReport, now: float) -> bool:
        """Take a speaker's report. True if users or switches are not where they were."""
        old = self.reports.get(report.speaker)
        if old is not None and report.version < old.version:
            return False
        # A switch has one speaker: the last one that says it is connected. One that
        # took all of another's switches over has replaced it.
        for name, other in list(self.reports.items()):
            if name == report.speaker:
                continue
            left = {dpid: facts for dpid, facts in other.switches.items() if dpid not in report.switches}
            if not left:
                del self.reports[name]
            elif len(left) < len(other.switches):
                self.reports[name] = replace(other, switches=left)
        switches_before = self.switches
        self.reports[report.speaker] = report
        self._note_switches(switches_before, now)
        before = self.resolution
        self._look(now)
        for conflict in self.resolution.conflicts.values():
            if before.conflicts.get(conflict.mac) != conflict:
                LOG.warning("%s", conflict.reason)
        return before.bindings != self.resolution.bindings or switches_before != self.switches

    def step(self, now: float) -> bool:
        """Let time pass: bindings end, what flapped is steady. True if users are not where they were."""
        before = self.resolution.bindings
        # Reports come when something changes; that a link has been steady shows when nothing does.
        if self.bindings.expire(now, self.network.hosts) or self.log.waits:
            self._look(now)
        return before != self.resolution.bindings

    def rebind(self, now: float) -> None:
        """The bindings changed: look whose hosts are whose."""
        self._look(now)

    @property
    def routes(self) -> Routes:
        """The paths of the network as it is now; reckoned when first asked for after a change of links."""
        if self._routes is None:
            self._routes = routes_of(self.network)
        return self._routes

    def link_capacity_bps(self) -> npt.NDArray[np.float64]:
        """What each of ``routes.links`` carries; NaN where neither the file nor its ports say."""
        links = self.routes.links
        return capacity_of_links(self.network, links, self.configured_bps(links))

    def configured_bps(self, links: Iterable[Link]) -> dict[Link, float]:
        """The capacities of those of these links that the file names."""
        named = {
            link: frozenset({(link.src_dpid, link.src_port), (link.dst_dpid, link.dst_port)})
            for link in links
        }
        return {link: self.cable_bps[ends] for link, ends in named.items() if ends in self.cable_bps}

    def sent_bps(self, links: Sequence[Link]) -> npt.NDArray[np.float64]:
        """What the source ports of these links sent in their newest samples, shape (n_links,); NaN: not known."""
        at: dict[int, dict[int, float]] = {}
        for dpid in {link.src_dpid for link in links} & self._ports.keys():
            ports = self._ports[dpid]
            at[dpid] = dict(zip(ports.port_no.tolist(), ports.tx_bps.tolist(), strict=True))
        return np.array([at.get(link.src_dpid, {}).get(link.src_port, np.nan) for link in links], np.float64)

    @property
    def held_links(self) -> frozenset[Link]:
        """Links that the speakers do not use because they flap."""
        return frozenset(link for report in self.reports.values() for link in report.held)

    def _look(self, now: float) -> None:
        """Put the reports together: the network, whose hosts are whose, and what happened."""
        hosts = self._newest_hosts()
        network = Network(
            frozenset(self.switches),
            {(port.dpid, port.port_no): port for report in self.reports.values() for port in report.ports},
            frozenset(link for report in self.reports.values() for link in report.links),
            hosts,
        )
        if (network.switches, network.usable_links) != (self.network.switches, self.network.usable_links):
            self._routes = None
        self.network = network
        self.resolution = resolve(self.bindings.index, self.bindings.recognised(hosts, now))
        self.log.observe(_things(network), _places(self.resolution.bindings), now)

    def _newest_hosts(self) -> dict[str, Host]:
        newest: dict[str, Host] = {}
        for report in self.reports.values():
            for mac, host in report.hosts.items():
                if mac not in newest or host.last_seen > newest[mac].last_seen:
                    newest[mac] = host
        return newest

    def _note_switches(self, before: Mapping[int, SwitchFacts], now: float) -> None:
        connected = self.switches
        self._facts |= connected
        for dpid in connected:
            view = self._views.get(dpid) or SwitchView(dpid, True, None, now, 0, None, 0, 0)
            region = self.regions.of_switch(dpid)
            self._views[dpid] = replace(view, connected=True, region=region, last_seen=now)
        for dpid in before.keys() - connected.keys():
            self._views[dpid] = replace(self._views[dpid], connected=False, in_step=None, differs_since=None)

    def polled(self, batch: SampleBatch, now: float) -> None:
        """A switch answered a poll."""
        if len(batch.ports.port_no):
            self._ports[batch.dpid] = batch.ports
        view = self._views.get(batch.dpid)
        if view is not None:
            self._views[batch.dpid] = replace(
                view, last_seen=now, lost_polls=view.lost_polls + batch.lost_polls
            )

    def applied(self, report: AppliedReport, now: float) -> None:
        """A switch was compared with a plan."""
        view = self._views.get(report.dpid)
        if view is None:
            return
        # A speaker counts from when the switch connected.
        before = self._repairs.get(report.dpid, 0)
        more = report.repairs - before if report.repairs >= before else report.repairs
        self._repairs[report.dpid] = report.repairs
        self._views[report.dpid] = replace(
            view,
            last_seen=now,
            plan_version=report.plan_version or 0,
            in_step=report.in_step,
            n_meters=report.n_meters,
            meters_differ=report.meters_differ,
            entries_differ=report.entries_differ,
            differs_since=report.differs_since,
            meters_rounded=report.meters_rounded,
            repairs=view.repairs + more,
        )

    def problems(self, now: float) -> Iterator[str]:
        """One line for each connected switch that has differed from its plan, or not answered, for too long."""
        for view in self.views():
            if not view.connected:
                continue
            since = view.differs_since
            if since is not None and now - since > self.alarm_after_s:
                yield (
                    f"{view.dpid:016x} has differed from the plan for {now - since:.0f} s: {view.meters_differ} meters "
                    f"and {view.entries_differ} entries are not as wanted; it is tried on"
                )
            elif now - view.last_seen > self.silent_after_s:
                yield (
                    f"{view.dpid:016x} has not answered for {now - view.last_seen:.0f} s: what it holds is not known"
                )

    def views(self) -> tuple[SwitchView, ...]:
        """Every switch ever reported, by dpid."""
        return tuple(self._views[dpid] for dpid in sorted(self._views))

    def endpoint_name(self, mac: str) -> str:
        """The user a MAC belongs to, or the MAC itself."""
        return self.resolution.user_of.get(mac, mac)

    def restore_bindings(self, learned: Mapping[str, list[str]], state: Mapping[str, Any]) -> None:
        """What ``bindings.learned`` and ``bindings.state`` were."""
        for fault in self.bindings.restore(learned, state):
            LOG.error("binding of an earlier planner not restored: %s", fault)


def _things(network: Network) -> list[Thing]:
    """What is up, by name."""
    things: list[Thing] = [("switch", f"{dpid:016x}") for dpid in network.switches]
    # Of a switch that is away, its ports are as they were: nobody knows otherwise.
    things += [("port", f"{port.dpid:016x}/{port.port_no}") for port in network.ports.values() if port.up]
    things += [("link", cable_name(link)) for link in network.usable_links if link == cable(link)]
    return things


def cable_name(link: Link) -> str:
    """Both ends of a cable, the lower first."""
    link = cable(link)
    return f"{link.src_dpid:016x}/{link.src_port}-{link.dst_dpid:016x}/{link.dst_port}"


def _places(bindings: Mapping[str, tuple[Attachment, ...]]) -> dict[str, str]:
    """Where each user's devices are, as text."""
    return {
        user: ", ".join(f"{device.dpid:016x}/{device.port_no}" for device in devices)
        for user, devices in bindings.items()
    }
