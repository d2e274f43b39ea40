"""Bringing switches with every quirk to a plan: there, quietly, and never above the sums on the way."""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ryu_apps import conversation, framework
from ryu_apps import enforcer as enforcer_module
from ryu_apps.enforcer import Wanted
from ryu_apps.flows import wire_entry
from tests.ryu_apps.benches import POLLING, TIMEOUT_S, Bench, user_entry
from tests.ryu_apps.fake_switch import FakeSwitch
from tests.ryu_apps.networks import config

OFP = framework.ofproto_v1_3
DROP, REMARK = OFP.OFPMBT_DROP, OFP.OFPMBT_DSCP_REMARK
KBPS, PKTPS, BURST, STATS = OFP.OFPMF_KBPS, OFP.OFPMF_PKTPS, OFP.OFPMF_BURST, OFP.OFPMF_STATS
CAPACITY = 10_000


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    monkeypatch.setattr(conversation, "_BARRIER_S", TIMEOUT_S)


def enforcing(**enforcement: Any):
    """A configuration with this block."""
    return config(polling=POLLING, enforcement=enforcement)


def told(**traits: Any):
    """A configuration that says this of the switch."""
    return enforcing(switches={1: traits})


def nearest(step: int):
    """Rounds to multiples."""
    return lambda value: max(step, (value + step // 2) // step * step)


def below(step: int):
    """Rounds down to multiples."""
    return lambda value: max(step, value // step * step)


@dataclass
class Case:
    """A switch, what the operator says of it, and how far from a plan's rates it may end."""

    quirks: dict[str, Any] = field(default_factory=dict)
    settings: Any = field(default_factory=enforcing)
    off_kbps: float = 0.0
    #: Rounds that a plan may take.
    rounds: int = 1


CASES = {
    "none": Case(),
    "rates in steps": Case({"rounds": nearest(64)}, told(rate_step_kbps=64), 63),
    "a rounding nobody told of": Case({"rounds": lambda rate: rate - rate // 150}, off_kbps=66, rounds=3),
    "least and greatest rate": Case(
        {"rounds": lambda rate: min(max(rate, 100), 3000)},
        told(min_rate_kbps=100, max_rate_kbps=3000),
        CAPACITY - 3000,
    ),
    "bursts cut": Case({"cuts": lambda burst: min(burst, 30)}, told(max_burst_kbit=30)),
    "bursts cut and nobody told of it": Case({"cuts": lambda burst: min(burst, 30)}, rounds=2),
    "bursts in steps with a least": Case(
        {"cuts": lambda burst: max(below(8)(burst), 16)}, told(burst_step_kbit=8, min_burst_kbit=16)
    ),
    "no burst flag": Case({"takes_flags": KBPS | STATS, "cuts": lambda _: 77}),
    "no burst flag and says it has": Case(
        {"takes_flags": KBPS | STATS, "says_flags": 15, "cuts": lambda _: 77}, rounds=2
    ),
    "no statistics flag and says it has": Case({"takes_flags": KBPS, "says_flags": 15}, rounds=3),
    "counters not kept": Case({"counts": False, "takes_flags": KBPS | BURST}),
    "no modify": Case({"takes_modify": False}, told(modify=False)),
    "no modify and nobody told of it": Case({"takes_modify": False}, rounds=4),
    "ids of others": Case({"first_meter_id": 32}, told(first_meter_id=32)),
    "ids of others and no modify": Case(
        {"first_meter_id": 32, "takes_modify": False}, told(first_meter_id=32, modify=False)
    ),
    "few tables": Case({"n_tables": 6}),
    "small batches": Case({}, enforcing(batch=2)),
    "marks": Case({"takes_bands": {DROP, REMARK}}, enforcing(over_limit="remark", drop_at=2)),
    "marks, bands told the other way round": Case(
        {"takes_bands": {DROP, REMARK}, "turns_bands": True}, enforcing(over_limit="remark", drop_at=2)
    ),
}


def limits(bench: Bench) -> dict[int, float]:
    """What each user's entry lets through, by user: the meter that it names, inf without one."""
    found = {}
    for (table, _, _), flow in bench.fake.flows.items():
        user = flow.cookie >> 32 & 0xFFF_FFFF
        if table == 1 and user:
            meters = [bench.fake.meters[meter] for meter in flow.meters]
            found[user] = min((meter.limit for meter in meters), default=math.inf)
    return found


def plan(rates: dict[int, tuple[int, int]], version: int = 1, remark: bool = False) -> Wanted:
    """Users by number, each with a meter of its own."""
    entries = tuple(user_entry(user, user) for user in rates)
    return Wanted(entries, rates, version, remark=frozenset(rates if remark else ()))


@st.composite
def rates(draw: st.DrawFn, users: st.SearchStrategy[set[int]]) -> dict[int, tuple[int, int]]:
    """Rates and bursts of some users that fit into the capacity, shares drawn at random."""
    chosen = sorted(draw(users))
    shares = [draw(st.integers(1, 100)) for _ in chosen]
    whole = CAPACITY * draw(st.sampled_from([0.3, 1.0]))
    return {
        user: (max(1, int(whole * share / sum(shares))), draw(st.integers(1, 90)))
        for user, share in zip(chosen, shares, strict=True)
    }


ANYBODY = st.sets(st.integers(1, 6), max_size=6)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_plan_is_reached_quietly_and_without_exceeding_the_sum(case: Case, data: st.DataObject):
    """Whatever a switch cannot do: each user gets its rate, a second look sends nothing, no moment is above."""
    bench = Bench(FakeSwitch(1, **case.quirks), settings=case.settings).know()
    staying: set[int] = set()

    def watch() -> None:
        found = limits(bench)
        assert all(user in found for user in staying), "a user is without an entry"
        now = sum(found[user] for user in staying)
        assert now <= CAPACITY + case.off_kbps * len(staying), f"{now} of {CAPACITY}"

    remark = case.settings.enforcement.over_limit == "remark"
    before: dict[int, tuple[int, int]] = {}
    for version in range(data.draw(st.integers(1, 4))):
        wanted = data.draw(rates(ANYBODY))
        staying = set(before) & set(wanted)
        bench.world.want = plan(wanted, version, remark)
        if not remark:
            bench.fake.watch = watch
        for _ in range(case.rounds):
            bench.round()
            if bench.world.standing.in_step:
                break
        bench.fake.watch = lambda: None
        assert bench.world.standing.in_step, bench.world.standing
        got = limits(bench)
        assert got.keys() == wanted.keys()
        for user, (rate, _) in wanted.items():
            assert abs(got[user] - rate * (2 if remark else 1)) <= case.off_kbps
        assert len(bench.fake.meters) == len(wanted)
        bench.fake.journal.clear()
        bench.round()
        assert {what for what, *_ in bench.fake.journal} == {"stats"}, "it is fought"
        before = wanted


@settings(deadline=None, max_examples=40)
@given(st.lists(rates(ANYBODY), min_size=2, max_size=4), st.booleans())
def test_samples_are_of_the_plans_meters(plans, modifies):
    """Whatever ids a switch has given them, and whichever of two is in use."""
    fake = FakeSwitch(1, first_meter_id=32, takes_modify=modifies, clears_on_modify=False, software=b"other")
    bench = Bench(fake, settings=told(first_meter_id=32, modify=modifies)).know()
    for version, wanted in enumerate(plans):
        bench.round(plan(wanted, version))
        bench.fake.pass_time(4)
        for flow in fake.flows.values():
            for meter in flow.meters:
                fake.meters[meter].bytes_in += 1000 * (flow.cookie >> 32 & 0xFFF_FFFF)
        bench.round()
        samples = bench.world.batches[-1].meters
        seen = dict(zip(samples.meter_id.tolist(), samples.offered_bps.tolist(), strict=True))
        assert seen == {user: 2000.0 * user for user in wanted}


def test_foreign_meters_below_ours_are_left_alone():
    """Ids before the first belong to somebody else."""
    fake = FakeSwitch(1)
    bench = Bench(fake, settings=told(first_meter_id=32)).know()
    other = FakeSwitch(1)
    Bench(other).know().round(Wanted((), {3: (5, 5)}, 1))
    fake.meters = other.meters
    bench.round(plan({1: (10, 1)}))
    assert bench.fake.meter_rates() == {3: (5, 5), 32: (10, 1)}
    bench.round(plan({}))
    assert bench.fake.meter_rates() == {3: (5, 5)}
    assert bench.switch.facts.max_meters == 1000 - 31


@pytest.mark.parametrize("says", [None, 15])
def test_a_switch_that_counts_packets_only_is_not_metered_and_says_so(says, caplog):
    """A rate in bit/s cannot be set there; its users pass, and the planner is told of no meters."""
    bench = Bench(FakeSwitch(1, takes_flags=PKTPS | STATS, says_flags=says)).know()
    for _ in range(4):
        bench.round(plan({1: (10, 1)}))
    assert bench.switch.facts.max_meters == 0
    assert limits(bench) == {1: math.inf}
    assert not bench.world.standing.in_step
    bench.round(Wanted((user_entry(1),), {}, 2))
    assert bench.world.standing.in_step
    assert "kbps" in caplog.text or "cannot meter bits" in caplog.text
    assert bench.world.changed_facts == (0 if says is None else 1)


def test_a_switch_that_holds_fewer_meters_than_it_says_makes_the_planner_merge_users():
    """What it holds when it is full is what it can hold, and the planner is told at once."""
    bench = Bench(FakeSwitch(1, max_meters=100, room=3)).know()
    bench.round(plan(dict.fromkeys(range(1, 6), (10, 1))))
    assert (bench.switch.facts.max_meters, bench.world.changed_facts) == (3, 1)
    assert bench.world.standing.meters_differ == 2
    shared = {1: 1, 2: 2, 3: 3, 4: 3, 5: 3}
    entries = tuple(user_entry(user, meter) for user, meter in shared.items())
    bench.round(Wanted(entries, {1: (10, 1), 2: (10, 1), 3: (30, 3)}, 2))
    assert bench.world.standing.in_step
    assert all(limit < math.inf for limit in limits(bench).values())


def test_an_unknown_coarse_rounding_is_not_fought_and_told():
    """Far from what was wanted: left after a few tries, and an alarm until somebody says how it rounds."""
    bench = Bench(FakeSwitch(1, rounds=nearest(1000))).know()
    bench.world.want = plan({1: (1400, 10), 2: (1600, 10)})
    for _ in range(12):
        bench.round()
    assert all(
        rate <= wanted
        for (rate, _), wanted in zip(bench.fake.meter_rates().values(), (1400, 1600), strict=True)
    )
    assert bench.world.standing.meters_differ == 2
    assert bench.world.reports[-1].differs_since is not None
    bench.fake.journal.clear()
    bench.round()
    assert {what for what, *_ in bench.fake.journal} == {"stats"}


def test_a_rounding_within_the_tolerance_is_counted():
    """In step, and said how many meters are a little off."""
    bench = Bench(FakeSwitch(1, rounds=below(4))).know()
    bench.world.want = plan({1: (1403, 10), 2: (1600, 10)})
    for _ in range(2):
        bench.round()
    assert (bench.world.standing.in_step, bench.world.standing.meters_rounded) == (True, 1)


def test_what_a_switch_does_not_lower_is_not_built_upon(monkeypatch):
    """Nothing is raised before the decrease is read back; after some tries the rest goes on, with an alarm."""
    bench = Bench().know()
    bench.round(plan({1: (6000, 10), 2: (4000, 10)}))
    stuck = bench.fake.meters[1]
    refusing = bench.fake._why_not
    monkeypatch.setattr(
        bench.fake,
        "_why_not",
        lambda command, flags, meter, kinds: (
            OFP.OFPMMFC_BAD_RATE if meter == 1 else refusing(command, flags, meter, kinds)
        ),
    )
    want = plan({1: (1000, 10), 2: (9000, 10)}, 2)
    for _ in range(enforcer_module._PATIENCE):
        bench.round(want)
        assert (stuck.rate, bench.fake.meters[2].rate) == (6000, 4000)
    bench.round(want)
    assert bench.fake.meters[2].rate == 9000
    assert bench.world.standing.meters_differ == 1
    monkeypatch.undo()
    monkeypatch.setattr(conversation, "_BARRIER_S", TIMEOUT_S)
    for _ in range(2):
        bench.round(want)
    assert bench.world.standing.in_step


def test_changes_go_in_batches_each_with_a_barrier():
    """A slow switch is never more than a batch behind."""
    bench = Bench(settings=enforcing(batch=7)).know()
    bench.fake.journal.clear()
    bench.round(plan(dict.fromkeys(range(1, 31), (10, 1))))
    runs = [
        len(list(run))
        for kind, run in itertools.groupby(bench.fake.journal, key=lambda act: act[0])
        if kind in {"meter", "flow"}
    ]
    assert runs == [7, 7, 7, 7, 2] * 2


def test_marking_meters_mark_users_excess_and_count_only_what_they_drop():
    """A remark band at the rate, a drop band above; without a second band nothing is dropped."""
    fake = FakeSwitch(1, takes_bands=frozenset({DROP, REMARK}))
    bench = Bench(fake, settings=enforcing(over_limit="remark", dscp_precedence=2, drop_at=1.5)).know()
    entries = (user_entry(1, 1), user_entry(2, 2))
    want = Wanted(entries, {1: (100, 10), 2: (900, 90)}, 1, remark=frozenset({1}))
    bench.round(want)
    assert fake.meters[1].bands == [(REMARK, 100, 10, 2), (DROP, 150, 15, 0)]
    assert fake.meters[2].bands == [(DROP, 900, 90, 0)]
    bench = Bench(fake, settings=enforcing(over_limit="remark")).know()
    bench.round(want)
    assert fake.meters[1].bands == [(REMARK, 100, 10, 1)]
    bench.fake.pass_time(4)
    for meter in fake.meters.values():
        meter.bytes_in, meter.bytes_dropped = 5000, 2500
    bench.round()
    samples = bench.world.batches[-1].meters
    assert (samples.offered_bps.tolist(), samples.dropped_bps.tolist()) == ([10_000] * 2, [0, 5000])


@pytest.mark.parametrize(
    "quirks", [{}, {"says_bands": {DROP, REMARK}}, {"says_bands": {DROP, REMARK}, "max_bands": 1}]
)
def test_a_switch_that_cannot_mark_drops(quirks, caplog):
    """Whether it says so or is found out."""
    bench = Bench(FakeSwitch(1, **quirks), settings=enforcing(over_limit="remark", drop_at=2)).know()
    want = plan({1: (100, 10)}, remark=True)
    for _ in range(2):
        bench.round(want)
    assert bench.fake.meters[1].bands == [(DROP, 100, 10, 0)]
    assert bench.world.standing.in_step
    assert "remark" in caplog.text


def test_a_meter_of_another_shape_is_set_right():
    """Whoever made it count packets, or mark, with the very same rate."""
    bench = Bench().know()
    want = plan({1: (100, 10), 2: (100, 10)})
    bench.round(want)
    bench.fake.meters[1].flags = PKTPS | BURST | STATS
    bench.fake.meters[2].bands = [(REMARK, 100, 10, 1)]
    bench.round()
    assert bench.world.standing.in_step
    assert bench.fake.meters[1].flags & KBPS
    assert bench.fake.meters[2].bands == [(DROP, 100, 10, 0)]
    assert bench.world.standing.repairs == 2


def test_both_meters_of_a_user_taken_by_old_rates_are_sorted_out():
    """A process that died between adding the one and deleting the other leaves both."""
    fake = FakeSwitch(1, takes_modify=False, max_meters=10)
    bench = Bench(fake, settings=told(modify=False)).know()
    bench.round(plan({1: (500, 10)}))
    fake.meters[6] = type(fake.meters[1])([(DROP, 300, 10, 0)], 13, 0.0)
    for _ in range(2):
        bench.round(plan({1: (400, 10)}, 2))
    assert bench.world.standing.in_step
    assert limits(bench) == {1: 400}
    assert len(fake.meters) == 1


def test_a_plan_with_more_meters_than_there_is_room_for_twice_waits_for_another():
    """Users beyond the room pass unmetered, and no other's spare meter is taken for theirs."""
    fake = FakeSwitch(1, takes_modify=False, max_meters=4)
    bench = Bench(fake, settings=told(modify=False)).know()
    assert bench.switch.facts.max_meters == 2
    bench.round(plan({user: (100 * user, 10) for user in (1, 2, 3)}))
    assert limits(bench) == {1: 100, 2: 200, 3: math.inf}
    assert (bench.world.standing.in_step, bench.world.standing.meters_differ) == (False, 1)


def test_two_processes_with_a_delayed_copy_of_the_plan_end_alike():
    """Each corrects the other until both have the newest; then neither sends anything."""
    fake = FakeSwitch(1)
    one = Bench(fake).know()
    two = Bench(fake).know()
    benches = {id(bench): bench for bench in (one, two)}

    def both(message) -> None:
        for bench in benches.values():
            bench.hear(message)

    # One counter of transaction ids, as both speak through one double.
    fake.deliver = both
    plans = [plan({1: (100 * n, 10), 2: (1000 - 100 * n, 10)}, n) for n in range(1, 6)]
    for early, late in zip(plans, [plans[0], *plans], strict=False):
        one.world.want, two.world.want = early, late
        for bench in (one, two, one):
            bench.round()
    two.world.want = plans[-1]
    for bench in (two, one, two):
        bench.round()
    assert one.world.standing.in_step
    assert two.world.standing.in_step
    assert fake.meter_rates() == plans[-1].meters
    fake.journal.clear()
    for bench in (one, two):
        bench.round()
    assert {what for what, *_ in fake.journal} == {"stats"}


def test_wire_entries_know_their_meter():
    """A digest of the content is in the cookie, so a meter that entries shall use shows in it."""
    assert wire_entry(user_entry(1, 5)).cookie != wire_entry(user_entry(1, 6)).cookie
