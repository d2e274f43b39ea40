"""Resource groups that keep their identity while communities come and go.

Each re-clustering is only evidence. A group is the memory: it keeps its id while
its communities overlap, and a member changes group only when the evidence persists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from topology.group_log import GroupEvent, LoggedEvent
from topology.group_memory import Memory, Trace
from topology.group_rules import GroupRules
from topology.lifecycle import DISCOVERED_PREFIX, follow
from topology.moves import churn_left, drop_finished, move_members, take_out
from topology.wishes import Pair, ResourceGroup, check_members

__all__ = ["DISCOVERED_PREFIX", "GroupEvent", "GroupRules", "GroupTracker", "ResourceGroup"]


class GroupTracker:
    """The groups, from one re-clustering to the next.

    An endpoint is in at most one group. What operators want comes first, see ``topology.wishes``. A newcomer
    joins the group it is found in at once; a member leaves, for another group or for none, only after
    ``switch_after`` updates or ``switch_after_s`` that all agree, and only within the
    churn budget. A discovered group with fewer than ``min_size`` members is remembered but
    not shown, unless an operator pinned a user to it.
    """

    def __init__(self, rules: GroupRules | None = None) -> None:
        self._rules = rules or GroupRules()
        self._memory = Memory()
        self._shown: dict[str, tuple[Trace, ResourceGroup]] = {}

    def groups(self) -> tuple[ResourceGroup, ...]:
        """The operators' groups by id, then the discovered ones, oldest first."""
        wishes = self._memory.wishes
        pinned_to = set(wishes.pins.values())
        discovered = (
            self._shown_as(group_id, trace)
            for group_id, trace in self._memory.traces.items()
            if len(self._memory.places.members(group_id)) >= self._rules.min_size or group_id in pinned_to
        )
        return (*(wishes.groups[group_id] for group_id in sorted(wishes.groups)), *discovered)

    def _shown_as(self, group_id: str, trace: Trace) -> ResourceGroup:
        members = self._memory.places.members(group_id)
        shown = self._shown.get(group_id)
        # Most groups are as they were: the same object says so.
        if shown is None or shown[0] is not trace or shown[1].members is not members:
            group = ResourceGroup(group_id, members, "discovered", trace.state, trace.since, trace.reason)
            shown = self._shown[group_id] = trace, group
        return shown[1]

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
        memory, wishes = self._memory, self._memory.wishes
        taken = wishes.members
        free = [
            community if community.isdisjoint(taken) else community - taken
            for community in map(frozenset, partition)
        ]
        if len(set().union(*free)) < sum(map(len, free)):
            counted = Counter(member for community in free for member in community)
            twice = min(member for member, times in counted.items() if times > 1)
            raise ValueError(f"communities must be disjoint, {twice} is in several")
        parted = (wishes.parted(community, memory.places.group_of) for community in free)
        communities = [community for community in parted if len(community) >= self._rules.min_size]
        # The same partition in another order must give the same ids.
        communities.sort(key=min)
        events: list[GroupEvent] = []
        evidence = follow(memory, self._rules, communities, now, events).pinned(wishes.pins)
        move_members(memory, self._rules, evidence, now, events)
        drop_finished(memory, self._rules, evidence, now, events)
        self._shown = {
            group_id: self._shown[group_id] for group_id in self._shown.keys() & memory.traces.keys()
        }
        memory.log.add(events)
        return self.groups(), tuple(events)

    def churn_left(self, now: float) -> int:
        """How many memberships discovery may still change in the hour that ends now."""
        return churn_left(self._memory, self._rules, now)

    @property
    def waiting(self) -> int:
        """How many members the evidence finds elsewhere, too briefly so far or beyond the budget."""
        return len(self._memory.doubts)

    def log(self, group_id: str | None = None, since: int = 0) -> tuple[LoggedEvent, ...]:
        """What happened to a group, or to all, after the event with this id; oldest first."""
        return self._memory.log.of(group_id, since)

    # What operators want.

    def pin(
        self, group_id: str, members: Iterable[str], now: float, reason: str = "set by an operator"
    ) -> tuple[GroupEvent, ...]:
        """Create an operators' group, or replace its members. They leave discovered groups at once.

        Raises
        ------
        ValueError : if the id is empty or of the kind discovered groups have, or a
            member is in another operators' group; nothing is changed then.
        """
        wanted, wishes = frozenset(members), self._memory.wishes
        if not group_id or group_id.startswith(DISCOVERED_PREFIX):
            raise ValueError(
                f"group id must not be empty or start with {DISCOVERED_PREFIX!r}, got {group_id!r}"
            )
        check_members(wishes.groups.values(), group_id, wanted)
        wishes.groups[group_id] = ResourceGroup(group_id, wanted, "operator", "active", now, reason)
        for member in wanted & wishes.pins.keys():
            del wishes.pins[member]
        left = take_out(self._memory, wanted, now, f"pinned to {group_id}")
        return self._note(*left, GroupEvent(now, "pinned", group_id, wanted, reason))

    def unpin(
        self, group_id: str, now: float, reason: str = "removed by an operator"
    ) -> tuple[GroupEvent, ...]:
        """Delete an operators' group; its members may be discovered again. Unknown ids change nothing."""
        group = self._memory.wishes.groups.pop(group_id, None)
        if group is None:
            return ()
        return self._note(GroupEvent(now, "unpinned", group_id, group.members, reason))

    @property
    def member_pins(self) -> Mapping[str, str]:
        """The discovered group that each pinned user is to be in."""
        return self._memory.wishes.pins

    def pin_member(self, group_id: str, user: str, now: float) -> tuple[GroupEvent, ...]:
        """Put a user into a discovered group, whatever is found of it; the group stays for as long.

        Raises
        ------
        ValueError : if there is no such discovered group, the user is in an operators' group, or
            somebody pinned there must not meet it; nothing is changed then.
        """
        memory, wishes = self._memory, self._memory.wishes
        if group_id not in memory.traces:
            raise ValueError(f"groups.{group_id} must be a discovered group, to pin {user} to it")
        own = next((group.id for group in wishes.groups.values() if user in group.members), None)
        if own is not None:
            raise ValueError(f"{user} must be in no operators' group to be pinned, it is in {own}")
        rivals = sorted(other for other in wishes.apart(user) if wishes.pins.get(other) == group_id)
        if rivals:
            raise ValueError(
                f"{user} must not be pinned to {group_id}: {rivals[0]} is, and the pair is forbidden"
            )
        wishes.pins[user] = group_id
        if memory.places.group_of.get(user) == group_id:
            events = []
        else:
            events = take_out(memory, frozenset({user}), now, f"pinned to {group_id}")
        guests = wishes.apart(user) & memory.places.members(group_id)
        events += take_out(memory, guests, now, f"must not meet {user}, which is pinned there")
        memory.places.put(user, group_id)
        memory.doubts.pop(user, None)
        return self._note(
            *events,
            GroupEvent(now, "member-pinned", group_id, frozenset({user}), "set by an operator"),
        )

    def unpin_member(self, group_id: str, user: str, now: float) -> tuple[GroupEvent, ...]:
        """Leave it to discovery again where the user is. Changes nothing unless it is pinned there."""
        if self._memory.wishes.pins.get(user) != group_id:
            return ()
        del self._memory.wishes.pins[user]
        event = GroupEvent(now, "member-unpinned", group_id, frozenset({user}), "set by an operator")
        return self._note(event)

    @property
    def forbidden_pairs(self) -> tuple[Pair, ...]:
        """Users that must not be in one discovered group, pair by pair."""
        return self._memory.wishes.forbidden

    def forbid(self, one: str, other: str, now: float) -> tuple[GroupEvent, ...]:
        """Keep two users out of a common discovered group, from now on.

        Where they are in one, the one that is not pinned there leaves, else the last by name.

        Raises
        ------
        ValueError : if they are one user, or both are pinned to one group; nothing is changed then.
        """
        memory, wishes = self._memory, self._memory.wishes
        wishes.forbid(one, other)
        left: list[GroupEvent] = []
        home = memory.places.group_of.get(one)
        if home is not None and home == memory.places.group_of.get(other):
            stays = min((one, other), key=lambda user: (user not in wishes.pins, user))
            goes = other if stays == one else one
            left = take_out(memory, frozenset({goes}), now, f"must not meet {stays}")
        reason = "set by an operator"
        return self._note(*left, GroupEvent(now, "forbidden", "", frozenset({one, other}), reason))

    def allow(self, one: str, other: str, now: float) -> tuple[GroupEvent, ...]:
        """Let two users meet again. Changes nothing for a pair that was not forbidden."""
        if not self._memory.wishes.allow(one, other):
            return ()
        return self._note(GroupEvent(now, "allowed", "", frozenset({one, other}), "set by an operator"))

    def forget(self, endpoints: Iterable[str], now: float) -> tuple[GroupEvent, ...]:
        """Take endpoints that are gone for good out of discovered groups, without waiting.

        Operators' groups and pins keep them: they are wishes, not findings.
        """
        gone = frozenset(endpoints) - self._memory.wishes.pins.keys()
        return self._note(*take_out(self._memory, gone, now, "endpoint removed"))

    def _note(self, *events: GroupEvent) -> tuple[GroupEvent, ...]:
        self._memory.log.add(events)
        return events

    # Restarts.

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
