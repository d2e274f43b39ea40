"""Application classes of a user: pools of their own below it, metered apart, together within the user's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest

from planner.config import Config
from planner.config_faults import ConfigError
from planner.link_limits import LinkLimits, link_limits
from planner.metering import BURST_FACTOR, meter_tables, switch_shares
from planner.plan import Plan, decode_plan, encode_plan
from planner.policies import Lift
from planner.policy import Policies
from planner.policy_desk import PolicyDesk
from planner.pool_names import row_of
from planner.remediation.signals import needs_of
from planner.replay import _police, _wires
from planner.snapshot import Level, NotThere, Refused
from planner.structure import Structure, repriced
from tests.planner.networks import APPLICATIONS, START, Running, mac_of, network, small, structure_of
from topology.network import Host, Link
from topology.routes import routes_of
from topology.traffic import TrafficGraph

WEB = {"web": {"ceiling_mbps": 2, "weight": 3}}
ANNA = "global/west/ungrouped/anna"


def told_apart(classes: dict[str, Any] = WEB, **blocks: Any) -> Config:
    """The small network; anna has 10 Mbit/s in all, and these classes."""
    plain = small().model_dump(mode="json")["users"]
    users = {name: {"macs": user["macs"], "ceiling_mbps": 20} for name, user in plain.items()}
    users["anna"] |= {"ceiling_mbps": 10, "applications": classes}
    return small(**{"applications": APPLICATIONS, "users": users, **blocks})


def of_anna(s: Structure) -> dict[str, int]:
    """Rows of anna's classes by name."""
    return {path.rpartition("/")[2]: row for row, path in enumerate(s.path) if path.startswith(f"{ANNA}/")}


# Where they stand.


def test_classes_stand_below_their_user_with_one_for_all_the_rest():
    """Named classes and the rest, after all users, each with a meter in each direction where the user has."""
    s = structure_of(told_apart())
    assert s.path[-2:] == (f"{ANNA}/other", f"{ANNA}/web")
    assert s.series[-2:] == ("user/anna/other", "user/anna/web")
    assert s.level[-2:].tolist() == [Level.APPLICATION] * 2
    assert s.path[s.user_rows.stop - 1] == "global/west/ungrouped/carla"
    anna = s.path.index(ANNA)
    assert s.parent[-2:].tolist() == [anna, anna]
    assert not s.asks[anna]
    assert s.asks[-2:].all()
    e, rows = s.entries, of_anna(s)
    for direction in range(2):
        (own,) = np.flatnonzero((e.pool == anna) & (e.direction == direction))
        for row in rows.values():
            (entry,) = np.flatnonzero((e.pool == row) & (e.direction == direction))
            assert e.parent[entry] == own
            assert e.alone[entry]
    (binding,) = (b for b in s.layouts[0x11].bindings if b.user == "anna")
    meters = {(o.pool, o.direction): o.meter_id for o in s.layouts[0x11].owners}
    assert binding.applications == tuple(
        (number, meters[f"{ANNA}/{name}", 0], meters[f"{ANNA}/{name}", 1])
        for number, name in enumerate(("other", "web"))
    )


def test_others_are_planned_as_if_nobody_had_classes():
    """Bindings, meters and promises of users without classes are the same, and what is sent of them too."""
    config = told_apart()
    plain = config.model_copy(
        update={"users": {n: u.model_copy(update={"applications": {}}) for n, u in config.users.items()}}
    )
    with_classes, without = structure_of(config), structure_of(plain)
    n = len(without.path)
    assert with_classes.path[:n] == without.path
    others = [row for row in range(without.first_user, n) if without.path[row] != ANNA]
    for column in ("guarantee_bps", "ceiling_bps", "weight", "priority"):
        np.testing.assert_array_equal(
            getattr(without, column)[..., others], getattr(with_classes, column)[..., others]
        )
    for dpid, layout in without.layouts.items():
        assert layout.region_meter == with_classes.layouts[dpid].region_meter
        for one, other in zip(layout.bindings, with_classes.layouts[dpid].bindings, strict=True):
            assert replace(other, applications=()) == one
        assert set(layout.owners) <= set(with_classes.layouts[dpid].owners)
    # A release that knows no classes reads five columns.
    packed = msgpack.unpackb(encode_plan(Plan(layouts=dict(without.layouts))), strict_map_key=False)
    rows = [row for layout in packed["layouts"].values() for row in layout["bindings"]]
    assert len(rows) == 5
    assert all(len(row) == 5 for row in rows)


