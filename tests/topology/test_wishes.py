from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology.groups import GroupRules, GroupTracker

RULES = GroupRules(switch_after=2, switch_after_s=1000.0, active_after=2, dissolve_after=3)
ALL = "abcdefgh"


def sets(*groups: str) -> list[frozenset[str]]:
    return [frozenset(group) for group in groups]


def shown(tracker: GroupTracker) -> dict[str, str]:
    return {group.id: "".join(sorted(group.members)) for group in tracker.groups()}


def run(tracker: GroupTracker, partition: list[frozenset[str]], times: int, start: int = 0) -> list[str]:
    kinds = []
    for step in range(start, start + times):
        kinds += [f"{event.kind} {event.group_id}" for event in tracker.update(partition, 5.0 * step)[1]]
    return kinds


def test_a_pinned_user_is_in_its_group_whatever_is_found() -> None:
    """From the moment it is pinned until it is let go; then the evidence decides again."""
    tracker = GroupTracker(RULES)
    run(tracker, sets("abcd", "wxyz"), 2)
    assert [event.kind for event in tracker.pin_member("auto-2", "a", 10.0)] == ["left", "member-pinned"]
    run(tracker, sets("abcd", "wxyz"), 5, 3)
    assert shown(tracker) == {"auto-1": "bcd", "auto-2": "awxyz"}
    assert tracker.member_pins == {"a": "auto-2"}
    tracker.unpin_member("auto-2", "a", 50.0)
    assert tracker.unpin_member("auto-2", "a", 51.0) == ()
    run(tracker, sets("abcd", "wxyz"), 2, 11)
    assert shown(tracker) == {"auto-1": "abcd", "auto-2": "wxyz"}


def test_a_group_stays_while_a_user_is_pinned_to_it() -> None:
    """It says that it dissolves, and goes when the pin goes."""
    tracker = GroupTracker(RULES)
    run(tracker, sets("abcd"), 2)
    tracker.pin_member("auto-1", "a", 10.0)
    run(tracker, [], 10, 3)
    assert shown(tracker) == {"auto-1": "a"}
    assert tracker.groups()[0].state == "dissolving"
    tracker.unpin_member("auto-1", "a", 70.0)
    run(tracker, [], 3, 15)
    assert tracker.groups() == ()


def test_a_forbidden_pair_never_meets() -> None:
    """The one that leaves is the last by name, unless that one is pinned; allowed again, it comes back."""
    tracker = GroupTracker(RULES)
    run(tracker, sets("abcd"), 2)
    assert [event.kind for event in tracker.forbid("b", "d", 10.0)] == ["left", "forbidden"]
    run(tracker, sets("abcd"), 5, 3)
    assert shown(tracker) == {"auto-1": "abc"}
    assert tracker.forbidden_pairs == (("b", "d"),)
    with pytest.raises(ValueError, match="must be two users"):
        tracker.forbid("a", "a", 40.0)
    tracker.allow("d", "b", 45.0)
    assert tracker.allow("d", "b", 46.0) == ()
    run(tracker, sets("abcd"), 1, 10)
    assert shown(tracker) == {"auto-1": "abcd"}


def test_who_is_pinned_stays_and_who_must_not_meet_it_goes() -> None:
    """Both pinned to one group and forbidden is a contradiction, and refused whichever comes last."""
    tracker = GroupTracker(RULES)
    run(tracker, sets("abcd"), 2)
    tracker.pin_member("auto-1", "d", 10.0)
    tracker.forbid("b", "d", 10.0)
    assert shown(tracker) == {"auto-1": "acd"}
    tracker.forbid("c", "a", 11.0)
    run(tracker, sets("abcd"), 4, 3)
    assert shown(tracker) == {"auto-1": "ad"}
    before = tracker.state()
    with pytest.raises(ValueError, match="the pair is forbidden"):
        tracker.pin_member("auto-1", "b", 30.0)
    assert tracker.state() == before
    tracker.pin_member("auto-1", "a", 31.0)
    with pytest.raises(ValueError, match="must not both be pinned"):
        tracker.forbid("a", "d", 32.0)


