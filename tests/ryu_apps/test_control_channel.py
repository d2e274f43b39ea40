"""Enforcement over a control channel that loses, delays, cuts and reorders, in simulated time."""

import math
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ryu_apps.benches import Bench, user_entry
from tests.ryu_apps.channels import Channel, Simulation
from tests.ryu_apps.fake_switch import FakeClock, FakeSwitch
from tests.ryu_apps.networks import config
from tests.ryu_apps.test_enforcer import CAPACITY, limits, plan, rates

#: Everything at its default but what the test needs to be far apart.
DEFAULTS = config(polling={"interval_s": 3600, "jitter": 0})
USERS = frozenset({1, 2, 3, 4})
REPAIR_S = 10.0
MANY = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
DELAYS = st.floats(0.01, 12)
#: Order is kept, as TCP does: what a broken connection does not deliver is lost.
IN_ORDER = st.sampled_from(["whole", "lost", "half", "late", "deaf"])
ANY_ORDER = st.sampled_from(["whole", "lost", "half", "late", "deaf", "overtaken"])
PLANS = st.lists(st.tuples(st.floats(0, 60), rates(st.just(set(USERS)))), min_size=2, max_size=6)


class World:
    """A switch, the thread that keeps it, and the faults between them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, modifies: bool = True):
        self.faults: list[str] = []
        self.simulation = Simulation()
        self.simulation.install(monkeypatch)
        self.fake = FakeSwitch(1, clock=FakeClock(), takes_modify=modifies)
        setting = {} if modifies else {"switches": {1: {"modify": False}}}
        polling = {"interval_s": 3600, "jitter": 0}
        self.settings = config(polling=polling, enforcement=setting)
        self.bench = Bench(self.fake, settings=self.settings)
        self.connect([], 0.0)

    def connect(self, fates, broken_until: float) -> None:
        """A connection; the process behind it knows nothing of an earlier one."""
        want = self.bench.world.want
        self.simulation.forget()
        self.bench = Bench(self.fake, settings=self.settings)
        self.bench.world.want = want
        self.bench.switch.clock = lambda: self.simulation.now
        self.channel = Channel(self.simulation, self.bench, iter(fates), broken_until)

    def wish(self, wanted) -> None:
        """A new plan comes."""
        self.bench.world.want = wanted
        self.bench.switch.wake()

    def run(self, until: float) -> None:
        """Let the switch's thread live until then."""
        switch = self.bench.switch
        switch.alive = True

        def end() -> None:
            switch.alive = False
            switch.wake()

        self.simulation.at(until, end)
        switch.run()

    def watch_sums(self) -> None:
        """From now on no user is without a meter, and together they never get more than the capacity."""

        def watch() -> None:
            found = limits(self.bench)
            now = sum(found.get(user, math.inf) for user in USERS)
            # Kept, not raised: the thread under test outlives errors.
            if now > CAPACITY:
                self.faults.append(f"{now} of {CAPACITY} at {self.simulation.now:.1f} s: {found}")

        self.fake.watch = watch

    def holds_the_plan(self) -> bool:
        want = self.bench.world.want
        self.simulation.forget()
        assert want is not None
        got = limits(self.bench)
        return got == {user: rate for user, (rate, _) in want.meters.items()} and len(
            self.fake.meters
        ) == len(got)