def test_plan_with_classes_is_read_as_it_was_written():
    """Over the wire and back."""
    s = structure_of(told_apart())
    plan = Plan(1, START, layouts=dict(s.layouts))
    assert any(b.applications for layout in s.layouts.values() for b in layout.bindings)
    assert decode_plan(encode_plan(plan)) == plan


@pytest.mark.parametrize(
    ("max_meters", "n_tables", "lack"),
    [
        (1000, 11, "11 tables, which must be 12"),
        # Region, group, two users, one class; the other class does not fit.
        (10, 12, "2 meters left, which must be 4"),
        (6, 12, "0 meters left, which must be 4"),
    ],
)
def test_user_of_a_switch_that_cannot_tell_them_apart_is_metered_as_one(
    max_meters: int, n_tables: int, lack: str
):
    """The user is a pool as any other, and a problem names user, switch, rule and number."""
    config = told_apart()
    s = structure_of(config, network(config, max_meters=max_meters, n_tables=n_tables))
    assert not of_anna(s)
    assert s.asks[s.path.index(ANNA)]
    assert f"users.anna.applications are metered as one: 0000000000000011 has {lack}" in s.problems
    assert not any(b.applications for layout in s.layouts.values() for b in layout.bindings)


def test_one_switch_that_cannot_is_enough_to_meter_a_user_as_one():
    """What is measured at some of the user's switches would stand for all of its traffic."""
    config = told_apart(
        users={"anna": {"macs": ["00:00:00:00:01:01", "00:00:00:00:01:02"], "applications": WEB}}
    )
    report = network(config, {"anna": 0x11})
    report.hosts["00:00:00:00:01:02"] = Host("00:00:00:00:01:02", frozenset(), 0x12, 1, START)
    assert of_anna(structure_of(config, report))
    report.switches[0x12] = replace(report.switches[0x12], n_tables=10)
    assert not of_anna(structure_of(config, report))


# What they may have.


def test_promises_to_classes_are_promises_to_the_user():
    """Guarantees add up, the class's own ceiling and weight hold, and priority is the user's unless named."""
    classes = {
        "web": {"guarantee_mbps": 3, "ceiling_mbps": 4, "weight": 3, "priority": 1},
        "names": {"guarantee_mbps": 2},
    }
    s = structure_of(told_apart(classes))
    rows, anna = of_anna(s), s.path.index(ANNA)
    assert s.guarantee_bps[:, anna].tolist() == [5_064_000] * 2
    assert s.guarantee_bps[0, [rows["web"], rows["names"], rows["other"]]].tolist() == [3e6, 2e6, 64e3]
    assert s.ceiling_bps[0, rows["web"]] == 4e6
    assert s.weight[rows["web"]] == 3
    assert s.priority[[rows["web"], rows["names"], anna]].tolist() == [1, 4, 4]
    assert not s.problems


def test_classes_of_a_user_held_at_the_floor_share_it():
    """An isolated user's classes stay open, within what is left to the user, and no promise had to be cut."""
    config = told_apart()
    policies = Policies(config)
    s = structure_of(config, policies=policies)
    policies.remedy([], {"anna": (64_000.0, 64_000.0)})
    policies.step(START, {})
    held = repriced(s, config, policies)
    rows = list(of_anna(held).values())
    assert held.ceiling_bps[0, held.path.index(ANNA)] == 64e3
    assert held.guarantee_bps[0, rows].tolist() == [32e3] * 2
    assert held.problems == s.problems