def test_an_operators_group_comes_before_pins_and_pairs() -> None:
    """It takes its members from where they are pinned, and may hold a pair that discovery may not."""
    tracker = GroupTracker(RULES)
    run(tracker, sets("abcd"), 2)
    tracker.pin_member("auto-1", "a", 10.0)
    tracker.forbid("a", "b", 10.0)
    tracker.pin("voice", "ab", 11.0)
    assert shown(tracker) == {"voice": "ab", "auto-1": "cd"}
    assert tracker.member_pins == {}
    with pytest.raises(ValueError, match="it is in voice"):
        tracker.pin_member("auto-1", "a", 12.0)
    with pytest.raises(ValueError, match=r"groups\.auto-9 must be a discovered group"):
        tracker.pin_member("auto-9", "h", 12.0)


def test_splits_and_merges_are_on_record_with_their_times() -> None:
    """A group's history names where it came from and where it went."""
    tracker = GroupTracker(RULES)
    run(tracker, sets("abcdexyz"), 2)
    run(tracker, sets("abcde", "xyz"), 4, 2)
    split = next(event for event in tracker.log("auto-2") if event.kind == "split")
    assert (split.other, split.members, split.time) == ("auto-1", ("x", "y", "z"), 15.0)
    assert split in tracker.log("auto-1")
    run(tracker, sets("abcdexyz"), 6, 6)
    merged = [event for event in tracker.log() if event.kind == "merged"]
    assert [(event.group_id, event.other) for event in merged] == [("auto-2", "auto-1")]
    assert tracker.log(since=merged[0].id)[0].kind == "dissolved"


def test_the_history_is_bounded_and_long_lists_of_names_are_cut() -> None:
    """A thousand events, a hundred names each; sizes stay true."""
    tracker = GroupTracker(RULES)
    tracker.update([frozenset(f"e{i}" for i in range(500))], 0.0)
    assert [(len(event.members), event.size) for event in tracker.log("auto-1")] == [(100, 500)] * 2
    for step in range(2000):
        tracker.pin("voice", "v", float(step))
    assert len(tracker.log()) == 1000
    assert tracker.log()[-1].id == 2002


def test_no_more_change_in_an_hour_than_the_budget_allows() -> None:
    """The surest first: those found elsewhere most often, then for longest."""
    rules = GroupRules(switch_after=2, churn_per_hour=0.1, least_churn=1, switch_after_s=1e9)
    tracker = GroupTracker(rules)
    names = [f"e{i:02d}" for i in range(20)]
    home = [frozenset(names[:10]), frozenset(names[10:])]
    run(tracker, home, 2)
    first = [frozenset(names[:9]), frozenset(names[9:])]
    tracker.update(first, 20.0)
    all_over = [frozenset(names[5:10]) | {"e19"}, frozenset(names[:5] + names[10:19])]
    # e09 was doubted before; the others only since now.
    tracker.update([frozenset(names[:5]), frozenset(names[5:])], 25.0)
    assert "e09" in tracker.groups()[1].members
    assert tracker.churn_left(25.0) == 1
    for step in range(100):
        tracker.update(all_over, 30.0 + step)
    moved = sum(len(e.members) for e in tracker.log() if e.kind == "left" and e.time > 0)
    assert moved == 2
    assert tracker.waiting > 0
    tracker.update(all_over, 25.0 + 3600.0)
    assert sum(len(e.members) for e in tracker.log() if e.kind == "left") == 3


partitions = st.lists(
    st.lists(st.integers(0, 3), min_size=8, max_size=8).map(
        lambda labels: [frozenset(ALL[i] for i in range(8) if labels[i] == label) for label in range(1, 4)]
    ),
    min_size=1,
    max_size=40,
)
wishes = st.lists(
    st.tuples(
        st.sampled_from(["pin", "unpin", "forbid", "allow", "forget"]), st.integers(0, 7), st.integers(0, 7)
    ),
    max_size=12,
)


