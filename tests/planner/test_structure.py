"""The structure: who is where, under which promises, behind which meters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from planner.config import Config
from planner.meter_ids import MeterIds
from planner.plan import UNMETERED
from planner.policy import Override, Policies
from planner.report import NetworkReport, SwitchFacts
from planner.snapshot import Level
from planner.structure import Structure
from tests.planner.networks import PLACES, START, mac_of, network, small, structure_of, worlds
from topology.network import Host

World = tuple[Config, NetworkReport, dict[str, set[str]]]


def test_tree_is_network_region_group_user():
    """Users stand in the part of their group in the region where they attach, the rest among the ungrouped."""
    s = structure_of(small(), groups={"studio": {"anna", "ben", "david"}})
    assert s.path == (
        "global",
        "global/west",
        "global/east",
        "global/east/studio",
        "global/east/ungrouped",
        "global/west/studio",
        "global/west/ungrouped",
        "global/east/studio/david",
        "global/east/ungrouped/emma",
        "global/west/studio/anna",
        "global/west/studio/ben",
        "global/west/ungrouped/carla",
    )
    assert s.level.tolist() == [0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3]
    assert {g: [s.path[r] for r in rows] for g, rows in s.group_rows.items()}["studio"] == [
        "global/east/studio",
        "global/west/studio",
    ]


def test_group_across_regions_promises_each_its_part():
    """Guarantee, ceiling and weight of a group are split by where its members are."""
    config = small(groups={"studio": {"members": ["anna", "ben", "david"], "ceiling_mbps": 24, "weight": 3}})
    s = structure_of(config, groups={"studio": {"anna", "ben", "david"}})
    east, west = (s.path.index(f"global/{region}/studio") for region in ("east", "west"))
    assert s.ceiling_bps[:, [east, west]].tolist() == [[8e6, 16e6]] * 2
    assert s.weight[[east, west]].tolist() == [1, 2]


def test_sharing_is_the_parents_unless_somebody_says_otherwise():
    """The network's, then a region's, then a group's; groups found take the group defaults'."""
    s = structure_of(
        small(
            allocation={"sharing": "max_min"},
            groups={"studio": {"members": ["anna"], "sharing": "expected_loss"}},
        ),
        groups={"studio": {"anna"}, "found": {"ben"}},
    )
    by_name = {path.rpartition("/")[2]: code for path, code in zip(s.path, s.trees[0].by_curve, strict=True)}
    assert by_name["studio"]
    assert not by_name["global"]
    assert not by_name["found"]


def test_value_curves_are_the_parents_unless_somebody_says_otherwise():
    """A user's own word wins over its group's; who shares by forecast is not listed."""
    users: dict[str, dict[str, Any]] = {
        user: {"macs": [f"00:00:00:00:01:{n:02x}"]} for n, user in enumerate(("anna", "ben", "carla"), 1)
    }
    users["ben"]["curve"] = "forecast"
    users["carla"]["curve"] = "gaming"
    config = small(users=users, groups={"tv": {"members": ["anna", "ben"], "curve": "video"}})
    s = structure_of(
        config, network(config, {"anna": 0x11, "ben": 0x11, "carla": 0x21}), {"tv": {"anna", "ben"}}
    )
    named = {kind: [s.path[row].rpartition("/")[2] for row in rows] for kind, rows in s.curves.items()}
    assert named == {"gaming": ["carla"], "video": ["tv", "anna"]}


def test_absent_users_are_in_no_pool():
    """A user whose host is not on the network has no pool, no meter and no binding."""
    config = small()
    s = structure_of(config, network(config, {"anna": 0x11}))
    assert s.users == ("anna",)
    bindings = [binding.user for layout in s.layouts.values() for binding in layout.bindings]
    assert bindings == ["anna"]


def test_user_outside_every_region_is_told_of():
    """A user at a switch of no region is not metered, and a problem says so."""
    config = small()
    report = network(config, {"anna": 0x99})
    s = structure_of(config, report)
    assert s.users == ()
    assert s.problems == ("users.anna is at 0000000000000099, which is in no region: not metered",)


def test_user_with_devices_in_two_regions_is_where_most_are():
    """One pool for a user, metered at each switch where it has a device."""
    config = small(users={"anna": {"macs": [f"00:00:00:00:01:0{i}" for i in range(3)]}})
    hosts = {
        mac: Host(mac, frozenset(), dpid, 1, START)
        for mac, dpid in zip(config.users["anna"].macs, (0x11, 0x21, 0x12), strict=True)
    }
    facts = {dpid: SwitchFacts(10, 100, "") for dpid in (0x11, 0x12, 0x21)}
    s = structure_of(config, NetworkReport("s", 1, facts, hosts=hosts))
    assert s.path[-1] == "global/west/ungrouped/anna"
    metered = {s.dpids[switch] for switch in s.entries.switch[s.entries.pool == len(s.path) - 1]}
    assert metered == {0x11, 0x12, 0x21}


def test_prefix_of_a_region_wins_over_the_switch():
    """A user numbered for a region pays there, wherever it plugs in; that region's meter is on its switch too."""
    regions = {
        "west": {"dpids": [0x11], "capacity_mbps": 36, "prefixes": ["10.1.0.0/16", "fd01::/64"]},
        "east": {"dpids": [0x21], "capacity_mbps": 36, "prefixes": ["10.1.2.0/24"]},
    }
    users = {
        "anna": {"addresses": ["10.1.0.1"]},
        "ben": {"addresses": ["10.1.2.1"]},
        "carla": {"addresses": ["fd01::5"]},
        "david": {"addresses": ["10.9.0.1"]},
    }
    config = small(regions=regions, users=users)
    hosts = {
        f"00:00:00:00:01:0{i}": Host(f"00:00:00:00:01:0{i}", frozenset(user["addresses"]), 0x21, i, START)
        for i, user in enumerate(users.values(), 1)
    }
    facts = {dpid: SwitchFacts(10, 100, "") for dpid in (0x11, 0x21)}
    s = structure_of(config, NetworkReport("s", 1, facts, hosts=hosts))
    assert {path.split("/")[-1]: path.split("/")[1] for path in s.path[s.first_user :]} == {
        "anna": "west",
        "ben": "east",
        "carla": "west",
        "david": "east",
    }
    owner = {o.meter_id: o.pool for o in s.layouts[0x21].owners}
    assert [(owner[group[0]], owner[region[0]]) for group, region in s.layouts[0x21].other_regions] == [
        ("global/west/ungrouped", "global/west")
    ]
    assert s.layouts[0x11].other_regions == ()
    # Every meter but a region's has the one above it on the same switch.
    assert ((s.entries.parent >= 0) == (s.level[s.entries.pool] > Level.REGION)).all()


