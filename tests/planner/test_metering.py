"""From grants to meters: shares fit the meters behind them and never outgrow the grant."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocation.allocate import allocate
from planner.config import Allocation, Config
from planner.metering import meter_tables, switch_shares
from planner.report import NetworkReport
from planner.snapshot import Level
from planner.structure import Structure
from tests.planner.networks import network, small, structure_of, worlds

World = tuple[Config, NetworkReport, dict[str, set[str]]]
I64 = npt.NDArray[np.int64]


def decided(s: Structure, seed: int) -> tuple[list[I64], npt.NDArray[np.float64]]:
    """Grants of both directions for random claims, and random demand by entry with gaps."""
    rng = np.random.default_rng(seed)
    grants = []
    for tree in s.trees:
        claims = rng.exponential(1e7, (1, len(tree.leaves))) * rng.integers(0, 2, len(tree.leaves))
        claims *= s.level[tree.leaves] == Level.USER
        grants.append(allocate(tree, claims).grant_bps)
    demand = rng.exponential(1e7, len(s.entries.pool))
    demand[rng.random(len(demand)) < 0.3] = np.nan
    return grants, demand


@settings(max_examples=200, deadline=None)
@given(worlds(), st.integers(0, 1000))
def test_shares_of_a_pool_sum_to_its_grant(world: World, seed: int):
    """Over all its switches a pool's shares are its grant, to the bit/s; the other direction's are untouched."""
    config, report, groups = world
    s = structure_of(config, report, groups)
    grants, demand = decided(s, seed)
    e = s.entries
    for d in range(2):
        for floor in (0.0, 64e3):
            share = switch_shares(s, grants[d], demand, d, floor)
            assert (share >= 0).all()
            assert (share[e.direction != d] == 0).all()
            for pool in np.unique(e.pool):
                mine = (e.pool == pool) & (e.direction == d)
                assert share[mine].sum() == grants[d][pool]


@settings(max_examples=200, deadline=None)
@given(worlds(), st.integers(0, 1000))
def test_children_fit_the_meter_behind_them(world: World, seed: int):
    """On each switch users' shares sum to at most their group's, and groups' to at most their region's.

    In bit/s and in the meters' whole kbit/s. Floors for idle switches aside: those are off the top.
    """
    config, report, groups = world
    s = structure_of(config, report, groups)
    grants, demand = decided(s, seed)
    e = s.entries
    for d in range(2):
        share = switch_shares(s, grants[d], demand, d)
        has = e.parent >= 0
        below = np.zeros(len(share), np.int64)
        np.add.at(below, e.parent[has], share[has])
        assert (below <= share).all()
        below_kbps = np.zeros(len(share), np.int64)
        np.add.at(below_kbps, e.parent[has], share[has] // 1000)
        assert (below_kbps <= share // 1000).all()


@settings(max_examples=100, deadline=None)
@given(worlds(), st.integers(0, 1000))
def test_floor_takes_no_more_than_itself(world: World, seed: int):
    """Room for strangers costs users behind a full region at most the floor of each idle switch."""
    config, report, groups = world
    s = structure_of(config, report, groups)
    grants, demand = decided(s, seed)
    e = s.entries
    for d in range(2):
        share = switch_shares(s, grants[d], demand, d, 64e3)
        below = np.zeros(len(share), np.int64)
        has = e.parent >= 0
        np.add.at(below, e.parent[has], share[has])
        for pool in np.unique(e.pool[e.parent[has]]):
            mine = (e.pool == pool) & (e.direction == d)
            idle = int((below[mine] == 0).sum())
            assert (below[mine] - share[mine]).max() <= 64e3 * idle + 1


@settings(max_examples=100, deadline=None)
@given(worlds(), st.integers(0, 1000))
def test_every_meter_has_a_rate(world: World, seed: int):
    """The meters of the plan are those that layouts name, each with >= 1 kbit/s and never above its share."""
    config, report, groups = world
    s = structure_of(config, report, groups)
    grants, demand = decided(s, seed)
    share = sum(switch_shares(s, grants[d], demand, d) for d in range(2))
    assert isinstance(share, np.ndarray)
    tables = meter_tables(s, share, Allocation())
    e = s.entries
    for dpid, layout in s.layouts.items():
        if dpid not in s.dpids:
            continue
        table = tables[dpid]
        assert table.meter_id.tolist() == [owner.meter_id for owner in layout.owners]
        for meter, (rate_kbps, burst_kbit) in table.rates().items():
            given_bps = share[(e.switch == s.dpids.index(dpid)) & (e.meter_id == meter)].sum()
            assert rate_kbps == max(given_bps // 1000, 1)
            assert burst_kbit >= 150


def test_user_on_two_switches_is_split_by_demand():
    """Nine tenths go by demand, one equally; a gap counts as the mean of the others."""
    config = small(users={"anna": {"macs": ["00:00:00:00:01:01", "00:00:00:00:01:02"]}})
    report = network(config, {"anna": 0x11})
    report.hosts["00:00:00:00:01:02"] = type(next(iter(report.hosts.values())))(
        "00:00:00:00:01:02", frozenset(), 0x12, 1, 0.0
    )
    s = structure_of(config, report)
    rows = np.flatnonzero((s.entries.pool == len(s.path) - 1) & (s.entries.direction == 0))
    demand = np.full(len(s.entries.pool), np.nan)
    demand[rows] = 30e6, 10e6
    grant = np.full(len(s.path), 20_000_000, np.int64)
    assert switch_shares(s, grant, demand, 0)[rows].tolist() == pytest.approx([14.5e6, 5.5e6])


def test_rate_beyond_what_a_band_can_say_is_the_largest():
    """A band has 32 bits: ten terabits are the most it can say, and not what is left of them."""
    config = small(capacity_mbps=10_000_000, regions={"west": {"dpids": [0x11], "capacity_mbps": 10_000_000}})
    s = structure_of(config, network(config, {"anna": 0x11}))
    share = np.full(len(s.entries.pool), 10**13, np.int64)
    rates = meter_tables(s, share, Allocation())[0x11].rates()
    assert set(rates.values()) == {(2**32 - 1, 2**32 - 1)} | {(2**32 - 1, rate[1]) for rate in rates.values()}


def test_bursts_grow_towards_the_region():
    """What a user's burst lets through, its group's and region's do too."""
    s = structure_of(small())
    share = np.full(len(s.entries.pool), 10_000_000, np.int64)
    rates = meter_tables(s, share, Allocation())[0x12].rates()
    burst = {
        owner.pool.count("/"): rates[owner.meter_id][1]
        for owner in s.layouts[0x12].owners
        if owner.direction == 0
    }
    assert burst == {1: 10_000, 2: 5_000, 3: 2_500}
