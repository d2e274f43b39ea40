"""Resource groups in the loop: traffic in, communities found by a worker, groups out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.config import Config
from planner.config_fields import UNGROUPED
from planner.fleet import Fleet
from planner.group_findings import Findings, Kind, RoleBook, findings_of
from planner.policy import Policies
from planner.snapshot import GroupView
from planner.structure import Structure
from planner.workers import Errand
from telemetry.samples import SampleBatch
from topology.communities import Communities
from topology.groups import GroupRules, GroupTracker, ResourceGroup
from topology.identity import Resolution
from topology.traffic import UNKNOWN, TrafficGraph

I64 = npt.NDArray[np.int64]

LOG = logging.getLogger("tidegate.planner")


@dataclass
class Grouping:
    """The traffic graph, and the groups found in it or made by operators."""

    config: Config
    fleet: Fleet
    graph: TrafficGraph
    tracker: GroupTracker
    errand: Errand
    groups: tuple[ResourceGroup, ...] = ()
    shared_services: tuple[str, ...] = ()
    #: Endpoints that do the same, wherever they talk.
    roles: RoleBook = RoleBook()
    #: What discovered groups are.
    kind: Kind = "application"
    _found: Communities | None = None
    #: Ids of groups made by REST, as opposed to the file's.
    made_by_rest: set[str] = field(default_factory=set)
    #: Users that remediation keeps out of discovered groups.
    apart: frozenset[str] = frozenset()
    _changed: bool = True
    #: Ids in the graph by MAC, as long as the graph forgets no endpoint and no MAC becomes another's.
    _ids: dict[str, int] = field(default_factory=dict)
    _ids_under: Resolution | None = None
    _views: tuple[tuple[object, ...], tuple[GroupView, ...]] | None = None

    @classmethod
    def of(cls, config: Config, fleet: Fleet) -> Grouping:
        """The file's groups, and no traffic yet."""
        grouping = cls(
            config,
            fleet,
            TrafficGraph(config.grouping.half_life_s),
            GroupTracker(_rules(config)),
            Errand("clustering", config.grouping.every_s),
        )
        grouping._pin_configured(0.0)
        return grouping

    def _pin_configured(self, now: float) -> None:
        """Make the file's groups what the file says now; those that are so already stay as they are."""
        wanted = {name: frozenset(group.members) for name, group in self.config.groups.items()}
        present = {group.id: group.members for group in self.tracker.groups() if group.kind == "operator"}
        # All that go or change go before any is made: a user may have moved from one to another.
        for name in present.keys() - self.made_by_rest:
            if wanted.get(name) != present[name]:
                self.tracker.unpin(name, now, "changed in the configuration file")
        for name, members in wanted.items():
            if present.get(name) == members and name not in self.made_by_rest:
                continue
            try:
                self.tracker.pin(name, members, now, "set by the configuration file")
            except ValueError as error:
                # An operator's own group has the member: what was acknowledged outlives a restart.
                LOG.error("group %s of the configuration file is not made: %s", name, error)
        self.groups = self.tracker.groups()

    def observe(self, batch: SampleBatch) -> None:
        """Note who talked to whom."""
        edges = batch.edges
        if not len(edges.src):
            return
        ids = self._graph_ids(batch.endpoints)
        self.graph.observe(
            batch.time,
            ids[edges.src],
            ids[edges.dst],
            edges.app.astype(np.int64),
            edges.rate_bps,
            edges.interval_s,
        )

    def _graph_ids(self, macs: tuple[str, ...]) -> I64:
        """The graph's ids of these endpoints, remembered: a poll names the same ones as the last."""
        if self._ids_under is not self.fleet.resolution:
            self._ids_under, self._ids = self.fleet.resolution, {}
        known = list(map(self._ids.get, macs))
        if None in known:
            new = [mac for mac, number in zip(macs, known, strict=True) if number is None]
            numbers = self.graph.intern(map(self.fleet.endpoint_name, new)).tolist()
            # One the graph had no room for may find room later.
            self._ids.update((mac, at) for mac, at in zip(new, numbers, strict=True) if at != UNKNOWN)
            known = [self._ids.get(mac, UNKNOWN) for mac in macs]
        return np.array(known, np.int64)

    def step(self, now: float, executor: Executor) -> bool:
        """Fetch what a worker found, and send it the graph when it is time. True if groups changed."""
        changed, self._changed = self._changed, False
        found = self.errand.result()
        if found is not None:
            self._found, self.roles = found.communities, self.roles.follow(found.roles)
            changed |= self._follow(found, now)
        if self.config.grouping.enabled and self.errand.due(now):
            if self.graph.prune(now).endpoints:
                self._ids = {}
            view = self.graph.view(now)
            if len(view.rate_bps):
                self.errand.start(executor, now, findings_of, view, self._found, self.config.grouping.by)
            else:
                self.errand.put_off(now)
        return changed

    def _follow(self, found: Findings, now: float) -> bool:
        before = {group.id: group.members for group in self.groups}
        # Endpoints that are nobody's are in the graph, and in no pool.
        users = self.config.users.keys() - self.apart
        partition = [members & users for members in found.partition]
        self.groups, events = self.tracker.update([members for members in partition if members], now)
        self.kind = found.kind
        self.shared_services = tuple(sorted(found.communities.services()))
        for event in events:
            LOG.info(
                "group %s %s: %s (%s)",
                event.group_id,
                event.kind,
                ", ".join(sorted(event.members)),
                event.reason,
            )
        return before != {group.id: group.members for group in self.groups}

    def pin(self, group_id: str, members: Iterable[str], now: float) -> None:
        """Make an operator's group, or replace its members. Raises ValueError."""
        self.tracker.pin(group_id, members, now)
        self.made_by_rest.add(group_id)
        self.regrouped()

    def unpin(self, group_id: str, now: float) -> None:
        """Delete an operator's group."""
        self.tracker.unpin(group_id, now)
        self.made_by_rest.discard(group_id)
        self.regrouped()

    def regrouped(self) -> None:
        """An operator's wish changed ``tracker``: show it, and let discovery look again soon."""
        self.groups = self.tracker.groups()
        self._changed = True
        self.errand.hurry()

    def keep_apart(self, users: frozenset[str], now: float) -> None:
        """Take these out of discovered groups and nobody else; who was and is not may be found again."""
        if users == self.apart:
            return
        self.tracker.forget(users - self.apart, now)
        self.apart = users
        self.groups = self.tracker.groups()
        self._changed = True
        self.errand.hurry()

    def regroup(self) -> None:
        """Look for groups at the next tick, and not when it is time."""
        self.errand.hurry()

    def copied(self) -> Grouping:
        """The same groups and wishes, to be changed by themselves."""
        same = copy.copy(self)
        same.tracker = GroupTracker.restore(self.tracker.state(), _rules(self.config))
        same.made_by_rest, same.errand = set(self.made_by_rest), copy.copy(self.errand)
        return same

    def views(self, policies: Policies, structure: Structure | None) -> tuple[GroupView, ...]:
        """The groups as operators see them, and the users that are in none."""
        key = (self.groups, structure, self.kind, dict(policies.overrides), frozenset(self.made_by_rest))
        # Groups and structures are the same objects for as long as nothing changed.
        if self._views is None or not _same(self._views[0], key):
            self._views = (key, self._make_views(policies, structure))
        return self._views[1]

    def _make_views(self, policies: Policies, structure: Structure | None) -> tuple[GroupView, ...]:
        rows = structure.group_rows if structure is not None else {}
        views = []
        for group in self.groups:
            source = "discovered" if group.kind == "discovered" else "configured"
            if group.id in self.made_by_rest:
                source = "operator"
            override = policies.overrides.get(group.id)
            views.append(
                GroupView(
                    id=group.id,
                    source=source,
                    state=group.state,
                    members=tuple(sorted(group.members)),
                    since=group.since,
                    reason=group.reason,
                    guarantee_bps=override.guarantee_bps if override else None,
                    ceiling_bps=override.ceiling_bps if override else None,
                    weight=policies.group(group.id).weight,
                    pools=tuple(rows.get(group.id, ())),
                    kind=self.kind if group.kind == "discovered" else "operator",
                )
            )
        if UNGROUPED in rows and structure is not None:
            lone = tuple(
                user
                for user, above in zip(structure.users, structure.parent[structure.user_rows], strict=True)
                if above in rows[UNGROUPED]
            )
            views.append(
                GroupView(
                    UNGROUPED,
                    "default",
                    "active",
                    lone,
                    0.0,
                    "in no group",
                    None,
                    None,
                    1.0,
                    tuple(rows[UNGROUPED]),
                    "rest",
                )
            )
        return tuple(views)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on after a restart, as JSON-able values."""
        return {"tracker": self.tracker.state(), "made_by_rest": sorted(self.made_by_rest), "kind": self.kind}

    def restore(self, state: dict[str, Any]) -> None:
        """What ``state`` was; the file's groups are pinned again, as they are now."""
        if not state:
            return
        self.tracker = GroupTracker.restore(state["tracker"], _rules(self.config))
        self.made_by_rest = set(state["made_by_rest"])
        # A state of before there were roles has none.
        self.kind = "role" if state.get("kind") == "role" else "application"
        for user, group_id in dict(self.tracker.member_pins).items():
            if user not in self.config.users:
                self.tracker.unpin_member(group_id, user, 0.0)
        self._pin_configured(0.0)
        self._changed = True


def _same(before: tuple[object, ...], now: tuple[object, ...]) -> bool:
    return before[0] is now[0] and before[1] is now[1] and before[2:] == now[2:]


def _rules(config: Config) -> GroupRules:
    g = config.grouping
    return GroupRules(
        switch_after_s=max(g.hold_s, 1e-3),
        churn_per_hour=g.churn_per_hour,
        least_churn=g.least_churn_per_hour,
    )