def test_boost_reaches_a_class_by_name():
    """``user:NAME/CLASS`` is a pool of policies; a class that the user does not name is refused."""
    config = told_apart()
    policies = Policies(config)
    desk = PolicyDesk(Running(config).planner, lambda _: None, lambda: START)
    boost = desk.boost("b", ("user:anna/web",), Lift(ceiling_bps=(5e6, 5e6)), None, START + 60, "")
    policies.boost(boost, [], START)
    policies.step(START, {})
    assert policies.application("anna", "web").ceiling_bps == (5e6, 5e6)
    assert policies.names("user:anna/web") == ("boost b",)
    for pool in ("user:anna/names", "user:ben/web", "user:ben/other", "user:nobody/web"):
        with pytest.raises(Refused, match=r"boosts\.x\.pools must be"):
            desk.boost("x", (pool,), Lift(weight_factor=2), None, START + 60, "")


@pytest.mark.parametrize(
    ("classes", "fault"),
    [
        ({"mail": {}}, "users.anna.applications.mail must be a class of applications, got 'mail'"),
        (
            {"web": {"guarantee_mbps": 3, "ceiling_mbps": 2}},
            "users.anna.applications.web.guarantee_mbps.up must be <= its ceiling 2, got 3",
        ),
        (
            {"web": {"guarantee_mbps": 6}, "names": {"guarantee_mbps": 5}},
            "users.anna.ceiling_mbps.up must be >= its applications' guarantees, which sum to 11, got 10",
        ),
        (
            {"wide": {}},
            "users.anna.applications.wide must be a class of at most 256 ports, got 1001",
        ),
    ],
)
def test_classes_that_cannot_be_are_refused_in_the_file(classes: dict[str, Any], fault: str):
    """With path, rule and value."""
    wide = {"wide": [{"protocol": "udp", "ports": ["8000-9000"]}]}
    with pytest.raises(ConfigError) as refusal:
        told_apart(classes, applications=APPLICATIONS | wide)
    assert fault in refusal.value.faults


def test_guarantees_of_classes_count_towards_the_capacity():
    """A file that promises more than there is, is refused, by whatever block it promises."""
    with pytest.raises(
        ConfigError, match=r"capacity_mbps\.up must be >= all guarantees, which sum to 9, got 8"
    ):
        told_apart({"web": {"guarantee_mbps": 9}}, capacity_mbps=8)


# What is decided and measured.


@pytest.fixture
def running() -> Running:
    """Anna's web and all her rest want more than they may have."""
    running = Running(told_apart(allocation={"dead_band": 0.0}))
    running.offered = {"web": 8e6, "other": 9e6, "anna": 1e6, "ben": 1e6}
    running.connect()
    running.tick(count=5)
    return running


def test_a_class_keeps_its_ceiling_and_the_rest_goes_to_others(running: Running):
    """Of ten, web has its two and the rest eight; the meters say so, and fit the user's."""
    assert running.grant("web") == [2e6, 2e6]
    assert running.grant("anna") == [10e6, 10e6]
    assert running.grant("other") == pytest.approx([8e6, 8e6], rel=1e-3)
    plan = running.planner.snapshot.plan
    rates = plan.meters[0x11].rates()
    kbps = {(o.pool, o.direction): rates[o.meter_id][0] for o in plan.layouts[0x11].owners}
    for d in range(2):
        assert kbps[f"{ANNA}/web", d] == 2000
        assert kbps[f"{ANNA}/web", d] + kbps[f"{ANNA}/other", d] <= kbps[ANNA, d]


def test_an_idle_class_leaves_its_part_to_the_others(running: Running):
    """What web does not use, all the rest may; and web has it again when it wants it."""
    running.offered |= {"web": 0.0, "other": 12e6}
    running.tick(count=20)
    assert running.grant("other")[0] > 9e6
    running.offered |= {"web": 2e6}
    running.tick(count=4)
    assert running.grant("web")[0] == pytest.approx(2e6, rel=0.01)


def test_a_user_offers_what_its_classes_do(running: Running):
    """Its own meter sees only what theirs let through."""
    pools = running.planner.snapshot.pools
    assert pools.offered_bps[:, running.row("anna")].tolist() == [17e6, 17e6]
    assert pools.offered_bps[:, running.row("web")].tolist() == [8e6, 8e6]
    assert pools.offered_bps[0, pools.index("global/west/ungrouped")] == 18e6


