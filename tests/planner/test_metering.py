"""From grants to meters: shares fit the meters behind them and never outgrow the grant."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocation.allocate import allocate
from planner.config import Allocation, Config
from planner.config_faults import ConfigError
from planner.metering import burst_bits, meter_tables, switch_shares
from planner.plan import Plan
from planner.policy import Override, Policies
from planner.report import NetworkReport
from planner.snapshot import Level, Refused
from planner.structure import Structure
from tests.planner.networks import Running, network, small, structure_of, worlds

World = tuple[Config, NetworkReport, dict[str, set[str]]]
I64 = npt.NDArray[np.int64]


def decided(s: Structure, seed: int) -> tuple[list[I64], npt.NDArray[np.float64]]:
    """Grants of both directions for random claims, and random demand by entry with gaps."""
    rng = np.random.default_rng(seed)
    grants = []
    for tree in s.trees:
        claims = rng.exponential(1e7, (1, len(tree.leaves))) * rng.integers(0, 2, len(tree.leaves))
        claims *= s.asks[tree.leaves]
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
    """Nineteen parts in twenty go by demand, one equally; a gap counts as the mean of the others."""
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
    assert switch_shares(s, grant, demand, 0)[rows].tolist() == pytest.approx([14.75e6, 5.25e6])


def test_rate_beyond_what_a_band_can_say_is_the_largest():
    """A band has 32 bits: ten terabits are the most it can say, and not what is left of them."""
    config = small(capacity_mbps=10_000_000, regions={"west": {"dpids": [0x11], "capacity_mbps": 10_000_000}})
    s = structure_of(config, network(config, {"anna": 0x11}))
    share = np.full(len(s.entries.pool), 10**13, np.int64)
    rates = meter_tables(s, share, Allocation(min_burst_kbit=1e10))[0x11].rates()
    assert set(rates.values()) == {(2**32 - 1, 2**32 - 1)}


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


@pytest.mark.parametrize(
    ("rtt_ms", "rate_mbps", "burst_s"),
    [
        (0.5, 10, 0.25),  # time-outs
        (0.5, 90, 0.25),
        (20, 1, 0.25),
        (20, 10, 0.1),  # the window's saw-tooth
        (100, 100, 0.1),
        (0.5, 1000, 0.1),
    ],
)
def test_burst_lasts_for_what_holds_tcp_back(rtt_ms: float, rate_mbps: float, burst_s: float):
    """Slow meters outlast a time-out of TCP; where many frames are under way a tenth of a second is enough."""
    settings = Allocation(rtt_ms=rtt_ms)
    assert burst_bits(np.array(rate_mbps * 1e6), settings) == pytest.approx(rate_mbps * 1e6 * burst_s)


@given(st.floats(0.1, 1000), st.floats(0.01, 2), st.floats(1, 10_000))
def test_faster_meter_has_no_smaller_burst(rtt_ms: float, burst_s: float, min_burst_kbit: float):
    """Bursts rise with the rate, never above ``burst_s`` of it, never below the least."""
    chosen = Allocation(rtt_ms=rtt_ms, burst_s=burst_s, min_burst_kbit=min_burst_kbit)
    rate = np.geomspace(1e3, 1e11, 200)
    burst = burst_bits(rate, chosen)
    assert (np.diff(burst) >= 0).all()
    assert (burst <= np.maximum(rate * burst_s, min_burst_kbit * 1e3) * (1 + 1e-12)).all()
    assert (burst >= min_burst_kbit * 1e3).all()


def promising(what: str, **more: Any) -> Config:
    """A network where users are promised 10 Mbit/s of this; packets carry 500 bytes behind 50 of headers."""
    users = {"anna": {"macs": ["00:00:00:00:01:01"], "guarantee_mbps": 2, "ceiling_mbps": 10}}
    packets = {"promise": what, "payload_bytes": 500, "header_bytes": 50}
    return small(users=users, allocation=packets, **more)


def test_promised_goodput_is_metered_as_the_frames_that_carry_it():
    """A user's guarantee and ceiling are larger on the wire by the headers; capacities are frames in any case."""
    frames, goodput = (
        structure_of(c := promising(w), network(c, {"anna": 0x11})) for w in ("frames", "goodput")
    )
    anna = len(frames.path) - 1
    assert goodput.ceiling_bps[0, anna] == pytest.approx(1.1 * frames.ceiling_bps[0, anna])
    assert goodput.guarantee_bps[0, anna] == pytest.approx(1.1 * frames.guarantee_bps[0, anna])
    above = frames.level < Level.GROUP
    np.testing.assert_array_equal(goodput.ceiling_bps[:, above], frames.ceiling_bps[:, above])


