"""A switch out of reach keeps its shares: nobody else is given them, until it is back, dead or given up."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.away import FREE, HeldShares
from planner.config import Config
from planner.metering import switch_shares
from planner.policy import Override
from planner.report import AppliedReport, NetworkReport, SwitchFacts
from planner.snapshot import Level
from tests.planner.networks import START, Running, mac_of, samples, small, structure_of, worlds
from tests.planner.test_metering import decided
from topology.network import Host, Link, Port

A, B = 0x11, 0x12
GRANT = 9000
#: What who sends has of it, and what the other has: users are promised 1 Mbit/s.
MUCH, LITTLE = 0.85 * GRANT, 0.15 * GRANT
#: What a meter keeps that is left nothing, kbit/s.
FLOOR = 100
HOLD_S = 600.0
LINKS = frozenset({Link(A, 9, B, 9), Link(B, 9, A, 9)})


def report_of(config: Config, dpids: Collection[int], version: int, cable_up: bool = True) -> NetworkReport:
    """Anna at one switch, carla at the other, with a cable between."""
    hosts = {
        mac: Host(mac, frozenset(), dpid, 1, START)
        for mac, dpid in ((mac_of(config, "anna"), A), (mac_of(config, "carla"), B))
    }
    ports = tuple(Port(dpid, 9, "", 1e9, cable_up or dpid not in dpids) for dpid in (A, B))
    facts = {dpid: SwitchFacts(12, 1000, "") for dpid in dpids}
    return NetworkReport("speaker", version, facts, ports, LINKS if cable_up else frozenset(), hosts)


class Pair(Running):
    """Two switches with a user each, who share a group's ceiling."""

    def __init__(self) -> None:
        config = small(
            groups={"crew": {"members": ["anna", "carla"], "ceiling_mbps": GRANT / 1e3}},
            enforcement={"hold_lost_s": HOLD_S},
            allocation={"dead_band": 0, "min_rate_mbps": FLOOR / 1e3},
        )
        super().__init__(config)
        self.version = 0
        self.mute: set[int] = set()
        self.connected: tuple[int, ...] = ()
        self.say((A, B))

    def say(self, dpids: tuple[int, ...], cable_up: bool = True) -> None:
        """The speaker reports these switches as connected."""
        self.version, self.connected = self.version + 1, dpids
        self.planner.report(report_of(self.config, dpids, self.version, cable_up))

    def pass_time(self, count: int = 1, **offered: float) -> list[int]:
        """Ticks with these users sending; what the group has on each switch then, kbit/s upload."""
        for _ in range(count):
            self.now += 5
            plan = self.planner.snapshot.plan
            for dpid in set(self.connected) & plan.layouts.keys() - self.mute:
                self.planner.ingest(
                    samples(plan, dpid, self.now, lambda path, _: offered.get(path.split("/")[-1], 0.0))
                )
            self.planner.tick(self.now)
        return [self.rates(dpid) for dpid in (A, B)]

    def rates(self, dpid: int) -> int:
        plan = self.planner.snapshot.plan
        meter = next(
            o.meter_id for o in plan.layouts[dpid].owners if o.pool.endswith("/crew") and o.direction == 0
        )
        return plan.meters[dpid].rates()[meter][0]

    def confirm(self, *dpids: int) -> None:
        """These switches hold the newest plan in full."""
        for dpid in dpids:
            version = self.planner.snapshot.plan.version
            self.planner.applied(AppliedReport("speaker", dpid, version, True, 8, 0))


@pytest.fixture
def pair() -> Pair:
    """Anna sends, so her switch has most of the group's grant."""
    pair = Pair()
    at_a, at_b = pair.pass_time(3, anna=2e7)
    assert at_a > MUCH
    assert 0 < at_b < LITTLE
    pair.confirm(A, B)
    return pair


def test_the_share_of_a_lost_switch_is_given_to_nobody(pair: Pair):
    """Carla wants all there is, and gets what anna's switch cannot be enforcing. The plan says why."""
    kept = pair.rates(A)
    pair.say((B,))
    assert pair.pass_time(4, carla=2e7) == [kept, pytest.approx(GRANT - kept, abs=1)]
    assert pair.planner.snapshot.plan.away == {A}
    assert pair.planner.snapshot.plan.meters[A].rates()


def test_a_switch_that_is_back_is_free_once_it_follows_a_plan(pair: Pair):
    """Connected alone is not enough: it has still to lower what it holds."""
    kept = pair.rates(A)
    pair.say((B,))
    pair.pass_time(2, carla=2e7)
    pair.say((A, B))
    assert pair.pass_time(1, carla=2e7)[0] == kept
    pair.confirm(A)
    at_a, at_b = pair.pass_time(1, carla=2e7)
    assert at_a < LITTLE < MUCH < at_b
    assert pair.planner.snapshot.plan.away == frozenset()


