"""Groups in the loop: the file's, operators', and what survives a restart."""

from __future__ import annotations

import json

import pytest

from planner.config import Config
from planner.fleet import Fleet
from planner.group_desk import GroupDesk
from planner.grouping import Grouping
from planner.loop import Planner
from planner.memory import Memory
from planner.snapshot import Refused
from tests.planner.networks import START, Never, Running, network, small


def grouping_of(config: Config) -> Grouping:
    return Grouping.of(config, Fleet.of(config))


def members(grouping: Grouping) -> dict[str, set[str]]:
    return {group.id: set(group.members) for group in grouping.groups}


def test_budget_of_the_file_holds():
    """Of six members found elsewhere for long, as many move as an hour allows."""
    config = small(
        users={f"u{i}": {"macs": [f"00:00:00:00:02:{i:02x}"]} for i in range(12)},
        grouping={"churn_per_hour": 0, "least_churn_per_hour": 2, "hold_s": 0},
    )
    tracker = grouping_of(config).tracker
    names = sorted(config.users)
    home = [frozenset(names[:6]), frozenset(names[6:])]
    tracker.update(home, START)
    elsewhere = [frozenset([*names[:3], *names[6:9]]), frozenset([*names[3:6], *names[9:]])]
    for step in range(1, 20):
        tracker.update(elsewhere, START + step)
    assert sum(event.size for event in tracker.log() if event.kind == "left") == 2
    assert tracker.churn_left(START + 20) == 0


def test_restart_repeats_no_event_and_changes_only_what_the_file_changed():
    """A group of the file that is as it was keeps its past; one that changed is made anew."""
    groups = {"lab": {"members": ["emma"]}, "desk": {"members": ["anna"]}}
    first = grouping_of(small(groups=groups))
    first.tracker.update([frozenset({"carla", "david"})], START)
    first.tracker.pin_member("auto-1", "ben", START)
    state = json.loads(json.dumps(first.state()))
    again = grouping_of(small(groups=groups))
    again.restore(state)
    assert again.tracker.state() == first.tracker.state()
    moved = grouping_of(small(groups={"lab": {"members": ["emma", "anna"]}}))
    moved.restore(state)
    assert members(moved) == {"lab": {"anna", "emma"}, "auto-1": {"ben", "carla", "david"}}
    assert [event.kind for event in moved.tracker.log("desk")] == ["pinned", "unpinned"]


def test_pin_of_a_user_that_the_file_no_longer_has_is_dropped():
    """Discovery decides again; nobody waits for a user that never comes."""
    first = grouping_of(small())
    first.tracker.update([frozenset({"carla", "david"})], START)
    first.tracker.pin_member("auto-1", "ben", START)
    users = {"anna": {"macs": ["00:00:00:00:01:01"]}}
    second = grouping_of(small(users=users))
    second.restore(first.state())
    assert second.tracker.member_pins == {}


def test_state_of_before_pins_and_pairs_is_read():
    """An upgrade starts without them and loses no group."""
    first = grouping_of(small())
    first.tracker.update([frozenset({"carla", "david"})], START)
    state = first.state()
    for key in ("pins", "forbidden", "churn", "log"):
        del state["tracker"][key]
    for trace in state["tracker"]["discovered"]:
        del trace["origin"], trace["into"]
    second = grouping_of(small())
    second.restore(state)
    assert members(second) == {"auto-1": {"carla", "david"}}
    assert second.tracker.log() == ()


def test_wishes_survive_a_restart_of_the_planner():
    """Members, pins, pairs and bindings, through the bytes that are stored."""
    running = Running(small())
    running.connect()
    running.tick()
    desk = GroupDesk(running.planner, lambda _: None, lambda: running.now)
    running.planner.grouping.tracker.update([frozenset({"carla", "david", "emma"})], running.now)
    desk.create("crew", ["anna"], {})
    desk.set_members("crew", ["ben"])
    desk.pin("auto-1", "anna")
    desk.forbid("carla", "emma")
    running.planner.fleet.bindings.give("ben", ["00:00:00:00:09:09"], [], running.now)
    stored = Memory.from_bytes(running.planner.memory().to_bytes())
    second = Planner(running.config, Never())
    second.restore(stored)
    assert members(second.grouping) == {"crew": {"ben"}, "auto-1": {"anna", "carla", "david"}}
    tracker = second.grouping.tracker
    assert (dict(tracker.member_pins), tracker.forbidden_pairs) == ({"anna": "auto-1"}, (("carla", "emma"),))
    assert second.fleet.bindings.index.by_mac["00:00:00:00:09:09"] == "ben"
    assert second.memory().groups == running.planner.memory().groups


def test_next_plan_follows_a_wish():
    """Meters of the group that a user was put into are in the plan of the next tick."""
    running = Running(small())
    running.connect()
    running.tick()
    desk = GroupDesk(running.planner, lambda _: None, lambda: running.now)
    desk.create("crew", ["anna", "ben"], {"ceiling_bps": (9_000_000, 9_000_000)})
    plan = running.tick()
    assert "global/west/crew/ben" in {owner.pool for owner in plan.layouts[0x11].owners}
    desk.delete("crew")
    plan = running.tick()
    assert "global/west/ungrouped/ben" in {owner.pool for owner in plan.layouts[0x11].owners}
    assert "crew" not in running.planner.policies.overrides


def test_members_whose_guarantees_do_not_fit_are_refused():
    """The ceiling that was set for the group still holds, so nothing changes."""
    running = Running(small())
    running.planner.report(network(running.config))
    running.tick()
    desk = GroupDesk(running.planner, lambda _: None, lambda: running.now)
    desk.create("crew", ["anna"], {"ceiling_bps": (1_500_000, 1_500_000)})
    with pytest.raises(Refused, match="must be >= its members' guarantees"):
        desk.set_members("crew", ["anna", "ben"])
    assert members(running.planner.grouping)["crew"] == {"anna"}
