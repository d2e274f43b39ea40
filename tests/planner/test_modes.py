"""Modes: which plan stands, and that a stale one never does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.memory import Memory
from planner.modes import KeptPlan, Publication, Stance, canary_regions, max_age_s
from planner.plan import Plan
from planner.report import NetworkReport, SwitchFacts
from planner.snapshot import NotThere, Refused
from tests.planner.networks import PLACES, Running, small

WEST, EAST = (0x11, 0x12), (0x21,)


def running_with(**allocation: Any) -> Running:
    """A planner that has made its first plans."""
    running = Running(small(allocation={"dead_band": 0.0, "keep_every_s": 0, **allocation}))
    running.offered = dict.fromkeys(PLACES, 2e6)
    running.connect()
    running.tick(count=3)
    return running


@pytest.fixture
def running() -> Running:
    return running_with()


def publication(running: Running) -> Publication:
    return running.planner.publication


def shift(running: Running) -> None:
    """Demand goes elsewhere, so that any new plan has other meters."""
    low, high = (1e6, 19e6) if running.offered["anna"] != 1e6 else (19e6, 1e6)
    running.offered = {"anna": low, "ben": high, "carla": 18e6, "david": low, "emma": high}


def meters(plan: Plan, *dpids: int) -> list[Any]:
    return [plan.meters[dpid].rates() for dpid in dpids]


# Frozen.


def test_frozen_plan_stands_while_others_are_made(running: Running):
    """What is decided goes on and can be seen; what is published does not change, not even its version."""
    standing = running.planner.snapshot.plan
    publication(running).freeze(running.now, "change window")
    shift(running)
    running.tick(count=3)
    assert running.planner.snapshot.plan is standing
    proposed = publication(running).proposed
    assert proposed.version == standing.version + 3
    assert proposed.time == running.now
    assert meters(proposed, *WEST) != meters(standing, *WEST)
    assert running.planner.snapshot.health.status == "ok"


def test_unfrozen_planner_publishes_at_the_next_tick(running: Running):
    """Under a version above all that were made meanwhile."""
    standing = running.planner.snapshot.plan
    publication(running).freeze(running.now, "")
    running.tick(count=2)
    publication(running).unfreeze(running.now)
    plan = running.tick()
    assert plan.version == standing.version + 3
    assert plan.time == running.now


def test_nothing_can_be_frozen_before_there_is_a_plan():
    """An empty plan would clear the switches."""
    fresh = Running(small())
    with pytest.raises(Refused, match="plan must have been published before it can be frozen, got none yet"):
        publication(fresh).freeze(0.0, "")


def test_frozen_plan_stands_after_a_restart(running: Running):
    """Meters, layout and stance are those of before; the version is new, so that everybody takes it."""
    publication(running).freeze(running.now, "change window")
    memory = Memory.from_bytes(running.planner.memory().to_bytes())
    state, standing = publication(running).state(), running.planner.snapshot.plan
    later = Running(small())
    later.now = running.now
    publication(later).restore(state)
    later.planner.restore(memory)
    later.connect()
    shift(running)
    later.offered = running.offered
    plan = later.tick(count=2)
    assert publication(later).stance == Stance("live", (), True, running.now, "change window")
    assert meters(plan, *WEST, *EAST) == meters(standing, *WEST, *EAST)
    assert plan.layouts == standing.layouts
    assert plan.version > standing.version
    assert plan.layout_version > standing.layout_version
    assert publication(later).proposed.version > plan.version


# Back.


def test_revert_publishes_an_earlier_plan_and_freezes_it(running: Running):
    """The plan before the one that stands, as a new version."""
    earlier = running.planner.snapshot.plan
    shift(running)
    latest = running.tick()
    publication(running).revert(None, running.now, "worse")
    plan = running.tick()
    assert meters(plan, *WEST) == meters(earlier, *WEST) != meters(latest, *WEST)
    assert plan.version > latest.version
    assert plan.layout_version > latest.layout_version
    assert publication(running).stance.frozen


def test_revert_goes_further_back_each_time(running: Running):
    """Three times is three plans back; a version can be named."""
    kept = [KeptPlan(0, 0.0)]
    for _ in range(4):
        shift(running)
        running.tick()
        kept = list(publication(running).kept)
    for back in (1, 2, 3):
        publication(running).revert(None, running.now, "")
        assert publication(running).published.time == kept[back].time
    publication(running).revert(kept[1].version, running.now, "")
    assert publication(running).published.time == kept[1].time
    publication(running).unfreeze(running.now)
    assert running.tick().time == running.now


def test_revert_passes_over_plans_that_bind_nobody():
    """One from before anybody was seen is gone back to by its number only."""
    running = Running(small(allocation={"dead_band": 0.0, "keep_every_s": 0}))
    # A switch that only forwards is there first.
    running.planner.report(NetworkReport("speaker", 1, {0x1: SwitchFacts(12, 1000, "fake")}))
    running.tick()
    running.offered = dict.fromkeys(PLACES, 2e6)
    running.connect(version=2)
    running.tick(count=3)
    modes = publication(running)
    meters_of = {plan.version: sum(map(len, plan.meters.values())) for plan in modes.past}
    first = min(version for version, n_meters in meters_of.items() if n_meters)
    bare = min(meters_of)
    assert bare < first
    modes.revert(first, running.now, "")
    with pytest.raises(NotThere, match=f"got earlier than {first}"):
        modes.revert(None, running.now, "")
    modes.revert(bare, running.now, "")
    assert not any(map(len, modes.published.meters.values()))


def test_plan_that_is_not_kept_cannot_come_back(running: Running):
    """The refusal names the version."""
    with pytest.raises(NotThere, match="version must be one of the kept plans, got 99"):
        publication(running).revert(99, running.now, "")
    first = publication(running).kept[-1].version
    publication(running).revert(first, running.now, "")
    with pytest.raises(NotThere, match=f"got earlier than {first}"):
        publication(running).revert(None, running.now, "")


def test_kept_plans_are_bounded_and_spread_over_time():
    """One a minute at most, and only the newest ones."""
    running = running_with(keep_every_s=10, plans_kept=4)
    running.tick(count=20)
    times = [plan.time for plan in publication(running).kept]
    assert times == sorted(times, reverse=True)
    assert len(times) == 4
    assert set(-np.diff(times)) == {10.0}


# Modes.


def test_shadow_plans_are_marked_and_not_kept():
    """They are seen, never enforced, and nothing to go back to."""
    running = running_with(mode="shadow")
    assert running.planner.snapshot.plan.mode == "shadow"
    assert publication(running).kept == ()


def test_canary_region_follows_and_the_others_keep_what_stood(running: Running):
    """West has new meters at every tick, east those of when the canary began."""
    before = running.planner.snapshot.plan
    publication(running).set_mode("canary", ("west",), running.now)
    shift(running)
    plan = running.tick()
    assert plan.mode == "canary"
    assert meters(plan, *EAST) == meters(before, *EAST)
    assert meters(plan, *WEST) == meters(publication(running).proposed, *WEST) != meters(before, *WEST)
    assert meters(publication(running).proposed, *EAST) != meters(before, *EAST)


def test_canary_from_the_start_leaves_other_switches_alone():
    """Where nothing was ever live there is nothing to keep: they are not in the plan."""
    running = running_with(mode="canary", canary={"regions": ["east"]})
    plan = running.planner.snapshot.plan
    assert set(plan.layouts) == set(plan.meters) == set(EAST)


def test_every_change_of_layouts_has_its_own_number(running: Running):
    """A switch's layout is sent again when the mode changes what it is; else it is not."""
    live = running.planner.snapshot.plan
    publication(running).set_mode("canary", ("west",), running.now)
    canary = running.tick()
    assert canary.layout_version > live.layout_version
    assert running.tick().layout_version == canary.layout_version
    publication(running).set_mode("live", (), running.now)
    assert running.tick().layout_version > canary.layout_version


