"""Raises on one switch wait until the others have lowered."""

import random

from ryu_apps.order import PATIENCE_S, DecreasesFirst
from tests.ryu_apps.benches import Bench, wanting
from tests.ryu_apps.fake_switch import FakeSwitch


def test_raises_wait_for_every_switch_that_follows_the_plan():
    """The last to lower sets them free; a switch of another plan is no matter."""
    order = DecreasesFirst()
    assert order.may_raise(7)
    order.begin(7, [1, 2, 3], 0.0)
    assert not order.may_raise(7)
    assert order.may_raise(6)
    assert not order.lowered(1, 7)
    assert not order.lowered(2, 6)
    assert not order.lowered(2, 7)
    assert not order.may_raise(7)
    assert order.lowered(3, 7)
    assert order.may_raise(7)
    assert not order.lowered(3, 7)


def test_a_switch_that_is_gone_is_not_waited_for():
    """And one that is silent only for so long."""
    order = DecreasesFirst()
    order.begin(1, [1, 2], 10.0)
    assert not order.forget(3)
    assert not order.lowered(1, 1)
    assert order.forget(2)
    assert order.may_raise(1)
    order.begin(2, [1, 2], 20.0)
    assert order.give_up(20.0 + PATIENCE_S / 2) == frozenset()
    assert order.give_up(20.0 + PATIENCE_S) == {1, 2}
    assert order.may_raise(2)
    assert order.give_up(30.0) == frozenset()


def test_a_pools_parts_never_sum_to_more_than_its_grant_while_they_move():
    """Three switches share a grant of 9 Mbit/s, which moves about; they act in any order, some of them twice."""
    rng = random.Random(4)
    benches = [Bench(FakeSwitch(dpid)).know() for dpid in (1, 2, 3)]
    order = DecreasesFirst()
    for bench in benches:
        bench.world.order = order

    def total() -> int:
        return sum(bench.fake.meter_rates()[5][0] for bench in benches)

    parts = [3000, 3000, 3000]
    for version in range(1, 30):
        order.begin(version, [bench.switch.dpid for bench in benches], float(version))
        ways = rng.sample(range(3), 3) + rng.sample(range(3), 3)
        for at in ways:
            benches[at].round(wanting({5: (parts[at], 400)}, version))
            if version > 1:
                assert total() <= 9000
        assert total() == 9000
        cut = sorted(rng.randrange(1, 9000) for _ in range(2))
        parts = [cut[0], max(cut[1] - cut[0], 1), max(9000 - cut[1], 1)]
        parts[2] = 9000 - parts[0] - parts[1]


def test_a_raise_that_waits_is_no_difference_and_no_error():
    """Nothing is reported before the others have lowered; then it is raised, and reported."""
    bench = Bench().know()
    bench.round(wanting({5: (1000, 400)}, 1))
    reports = len(bench.world.reports)
    bench.world.order.begin(2, [bench.switch.dpid, 99], 0.0)
    bench.round(wanting({5: (2000, 400), 6: (500, 400)}, 2))
    assert bench.fake.meter_rates() == {5: (1000, 400), 6: (500, 400)}
    assert bench.switch.enforcer.is_waiting
    assert bench.switch.installed.errors == 0
    assert len(bench.world.reports) == reports
    assert bench.world.order.lowered(99, 2)
    bench.round()
    assert bench.fake.meter_rates() == {5: (2000, 400), 6: (500, 400)}
    assert bench.world.standing.in_step
