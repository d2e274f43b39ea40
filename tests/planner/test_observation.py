"""What pools offered: a gap is unknown, never nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.config import Config
from planner.observation import CENSORED_SHARE, KNOWN_SHARE, USE_HELD_S, NewestSamples
from planner.plan import Plan
from planner.report import NetworkReport
from planner.snapshot import Level
from planner.structure import Structure
from tests.planner.networks import PLACES, network, samples, small, structure_of, worlds

World = tuple[Config, NetworkReport, dict[str, set[str]]]
F64 = npt.NDArray[np.float64]
MAX_AGE_S = 12.5


@dataclass(frozen=True)
class Constant:
    """The same rate for every pool."""

    rate_bps: float

    def __call__(self, path: str, direction: int) -> float:
        return self.rate_bps


@dataclass(frozen=True)
class Looked:
    """A rate for each pool and direction."""

    rate_bps: dict[tuple[str, int], float]

    def __call__(self, path: str, direction: int) -> float:
        return self.rate_bps[path, direction]


def plan_of(s: Structure) -> Plan:
    return Plan(layouts=dict(s.layouts))


def row(s: Structure, path: str) -> int:
    return s.path.index(path)


def everybody_offers(s: Structure, rate_bps: float, time: float = 100.0) -> NewestSamples:
    newest = NewestSamples(s, MAX_AGE_S)
    for dpid in s.dpids:
        newest.take(samples(plan_of(s), dpid, time, lambda _path, _direction: rate_bps))
    return newest


def test_pools_offer_what_their_users_offer():
    """Groups, regions and the network are sums over users, not what their own meters counted after drops."""
    s = structure_of(small(), groups={"studio": {"anna", "ben"}})
    offered = everybody_offers(s, 1e6).observe(101.0).offered_bps
    assert offered[:, row(s, "global/west/studio")].tolist() == [2e6, 2e6]
    assert offered[:, row(s, "global/west")].tolist() == [3e6, 3e6]
    assert offered[:, 0].tolist() == [5e6, 5e6]


def test_nothing_heard_is_unknown():
    """Before the first poll every pool is NaN."""
    seen = NewestSamples(structure_of(small()), MAX_AGE_S).observe(0.0)
    assert np.isnan(seen.offered_bps).all()
    assert np.isnan(seen.delivered_bps).all()
    assert not seen.censored.any()


def test_lost_poll_lets_the_older_sample_serve_and_then_none():
    """A gap does not touch the last sample, which serves until it is too old; then the pool is unknown."""
    s = structure_of(small())
    newest = everybody_offers(s, 1e6, time=100.0)
    newest.take(samples(plan_of(s), 0x21, 105.0, lambda _p, _d: 0.0, lost=True))
    david = row(s, "global/east/ungrouped/david")
    assert newest.observe(100.0 + MAX_AGE_S).offered_bps[0, david] == 1e6
    assert math.isnan(newest.observe(100.1 + MAX_AGE_S).offered_bps[0, david])


def test_what_was_last_offered_is_remembered_for_a_while():
    """Also while it is too old to be shown, but not for ever, and never what nobody told."""
    s = structure_of(small())
    assert np.isnan(NewestSamples(s, MAX_AGE_S).observe(0.0).last_offered_bps).all()
    newest = everybody_offers(s, 1e6, time=100.0)
    david = row(s, "global/east/ungrouped/david")
    last = [
        newest.observe(100.0 + age).last_offered_bps[:, david] for age in (1.0, USE_HELD_S, USE_HELD_S + 1)
    ]
    assert last[0].tolist() == last[1].tolist() == [1e6, 1e6]
    assert np.isnan(last[2]).all()
    given_up = newest.observe(101.0, frozenset({0x21})).last_offered_bps
    assert np.isnan(given_up[:, david]).all()
    assert (given_up[:, row(s, "global/west/ungrouped/anna")] == 1e6).all()


def test_late_poll_does_not_undo_a_newer_one():
    """Polls may arrive out of order: the newest by its own time stands."""
    s = structure_of(small())
    newest = everybody_offers(s, 1e6, time=100.0)
    newest.take(samples(plan_of(s), 0x21, 95.0, lambda _p, _d: 7e6))
    assert newest.observe(101.0).offered_bps[0, row(s, "global/east/ungrouped/david")] == 1e6


def test_clock_set_back_does_not_freeze_what_is_seen():
    """After the clock went back an hour, samples of the old future give way to new ones at once."""
    s = structure_of(small())
    newest = everybody_offers(s, 1e6, time=4000.0)
    assert np.isnan(newest.observe(400.0).offered_bps).all()
    newest.take(samples(plan_of(s), 0x21, 401.0, lambda _p, _d: 7e6))
    assert newest.observe(402.0).offered_bps[0, row(s, "global/east/ungrouped/david")] == 7e6


def test_impossible_rates_are_gaps():
    """A negative or endless rate is no measurement: the sample before it serves."""
    s = structure_of(small())
    newest = everybody_offers(s, 1e6)
    for bad in (-1.0, math.inf, math.nan):
        newest.take(samples(plan_of(s), 0x21, 101.0, Constant(bad)))
    assert newest.observe(102.0).offered_bps[0, row(s, "global/east/ungrouped/david")] == 1e6


def test_few_unknown_users_are_taken_to_be_like_the_others():
    """With nine of ten users known a group is estimated; with eight it is what its own meter counted."""
    users = {f"u{i}": {"macs": [f"00:00:00:00:01:{i:02x}"]} for i in range(10)}
    config = small(users=users)
    s = structure_of(config, network(config, dict.fromkeys(users, 0x11)))
    for known, estimate in ((9, 10e6), (8, 5e6)):
        newest = NewestSamples(s, MAX_AGE_S)

        def rate(path: str, _direction: int, known: int = known) -> float:
            name = path.rpartition("/")[2]
            if not name.startswith("u") or name == "ungrouped":
                return 5e6
            return 1e6 if int(name[1:]) < known else math.nan

        newest.take(samples(plan_of(s), 0x11, 100.0, rate))
        assert newest.observe(101.0).offered_bps[0, row(s, "global/west/ungrouped")] == estimate


def test_users_behind_shared_meters_are_unknown_and_their_group_is_not():
    """A shared meter tells of no single user; the group's own meter still tells of the group."""
    users = {f"u{i}": {"macs": [f"00:00:00:00:01:{i:02x}"]} for i in range(8)}
    config = small(users=users)
    s = structure_of(config, network(config, dict.fromkeys(users, 0x11), max_meters=6))
    offered = everybody_offers(s, 3e6).observe(101.0).offered_bps
    assert np.isnan(offered[:, s.first_user :]).all()
    assert offered[:, row(s, "global/west/ungrouped")].tolist() == [3e6, 3e6]


