"""Which community is which group, and what becomes of groups: forming, active, dissolving, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from topology.group_log import GroupEvent
from topology.group_memory import Memory, Trace
from topology.group_rules import GroupRules
from topology.matching import match_by_overlap
from topology.places import Evidence

#: Discovered groups are named with this, so an operator's may not be.
DISCOVERED_PREFIX: Final = "auto-"


def follow(
    memory: Memory,
    rules: GroupRules,
    communities: Sequence[frozenset[str]],
    now: float,
    events: list[GroupEvent],
) -> Evidence:
    """Give each community its group, old or new; where each endpoint is found now.

    Groups change state and new ones are in ``memory`` afterwards; nobody has moved yet.
    """
    # By its core a group follows a drift at once; by its members it survives one odd result.
    shapes = [
        (group_id, shape)
        for group_id, trace in memory.traces.items()
        for shape in (trace.core, memory.places.members(group_id))
    ]
    matched = match_by_overlap(shapes, communities, rules.min_jaccard)
    groups: dict[str, frozenset[str]] = {}
    group_of: dict[str, str] = {}
    for index, community in enumerate(communities):
        group_id = matched.get(index)
        if group_id is None:
            group_id = f"{DISCOVERED_PREFIX}{memory.next_number}"
            memory.next_number += 1
            origin, reason = _origin(memory, community)
            memory.traces[group_id] = Trace("forming", now, reason, community, origin=origin)
            events.append(GroupEvent(now, "forming", group_id, community, reason))
        _found(memory, rules, group_id, community, now, events)
        groups[group_id] = community
        group_of.update(dict.fromkeys(community, group_id))
    for group_id in list(memory.traces):
        if group_id not in groups:
            _missed(memory, group_id, group_of, now, events)
    return Evidence(groups, group_of)


def _origin(memory: Memory, community: frozenset[str]) -> tuple[str, str]:
    """Which group a new one split from ("" if from none), and why there is a new one."""
    group_of = memory.places.group_of
    came_from = Counter(group_of[member] for member in community if member in group_of)
    if not came_from:
        return "", "endpoints that talk to one another"
    largest, shared = min(came_from.items(), key=lambda item: (-item[1], item[0]))
    origin = largest if 2 * shared >= len(community) else ""
    return origin, f"split from {largest} with {shared} of {len(community)} members"


def _found(
    memory: Memory,
    rules: GroupRules,
    group_id: str,
    community: frozenset[str],
    now: float,
    events: list[GroupEvent],
) -> None:
    trace = memory.traces[group_id]
    if trace.state == "active" and trace.missed == 0 and trace.core == community and not trace.into:
        return
    found = trace.found + 1 if trace.missed == 0 else 1
    trace = replace(trace, core=community, found=found, missed=0, into="")
    if trace.state != "active" and (trace.settled or found >= rules.active_after):
        reason = "found again" if trace.settled else f"found {found} times in a row"
        if trace.origin in memory.traces and not trace.settled:
            events.append(GroupEvent(now, "split", group_id, community, trace.reason, trace.origin))
        trace = replace(trace, state="active", since=now, reason=reason, settled=True)
        events.append(GroupEvent(now, "active", group_id, community, reason))
    elif trace.state == "dissolving":
        trace = replace(trace, state="forming", since=now, reason="found again")
        events.append(GroupEvent(now, "forming", group_id, community, trace.reason))
    memory.traces[group_id] = trace


def _missed(
    memory: Memory, group_id: str, target: Mapping[str, str], now: float, events: list[GroupEvent]
) -> None:
    trace = memory.traces[group_id]
    went_to = Counter(target[member] for member in trace.core if member in target)
    into, shared = min(went_to.items(), key=lambda item: (-item[1], item[0])) if went_to else ("", 0)
    trace = replace(
        trace, missed=trace.missed + 1, into=into if 2 * shared >= len(trace.core) > 0 else trace.into
    )
    if trace.state != "dissolving":
        reason = f"{shared} of {len(trace.core)} members found in {into}" if into else "not found"
        trace = replace(trace, state="dissolving", since=now, reason=reason)
        events.append(GroupEvent(now, "dissolving", group_id, trace.core, reason))
    memory.traces[group_id] = trace
