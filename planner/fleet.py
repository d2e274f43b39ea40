"""The switches as their speakers report them, and which users are at which of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from planner.config import Config
from planner.report import AppliedReport, NetworkReport, SwitchFacts
from planner.snapshot import SwitchView
from telemetry.samples import SampleBatch
from topology.identity import Attachment, IdentityIndex, Resolution, UserIdentity, index_users, resolve
from topology.network import Host
from topology.regions import RegionMap, region_map

LOG = logging.getLogger("tidegate.planner")


@dataclass
class Fleet:
    """All speakers' reports as one picture."""

    regions: RegionMap
    identities: IdentityIndex
    reports: dict[str, NetworkReport] = field(default_factory=dict)
    resolution: Resolution = field(default_factory=Resolution)
    #: Addresses last seen at each MAC: a speaker that restarts knows its hosts' MACs, not their addresses.
    _addresses: dict[str, frozenset[str]] = field(default_factory=dict)
    _views: dict[int, SwitchView] = field(default_factory=dict)
    _facts: dict[int, SwitchFacts] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config) -> Fleet:
        """No switches yet; users and regions of this configuration."""
        users = (
            UserIdentity(name, frozenset(user.addresses), frozenset(user.macs))
            for name, user in config.users.items()
        )
        regions = region_map({name: region.dpids for name, region in config.regions.items()})
        return cls(regions, index_users(users))

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
        self.resolution = resolve(self.identities, self._hosts())
        for conflict in self.resolution.conflicts.values():
            if before.conflicts.get(conflict.mac) != conflict:
                LOG.warning("%s", conflict.reason)
        return before.bindings != self.resolution.bindings or switches_before != self.switches

    def _hosts(self) -> dict[str, Host]:
        newest: dict[str, Host] = {}
        for report in self.reports.values():
            for mac, host in report.hosts.items():
                if mac not in newest or host.last_seen > newest[mac].last_seen:
                    newest[mac] = host
        for mac, host in newest.items():
            if not host.addresses.isdisjoint(self.identities.by_address):
                # Only what tells a user: strangers' MACs are without number.
                self._addresses[mac] = host.addresses
            elif host.addresses:
                self._addresses.pop(mac, None)
            elif mac in self._addresses:
                newest[mac] = replace(host, addresses=self._addresses[mac])
        return newest

    def _note_switches(self, before: Mapping[int, SwitchFacts], now: float) -> None:
        connected = self.switches
        self._facts |= connected
        for dpid in connected:
            view = self._views.get(dpid) or SwitchView(dpid, True, None, now, 0, None, 0, 0)
            region = self.regions.of_switch(dpid)
            self._views[dpid] = replace(view, connected=True, region=region, last_seen=now)
        for dpid in before.keys() - connected.keys():
            self._views[dpid] = replace(self._views[dpid], connected=False, in_step=None)

    def polled(self, batch: SampleBatch, now: float) -> None:
        """A switch answered a poll."""
        view = self._views.get(batch.dpid)
        if view is not None:
            self._views[batch.dpid] = replace(
                view, last_seen=now, lost_polls=view.lost_polls + batch.lost_polls
            )

    def applied(self, report: AppliedReport, now: float) -> None:
        """A switch was compared with a plan."""
        view = self._views.get(report.dpid)
        if view is not None:
            self._views[report.dpid] = replace(
                view,
                last_seen=now,
                plan_version=report.plan_version or 0,
                in_step=report.in_step,
                n_meters=report.n_meters,
            )

    def views(self) -> tuple[SwitchView, ...]:
        """Every switch ever reported, by dpid."""
        return tuple(self._views[dpid] for dpid in sorted(self._views))

    def endpoint_name(self, mac: str) -> str:
        """The user a MAC belongs to, or the MAC itself."""
        return self.resolution.user_of.get(mac, mac)

    def addresses_state(self) -> dict[str, Any]:
        """Addresses by MAC as JSON-able values."""
        return {mac: sorted(addresses) for mac, addresses in self._addresses.items()}

    def restore_addresses(self, state: Mapping[str, Any]) -> None:
        """What ``addresses_state`` was."""
        self._addresses = {mac: frozenset(addresses) for mac, addresses in state.items()}
