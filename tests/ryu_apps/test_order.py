"""Raises on one switch wait until the others have lowered."""

import random

from ryu_apps.order import BOUND_S, PATIENCE_S, DecreasesFirst
from tests.ryu_apps.benches import Bench, wanting
from tests.ryu_apps.fake_switch import FakeSwitch


def order_of(*dpids: int) -> DecreasesFirst:
    """An order among these connected switches."""
    order = DecreasesFirst()
    for dpid in dpids:
        order.connected(dpid)
    return order


def test_raises_wait_for_every_switch_that_follows_the_plan():
    """The last to lower sets them free; a switch of another plan, or of another process, is no matter."""
    order = order_of(1, 2, 3)
    assert order.may_raise(7)
    order.begin(7, [1, 2, 3, 4], [], 0.0)
    assert not order.may_raise(7)
    assert order.may_raise(6)
    assert not order.lowered(1, 7)
    assert not order.lowered(2, 6)
    assert not order.lowered(2, 7)
    assert not order.may_raise(7)
    assert order.lowered(3, 7)
    assert order.may_raise(7)
    assert not order.lowered(3, 7)


def test_a_switch_that_the_plan_counts_as_away_is_not_waited_for():
    """Its shares are left to it. Under a plan that does not know yet, it is waited for although it is gone."""
    order = order_of(1, 2)
    order.begin(1, [1, 2], [], 10.0)
    assert not order.lowered(1, 1)
    assert not order.may_raise(1)
    order.begin(2, [1, 2], [2], 15.0)
    assert order.lowered(1, 2)
    assert order.may_raise(2)


def test_who_is_late_is_told_once_and_given_up_after_long():
    """Through all plans together; and waited for again once it was seen."""
    order = order_of(1, 2)
    order.begin(1, [1, 2], [], 20.0)
    assert not order.lowered(1, 1)
    assert order.late(20.0 + PATIENCE_S / 2) == frozenset()
    assert order.late(20.0 + PATIENCE_S) == {2}
    assert order.late(20.5 + PATIENCE_S) == frozenset()
    assert not order.may_raise(1)
    order.begin(2, [1, 2], [], 40.0)
    assert order.late(41.0) == frozenset()
    assert not order.lowered(1, 2)
    assert order.give_up(19.9 + BOUND_S) == frozenset()
    assert order.give_up(20.0 + BOUND_S) == {2}
    assert order.may_raise(2)
    order.begin(3, [1, 2], [], 60.0)
    assert order.lowered(1, 3)
    order.lowered(2, 3)
    order.begin(4, [1, 2], [], 70.0)
    assert not order.lowered(1, 4)
    assert not order.may_raise(4)


def test_a_pools_parts_never_sum_to_more_than_its_grant_while_they_move():
    """Three switches share a grant of 9 Mbit/s, which moves about; they act in any order, some of them twice."""
    rng = random.Random(4)
    benches = [Bench(FakeSwitch(dpid)).know() for dpid in (1, 2, 3)]
    order = order_of(1, 2, 3)
    for bench in benches:
        bench.world.order = order

    def total() -> int:
        return sum(bench.fake.meter_rates()[5][0] for bench in benches)

    parts = [3000, 3000, 3000]
    for version in range(1, 30):
        order.begin(version, [1, 2, 3], [], float(version))
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
    bench.world.order.connected(99)
    bench.world.order.begin(2, [bench.switch.dpid, 99], [], 0.0)
    bench.round(wanting({5: (2000, 400), 6: (500, 400)}, 2))
    assert bench.fake.meter_rates() == {5: (1000, 400), 6: (500, 400)}
    assert bench.switch.enforcer.is_waiting
    assert bench.switch.installed.errors == 0
    assert len(bench.world.reports) == reports
    assert bench.world.order.lowered(99, 2)
    bench.round()
    assert bench.fake.meter_rates() == {5: (2000, 400), 6: (500, 400)}
    assert bench.world.standing.in_step