def test_censored_users_make_a_pool_censored_when_they_are_most_of_it():
    """A user at its limit is censored; its region only if most of what the region offers is."""
    s = structure_of(small())
    newest = NewestSamples(s, MAX_AGE_S)
    for dpid in s.dpids:
        batch = samples(
            plan_of(s),
            dpid,
            100.0,
            lambda path, _d: 9e6 if path.endswith("emma") else 1e6,
            censored=frozenset({"global/east/ungrouped/emma", "global/west/ungrouped/ben"}),
        )
        newest.take(batch)
    censored = newest.observe(101.0).censored
    flagged = {s.path[i] for i in np.flatnonzero(censored[0])}
    assert flagged == {
        "global/east/ungrouped/emma",
        "global/west/ungrouped/ben",
        "global/east",
        "global/east/ungrouped",
        "global",
    }


def test_who_moves_keeps_what_was_seen_of_it():
    """A new structure takes over samples of the same pool at the same switch, and no others."""
    config = small()
    before = everybody_offers(structure_of(config), 1e6)
    s = structure_of(config, network(config, PLACES | {"anna": 0x21}), {"studio": {"ben", "carla"}})
    after = NewestSamples(s, MAX_AGE_S)
    after.carry_over(before)
    offered = after.observe(101.0).offered_bps[0]
    assert offered[row(s, "global/west/studio/ben")] == 1e6
    assert math.isnan(offered[row(s, "global/east/ungrouped/anna")])
    assert offered[row(s, "global/west/studio")] == 2e6


