"""Resource groups that keep their identity while communities come and go.

Each re-clustering is only evidence. A group is the memory: it keeps its id while
its communities overlap, and a member changes group only when the evidence persists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from topology.group_memory import Doubt, Memory, ResourceGroup, Trace
from topology.matching import match_by_overlap

__all__ = ["DISCOVERED_PREFIX", "GroupEvent", "GroupRules", "GroupTracker", "ResourceGroup"]

EventKind = Literal["forming", "active", "dissolving", "dissolved", "joined", "left", "pinned", "unpinned"]

#: Discovered groups are named with this, so an operator's may not be.
DISCOVERED_PREFIX: Final = "auto-"


@dataclass(frozen=True)
class GroupRules:
    """How much evidence a change needs. Counts are of updates in a row."""

    #: A member changes group after so many updates, or when the evidence has lasted this long.
    switch_after: int = 3
    switch_after_s: float = 120.0
    #: A new group is "forming" until it was found so many times.
    active_after: int = 3
    #: A group that is not found any more is "dissolving", and gone after so many updates.
    dissolve_after: int = 6
    #: Least overlap with which a community continues a group.
    min_jaccard: float = 0.25
    min_size: int = 2

    def __post_init__(self) -> None:
        for name, least in (("switch_after", 1), ("active_after", 1), ("dissolve_after", 1), ("min_size", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")
        if not (0 < self.min_jaccard <= 1 and self.switch_after_s > 0):
            raise ValueError(f"min_jaccard must be in (0, 1] and switch_after_s > 0, got {self}")


@dataclass(frozen=True)
class GroupEvent:
    """Something that happened to a group; ``members`` are those it concerns."""

    time: float
    kind: EventKind
    group_id: str
    members: frozenset[str]
    reason: str


class GroupTracker:
    """The groups, from one re-clustering to the next.

    An endpoint is in at most one group. Operators' groups come first: their
    members are in no discovered group. A newcomer joins the group it is found in at once;
    a member leaves, for another group or for none, only after ``switch_after`` updates or
    ``switch_after_s`` that all agree. A discovered group with fewer than
    ``min_size`` members is remembered but not shown.
    """

    def __init__(self, rules: GroupRules | None = None) -> None:
        self._rules = rules or GroupRules()
        self._memory = Memory()

    def groups(self) -> tuple[ResourceGroup, ...]:
        """The operators' groups by id, then the discovered ones, oldest first."""
        members = self._members()
        discovered = (
            ResourceGroup(
                group_id, frozenset(members[group_id]), "discovered", trace.state, trace.since, trace.reason
            )
            for group_id, trace in self._memory.traces.items()
            if len(members.get(group_id, ())) >= self._rules.min_size
        )
        return (*(self._memory.operator[group_id] for group_id in sorted(self._memory.operator)), *discovered)

    def update(
        self, partition: Iterable[frozenset[str]], now: float
    ) -> tuple[tuple[ResourceGroup, ...], tuple[GroupEvent, ...]]:
        """The groups after one more re-clustering, and what changed.

        ``partition`` holds disjoint communities; those smaller than ``min_size`` count as
        no community. An endpoint in none of them counts as not found, and an
        empty partition as nobody found: when there is no data, do not call this.

        Raises
        ------
        ValueError : if two communities share an endpoint; nothing is changed then.
        """
        pinned = self._pinned()
        free = (frozenset(community) - pinned for community in partition)
        communities = [community for community in free if len(community) >= self._rules.min_size]
        counted = Counter(member for community in communities for member in community)
        if len(counted) < sum(map(len, communities)):
            twice = min(member for member, times in counted.items() if times > 1)
            raise ValueError(f"communities must be disjoint, {twice} is in several")
        # The same partition in another order must give the same ids.
        communities.sort(key=min)
        events: list[GroupEvent] = []
        target = self._follow(communities, now, events)
        self._move_members(target, now, events)
        self._drop_finished(target, now, events)
        return self.groups(), tuple(events)

    def pin(
        self, group_id: str, members: Iterable[str], now: float, reason: str = "set by an operator"
    ) -> tuple[GroupEvent, ...]:
        """Create an operators' group, or replace its members. They leave discovered groups at once.

        Raises
        ------
        ValueError : if the id is empty or of the kind discovered groups have, or a
            member is in another operators' group; nothing is changed then.
        """
        wanted = frozenset(members)
        if not group_id or group_id.startswith(DISCOVERED_PREFIX):
            raise ValueError(
                f"group id must not be empty or start with {DISCOVERED_PREFIX!r}, got {group_id!r}"
            )
        for other in self._memory.operator.values():
            shared = other.members & wanted
            if other.id != group_id and shared:
                raise ValueError(
                    f"groups.{group_id}.members must not hold {min(shared)}, it is in {other.id}"
                )
        self._memory.operator[group_id] = ResourceGroup(group_id, wanted, "operator", "active", now, reason)
        left = self._take_out(wanted, now, f"pinned to {group_id}")
        return (*left, GroupEvent(now, "pinned", group_id, wanted, reason))

    def unpin(
        self, group_id: str, now: float, reason: str = "removed by an operator"
    ) -> tuple[GroupEvent, ...]:
        """Delete an operators' group; its members may be discovered again. Unknown ids change nothing."""
        group = self._memory.operator.pop(group_id, None)
        return () if group is None else (GroupEvent(now, "unpinned", group_id, group.members, reason),)

    def forget(self, endpoints: Iterable[str], now: float) -> tuple[GroupEvent, ...]:
        """Take endpoints that are gone for good out of discovered groups, without waiting.

        Operators' groups keep them: they are wishes, not findings.
        """
        return self._take_out(frozenset(endpoints), now, "endpoint removed")

    def state(self) -> dict[str, Any]:
        """Everything needed to go on after a restart, as JSON-able values."""
        return self._memory.to_dict()

    @classmethod
    def restore(cls, state: Mapping[str, Any], rules: GroupRules | None = None) -> GroupTracker:
        """The tracker whose ``state()`` this was.

        Raises
        ------
        ValueError : if it is not such a state; says what is missing or wrong.
        """
        tracker = cls(rules)
        tracker._memory = Memory.from_dict(state)
        return tracker

    def _follow(
        self, communities: list[frozenset[str]], now: float, events: list[GroupEvent]
    ) -> dict[str, str]:
        """Give each community its group, old or new; where each endpoint is found now."""
        members = self._members()
        # By its core a group follows a drift at once; by its members it survives one odd result.
        shapes = [
            (group_id, shape)
            for group_id, trace in self._memory.traces.items()
            for shape in (trace.core, frozenset(members.get(group_id, ())))
        ]
        matched = match_by_overlap(shapes, communities, self._rules.min_jaccard)
        target: dict[str, str] = {}
        for index, community in enumerate(communities):
            group_id = matched.get(index)
            if group_id is None:
                group_id = f"{DISCOVERED_PREFIX}{self._memory.next_number}"
                self._memory.next_number += 1
                reason = self._origin(community)
                self._memory.traces[group_id] = Trace("forming", now, reason, community)
                events.append(GroupEvent(now, "forming", group_id, community, reason))
            self._found(group_id, community, now, events)
            target.update(dict.fromkeys(community, group_id))
        found = set(target.values())
        for group_id in list(self._memory.traces):
            if group_id not in found:
                self._missed(group_id, target, now, events)
        return target

    def _origin(self, community: frozenset[str]) -> str:
        """Why there is a new group: whose members it takes."""
        came_from = Counter(
            self._memory.group_of[member] for member in community if member in self._memory.group_of
        )
        if not came_from:
            return "endpoints that talk to one another"
        largest, shared = min(came_from.items(), key=lambda item: (-item[1], item[0]))
        return f"split from {largest} with {shared} of {len(community)} members"

    def _found(self, group_id: str, community: frozenset[str], now: float, events: list[GroupEvent]) -> None:
        trace = self._memory.traces[group_id]
        found = trace.found + 1 if trace.missed == 0 else 1
        trace = replace(trace, core=community, found=found, missed=0)
        if trace.state != "active" and (trace.settled or found >= self._rules.active_after):
            reason = "found again" if trace.settled else f"found {found} times in a row"
            trace = replace(trace, state="active", since=now, reason=reason, settled=True)
            events.append(GroupEvent(now, "active", group_id, community, reason))
        elif trace.state == "dissolving":
            trace = replace(trace, state="forming", since=now, reason="found again")
            events.append(GroupEvent(now, "forming", group_id, community, trace.reason))
        self._memory.traces[group_id] = trace

    def _missed(self, group_id: str, target: Mapping[str, str], now: float, events: list[GroupEvent]) -> None:
        trace = self._memory.traces[group_id]
        trace = replace(trace, missed=trace.missed + 1)
        if trace.state != "dissolving":
            went_to = Counter(target[member] for member in trace.core if member in target)
            into = min(went_to.items(), key=lambda item: (-item[1], item[0])) if went_to else None
            reason = (
                "not found" if into is None else f"{into[1]} of {len(trace.core)} members found in {into[0]}"
            )
            trace = replace(trace, state="dissolving", since=now, reason=reason)
            events.append(GroupEvent(now, "dissolving", group_id, trace.core, reason))
        self._memory.traces[group_id] = trace

    def _move_members(self, target: Mapping[str, str], now: float, events: list[GroupEvent]) -> None:
        left: dict[tuple[str, str], set[str]] = {}
        joined: dict[tuple[str, str], set[str]] = {}
        for member in sorted(target.keys() | self._memory.group_of.keys()):
            here, there = self._memory.group_of.get(member, ""), target.get(member, "")
            if here == there:
                self._memory.doubts.pop(member, None)
            elif here == "" or self._is_convinced(member, there, now):
                self._memory.doubts.pop(member, None)
                if here:
                    left.setdefault((here, there), set()).add(member)
                if there:
                    joined.setdefault((there, here), set()).add(member)
                    self._memory.group_of[member] = there
                else:
                    del self._memory.group_of[member]
        for (group_id, to), members in left.items():
            reason = f"found in {to}" if to else "found in no group"
            events.append(GroupEvent(now, "left", group_id, frozenset(members), reason))
        for (group_id, origin), members in joined.items():
            reason = f"from {origin}" if origin else "was in no group"
            events.append(GroupEvent(now, "joined", group_id, frozenset(members), reason))

    def _is_convinced(self, member: str, there: str, now: float) -> bool:
        doubt = self._memory.doubts.get(member)
        if doubt is None or doubt.target != there:
            doubt = Doubt(there, now, 0)
        doubt = replace(doubt, times=doubt.times + 1)
        self._memory.doubts[member] = doubt
        rules = self._rules
        return doubt.times >= rules.switch_after or now - doubt.since >= rules.switch_after_s

    def _drop_finished(self, target: Mapping[str, str], now: float, events: list[GroupEvent]) -> None:
        filled = set(self._memory.group_of.values()) | set(target.values())
        for group_id, trace in list(self._memory.traces.items()):
            if trace.missed < self._rules.dissolve_after and group_id in filled:
                continue
            del self._memory.traces[group_id]
            rest = frozenset(member for member, at in self._memory.group_of.items() if at == group_id)
            for member in rest:
                del self._memory.group_of[member]
                self._memory.doubts.pop(member, None)
            reason = "no members left" if not rest else f"not found {trace.missed} times in a row"
            events.append(GroupEvent(now, "dissolved", group_id, rest, reason))

    def _take_out(self, members: frozenset[str], now: float, reason: str) -> tuple[GroupEvent, ...]:
        left: dict[str, set[str]] = {}
        for member in sorted(members & self._memory.group_of.keys()):
            left.setdefault(self._memory.group_of.pop(member), set()).add(member)
            self._memory.doubts.pop(member, None)
        for group_id, trace in self._memory.traces.items():
            if trace.core & members:
                self._memory.traces[group_id] = replace(trace, core=trace.core - members)
        return tuple(
            GroupEvent(now, "left", group_id, frozenset(out), reason) for group_id, out in left.items()
        )

    def _pinned(self) -> frozenset[str]:
        return frozenset().union(*(group.members for group in self._memory.operator.values()))

    def _members(self) -> dict[str, set[str]]:
        members: dict[str, set[str]] = {}
        for member, group_id in self._memory.group_of.items():
            members.setdefault(group_id, set()).add(member)
        return members