def test_promised_goodput_never_outgrows_a_capacity():
    """Users who could have more together than their region carries are granted what it carries, in frames."""
    config = promising("goodput", regions={"west": {"dpids": [0x11], "capacity_mbps": 10.5}})
    s = structure_of(config, network(config, {"anna": 0x11}))
    claims = np.full((1, len(s.trees[0].leaves)), 1e9)
    grant = allocate(s.trees[0], claims).grant_bps
    assert grant[-1] == 10_500_000


def test_goodput_that_cannot_be_carried_is_refused_in_the_file():
    """Guarantees must fit with their headers."""
    with pytest.raises(
        ConfigError, match=r"capacity_mbps\.up must be >= all guarantees, which sum to 2\.2, got 2\.1"
    ):
        promising("goodput", capacity_mbps=2.1)


def test_goodput_override_is_a_promise_too():
    """An operator's ceiling for a group is goodput where goodput is promised."""
    config = promising("goodput", groups={"crew": {"members": ["anna"]}})
    policies = Policies(config)
    override = Override(ceiling_bps=(5_000_000, 5_000_000))
    policies.check_override("crew", frozenset({"anna"}), override)
    policies.overrides["crew"] = override
    assert policies.group("crew").ceiling_bps == pytest.approx((5.5e6, 5.5e6))
    with pytest.raises(Refused, match=r"its members' guarantees, which sum to 2, got 1\.9"):
        policies.check_override("crew", frozenset({"anna"}), Override(ceiling_bps=(1_900_000, 1_900_000)))


#: Eight users of one group, each on a switch of its own.
EIGHT = tuple(f"u{number}" for number in range(8))
CREW_BPS = 80e6


def eight_switches() -> Running:
    """A planner whose group spans eight switches."""
    users = {user: {"macs": [f"00:00:00:00:01:{number:02x}"]} for number, user in enumerate(EIGHT)}
    config = small(
        capacity_mbps=1000,
        regions={"west": {"dpids": list(range(1, 9)), "capacity_mbps": 1000}},
        users=users,
        groups={"crew": {"members": list(EIGHT), "ceiling_mbps": CREW_BPS / 1e6}},
    )
    running = Running(config)
    running.connect(places={user: 1 + number for number, user in enumerate(EIGHT)})
    running.tick()
    return running


def let_through(plan: Plan, offered_bps: dict[str, float]) -> float:
    """What of each user's upload the meters of its switch and its group's meter there let through, bit/s."""
    total = 0.0
    for number, user in enumerate(EIGHT):
        rates = plan.meters[1 + number].rates()
        mine = {
            o.pool: rates[o.meter_id][0] * 1e3 for o in plan.layouts[1 + number].owners if o.direction == 0
        }
        total += min(offered_bps[user], mine[f"global/west/crew/{user}"], mine["global/west/crew"])
    return total


@pytest.mark.parametrize("load", [1.0, 1.5])
@pytest.mark.parametrize("moving", ["steady", "wandering", "jumping"])
def test_group_on_eight_switches_gets_its_grant(moving: str, load: float):
    """Where its load is on which switch, and moves, at least 95 in 100 of what it may have get through."""
    running, rng, level = eight_switches(), np.random.default_rng(1), np.zeros(8)
    plan, carried, wanted = running.tick(), 0.0, 0.0
    for tick in range(36):
        level += rng.normal(0, 0.05, 8)
        weight = {
            "steady": 1.0 + np.arange(8),
            "wandering": np.exp(level),
            # Every minute another user falls silent and another begins.
            "jumping": np.where((np.arange(8) + tick // 12) % 8 < 5, 1.0, 0.01),
        }[moving]
        offered = load * CREW_BPS * weight / weight.sum()
        running.offered = dict(zip(EIGHT, offered.tolist(), strict=True))
        # The plan in force was made from what was seen one tick ago.
        if tick >= 5:
            carried += let_through(plan, running.offered)
            wanted += min(offered.sum(), CREW_BPS)
        plan = running.tick()
    assert carried >= 0.95 * wanted