def test_mode_survives_a_restart_and_the_file_rules_until_somebody_chose(running: Running):
    """An operator's canary goes on, with what the others held; the file's mode is read from the file of now."""
    publication(running).set_mode("canary", ("west",), running.now)
    running.tick()
    later = Running(small())
    publication(later).restore(publication(running).state())
    assert publication(later).stance == publication(running).stance
    later.connect()
    assert set(later.tick(count=2).meters) == {*WEST, *EAST}
    untouched = Running(small())
    publication(untouched).restore(publication(running_with(mode="shadow")).state())
    assert publication(untouched).stance.mode == "live"


@pytest.mark.parametrize(
    ("mode", "regions", "line"),
    [
        ("canary", ("north",), "regions must be regions of the configuration, got 'north'"),
        ("canary", (), "regions must name at least one under canary, got none"),
    ],
)
def test_impossible_mode_is_refused(running: Running, mode: Any, regions: tuple[str, ...], line: str):
    """Nothing changes."""
    before = publication(running).stance
    with pytest.raises(Refused) as refusal:
        publication(running).set_mode(mode, regions, running.now)
    assert str(refusal.value) == line
    assert publication(running).stance == before


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"stance": 1}', b'{"stance": {"mode": "x", "regions": [], "frozen": false}}']
)
def test_malformed_state_changes_nothing(running: Running, body: bytes):
    """A planner starts with the file's mode rather than not at all."""
    before = publication(running).stance
    with pytest.raises(ValueError, match="publication is malformed"):
        publication(running).restore(body)
    assert publication(running).stance == before