def test_one_that_never_is_in_step_is_free_after_a_while(pair: Pair):
    """A switch that refuses something must not bind its pools for ever."""
    pair.say((B,))
    pair.pass_time(2, carla=2e7)
    pair.say((A, B))
    assert pair.pass_time(2, carla=2e7)[1] < LITTLE
    assert pair.pass_time(7, carla=2e7)[1] > MUCH


def test_the_most_of_what_it_may_hold_counts(pair: Pair):
    """It was told to lower and then lost: nobody knows whether it did, so it counts with what it had before, and is
    told the less of the two.
    """
    before = pair.rates(A)
    told, _ = pair.pass_time(1, anna=1e6, carla=2e7)
    assert told < 0.5 * before
    pair.say((B,))
    assert pair.pass_time(1, carla=2e7) == [told, pytest.approx(GRANT - before, abs=1)]


def test_a_grant_below_what_is_held_leaves_the_others_their_floor(pair: Pair):
    """Less cannot be enforced on the switch that is away; nobody else is shut out for it."""
    kept = pair.rates(A)
    pair.say((B,))
    pair.planner.policies.overrides["crew"] = Override(ceiling_bps=(3_000_000, 3_000_000))
    pair.planner.restructure()
    assert pair.pass_time(2, carla=2e7) == [kept, FLOOR]


def test_a_switch_that_is_seen_to_be_cut_off_holds_nothing(pair: Pair):
    """Its neighbours say that every port to it is down: what it lets through nobody else feels."""
    pair.say((B,))
    assert pair.pass_time(1, carla=2e7)[1] < LITTLE
    pair.say((B,), cable_up=False)
    assert pair.pass_time(3, carla=2e7)[1] > MUCH
    assert pair.planner.snapshot.plan.away == {A}


def test_shares_are_held_for_a_bounded_time(pair: Pair):
    """Then others have them, and the operator is told."""
    pair.say((B,))
    assert pair.pass_time(int(HOLD_S / 5), carla=2e7)[1] < LITTLE
    assert f"{A:016x} has been out of reach for" in " ".join(pair.planner.snapshot.health.problems)
    assert pair.pass_time(2, carla=2e7)[1] > MUCH
    assert "its shares are given to others" in " ".join(pair.planner.snapshot.health.problems)


@pytest.mark.parametrize("how", ["silent", "behind"])
def test_a_connected_switch_that_does_not_answer_keeps_its_share_too(pair: Pair, how: str):
    """No samples for some polls, or a speaker that says it does not do as it is told."""
    kept = pair.rates(A)
    if how == "behind":
        pair.planner.applied(AppliedReport("speaker", A, None, None, 0, 0, behind=True))
        shares = pair.pass_time(2, carla=2e7)
    else:
        pair.mute = {A}
        pair.pass_time(4, anna=2e7)
        shares = pair.pass_time(2, carla=2e7)
    assert shares == [kept, pytest.approx(GRANT - kept, abs=1)]
    pair.mute = set()
    pair.confirm(A)
    assert pair.pass_time(2, carla=2e7)[1] > MUCH


@settings(max_examples=150, deadline=None)
@given(worlds(), st.integers(0, 1000))
def test_free_shares_and_held_ones_fit_the_grant_together(world, seed: int):
    """Whatever is held on whichever switches: the others share the rest, but for the floor, and on no switch have
    those below a pool more than it has there.
    """
    config, report, groups = world
    s = structure_of(config, report, groups)
    grants, demand = decided(s, seed)
    e, floor, rng = s.entries, 64e3, np.random.default_rng(seed)
    away = rng.random(len(s.dpids)) < 0.5
    most = np.where(away[e.switch], rng.integers(0, 20_000_000, len(e.pool)), FREE)
    held = HeldShares(np.where(most == FREE, FREE, most // 2), most)
    for d in range(2):
        share = switch_shares(s, grants[d], demand, d, floor, held)
        mine = e.direction == d
        assert (share[mine & (most != FREE)] == held.told_bps[mine & (most != FREE)]).all()
        below = np.zeros(len(e.pool), np.int64)
        on = np.flatnonzero(mine & (most == FREE) & (e.parent >= 0))
        np.add.at(below, e.parent[on], share[on])
        assert (below <= share).all()
        for pool in np.unique(e.pool[mine]):
            free, kept = (mine & (e.pool == pool) & is_so for is_so in (most == FREE, most != FREE))
            if free.any():
                rest = grants[d][pool] - most[kept].sum()
                least = min(int(floor), int(grants[d][pool] / (2 * (free | kept).sum()))) * free.sum()
                assert share[free].sum() <= (max(rest, least) if kept.any() else rest)
                if s.level[pool] == Level.REGION:
                    assert share[free].sum() == (max(rest, least) if kept.any() else rest)