def test_classes_are_explained_as_other_pools_are(running: Running):
    """Measured, forecast, granted and metered; and found by the end of their path."""
    desk = PolicyDesk(running.planner, lambda _: None, lambda: running.now)
    why = desk.explain("anna/web")
    assert (why.path, why.level) == (f"{ANNA}/web", "application")
    up = why.directions[0]
    assert (up.share.bound, up.share.bound_by, up.share.grant_bps) == ("ceiling", f"{ANNA}/web", 2_000_000)
    assert [meter.rate_kbps for meter in up.meters] == [2000]
    forecast = running.planner.pool_forecast("anna/web", 0.0)
    assert (forecast.path, forecast.demand_bps.shape[0]) == (f"{ANNA}/web", 2)


def test_what_a_class_may_not_have_is_not_wanted_of_the_pools_above(running: Running):
    """A group is not too small for what a class's own ceiling stops."""
    decided = running.planner.decided
    assert decided is not None
    group = decided.structure.path.index("global/west/ungrouped")
    assert needs_of(decided).wanted_bps[0, group] == 10e6 + 1e6


def test_name_of_a_user_wins_over_that_of_a_class():
    """A user is found by its name, also where other users have a class of that name."""
    paths = ("global", "global/r", "global/r/g", "global/r/g/web", "global/r/g/anna", "global/r/g/anna/web")
    assert row_of(paths, "web") == 3
    assert row_of(paths, "anna/web") == 5
    with pytest.raises(NotThere, match="must be one pool"):
        row_of((*paths, "global/r/h", "global/r/h/web"), "web")


def test_user_on_two_switches_has_its_classes_split_by_where_their_traffic_is():
    """Each class by its own demand; the user's share of a switch is what its classes were given there."""
    config = told_apart(
        users={"anna": {"macs": ["00:00:00:00:01:01", "00:00:00:00:01:02"], "applications": WEB}}
    )
    report = network(config, {"anna": 0x11})
    report.hosts["00:00:00:00:01:02"] = Host("00:00:00:00:01:02", frozenset(), 0x12, 1, START)
    s = structure_of(config, report)
    rows, anna, e = of_anna(s), s.path.index(ANNA), s.entries
    demand = np.zeros(len(e.pool))
    demand[(e.pool == rows["web"]) & (e.switch == s.dpids.index(0x11))] = 2e6
    demand[(e.pool == rows["other"]) & (e.switch == s.dpids.index(0x12))] = 8e6
    grant = np.zeros(len(s.path), np.int64)
    grant[[0, 1, s.parent[anna], anna, rows["web"], rows["other"]]] = [10**7] * 4 + [2 * 10**6, 8 * 10**6]
    share = switch_shares(s, grant, demand, 0)
    of = {
        (s.path[e.pool[i]], s.dpids[e.switch[i]]): int(share[i])
        for i in np.flatnonzero(e.direction == 0).tolist()
    }
    assert of[f"{ANNA}/web", 0x11] == pytest.approx(1.95e6)
    assert of[f"{ANNA}/other", 0x12] == pytest.approx(7.8e6)
    for dpid in (0x11, 0x12):
        assert of[ANNA, dpid] == of[f"{ANNA}/web", dpid] + of[f"{ANNA}/other", dpid]


def test_burst_of_a_user_has_room_for_those_of_its_classes():
    """As a group's has for its users'; that of a user without classes is as ever."""
    config = told_apart()
    s = structure_of(config)
    share = np.full(len(s.entries.pool), 10_000_000, np.int64)
    tables = meter_tables(s, share, config.allocation)
    burst = {o.pool: tables[0x11].rates()[o.meter_id][1] for o in s.layouts[0x11].owners if o.direction == 0}
    assert burst[ANNA] == 2 * burst[f"{ANNA}/web"] == 2 * burst["global/west/ungrouped/ben"]
    assert len(BURST_FACTOR) == len(Level)