names = st.sets(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=12)


@given(names, st.floats(0.01, 1), st.floats(0.01, 1))
def test_larger_canary_holds_the_smaller_one(regions: set[str], share: float, other: float):
    """Regions join, none leaves; at least one is in, at 1 all are."""
    low, high = sorted((share, other))
    small_one, large_one = (set(canary_regions(regions, (), one)) for one in (low, high))
    assert small_one <= large_one <= regions
    assert len(small_one) >= 1
    assert set(canary_regions(regions, (), 1.0)) == regions


# Stale.


class Clock:
    """Seconds that the test moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_age_rule_is_four_ticks_and_half_a_minute():
    """Unless the file says otherwise."""
    assert [max_age_s(None, 5.0), max_age_s(None, 60.0), max_age_s(12.0, 60.0)] == [30.0, 240.0, 12.0]


def test_plan_on_old_input_is_not_published(running: Running, monkeypatch: pytest.MonkeyPatch):
    """A tick that hung between its input and its plan keeps it: the one before stands, and the API says so."""
    clock = Clock()
    running.planner.clock = clock
    standing = running.tick()
    step = running.planner._publish

    def hung(now: float) -> None:
        clock.seconds += 31.0
        step(now)

    monkeypatch.setattr(running.planner, "_publish", hung)
    shift(running)
    assert running.tick() is standing
    health = running.planner.snapshot.health
    assert health.status == "degraded"
    assert "a plan's input must be at most 30 s old, got 31 s" in health.problems[0]
    monkeypatch.setattr(running.planner, "_publish", step)
    assert running.tick().version > standing.version


def test_old_decision_is_not_published_as_new(running: Running, monkeypatch: pytest.MonkeyPatch):
    """While nothing new is decided the last decision ages, and is not published for ever."""
    clock = Clock()
    running.planner.clock = clock
    running.tick()
    monkeypatch.setattr(running.planner.prediction, "step", lambda *_: None)
    versions = []
    for _ in range(10):
        clock.seconds += 5.0
        versions.append(running.tick().version)
    assert versions[-1] == versions[5]
    assert running.planner.snapshot.health.status == "degraded"


def test_plan_of_a_dead_loop_is_stale(running: Running):
    """Once no tick confirmed it for too long nobody is handed it; the next tick makes it fresh."""
    clock = Clock()
    running.planner.clock = clock
    running.tick()
    stale = [running.planner.plan_is_stale]
    clock.seconds += 30.5
    stale.append(running.planner.plan_is_stale)
    running.tick()
    stale.append(running.planner.plan_is_stale)
    assert stale == [False, True, False]


def test_frozen_plan_is_not_stale_while_the_loop_lives(running: Running):
    """It is old because somebody said so."""
    clock = Clock()
    running.planner.clock = clock
    running.tick()
    publication(running).freeze(running.now, "")
    for _ in range(10):
        clock.seconds += 10.0
        running.tick()
    stale = [running.planner.plan_is_stale]
    clock.seconds += 31.0
    assert [*stale, running.planner.plan_is_stale] == [False, True]


def test_stale_plan_is_refused_whatever_the_mode():
    """NaN is no age either."""
    own = Publication(Stance("live"), {}, 30.0, 5, 0.0)
    for age in (30.1, float("nan"), float("inf")):
        with pytest.raises(Exception, match="input must be at most 30 s old"):
            own.offer(Plan(), age)
    assert own.offer(replace(Plan(), time=5.0), 30.0).version == 1
