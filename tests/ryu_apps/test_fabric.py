"""The picture of the network, fed with events."""

import pytest
from hypothesis import given, settings

from planner.plan import Binding, Plan, SwitchLayout
from planner.report import SwitchFacts, decode_network, encode_network
from ryu_apps.fabric import Fabric, host_series
from ryu_apps.pipeline import Pipeline
from tests.ryu_apps.networks import SETTLED, START, config, discovered, mac_of, wirings
from topology.learning import Sighting
from topology.network import Link, Port
from topology.paths import is_loop_free

A, B = mac_of(1), mac_of(2)
FACTS = SwitchFacts(254, 1000, "test")


def up(fabric: Fabric, dpid: int, port_no: int, now: float, **kind) -> None:
    fabric.port(Port(dpid, port_no, f"p{port_no}", 0.0, True), now, **kind)


def down(fabric: Fabric, dpid: int, port_no: int, now: float) -> None:
    fabric.port(Port(dpid, port_no, f"p{port_no}", 0.0, False), now)


@pytest.fixture
def fabric() -> Fabric:
    """Switches 1 and 2, a link between their ports 9, hosts A on 1:1 and B on 2:1, quiet ports 2."""
    fabric = Fabric.of(config())
    for dpid in (1, 2):
        fabric.switch_up(dpid, FACTS, START)
        for port_no in (1, 2, 9):
            up(fabric, dpid, port_no, START)
    fabric.heard((1, 9), (2, 9), SETTLED)
    fabric.heard((2, 9), (1, 9), SETTLED)
    fabric.settle(SETTLED)
    fabric.seen([Sighting(A, "10.0.0.1", 1, 1), Sighting(B, None, 2, 1)], SETTLED)
    return fabric


@settings(deadline=None, max_examples=60)
@given(wirings())
def test_each_switch_knows_the_way_to_each_host(wiring):
    """Step by step the way ends at the host's port, and broadcasts have a tree."""
    fabric = discovered(wiring)
    for mac, place in wiring.hosts.items():
        for dpid in wiring.switches:
            at, steps = dpid, 0
            while at != place[0]:
                out = at, fabric.ports_towards(at)[mac]
                at, steps = wiring.cables[out][0], steps + 1
                assert steps < len(wiring.switches)
            assert fabric.ports_towards(at)[mac] == place[1]
    flood = {d: fabric.view(d, Pipeline(), None, True).flood_ports for d in wiring.switches}
    assert is_loop_free(fabric.network, flood)


def test_hosts_are_learnt_on_edge_ports_only(fabric):
    """What comes through a link is in transit, and a pending port is not trusted yet."""
    up(fabric, 1, 3, SETTLED)
    seen = fabric.seen([Sighting(mac_of(3), None, 1, 9), Sighting(mac_of(4), None, 1, 3)], SETTLED)
    assert seen == ()
    assert set(fabric.network.hosts) == {A, B}


def test_a_place_proven_by_the_switchs_own_entries_counts_at_once(fabric):
    """After a restart hosts are known before their ports have settled."""
    up(fabric, 1, 3, SETTLED)
    (change,) = fabric.seen([Sighting(mac_of(3), None, 1, 3)], SETTLED, proven=True)
    assert change.kinds == ("appeared",)
    assert fabric.ports_towards(2)[mac_of(3)] == 9


def test_a_host_that_moves_is_followed(fabric):
    """Every switch sends to its new place, and its old port has it no longer."""
    (change,) = fabric.seen([Sighting(A, None, 2, 2)], SETTLED + 1)
    assert change.kinds == ("moved",)
    assert (fabric.ports_towards(1)[A], fabric.ports_towards(2)[A]) == (9, 2)
    assert fabric.view(1, Pipeline(), None, True).hosts == ()
    assert fabric.host_of_series(1, host_series(A)) is None
    assert fabric.host_of_series(2, host_series(A)) == (A, 2)


def test_a_host_that_takes_another_address_keeps_its_place(fabric):
    """It is its MAC."""
    (change,) = fabric.seen([Sighting(A, "10.0.0.9", 1, 1)], SETTLED + 1)
    assert change.kinds == ("address-added",)
    assert fabric.network.hosts[A].addresses == {"10.0.0.1", "10.0.0.9"}


def test_a_silent_host_is_forgotten_and_one_that_sends_is_not(fabric):
    """Four hours by default; being seen counts."""
    later = SETTLED + 14400
    fabric.seen([Sighting(B, None, 2, 1)], later - 100)
    assert {change.mac for change in fabric.expire(later + 1)} == {A}
    assert set(fabric.ports_towards(1)) == {B}


def test_a_host_behind_a_port_that_turned_out_to_be_a_link_is_forgotten(fabric):
    """It is behind another switch, which will report it."""
    up(fabric, 2, 3, SETTLED)
    assert fabric.heard((2, 3), (1, 1), SETTLED + 1)
    assert [change.mac for change in fabric.expire(SETTLED + 2)] == [A]


def test_a_host_whose_port_is_down_is_looked_for_everywhere(fabric):
    """It may have moved to a place where it has not spoken yet."""
    down(fabric, 1, 1, SETTLED + 1)
    assert A not in fabric.ports_towards(1)
    assert A not in fabric.ports_towards(2)
    up(fabric, 1, 1, SETTLED + 2)
    assert fabric.ports_towards(2)[A] == 9