def test_promises_that_do_not_fit_where_users_meet_are_cut_in_proportion():
    """Where more is guaranteed below a ceiling than fits, all are cut alike and it is reported."""
    users = {
        name: {"macs": [f"00:00:00:00:01:{i:02x}"], "guarantee_mbps": mbps}
        for i, (name, mbps) in enumerate({"anna": 10, "ben": 20, "carla": 30}.items())
    }
    config = small(users=users)
    s = structure_of(config, network(config, {"anna": 0x11, "ben": 0x11, "carla": 0x12}))
    promised = s.guarantee_bps[:, -3:] / 1e6
    np.testing.assert_allclose(promised, [[6, 12, 18]] * 2, rtol=1e-6)
    assert [p.split(":")[0] for p in s.problems] == ["global/west", "global/west"]
    assert "cut to 0.60 of what was promised" in s.problems[0]


def test_promise_above_its_own_ceiling_is_cut_to_it():
    """An override of yesterday and a file of today may disagree: the ceiling holds, and planning goes on."""
    config = small(groups={"studio": {"members": ["anna", "ben"], "guarantee_mbps": 10}})
    policies = Policies(config, {"studio": Override(ceiling_bps=(5_000_000, 5_000_000))})
    s = structure_of(config, groups={"studio": {"anna", "ben"}}, policies=policies)
    row = s.path.index("global/west/studio")
    assert s.guarantee_bps[:, row].tolist() == [5e6, 5e6]
    assert any(problem.startswith("global/west/studio: guarantee") for problem in s.problems)