@pytest.mark.parametrize("modifies", [True, False])
@MANY
@given(PLANS, st.lists(st.tuples(IN_ORDER, DELAYS), max_size=40))
def test_no_sum_is_exceeded_and_no_meter_lost_while_the_channel_fails(monkeypatch, modifies, plans, fates):
    """Loss, cuts and delay at any buffer: at every moment each user has a meter, and all fit together. Ten
    seconds after the channel is whole the switch holds the newest plan.
    """
    world = World(monkeypatch, modifies)
    world.wish(plan({user: (CAPACITY // len(USERS), 10) for user in USERS}))
    world.run(1.0)
    assert world.holds_the_plan()
    world.watch_sums()
    world.channel.fates, world.channel.broken_until = iter(fates), 61.0
    for version, (at, wanted) in enumerate(sorted(plans, key=lambda planned: planned[0]), start=2):
        world.simulation.at(1 + at, partial(world.wish, plan(wanted, version)))
    world.run(61.0 + REPAIR_S)
    assert not world.faults
    assert world.holds_the_plan()
    assert world.bench.world.standing.in_step


@MANY
@given(PLANS, st.lists(st.tuples(ANY_ORDER, DELAYS), max_size=40))
def test_reordering_is_repaired(monkeypatch, plans, fates):
    """Also what arrives in another order than it was sent is set right within ten seconds."""
    world = World(monkeypatch)
    world.wish(plan({user: (CAPACITY // len(USERS), 10) for user in USERS}))
    world.channel.fates, world.channel.broken_until = iter(fates), 61.0
    for version, (at, wanted) in enumerate(sorted(plans, key=lambda planned: planned[0]), start=2):
        world.simulation.at(at, partial(world.wish, plan(wanted, version)))
    # The newest plan is not told again: only reading shows what came late.
    world.run(61.0 + DEFAULTS.enforcement.readback_s + REPAIR_S)
    assert world.holds_the_plan()


@pytest.mark.parametrize("modifies", [True, False])
@MANY
@given(
    st.lists(rates(st.just(set(USERS))), min_size=2, max_size=5),
    st.lists(st.tuples(IN_ORDER, DELAYS), max_size=9),
)
def test_a_process_that_dies_at_any_moment_is_followed_by_one_that_goes_on(
    monkeypatch, modifies, plans, fates
):
    """Killed in the middle of a change: what it left exceeds nothing, and its successor finishes the work."""
    world = World(monkeypatch, modifies)
    world.wish(plan({user: (CAPACITY // len(USERS), 10) for user in USERS}))
    world.run(1.0)
    world.watch_sums()
    for version, wanted in enumerate(plans, start=2):
        # All that it sends from some buffer on is lost.
        world.connect([*fates[:version], *[("lost", 0.0)] * 50], math.inf)
        world.wish(plan(wanted, version))
        world.run(world.simulation.now + 5)
    world.connect([], 0.0)
    world.run(world.simulation.now + REPAIR_S)
    assert not world.faults
    assert world.holds_the_plan()


@pytest.mark.parametrize("wound", ["a meter gone", "a meter changed", "an entry gone", "everything gone"])
def test_what_others_change_is_repaired_within_the_reading_interval(monkeypatch, wound):
    """Read at least every 30 s although polls are an hour apart, and put right as soon as it is seen."""
    world = World(monkeypatch)
    world.wish(plan({1: (100, 10), 2: (200, 20)}))
    world.run(100.0)
    fake = world.fake
    if wound == "a meter changed":
        fake.meters[1].rate = 9999
    elif wound == "an entry gone":
        fake.flows.pop(next(iter(fake.flows)))
    else:
        fake.meters.pop(1)
        fake.flows = {key: flow for key, flow in fake.flows.items() if 1 not in flow.meters}
    if wound == "everything gone":
        fake.meters, fake.flows = {}, {}
    world.run(100.0 + 31.0)
    assert world.holds_the_plan()
    assert world.bench.world.standing.repairs >= 1
    assert user_entry(1, 1).meter_id in fake.meters


def test_a_switch_that_is_silent_is_asked_again_and_again_without_haste(monkeypatch):
    """Pauses grow to two seconds; a minute of silence is some ten questions, not thousands."""
    world = World(monkeypatch)
    world.wish(plan({1: (100, 10)}))
    world.run(1.0)
    world.fake.silent = True
    world.fake.meters.clear()
    world.fake.received.clear()
    world.run(91.0)
    assert 5 <= len(world.fake.received) <= 20
    world.fake.silent = False
    world.run(world.simulation.now + REPAIR_S)
    assert world.holds_the_plan()
