"""Policies: what pools may have at one moment, and when that changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.config import Config
from planner.config_faults import ConfigError
from planner.memory import Memory
from planner.meter_ids import MeterIds
from planner.policies import (
    ClawBack,
    Daily,
    Dated,
    InForce,
    Lift,
    PolicySet,
    PoolPolicy,
    RegionTerms,
    Rule,
    ServicePlan,
)
from planner.policies_file import load_policies, policies_for
from planner.policy import Override, Policies, TemporaryBoost
from planner.report import NetworkReport
from planner.snapshot import NotThere, Refused
from planner.structure import Structure, repriced
from tests.planner.networks import PLACES, START, Running, small, structure_of, worlds

BERLIN = ZoneInfo("Europe/Berlin")
NAN = float("nan")


def at(text: str, zone: Any = UTC) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


# Time.


def test_evening_boost_is_on_from_its_first_second_to_before_its_last():
    """The end is outside, so that two that follow one another do not overlap."""
    evening = Daily(time(18), time(23), BERLIN)
    moments = ["17:59:59", "18:00:00", "22:59:59", "23:00:00"]
    assert [evening.active(at(f"2026-11-28T{moment}", BERLIN)) for moment in moments] == [
        False,
        True,
        True,
        False,
    ]


def test_night_boost_belongs_to_the_day_on_which_it_begins():
    """Friday's night is on Saturday morning, and Saturday's is not."""
    night = Daily(time(22), time(6), BERLIN, frozenset({4}))
    assert night.active(at("2026-11-28T05:00", BERLIN))  # a Saturday
    assert not night.active(at("2026-11-28T23:00", BERLIN))
    assert not night.active(at("2026-11-27T05:00", BERLIN))


def test_time_of_day_is_the_clock_on_the_wall():
    """On the day on which clocks go back the evening begins at 18:00 all the same."""
    evening = Daily(time(18), time(23), BERLIN)
    before, after = at("2026-10-24T18:00", BERLIN), at("2026-10-25T18:00", BERLIN)
    assert after - before == 25 * 3600
    assert evening.next_change(before + 6 * 3600) == after


@given(
    st.integers(0, 23),
    st.integers(0, 23),
    st.frozensets(st.integers(0, 6), min_size=1),
    st.integers(0, 30_000_000),
)
def test_nothing_changes_before_the_next_change(begin: int, end: int, days: frozenset[int], offset: int):
    """So rules need not be looked at in between."""
    daily = Daily(time(begin), time(end, 30), BERLIN, days)
    now = at("2026-01-01T00:00") + offset
    until = daily.next_change(now)
    assert now < until <= now + 9 * 86400
    for part in (0.25, 0.5, 0.999):
        assert daily.active(now + part * (until - now)) is daily.active(now)


def test_dated_boost_changes_twice_and_never_again():
    """Then it is over, without anybody ending it."""
    launch = Dated(100.0, 200.0)
    assert [launch.next_change(now) for now in (0.0, 100.0, 200.0)] == [100.0, 200.0, float("inf")]
    assert [launch.active(now) for now in (99.0, 100.0, 199.0, 200.0)] == [False, True, True, False]


# Lifts, plans, balance.

pairs = st.one_of(st.none(), st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)))
lifts = st.builds(
    Lift, pairs, pairs, st.sampled_from([1.0, 2.0, 4.0]), st.one_of(st.none(), st.integers(0, 7))
)


@given(st.permutations(range(3)), st.lists(lifts, min_size=3, max_size=3))
def test_order_of_lifts_does_not_matter(order: list[int], given_lifts: list[Lift]):
    """Two boosts at once mean the same whichever is written first, and neither takes anything away."""
    base = PoolPolicy((1e6, 1e6), (5e6, 5e6), 1.5, 4)
    one, other = base, base
    for lift in given_lifts:
        one = lift.over(one)
    for place in order:
        other = given_lifts[place].over(other)
    assert one == other
    assert one.guarantee_bps >= base.guarantee_bps
    assert one.weight >= base.weight
    assert one.priority is not None
    assert one.priority <= 4


GOLD = ServicePlan("gold", ("user:anna",), (2e6, 2e6), (20e6, 20e6), ClawBack(0.95, 0.8, 60.0))


def test_plan_is_a_commit_and_a_burst():
    """The commit is the guarantee, the burst the ceiling."""
    rules = InForce.at(PolicySet(plans=(GOLD,)), 0.0)
    policy = rules.over("user:anna", PoolPolicy(weight=3.0), "west")
    assert policy == PoolPolicy((2e6, 2e6), (20e6, 20e6), 3.0)


def test_burst_is_taken_back_in_the_direction_and_region_that_is_short():
    """Download is short in the west: nobody else loses a burst."""
    policies = PolicySet(plans=(GOLD,))
    clawed = policies.clawed({}, {"west": (0.5, 0.96), "east": (0.5, 0.5)}, 0.0)
    rules = InForce.at(policies, 0.0, clawed)
    assert rules.over("user:anna", PoolPolicy(), "west").ceiling_bps == (20e6, 2e6)
    assert rules.over("user:anna", PoolPolicy(), "east").ceiling_bps == (20e6, 20e6)


def test_burst_comes_back_when_there_is_room_and_not_before_its_time():
    """Who is cut sends less, so that room alone says nothing at first."""
    policies = PolicySet(plans=(GOLD,))
    clawed = policies.clawed({}, {"west": (0.96, 0.1)}, 100.0)
    key = ("gold", "west", 0)
    assert dict(clawed) == {key: 100.0}
    for load, now, back in ((0.7, 159.0, True), (0.85, 200.0, True), (NAN, 300.0, True), (0.7, 160.0, False)):
        assert (key in policies.clawed(clawed, {"west": (load, 0.1)}, now)) is back
    assert key in policies.clawed(clawed, {}, 1e9)


def test_regions_are_balanced_by_terms():
    """Weight is replaced, the guarantee only raised."""
    rules = InForce.at(PolicySet(balance={"west": RegionTerms(3.0, (5e6, 5e6))}), 0.0)
    policy = rules.over("region:west", PoolPolicy((8e6, 0), weight=1.0))
    assert policy == PoolPolicy((8e6, 5e6), weight=3.0)
    assert rules.names("region:west") == ("balance",)


# What holds, in the planner.


def policy_file(directory: Path, text: str) -> Config:
    file = directory / "policies.yaml"
    file.write_text(text)
    return small(policies={"file": str(file)}, allocation={"dead_band": 0.0})


def test_rules_are_looked_at_only_at_boundaries():
    """In between a step costs a comparison, and says that nothing changed."""
    policies = Policies(small())
    policies.rules = PolicySet((Rule("launch", ("user:anna",), Lift(weight_factor=2), Dated(100, 200)),))
    changed = [policies.step(now, {}) for now in (0.0, 50.0, 100.0, 150.0, 200.0, 250.0)]
    assert changed == [False, False, True, False, True, False]
    assert policies.step(150.0, {}), "a clock that was set back"


def test_override_stands_above_policies_and_a_boost_above_that():
    """Configuration, policies, overrides, temporary boosts: the later word wins or lifts."""
    policies = Policies(small(groups={"lab": {"members": ["emma"], "weight": 2}}))
    policies.rules = PolicySet((Rule("critical lab", ("group:lab",), Lift(weight_factor=3, priority=0)),))
    policies.step(0.0, {})
    assert policies.group("lab").weight == 6
    policies.overrides["lab"] = Override(weight=1.5)
    assert (policies.group("lab").weight, policies.group("lab").priority) == (1.5, 0)
    policies.boost(TemporaryBoost("b", ("group:lab",), Lift(weight_factor=2), 0.0, 50.0), ["lab"], 0.0)
    assert policies.step(0.0, {})
    assert policies.group("lab").weight == 3
    assert policies.names("group:lab") == ("critical lab", "override", "boost b")
    assert policies.step(50.0, {})
    assert (policies.group("lab").weight, policies.boosts) == (1.5, {})


@pytest.mark.parametrize(
    ("boost", "line"),
    [
        ({"end": 5.0}, "boosts.b.end must be in the future and after its start 0, got 5"),
        ({"start": 99.0}, "boosts.b.end must be in the future and after its start 99, got 90"),
        ({"pools": ("user:zoe",)}, "boosts.b.pools must be users of the configuration, got 'zoe'"),
        ({"pools": ("region:north",)}, "boosts.b.pools must be regions of the configuration, got 'north'"),
        ({"pools": ("group:gone",)}, "boosts.b.pools must be groups that are there, got 'gone'"),
        ({"id": "a"}, "boosts.a must be a new id, got one that exists"),
        (
            {"lift": Lift(guarantee_bps=(5e9, 1e6))},
            "boosts.b.guarantee_mbps.up must leave room for the other users' guarantees of 4 within 60, got 5000 in all",
        ),
        (
            {"pools": ("region:east",), "lift": Lift(guarantee_bps=(1e6, 5e9))},
            "boosts.b.guarantee_mbps.down must be <= the capacity 36 of regions.east, got 5000",
        ),
    ],
)
def test_wrong_boost_is_refused(boost: dict[str, Any], line: str):
    """The refusal names path, rule and value."""
    policies = Policies(small())
    right = TemporaryBoost("b", ("user:anna",), Lift(weight_factor=2), 0.0, 90.0)
    policies.boost(replace(right, id="a"), [], 10.0)
    with pytest.raises(Refused) as refusal:
        policies.boost(replace(right, **boost), [], 10.0)
    assert str(refusal.value) == line


def test_withdrawn_boost_is_over():
    """And one that is not there is told."""
    policies = Policies(small())
    policies.boost(TemporaryBoost("b", ("user:anna",), Lift(weight_factor=2), 0.0, 90.0), [], 0.0)
    policies.step(0.0, {})
    policies.withdraw("b")
    assert policies.step(1.0, {})
    assert policies.user("anna").weight == 1
    with pytest.raises(NotThere, match="boostID must be the id of a boost, got 'b'"):
        policies.withdraw("b")


def test_region_is_never_lifted_above_its_capacity():
    """Capacity is what there is."""
    policies = Policies(small())
    policies.rules = PolicySet((Rule("r", ("region:west",), Lift(ceiling_bps=(9e9, 9e9))),))
    policies.step(0.0, {})
    assert policies.region("west").ceiling_bps == (36e6, 36e6)


def same(one: Structure, other: Structure) -> None:
    for column in ("guarantee_bps", "ceiling_bps", "weight", "priority"):
        np.testing.assert_array_equal(getattr(one, column), getattr(other, column))
    assert one.problems == other.problems
    np.testing.assert_array_equal(one.trees[1].reserved_bps, other.trees[1].reserved_bps)


@settings(deadline=None)
@given(worlds(), lifts, st.data())
def test_repriced_is_what_would_have_been_built(
    world: tuple[Config, NetworkReport, dict[str, set[str]]], lift: Lift, data: st.DataObject
):
    """A change of policies needs no new tree: the old one with new promises is the same."""
    config, report, groups = world
    names = [f"user:{u}" for u in config.users] + [f"group:{g}" for g in groups] + ["region:r0"]
    pools = tuple(data.draw(st.lists(st.sampled_from(names), unique=True, min_size=1)))
    policies = Policies(config)
    meter_ids = MeterIds()
    before = structure_of(config, report, groups, meter_ids, policies)
    policies.rules = PolicySet((Rule("x", pools, lift),))
    policies.step(0.0, {})
    same(repriced(before, config, policies), structure_of(config, report, groups, meter_ids, policies))


def test_priority_is_inherited_until_somebody_has_one():
    """A group's class is its users', but for users with one of their own."""
    policies = Policies(small())
    rules = [
        Rule("late", ("group:studio",), Lift(priority=1)),
        Rule("first", ("user:ben",), Lift(priority=0)),
    ]
    policies.rules = PolicySet(tuple(rules))
    policies.step(0.0, {})
    s = structure_of(policies.config, groups={"studio": {"anna", "ben"}}, policies=policies)
    by_user = {path.rpartition("/")[2]: int(p) for path, p in zip(s.path, s.priority, strict=True)}
    assert (by_user["anna"], by_user["ben"], by_user["carla"]) == (1, 0, 4)


def test_critical_user_is_served_first_when_use_does_not_fit(tmp_path: Path):
    """All of its use, while the others share the rest."""
    text = "critical: {clinic: {pools: [user:anna]}}"
    running = Running(policy_file(tmp_path, text))
    running.offered = {"anna": 19e6, "ben": 19e6, "carla": 19e6, "david": 1e6, "emma": 1e6}
    running.connect()
    running.tick(count=6)
    assert min(running.grant("anna")) >= 19e6
    assert running.grant("ben") == pytest.approx(running.grant("carla"), rel=0.06)
    assert running.grant("ben")[0] < 10e6


def test_boost_begins_and_ends_by_itself_without_a_new_layout(tmp_path: Path):
    """Meters change, and nothing else: the layout stays, and so does the forecast."""
    start, end = START + 20, START + 40
    text = (
        f"boosts: {{launch: {{pools: [user:anna], start: {start:.0f}, end: {end:.0f}, "
        "guarantee_mbps: 15, ceiling_mbps: 30}}"
    )
    running = Running(policy_file(tmp_path, text))
    running.offered = dict.fromkeys(PLACES, 19e6)
    running.connect()
    running.tick(count=3)
    before = running.planner.snapshot.plan
    assert running.grant("anna")[0] < 15e6
    running.tick()
    assert min(running.grant("anna")) >= 15e6
    pools = running.planner.snapshot.pools
    assert pools.ceiling_bps[0, running.row("anna")] == 30e6
    assert running.planner.snapshot.plan.layout_version == before.layout_version
    running.tick(count=4)
    assert running.grant("anna")[0] < 15e6
    assert pools.ceiling_bps[0, running.row("anna")] == 30e6, "a snapshot does not change"
    assert running.planner.snapshot.pools.ceiling_bps[0, running.row("anna")] == 20e6
    assert running.planner.snapshot.health.problems == ()


def test_burst_is_taken_back_while_the_region_is_short(tmp_path: Path):
    """More is asked for than there is: the burst goes, the commit stays; later it is given again."""
    text = (
        "plans: {gold: {pools: [user:anna], commit_mbps: 5, burst_mbps: 30, "
        "claw_back: {above: 0.95, below: 0.8, hold_s: 20}}}"
    )
    running = Running(policy_file(tmp_path, text))
    running.offered = dict.fromkeys(PLACES, 2e6)
    running.connect()
    running.tick(count=3)
    assert min(running.grant("anna")) >= 10e6
    running.offered |= {"anna": 18e6, "ben": 18e6}
    running.tick(count=2)
    assert running.grant("anna") == [5e6, 5e6]
    running.offered |= {"anna": 5e6}
    running.tick(count=8)
    assert min(running.grant("anna")) > 5e6


def test_boosts_survive_a_restart():
    """They are in the memory, to the bit/s; a memory of before there were any has none."""
    running = Running(small())
    boost = TemporaryBoost("b", ("user:anna",), Lift((3e6, 3e6), None, 2.0, 1), START, START + 600, "launch")
    running.planner.policies.boost(boost, [], START)
    memory = Memory.from_bytes(running.planner.memory().to_bytes())
    later = Running(small())
    later.planner.restore(memory)
    later.connect()
    later.tick()
    assert later.planner.policies.boosts == {"b": boost}
    assert later.planner.policies.user("anna").weight == 2
    assert Memory.from_bytes(b'{"overrides": {}}').boosts == {}


# The file.

FILE = """
time_zone: Europe/Berlin
critical:
  clinic: {pools: [group:clinic], guarantee_mbps: 5}