def test_everybody_is_promised_the_least_rate():
    """No user's meter is shut: the least rate is guaranteed, but never above the user's own ceiling."""
    users = {
        "anna": {"macs": ["00:00:00:00:01:01"]},
        "ben": {"macs": ["00:00:00:00:01:02"], "ceiling_mbps": 0.01},
    }
    config = small(users=users)
    s = structure_of(config, network(config, {"anna": 0x11, "ben": 0x11}))
    assert s.guarantee_bps[0, -2:].tolist() == [64_000, 10_000]


def test_series_is_the_same_wherever_the_user_is():
    """A user that moves to another switch, region or group keeps the name its history has."""
    config = small()
    before = structure_of(config)
    after = structure_of(config, network(config, PLACES | {"anna": 0x21}), {"studio": {"anna", "emma"}})
    assert "user/anna" in before.series
    assert "user/anna" in after.series
    assert after.path[after.series.index("user/anna")] == "global/east/studio/anna"


def test_same_network_gives_the_same_structure():
    """Order of reports and groups does not matter: paths, rows and meters are the same."""
    config = small()
    groups = {"a": {"anna", "carla"}, "b": {"ben", "david"}}
    turned = network(config, dict(reversed(PLACES.items())))
    turned = NetworkReport("s", 1, dict(reversed(turned.switches.items())), hosts=turned.hosts)
    one = structure_of(config, groups=groups)
    other = structure_of(config, turned, dict(reversed(groups.items())))
    assert (one.path, one.series, one.dpids) == (other.path, other.series, other.dpids)
    for column in vars(one.entries):
        np.testing.assert_array_equal(getattr(one.entries, column), getattr(other.entries, column))


def test_each_switch_meters_its_own():
    """A switch has meters for its users, their groups and its region, in both directions, and no others."""
    s = structure_of(small(), groups={"studio": {"anna", "ben"}})
    owners = {dpid: {owner.pool for owner in layout.owners} for dpid, layout in s.layouts.items()}
    assert owners[0x11] == {
        "global/west",
        "global/west/studio",
        "global/west/studio/anna",
        "global/west/studio/ben",
    }
    assert owners[0x12] == {"global/west", "global/west/ungrouped", "global/west/ungrouped/carla"}
    assert len(s.layouts[0x11].owners) == 8


def test_switch_of_no_region_only_forwards():
    """A connected switch that no region claims is told so by an empty layout."""
    config = small()
    report = network(config)
    report.switches[0x99] = SwitchFacts(10, 100, "core")
    layout = structure_of(config, report).layouts[0x99]
    assert (layout.bindings, layout.owners, layout.region_meter) == ((), (), (UNMETERED, UNMETERED))


def test_switch_never_heard_of_has_no_plan():
    """What a switch can hold is not known before it connects: it gets no layout."""
    config = small()
    report = network(config)
    del report.switches[0x12]
    assert set(structure_of(config, report).layouts) == {0x11, 0x21}


def test_few_meters_are_shared_with_a_warning():
    """When ids run out users share one meter a direction; region and group keep their own."""
    users = {f"u{i}": {"macs": [f"00:00:00:00:01:{i:02x}"]} for i in range(8)}
    config = small(users=users)
    s = structure_of(config, network(config, dict.fromkeys(users, 0x11), max_meters=10))
    layout = s.layouts[0x11]
    pools = [owner.pool for owner in layout.owners]
    assert pools.count("global/shared@0000000000000011") == 2
    assert {"global/west", "global/west/ungrouped"} <= set(pools)
    assert all(UNMETERED not in binding.user_meter for binding in layout.bindings)
    assert any(p.startswith("0000000000000011 has 10 meters for 20 pools: users share 2") for p in s.problems)
    shared = {owner.meter_id for owner in layout.owners if "/shared@" in owner.pool}
    table = s.entry_of_meter[0x11]
    # A shared meter tells of no single pool.
    assert all(meter >= len(table) or table[meter] == -1 for meter in shared)


