"""A boost that is only tried: what it would change, and that it changes nothing."""

from __future__ import annotations

import pytest

from planner.dry_run import Rehearsal
from planner.group_desk import GroupDesk
from planner.plan_changes import MeterChange
from planner.policies import Lift
from planner.policy_desk import PolicyDesk
from planner.snapshot import Refused
from tests.planner.networks import PLACES, Running, small

FOREVER = 1e12


def tried(
    running: Running, pools: tuple[str, ...], lift: Lift, start: float | None, end: float
) -> tuple[MeterChange, ...]:
    """What a boost would change."""
    rehearsal = Rehearsal(running.planner, running.now)
    rehearsal.policy.boost(None, pools, lift, start, end, "")
    return rehearsal.outcome()


def short_of_capacity() -> tuple[Running, PolicyDesk]:
    """Everybody in the west wants more than there is."""
    running = Running(small(capacity_mbps=30))
    running.offered = dict.fromkeys(PLACES, 18e6)
    running.connect()
    running.tick(count=4)
    return running, PolicyDesk(running.planner, lambda _: None, lambda: running.now)


def test_tried_boost_raises_one_and_lowers_others():
    """What it takes from whom is what an operator wants to know before."""
    running, _ = short_of_capacity()
    changes = tried(running, ("user:anna",), Lift(guarantee_bps=(12e6, 12e6)), None, FOREVER)
    of_anna = [one for one in changes if one.pool is not None and one.pool.endswith("/anna")]
    assert {one.direction for one in of_anna} == {0, 1}
    assert all((one.after_kbps or 0) > (one.before_kbps or 0) for one in of_anna)
    assert any((one.after_kbps or 0) < (one.before_kbps or 0) for one in changes)
    plan = running.planner.snapshot.plan
    for one in changes:
        assert one.meter_id in plan.meters[one.dpid].rates()


def test_tried_boost_is_what_the_boost_then_does():
    """The meters that were foreseen to change are those that do, the same way."""
    running, desk = short_of_capacity()
    lift = Lift(guarantee_bps=(12e6, 12e6))
    foreseen = tried(running, ("user:anna",), lift, None, FOREVER)
    desk.boost(None, ("user:anna",), lift, None, FOREVER, "")
    plan = running.tick()
    for one in foreseen:
        # Use was measured once more in between: the rates may differ by little.
        rate_kbps = plan.meters[one.dpid].rates()[one.meter_id][0]
        assert rate_kbps == pytest.approx(one.after_kbps, rel=0.1)


def test_trying_changes_nothing():
    """No boost, no plan, no grant."""
    running, desk = short_of_capacity()
    before = running.planner.snapshot
    policies = running.planner.policies
    in_force = policies.in_force
    tried(running, ("user:anna",), Lift(guarantee_bps=(12e6, 12e6)), None, FOREVER)
    assert desk.boosts() == ()
    assert running.planner.snapshot is before
    assert policies.in_force is in_force
    assert running.tick().version == before.plan.version + 1
    assert running.grant("anna") == pytest.approx(
        before.pools.grant_bps[:, running.row("anna")].tolist(), rel=0.1
    )


def test_boost_that_begins_later_is_tried_as_if_it_were_on():
    """What it will do once it begins is the question."""
    running, _ = short_of_capacity()
    lift = Lift(guarantee_bps=(12e6, 12e6))
    assert tried(running, ("user:anna",), lift, running.now + 3600, FOREVER)


def test_boost_that_would_be_refused_is_refused_when_tried():
    """A trial that says yes to what will be refused helps nobody."""
    running, _ = short_of_capacity()
    with pytest.raises(Refused, match="pools"):
        tried(running, ("user:nobody",), Lift(weight_factor=2), None, FOREVER)
    with pytest.raises(Refused, match="end"):
        tried(running, ("user:anna",), Lift(weight_factor=2), None, running.now)


def test_nothing_can_be_tried_before_the_first_plan():
    """There is nothing to compare with."""
    running = Running(small())
    with pytest.raises(Refused, match="decided"):
        tried(running, ("user:anna",), Lift(weight_factor=2), None, FOREVER)


def test_tried_group_is_what_the_group_then_does():
    """A new group has new meters; those who leave their pools for it are foreseen in it, and nothing is changed."""
    running, _ = short_of_capacity()
    before = running.planner.snapshot
    rehearsal = Rehearsal(running.planner, running.now)
    rehearsal.create_group("studio", ("anna", "ben"), {"ceiling_bps": (3_000_000, 3_000_000)})
    foreseen = {(one.pool, one.direction): one for one in rehearsal.outcome()}
    made = foreseen["global/west/studio", 0]
    assert (made.before_kbps, made.after_kbps) == (None, 3000)
    assert running.planner.grouping.groups == ()
    assert running.planner.snapshot is before
    GroupDesk(running.planner, lambda _: None, lambda: running.now).create(
        "studio", ("anna", "ben"), {"ceiling_bps": (3_000_000, 3_000_000)}
    )
    plan = running.tick()
    rates = plan.meters[made.dpid].rates()
    assert rates[made.meter_id][0] == 3000
    anna = foreseen["global/west/studio/anna", 0]
    assert rates[anna.meter_id][0] == pytest.approx(anna.after_kbps, rel=0.1)
