"""Who changes group, once the evidence has persisted, and no more of them than the hour's budget allows."""

from __future__ import annotations

from dataclasses import replace

from topology.group_log import GroupEvent
from topology.group_memory import Doubt, Memory
from topology.group_rules import GroupRules
from topology.places import Evidence


def churn_left(memory: Memory, rules: GroupRules, now: float) -> int:
    """How many memberships may still change, given those that did within the hour."""
    budget = max(rules.least_churn, int(rules.churn_per_hour * len(memory.places.group_of)))
    return max(0, budget - memory.churn.used(now))


def move_members(
    memory: Memory, rules: GroupRules, evidence: Evidence, now: float, events: list[GroupEvent]
) -> None:
    """Let newcomers in at once, and members go where enough evidence finds them.

    The surest go first: those that were found elsewhere most often, then for longest. Those for whom
    there is no budget wait, and so does whoever would meet one it must not meet.
    """
    places, target = memory.places, evidence.group_of
    differing = evidence.differing(places)
    memory.doubts = {member: doubt for member, doubt in memory.doubts.items() if member in differing}
    convinced: list[str] = []
    joining: list[str] = []
    for member in sorted(differing):
        if member not in places.group_of:
            joining.append(member)
        elif _is_convinced(memory, rules, member, target.get(member, ""), now):
            convinced.append(member)
    convinced.sort(key=lambda member: (-memory.doubts[member].times, memory.doubts[member].since, member))
    moved: list[tuple[str, str, str]] = []
    left = churn_left(memory, rules, now) if convinced else 0
    for member in convinced:
        there = target.get(member, "")
        if len(moved) < left and _may_join(memory, member, there):
            moved.append((member, places.drop(member), there))
            if there:
                places.put(member, there)
    memory.churn.spend(len(moved), now)
    for member in joining:
        if _may_join(memory, member, target[member]):
            places.put(member, target[member])
            moved.append((member, "", target[member]))
    for member, _, _ in moved:
        memory.doubts.pop(member, None)
    _tell(moved, now, events)


def _tell(moved: list[tuple[str, str, str]], now: float, events: list[GroupEvent]) -> None:
    left: dict[tuple[str, str], set[str]] = {}
    joined: dict[tuple[str, str], set[str]] = {}
    for member, here, there in sorted(moved):
        if here:
            left.setdefault((here, there), set()).add(member)
        if there:
            joined.setdefault((there, here), set()).add(member)
    for (group_id, to), members in left.items():
        reason = f"found in {to}" if to else "found in no group"
        events.append(GroupEvent(now, "left", group_id, frozenset(members), reason))
    for (group_id, origin), members in joined.items():
        reason = f"from {origin}" if origin else "was in no group"
        events.append(GroupEvent(now, "joined", group_id, frozenset(members), reason))


def _is_convinced(memory: Memory, rules: GroupRules, member: str, there: str, now: float) -> bool:
    doubt = memory.doubts.get(member)
    if doubt is None or doubt.target != there:
        doubt = Doubt(there, now, 0)
    doubt = replace(doubt, times=doubt.times + 1)
    memory.doubts[member] = doubt
    return doubt.times >= rules.switch_after or now - doubt.since >= rules.switch_after_s


def _may_join(memory: Memory, member: str, there: str) -> bool:
    return not there or all(
        memory.places.group_of.get(other) != there for other in memory.wishes.apart(member)
    )


def drop_finished(
    memory: Memory, rules: GroupRules, evidence: Evidence, now: float, events: list[GroupEvent]
) -> None:
    """Let go of groups that nobody is in, or that were not found for long; never of one that has a user pinned."""
    kept = memory.places.groups() | evidence.groups.keys()
    pinned_to = set(memory.wishes.pins.values())
    for group_id, trace in list(memory.traces.items()):
        if group_id in pinned_to or (trace.missed < rules.dissolve_after and group_id in kept):
            continue
        rest = memory.places.members(group_id)
        # Whoever is still in it would change: that too is for the budget.
        if len(rest) > (churn_left(memory, rules, now) if rest else 0):
            continue
        memory.churn.spend(len(rest), now)
        del memory.traces[group_id]
        for member in rest:
            memory.places.drop(member)
            memory.doubts.pop(member, None)
        if trace.settled and trace.into in memory.traces:
            reason = f"most of its members are found in {trace.into}"
            events.append(GroupEvent(now, "merged", group_id, trace.core, reason, trace.into))
        reason = "no members left" if not rest else f"not found {trace.missed} times in a row"
        events.append(GroupEvent(now, "dissolved", group_id, rest, reason))


def take_out(memory: Memory, members: frozenset[str], now: float, reason: str) -> list[GroupEvent]:
    """Take these out of discovered groups now: an operator wants it, or they are gone."""
    left: dict[str, set[str]] = {}
    for member in sorted(members & memory.places.group_of.keys()):
        left.setdefault(memory.places.drop(member), set()).add(member)
        memory.doubts.pop(member, None)
    for group_id, trace in memory.traces.items():
        if trace.core & members:
            memory.traces[group_id] = replace(trace, core=trace.core - members)
    return [GroupEvent(now, "left", group_id, frozenset(out), reason) for group_id, out in left.items()]