def test_a_lost_control_channel_keeps_the_switch_on_the_map(fabric):
    """Its data plane may live on: links and ways stay, only the report leaves it out."""
    fabric.switch_down(2)
    fabric.settle(SETTLED + 1000)
    assert fabric.ports_towards(1) == {A: 1, B: 9}
    report = fabric.report("me")
    assert set(report.switches) == {1}
    assert {(link.src_dpid, link.dst_dpid) for link in report.links} == {(1, 2), (2, 1)}
    assert B in report.hosts


def test_a_link_that_fell_silent_is_not_used(fabric):
    """Both switches are there to be heard, and are not."""
    fabric.settle(SETTLED + 5)
    assert fabric.ports_towards(1) == {A: 1}
    assert fabric.view(1, Pipeline(), None, True).flood_ports == ()


def test_a_switch_that_returns_has_a_whole_time_out_for_its_links(fabric):
    """Otherwise its first second back would cut it off."""
    fabric.switch_down(2)
    fabric.switch_up(2, FACTS, SETTLED + 1000)
    fabric.settle(SETTLED + 1003)
    assert fabric.ports_towards(1)[B] == 9


def test_a_probe_from_a_stranger_or_a_port_that_is_down_tells_nothing(fabric):
    """A probe still under way when its cable was pulled would make its port a link port for good."""
    assert not fabric.heard((7, 1), (1, 1), SETTLED)
    down(fabric, 1, 9, SETTLED + 1)
    assert not fabric.heard((1, 9), (2, 9), SETTLED + 2)
    up(fabric, 1, 9, SETTLED + 3)
    fabric.settle(SETTLED + 6)
    assert fabric.view(1, Pipeline(), None, True).edge_ports == (1, 2, 9)


def test_a_port_under_another_name_is_another_port(fabric):
    """Open vSwitch gives a number again; what is plugged in may be a switch."""
    fabric.port(Port(1, 2, "new", 0.0, True), SETTLED)
    assert fabric.view(1, Pipeline(), None, True).edge_ports == (1,)


def test_a_port_removed_takes_its_role_along(fabric):
    """Hosts on it are not reachable, links through it are gone."""
    fabric.port_gone(1, 9)
    assert fabric.ports_towards(1) == {A: 1}
    assert fabric.network.links == frozenset()
    assert (1, 9) not in fabric.network.ports


def test_the_version_rises_with_each_change_and_stays_without(fabric):
    """Whoever was told a version need not be told again."""
    version = fabric.version
    fabric.seen([Sighting(A, None, 1, 1)], SETTLED + 1)
    fabric.heard((1, 9), (2, 9), SETTLED + 1)
    fabric.settle(SETTLED + 1)
    assert fabric.version == version
    fabric.seen([Sighting(A, None, 1, 2)], SETTLED + 1)
    assert fabric.version > version


def test_a_view_has_the_plans_layout_of_its_own_switch(fabric):
    """And none where the plan does not know the switch, or there is no plan."""
    layout = SwitchLayout((Binding("a", A, 1),))
    plan = Plan(1, 0.0, layouts={1: layout})
    assert fabric.view(1, Pipeline(), plan, True).layout == layout
    assert fabric.view(2, Pipeline(), plan, True).layout == SwitchLayout()
    assert fabric.view(1, Pipeline(), None, True).layout == SwitchLayout()


def test_the_report_arrives_as_it_was_made(fabric):
    """Through bytes and back."""
    report = fabric.report("me")
    assert decode_network(encode_network(report)) == report
    assert Link(1, 9, 2, 9) in report.links


def test_the_number_of_a_host_is_the_same_in_every_process():
    """It is in the cookies of switches that outlive the process."""
    assert host_series("00:00:00:00:00:01") == 230_421_444
    assert {host_series(mac_of(i)) < 1 << 28 for i in range(500)} == {True}


def test_a_link_that_flaps_carries_nothing_until_it_is_steady_where_there_is_another_way():
    """Its hosts' packets go round; the planner is told which link is held; with no other way it is used."""
    fabric = Fabric.of(config(topology={"flap_half_life_s": 10}))
    cables = {(1, 12): (2, 21), (2, 23): (3, 32), (3, 31): (1, 13)}
    for dpid in (1, 2, 3):
        fabric.switch_up(dpid, FACTS, START)
    for place in (*cables, *cables.values()):
        up(fabric, *place, START)
    now = SETTLED

    def connect(one, other):
        fabric.heard(one, other, now)
        fabric.heard(other, one, now)

    for one, other in cables.items():
        connect(one, other)
    for _ in range(3):
        down(fabric, 1, 12, now := now + 1)
        up(fabric, 1, 12, now)
        connect((1, 12), (2, 21))
    flapping = Link(1, 12, 2, 21)
    report = decode_network(encode_network(fabric.report("s")))
    assert report.held == {flapping, flapping.reverse}
    assert report.links == fabric.network.links == fabric.discovery.links - report.held
    down(fabric, 3, 31, now)
    assert flapping in fabric.network.usable_links
    up(fabric, 3, 31, now)
    connect((3, 31), (1, 13))
    assert flapping not in fabric.network.links
    version = fabric.version
    now += 40
    for one, other in cables.items():
        connect(one, other)
    fabric.settle(now)
    assert fabric.version > version
    assert flapping in fabric.network.links