def test_lookup_finds_every_meter_of_a_single_pool():
    """From switch and meter id to the entry, for meters that speak for one pool."""
    s = structure_of(small(), groups={"studio": {"anna", "david"}})
    for row, (switch, meter, alone) in enumerate(
        zip(s.entries.switch, s.entries.meter_id, s.entries.alone, strict=True)
    ):
        assert alone
        assert s.entry_of_meter[s.dpids[switch]][meter] == row


def check(s: Structure, budget: dict[int, int]) -> None:
    """What holds of every structure."""
    e = s.entries
    # PoolTree's own check has run; here what it cannot know.
    assert len(set(s.series)) == len(s.path)
    assert (np.diff(s.level.astype(int)) >= 0).all()
    users = np.flatnonzero(s.level == Level.USER)
    assert s.path[s.user_rows] == tuple(s.path[row] for row in users)
    assert tuple(s.path[row].rpartition("/")[2] for row in users) == s.users
    # Who asks is at the ends of the tree, once.
    leaves = s.trees[0].leaves
    assert np.flatnonzero(s.asks).tolist() == leaves[s.level[leaves] >= Level.USER].tolist()
    assert (e.meter_id >= 0).all()
    for switch, dpid in enumerate(s.dpids):
        mine = e.switch == switch
        if dpid not in s.layouts:
            assert not mine.any()
            continue
        layout = s.layouts[dpid]
        assert e.meter_id[mine].max(initial=0) <= budget[dpid]
        alone = e.meter_id[mine & e.alone]
        assert len(set(alone.tolist())) == len(alone)
        table = set(e.meter_id[mine].tolist()) - {UNMETERED}
        assert {owner.meter_id for owner in layout.owners} == table
        used = {m for b in layout.bindings for m in (*b.user_meter, *b.group_meter)} | set(
            layout.region_meter
        )
        used |= {m for b in layout.bindings for _, *both in b.applications for m in both}
        assert used - {UNMETERED} <= table
    child = np.flatnonzero(e.parent >= 0)
    above = e.parent[child]
    np.testing.assert_array_equal(e.switch[child], e.switch[above])
    np.testing.assert_array_equal(e.direction[child], e.direction[above])
    assert (s.level[e.pool[child]] > s.level[e.pool[above]]).all()


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_any_network_has_a_structure(world: World):
    """Whoever is where: the trees build, bindings name meters of the table, ids keep to the budget."""
    config, report, groups = world
    budget = {dpid: facts.max_meters for dpid, facts in report.switches.items()}
    ids = MeterIds()
    s = structure_of(config, report, groups, ids)
    check(s, budget)
    again = structure_of(config, report, groups, ids)
    np.testing.assert_array_equal(s.entries.meter_id, again.entries.meter_id)
    assert s.layouts == again.layouts


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_meters_keep_their_ids_when_others_come_and_go(world: World):
    """While ids suffice, a pool that is there before and after has the same meter."""
    config, report, groups = world
    roomy = NetworkReport(
        "s", 1, {dpid: SwitchFacts(10, 1000, "") for dpid in report.switches}, hosts=report.hosts
    )
    fewer = NetworkReport("s", 2, roomy.switches, hosts=dict(list(report.hosts.items())[::2]))
    ids = MeterIds()

    def owners(given: NetworkReport) -> dict[Any, int]:
        s = structure_of(config, given, groups, ids)
        return {(d, o.pool, o.direction): o.meter_id for d, x in s.layouts.items() for o in x.owners}

    first, between, last = owners(roomy), owners(fewer), owners(roomy)
    for before, after in ((first, between), (between, last)):
        for owner in before.keys() & after.keys():
            assert before[owner] == after[owner], owner


def test_config_and_network_of_these_tests_agree():
    """The builder puts every user where it says."""
    config = small()
    assert set(structure_of(config).users) == set(PLACES)
    assert len({mac_of(config, user) for user in PLACES}) == len(PLACES)


@pytest.mark.parametrize("weight", [1e-300, 1e300])
def test_weights_that_no_tree_takes_are_refused_in_the_file(weight: float):
    """A weight that the allocator would refuse at every tick is refused before anything starts."""
    with pytest.raises(Exception, match="weight must be"):
        small(users={"anna": {"macs": ["00:00:00:00:01:01"], "weight": weight}})
