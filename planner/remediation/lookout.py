"""What the loop knows, as the figures and levers that remediation decides on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from planner.alarms import AlarmStream
from planner.config import Config
from planner.explain import Decided
from planner.fleet import Fleet
from planner.grouping import Grouping
from planner.policy import Policies
from planner.remediation.isolation import Suspect
from planner.remediation.ladder import Remedy
from planner.remediation.levers import Ground, options
from planner.remediation.signals import Sight, congestion
from planner.remediation.steps import Signal, World
from planner.snapshot import Level
from planner.structure import Structure
from telemetry.samples import SampleBatch

#: A poll serves for so many intervals, as in the loop.
_POLLS: Final = 2.5
#: Places for which something is sought in a tick, the worst ones; the others' turn comes later.
_MOST_PLACES: Final = 64
#: Open alarms that are looked at in a tick.
_MOST_ALARMS: Final = 10_000


@dataclass
class Lookout:
    """The newest poll of each switch, and what there is to pull at."""

    config: Config
    policies: Policies
    grouping: Grouping
    fleet: Fleet
    _batches: dict[int, SampleBatch] = field(default_factory=dict)

    def polled(self, batch: SampleBatch) -> None:
        """Note the newest poll of a switch."""
        before = self._batches.get(batch.dpid)
        # An older one that came late is passed over; one after the clock was set back is not older.
        if before is None or not 0 < before.time - batch.time <= self._max_age_s:
            self._batches[batch.dpid] = batch

    @property
    def _max_age_s(self) -> float:
        return _POLLS * self.config.polling.interval_s

    def signals(self, now: float, decided: Decided, remedy: Remedy) -> list[Signal]:
        """The figures that are high or watched; with what could be done, where something may be."""
        recent = {
            dpid: batch for dpid, batch in self._batches.items() if abs(now - batch.time) <= self._max_age_s
        }
        sight = Sight(decided, recent, self._port_bps())
        found = list(congestion(sight, self.config.remediation.congestion, remedy.troubles))
        ripe = [at for at, one in enumerate(found) if one.value >= one.high and remedy.ripe(one.key)]
        if ripe:
            ground = self._ground(decided.structure)
            ripe.sort(key=lambda at: -found[at].value / found[at].high)
            for at in ripe[:_MOST_PLACES]:
                found[at] = replace(found[at], options=options(found[at], sight, ground))
        return found

    def _port_bps(self) -> dict[tuple[int, int], float]:
        """What ports carry: as configured, or else as the switch says."""
        known = {
            (port.dpid, port.port_no): port.speed_bps
            for report in self.fleet.reports.values()
            for port in report.ports
        }
        own = self.config.remediation.congestion.ports
        return known | {(port.dpid, port.port_no): port.capacity_mbps * 1e6 for port in own}

    def _ground(self, s: Structure) -> Ground:
        links = [link for report in self.fleet.reports.values() for link in report.links]
        inner = {(link.src_dpid, link.src_port) for link in links}
        return Ground(
            self.config.remediation.congestion,
            self.policies,
            self.fleet.attachments,
            inner | {(link.dst_dpid, link.dst_port) for link in links},
            {group.id for group in self.grouping.groups if group.kind == "discovered"},
            self.config.grouping.enabled,
            self.protected(s),
            self.config.allocation.min_rate_mbps * 1e6,
            self.config.allocation.frame_bits,
        )

    def protected(self, s: Structure) -> frozenset[str]:
        """Users that nothing is taken from: named ones, shared services, and the first priority class."""
        first = np.flatnonzero(s.priority[s.user_rows] == 0).tolist()
        named = self.config.remediation.isolation.protected
        return frozenset((*named, *self.grouping.shared_services, *(s.users[row] for row in first)))


def suspects_of(alarms: AlarmStream, s: Structure) -> list[Suspect]:
    """The users of whom, or of whose classes, an alarm is open that says: too much."""
    view = alarms.view(only_open=True, limit=_MOST_ALARMS)
    if not view.alarms:
        return []
    users = set(s.users)
    return [
        Suspect(
            user, one.id, one.times, one.kind, one.severity, one.evidence.realised, one.evidence.high, one.text
        )
        for one in view.alarms
        if one.level in ("user", "application")
        and one.side == "above"
        and (user := one.pool.split("/")[Level.USER]) in users
    ]  # fmt: skip


def world_of(s: Structure) -> World:
    """How many users, groups and regions there are."""
    groups = {s.path[row].split("/")[2] for row in np.flatnonzero(s.level == Level.GROUP).tolist()}
    return World(len(s.users), len(groups), int(np.count_nonzero(s.level == Level.REGION)))