def test_links_hold_each_class_as_they_hold_a_user(running: Running):
    """A user's flows are its classes', so that nothing above the leaves is cut and no promise is broken."""
    cable = Link(0x11, 10, 0x12, 10)
    config = told_apart(links=[{"a": "0x11/10", "b": "0x12/10", "capacity_mbps": 3}])
    report = replace(network(config), links=frozenset({cable, cable.reverse}))
    made = Running(config)
    made.planner.report(report)
    graph = made.planner.grouping.graph
    for pair in (("anna", "carla"), ("ben", "carla")):
        src, dst = graph.intern(pair).tolist()
        graph.observe(made.now, src, dst, 0, 5e6, 600.0)
    made.offered = {"web": 8e6, "other": 9e6, "ben": 1e6}
    made.tick(count=5)
    grants = {name: made.grant(name)[0] for name in ("web", "other", "ben")}
    assert sum(grants.values()) <= 3e6 + 3
    assert grants["ben"] >= 0.9e6
    assert min(grants.values()) > 0
    assert not made.planner.problems


def test_flows_of_classes_take_their_users_ways():
    """Each class has all of the user's flows, over the same links; others' flows are as they were."""
    cable = Link(0x11, 10, 0x12, 10)
    config = told_apart(links=[{"a": "0x11/10", "b": "0x12/10", "capacity_mbps": 3}])
    made = Running(config)
    made.planner.report(replace(network(config), links=frozenset({cable, cable.reverse})))
    made.tick()
    graph = TrafficGraph(600.0)
    for pair, rate in ((("anna", "carla"), 5e6), (("anna", "ben"), 1e6), (("ben", "carla"), 2e6)):
        src, dst = graph.intern(pair).tolist()
        graph.observe(START, src, dst, 0, rate, 600.0)
    fleet, view = made.planner.fleet, graph.view(START)

    def limits(s: Structure) -> LinkLimits:
        found = link_limits(s, routes_of(fleet.network), fleet.link_capacity_bps(), view, fleet.attachments)
        assert found is not None
        return found

    def flows(s: Structure, d: int) -> list[tuple[str, float, tuple[int, ...]]]:
        found = limits(s)
        first, link = found.paths[d].first.tolist(), found.paths[d].link.tolist()
        return sorted(
            (s.path[row], round(rate), tuple(link[first[i] : first[i + 1]]))
            for i, (row, rate) in enumerate(
                zip(found.pool[d].tolist(), found.rate_bps[d].tolist(), strict=True)
            )
        )

    plain = config.model_copy(
        update={"users": {n: u.model_copy(update={"applications": {}}) for n, u in config.users.items()}}
    )
    for d in range(2):
        before, after = flows(structure_of(plain), d), flows(structure_of(config), d)
        own = [flow for flow in before if flow[0] == ANNA]
        expected = [flow for flow in before if flow[0] != ANNA]
        expected += [(f"{ANNA}/{name}", *flow[1:]) for flow in own for name in ("other", "web")]
        assert after == sorted(expected)
    assert any(path == ANNA for path, *_ in flows(structure_of(plain), 0))


def test_replayed_traffic_is_of_no_class():
    """A trace knows no ports: all of a user's traffic goes through the meter of the rest."""
    config = told_apart()
    s = structure_of(config)
    share = np.full(len(s.entries.pool), 4_000_000, np.int64)
    table = meter_tables(s, share, config.allocation)[0x11]
    column = {user: at for at, user in enumerate(s.users)}
    demand = np.full((2, len(column)), 3e6)
    samples = _police(_wires(s.layouts[0x11], table, column), table, demand, 5.0)
    offered = dict(zip(samples.meter_id.tolist(), samples.offered_bps.tolist(), strict=True))
    found = {(o.pool, o.direction): offered[o.meter_id] for o in s.layouts[0x11].owners}
    assert found[f"{ANNA}/other", 0] == found[ANNA, 0] == 3e6
    assert found[f"{ANNA}/web", 0] == 0
    assert mac_of(config, "anna")