def test_unknown_switches_and_meters_are_passed_over():
    """A batch of a switch or of meters that the plan does not know changes nothing."""
    s = structure_of(small())
    newest = everybody_offers(s, 1e6)
    batch = samples(plan_of(s), 0x21, 102.0, lambda _p, _d: 9e6)
    batch.meters.meter_id[:] += 500
    newest.take(batch)
    newest.take(type(batch)(0x99, 102.0, batch.meters))
    assert np.nanmax(newest.observe(103.0).offered_bps[:, s.first_user :]) == 1e6


def plainly(s: Structure, rate: F64, flagged: npt.NDArray[np.bool_]) -> tuple[F64, npt.NDArray[np.bool_]]:
    """Offered and censored of every pool from each entry's rate (NaN: unknown), one pool at a time."""
    e = s.entries
    offered = np.full((2, len(s.path)), np.nan)
    censored = np.zeros((2, len(s.path)), bool)
    for d in range(2):
        for pool in reversed(range(len(s.path))):
            mine = [i for i in range(len(e.pool)) if e.pool[i] == pool and e.direction[i] == d]
            if mine:
                offered[d, pool] = sum(rate[i] for i in mine)
                censored[d, pool] = any(flagged[i] and not math.isnan(rate[i]) for i in mine)
            members = [i for i in range(len(s.path)) if s.parent[i] == pool]
            known = [i for i in members if not math.isnan(offered[d, i])]
            if members and known and len(known) >= KNOWN_SHARE * len(members):
                offered[d, pool] = sum(offered[d, i] for i in known) * len(members) / len(known)
            if members:
                total = sum(offered[d, i] for i in known)
                held = sum(offered[d, i] for i in known if censored[d, i])
                censored[d, pool] = held > CENSORED_SHARE * total
    return offered, censored


@settings(max_examples=150, deadline=None)
@given(worlds(), st.integers(0, 1000))
def test_equals_the_plain_reference(world: World, seed: int):
    """Any network, any gaps, any flags: as reckoned one pool at a time."""
    config, report, groups = world
    s = structure_of(config, report, groups)
    rng = np.random.default_rng(seed)
    newest = NewestSamples(s, MAX_AGE_S)
    rate, flagged = np.full(len(s.entries.pool), np.nan), np.zeros(len(s.entries.pool), bool)
    for dpid, layout in s.layouts.items():
        if dpid not in s.dpids or not layout.owners:
            continue
        value = {o.meter_id: rng.choice([0.0, 1e6, 2e6, np.nan]) for o in layout.owners}
        held = frozenset(o.pool for o in layout.owners if rng.random() < 0.5)
        by_place = {(o.pool, o.direction): float(value[o.meter_id]) for o in layout.owners}
        batch = samples(plan_of(s), dpid, 100.0, Looked(by_place), censored=held)
        newest.take(batch)
        for i in np.flatnonzero((s.entries.switch == s.dpids.index(dpid)) & s.entries.alone):
            rate[i] = value[int(s.entries.meter_id[i])]
            flagged[i] = s.path[s.entries.pool[i]] in held
    seen = newest.observe(100.0)
    offered, censored = plainly(s, rate, flagged)
    np.testing.assert_allclose(seen.offered_bps, offered)
    np.testing.assert_array_equal(seen.censored, censored)
    # Nothing is made up: a user none of whose meters spoke is unknown.
    users = s.level == Level.USER
    assert np.isnan(seen.offered_bps[:, users]).sum() == np.isnan(offered[:, users]).sum()
