"""Explain: the chain that led to a grant, as it was when it was decided."""

from __future__ import annotations

import math

import pytest

from planner.explain import Explanation
from planner.policies import Lift
from planner.policy_desk import PolicyDesk
from planner.snapshot import NotThere
from tests.planner.networks import PLACES, Running, small


def desk(running: Running) -> PolicyDesk:
    return PolicyDesk(running.planner, lambda _: None, lambda: running.now)


@pytest.fixture
def running() -> Running:
    """Three users of the west want more than there is, the east is idle."""
    running = Running(small(allocation={"dead_band": 0.0}))
    running.offered = {"anna": 19e6, "ben": 19e6, "carla": 19e6, "david": 1e6, "emma": 1e6}
    running.connect()
    running.tick(count=4)
    return running


def test_chain_agrees_with_the_snapshot_and_the_plan(running: Running):
    """Every pool, every number: what was measured, forecast, granted and metered."""
    pools, plan = running.planner.snapshot.pools, running.planner.snapshot.plan
    for row, path in enumerate(pools.path):
        why = desk(running).explain(path)
        for d, chain in enumerate(why.directions):
            assert chain.sample.offered_bps == pytest.approx(pools.offered_bps[d, row], nan_ok=True)
            assert chain.forecast.p50_bps == pools.p50_bps[d, row]
            assert chain.share.grant_bps == pools.grant_bps[d, row]
            assert chain.share.stages_bps[-1] == chain.share.wanted_bps
            assert sum(meter.share_bps for meter in chain.meters) == (chain.share.grant_bps if row else 0)
            for meter in chain.meters:
                assert (meter.rate_kbps, meter.burst_kbit) == plan.meters[meter.dpid].rates()[meter.meter_id]


def test_scarce_pool_names_what_is_full(running: Running):
    """A user short of its claim is bound by its region, which is at its ceiling."""
    share = desk(running).explain("anna").directions[0].share
    assert (share.bound, share.bound_by) == ("parent", "global/west")
    assert share.limit_bps == 36e6
    assert share.claim_bps > share.grant_bps


def test_pool_with_room_above_is_bound_by_its_own_ceiling(running: Running):
    """There is capacity: nothing above it is in its way."""
    running.offered = dict.fromkeys(PLACES, 1e6) | {"david": 19e6}
    running.tick(count=4)
    share = desk(running).explain("david").directions[1].share
    assert (share.bound, share.bound_by, share.limit_bps) == ("ceiling", "global/east/ungrouped/david", 20e6)


def test_policies_that_made_it_so_are_named(running: Running):
    """A boost shows in the values and by name."""
    at_desk = desk(running)
    at_desk.boost("b", ("user:anna",), Lift(weight_factor=4, priority=1), None, running.now + 60, "")
    running.tick()
    why = at_desk.explain("anna").directions[0]
    assert (why.share.policies, why.share.weight, why.share.priority) == (("boost b",), 4.0, 1)
    assert "under boost b" in " ".join(why.text)


def test_frozen_plan_is_told(running: Running):
    """The chain is of what is decided; the meters are those of the plan that stands."""
    standing = running.planner.snapshot.plan
    at_desk = desk(running)
    at_desk.freeze("")
    running.offered["anna"] = 1e6
    running.tick()
    why = at_desk.explain("anna")
    assert (why.frozen, why.plan_version) == (True, standing.version)
    meter = why.directions[0].meters[0]
    assert meter.rate_kbps == standing.meters[meter.dpid].rates()[meter.meter_id][0]
    assert meter.rate_kbps != meter.share_bps // 1000


def test_explanation_is_a_value_of_its_moment(running: Running):
    """Later ticks do not change it."""
    before = desk(running).explain("anna")
    text = before.directions[0].text
    running.offered["anna"] = 1e6
    running.tick()
    assert isinstance(before, Explanation)
    assert before.directions[0].text == text != desk(running).explain("anna").directions[0].text


def test_nothing_is_explained_before_the_first_plan():
    """And an unknown pool is told."""
    fresh = Running(small())
    with pytest.raises(NotThere, match="got 'anna' before the first plan"):
        desk(fresh).explain("anna")
    fresh.connect()
    fresh.offered = dict.fromkeys(PLACES, 1e6)
    fresh.tick()
    with pytest.raises(NotThere, match="got 'zoe'"):
        desk(fresh).explain("zoe")


def test_what_stands_for_lost_polls_is_told(running: Running):
    """The rate is unknown, and the last that was known is its use."""
    known = desk(running).explain("carla").directions[0]
    assert known.text[0] == "it offered 19 Mbit/s"
    assert known.sample.last_offered_bps == 19e6
    running.silent = {0x12}
    running.tick(count=4)
    lost = desk(running).explain("carla").directions[0]
    assert lost.text[0] == "it offered an unknown rate; what was last known, 19 Mbit/s, counts as its use"
    assert lost.sample.last_offered_bps == 19e6
    assert math.isnan(desk(running).explain("global/west").directions[0].sample.last_offered_bps)