boosts:
  evening: {pools: [group:video], daily: {from: "18:00", to: "23:00", days: [fri, sat]}, weight_factor: 2}
plans:
  gold: {pools: [user:anna], commit_mbps: 5, burst_mbps: {up: 10, down: 20}, claw_back: {}}
balance: {by: capacity, least_share: 0.5}
"""


def test_file_means_what_it_says(tmp_path: Path):
    """Each block is read into the rule that it is."""
    config = policy_file(tmp_path, FILE)
    assert config.policies.file is not None
    policies = policies_for(config, config.policies.file)
    assert [rule.name for rule in policies.rules] == ["critical clinic", "boost evening"]
    assert policies.rules[0].lift == Lift(guarantee_bps=(5e6, 5e6), priority=0)
    assert policies.plans == (
        ServicePlan("gold", ("user:anna",), (5e6, 5e6), (10e6, 20e6), ClawBack(0.95, 0.8, 60.0)),
    )
    assert policies.balance["west"] == RegionTerms(36.0, (15e6, 15e6))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- a", "the file must be a mapping of blocks, got list"),
        (
            "boosts: {x: {pools: [user:a], weight_factor: 2}}",
            "boosts.x must have an end: daily, or start and end",
        ),
        (
            "boosts: {x: {pools: [user:a], start: 2026-01-02, end: 2026-01-01, weight_factor: 2}}",
            "boosts.x.end must be after start 2026-01-02, got 2026-01-01",
        ),
        (
            "boosts: {x: {pools: [user:a], daily: {from: '25:00', to: '3:00'}, weight_factor: 2}}",
            "boosts.x.daily.from must be a time of day such as \"18:00\", got '25:00'",
        ),
        (
            "boosts: {x: {pools: [user:a], daily: {from: '20:00', to: '21:00'}}}",
            "boosts.x must give at least one of guarantee_mbps, ceiling_mbps, weight_factor, priority",
        ),
        ("critical: {x: {pools: [anna]}}", "critical.x.pools.0 must match"),
        ("time_zone: Nowhere/Land", "time_zone must be a name such as Europe/Berlin, got 'Nowhere/Land'"),
        (
            "plans: {x: {pools: [user:a], commit_mbps: 9, burst_mbps: 5}}",
            "plans.x must have commit_mbps.up <= its burst 5: 9 is more",
        ),
        (
            "plans: {x: &x {pools: [user:a], commit_mbps: 1, burst_mbps: 5}, y: *x}",
            "plans.y.pools must not hold what plans.x holds, got user:a",
        ),
        ("balance: {by: equal, shares: {west: 2}}", "balance.shares must be given with by: shares only"),
        ("bosts: {}", "bosts is not a known key"),
    ],
)
def test_wrong_file_is_told(tmp_path: Path, text: str, line: str):
    """One line a fault, with the file's path first."""
    file = tmp_path / "policies.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as fault:
        load_policies(file)
    assert fault.value.faults[0].startswith(f"{file}: {line}")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            FILE.replace("user:anna", "user:zoe"),
            "plans.gold.pools must be users of the configuration, got 'zoe'",
        ),
        (
            "balance: {by: shares, shares: {north: 1}}",
            "balance.shares must be regions of the configuration, got 'north'",
        ),
    ],
)
def test_rule_for_nobody_is_told(tmp_path: Path, text: str, line: str):
    """A name that the configuration does not know is a slip of the keyboard."""
    config = policy_file(tmp_path, text)
    assert config.policies.file is not None
    with pytest.raises(ConfigError) as fault:
        Policies(config)
    assert fault.value.faults == [f"{config.policies.file}: {line}"]