def wish(tracker: GroupTracker, what: tuple[str, int, int], now: float) -> None:
    """Ask for it; what cannot be is refused and changes nothing."""
    kind, one, other = what
    before = tracker.state()
    try:
        if kind == "pin":
            tracker.pin_member(f"auto-{1 + other % 4}", ALL[one], now)
        elif kind == "unpin":
            tracker.unpin_member(f"auto-{1 + other % 4}", ALL[one], now)
        elif kind == "forbid":
            tracker.forbid(ALL[one], ALL[other], now)
        elif kind == "allow":
            tracker.allow(ALL[one], ALL[other], now)
        else:
            tracker.forget([ALL[one], "nobody"], now)
    except ValueError:
        assert tracker.state() == before


@settings(max_examples=80, deadline=None)
@given(partitions, wishes, st.integers(1, 4), st.data())
def test_whatever_flaps_wishes_hold_and_churn_stays_within_its_budget(
    steps: list[list[frozenset[str]]], asked: list[Any], least: int, data: st.DataObject
) -> None:
    """At any moment, and through restarts that change nothing."""
    rules = GroupRules(switch_after=1, dissolve_after=2, churn_per_hour=0.0, least_churn=least)
    tracker = GroupTracker(rules)
    changes: list[tuple[float, int]] = []
    now = 0.0
    for step, partition in enumerate(steps):
        now += data.draw(st.sampled_from([60.0, 600.0, 3000.0]))
        if asked and step % 3 == 1:
            wish(tracker, asked.pop(), now)
        state = json.loads(json.dumps(tracker.state()))
        again = GroupTracker.restore(state, rules)
        assert again.state() == tracker.state()
        groups, events = tracker.update(partition, now)
        assert again.update(partition, now) == (groups, events)
        lost = ("left", "dissolved")
        changes.append((now, sum(len(event.members) for event in events if event.kind in lost)))
        assert sum(n for at, n in changes if now - at < 3600.0) <= least
        at_home = {member: group.id for group in groups for member in group.members}
        assert sum(len(group.members) for group in groups) == len(at_home)
        for one, other in tracker.forbidden_pairs:
            assert at_home.get(one, 1) != at_home.get(other, 2)
        assert all(at_home[user] == group_id for user, group_id in tracker.member_pins.items())


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(22)), st.lists(st.tuples(st.integers(0, 21), st.integers(0, 3)), max_size=3))
def test_names_do_not_matter(order: list[int], drawn: list[tuple[int, int]]) -> None:
    """The same endpoints under other names: the same groups under ids that correspond, from first to last."""
    home = [0] * 4 + [1] * 5 + [2] * 6 + [3] * 7
    trackers = [GroupTracker(RULES), GroupTracker(RULES)]
    names = [[f"e{i:02d}" for i in range(22)], [f"n{i:02d}" for i in order]]
    same_id: dict[str, str] = {}
    # One endpoint at a time is found elsewhere, for long enough to move: names decide where overlaps are equal only.
    for step, (who, where) in enumerate([(0, 0), *(pair for pair in drawn for _ in range(4))]):
        found = []
        for tracker, name in zip(trackers, names, strict=True):
            at = [*home]
            at[who] = where
            partition = [
                frozenset(n for n, label in zip(name, at, strict=True) if label == k) for k in range(4)
            ]
            groups, _ = tracker.update(partition, float(step))
            number = {n: i for i, n in enumerate(name)}
            found.append({frozenset(number[m] for m in group.members): group for group in groups})
        assert found[0].keys() == found[1].keys()
        for members, group in found[0].items():
            other = found[1][members]
            assert same_id.setdefault(group.id, other.id) == other.id
            assert (group.state, group.since) == (other.state, other.since)


def test_a_member_nobody_knows_is_as_good_as_any() -> None:
    """The tracker knows names alone; an empty community, and one of one, are none."""
    tracker = GroupTracker(RULES)
    groups, _ = tracker.update(sets("", "a", "?!"), float("0"))
    assert {group.members for group in groups} == {frozenset("?!")}
