"""The fleet: several speakers' reports as one picture."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.config_faults import ConfigError
from planner.fleet import Fleet
from planner.report import AppliedReport, NetworkReport, SwitchFacts
from telemetry.samples import SampleBatch
from tests.planner.networks import PLACES, START, mac_of, network, small
from topology.network import Host, Link, Port


def test_report_tells_whether_anything_moved():
    """The structure is built anew only when users or switches are not where they were."""
    config = small()
    fleet = Fleet.of(config)
    assert fleet.report(network(config), START)
    assert not fleet.report(network(config, version=2), START + 5)
    assert fleet.report(network(config, PLACES | {"anna": 0x21}, version=3), START + 10)
    assert fleet.attachments["anna"][0].dpid == 0x21


def test_late_report_is_passed_over():
    """A report older than the one before it changes nothing; a repeated one is fine."""
    config = small()
    fleet = Fleet.of(config)
    fleet.report(network(config, version=5), START)
    assert not fleet.report(network(config, {}, version=4), START)
    assert fleet.known_version("speaker") == 5
    assert set(fleet.attachments) == set(PLACES)


def test_speaker_that_took_over_all_switches_has_replaced_the_other():
    """A restarted OpenFlow process has a new name; the old one's report is not kept beside it."""
    config = small()
    fleet = Fleet.of(config)
    fleet.report(network(config, speaker="old", version=9), START)
    fleet.report(network(config, {"anna": 0x11}, speaker="new"), START + 5)
    assert fleet.reports.keys() == {"new"}
    assert set(fleet.attachments) == {"anna"}


def test_switch_has_one_speaker():
    """A switch that moved to another speaker is counted there alone; the rest stays with the first."""
    config = small()
    fleet = Fleet.of(config)
    fleet.report(network(config, speaker="one"), START)
    fleet.report(NetworkReport("two", 1, {0x21: SwitchFacts(5, 50, "moved")}), START + 5)
    assert set(fleet.reports["one"].switches) == {0x11, 0x12}
    assert fleet.switches[0x21].max_meters == 50
    assert all(view.connected for view in fleet.views())


def test_switch_that_is_away_is_shown_and_keeps_its_budget():
    """Nobody knows whether its meters are still right; what it can hold is remembered."""
    config = small()
    fleet = Fleet.of(config)
    fleet.report(network(config, max_meters=77), START)
    fleet.applied(AppliedReport("speaker", 0x12, 3, True, 8, 0), START)
    report = network(config, version=2)
    del report.switches[0x12]
    assert fleet.report(report, START + 5)
    view = fleet.views()[1]
    assert (view.dpid, view.connected, view.in_step, view.region) == (0x12, False, None, "west")
    assert fleet.max_meters[0x12] == 77


def test_a_switch_that_differs_for_long_is_a_problem():
    """Not at once, since a change takes a moment; until it is in step or gone."""
    config = small(enforcement={"alarm_after_s": 20})
    fleet = Fleet.of(config)
    fleet.report(network(config), START + 25)
    differs = AppliedReport("speaker", 0x12, 3, False, 8, 0, 2, 1, differs_since=START + 5)
    fleet.applied(differs, START + 25)
    assert list(fleet.problems(START + 25)) == []
    (line,) = fleet.problems(START + 26)
    assert line.startswith("0000000000000012 has differed from the plan for 21 s: 2 meters and 1 entries")
    fleet.applied(AppliedReport("speaker", 0x12, 3, True, 8, 0), START + 26)
    assert list(fleet.problems(START + 26)) == []
    fleet.applied(differs, START + 27)
    fleet.report(network(config, speaker="new"), START + 27)
    report = network(config, speaker="new", version=2)
    del report.switches[0x12]
    fleet.report(report, START + 27)
    assert list(fleet.problems(START + 28)) == []


def test_a_connected_switch_that_does_not_answer_is_a_problem():
    """Whether it still holds its meters nobody knows."""
    config = small(enforcement={"alarm_after_s": 20}, polling={"interval_s": 10, "jitter": 0, "timeout_s": 3})
    fleet = Fleet.of(config)
    fleet.report(network(config), START)
    for dpid in (0x11, 0x12):
        fleet.polled(SampleBatch(dpid, START + 1), START + 1)
    assert list(fleet.problems(START + 33)) == []
    lines = list(fleet.problems(START + 33.5))
    assert [line[:16] for line in lines] == ["0000000000000021"]
    assert "has not answered for 34 s" in lines[0]


def test_repairs_add_up_over_connections():
    """A speaker counts from when the switch connected, the fleet from when it was first seen."""
    config = small()
    fleet = Fleet.of(config)
    fleet.report(network(config), START)
    for repairs in (0, 3, 3, 5, 1, 2):
        fleet.applied(AppliedReport("speaker", 0x12, 3, True, 8, 0, repairs=repairs), START)
    assert fleet.views()[1].repairs == 7


def test_newest_sighting_of_a_host_counts():
    """A host that two speakers report is where it was seen last."""
    config = small()
    fleet = Fleet.of(config)
    mac = mac_of(config, "anna")
    for speaker, dpid, seen in (("one", 0x11, START), ("two", 0x21, START + 9), ("one", 0x11, START)):
        host = Host(mac, frozenset(), dpid, 1, seen)
        fleet.report(NetworkReport(speaker, 1, {dpid: SwitchFacts(5, 50, "")}, hosts={mac: host}), START)
    assert [device.dpid for device in fleet.attachments["anna"]] == [0x21]


def test_lost_polls_add_up_and_strangers_are_ignored():
    """Lost polls are counted by switch; samples and answers of switches never reported change nothing."""
    config = small()
    fleet = Fleet.of(config)
    fleet.report(network(config), START)
    for dpid in (0x11, 0x11, 0x99):
        fleet.polled(replace(SampleBatch(dpid, START), lost_polls=2), START + 7)
    fleet.applied(AppliedReport("speaker", 0x99, 3, True, 8, 0), START)
    views = {view.dpid: view for view in fleet.views()}
    assert views.keys() == {0x11, 0x12, 0x21}
    assert (views[0x11].lost_polls, views[0x11].last_seen) == (4, START + 7)


def test_address_that_changed_hands_is_forgotten():
    """A MAC seen with an address of nobody no longer stands for the user whose address it had."""
    config = small(users={"anna": {"addresses": ["10.0.0.1"]}})
    fleet = Fleet.of(config)
    facts = {0x11: SwitchFacts(5, 50, "")}
    for version, addresses in enumerate((["10.0.0.1"], ["10.0.0.7"], [])):
        host = Host("00:00:00:00:09:01", frozenset(addresses), 0x11, 1, START)
        fleet.report(NetworkReport("s", version, facts, hosts={host.mac: host}), START)
        assert ("anna" in fleet.attachments) == (version == 0)
    assert fleet.bindings.learned() == {}


def wired(version: int, held: bool = False, up: bool = True) -> NetworkReport:
    """Two switches with a cable between their ports 9, which may be held or down."""
    cable = Link(0x11, 9, 0x12, 9)
    both = frozenset({cable, cable.reverse})
    ports = tuple(Port(dpid, 9, "p9", 1e9, up) for dpid in (0x11, 0x12))
    facts = {dpid: SwitchFacts(5, 50, "") for dpid in (0x11, 0x12)}
    links = frozenset() if held or not up else both
    return NetworkReport("s", version, facts, ports, links, held=both if held else frozenset())


def test_routes_are_found_anew_only_when_links_change():
    """And the capacity of a link is the file's before its ports'."""
    config = small(links=[{"a": "0x11/9", "b": "0x12/9", "capacity_mbps": 20}])
    fleet = Fleet.of(config)
    fleet.report(wired(1), START)
    routes = fleet.routes
    assert fleet.link_capacity_bps().tolist() == [20e6, 20e6]
    fleet.report(wired(2), START + 1)
    assert fleet.routes is routes
    fleet.report(wired(3, up=False), START + 2)
    assert fleet.routes.links == ()
    plain = Fleet.of(small())
    plain.report(wired(1), START)
    assert plain.link_capacity_bps().tolist() == [1e9, 1e9]


def test_link_that_a_speaker_holds_is_known_and_not_used():
    """What the OpenFlow process leaves out of its paths, the planner does too."""
    fleet = Fleet.of(small())
    fleet.report(wired(1, held=True), START)
    assert fleet.network.usable_links == frozenset()
    assert len(fleet.held_links) == 2


def test_link_that_flapped_is_told_to_be_steady_though_nothing_is_reported():
    """Time alone tells."""
    fleet = Fleet.of(small())
    for version in range(1, 12):
        fleet.report(wired(version, up=version % 2 == 1), START + version)
    assert fleet.log.since()[0][-1].change == "flapping"
    before = fleet.log.last
    assert not fleet.step(START + 20)
    assert not fleet.step(START + 200)
    told = {(event.what, event.change, event.detail) for event in fleet.log.since(before)[0]}
    assert told == {("link", "steady", "up"), ("port", "steady", "up")}


def test_bindings_that_end_move_users():
    """Time alone takes a card away that an operator bound for an hour."""
    config = small()
    fleet = Fleet.of(config)
    card = "00:00:00:00:09:09"
    host = Host(card, frozenset(), 0x11, 7, START)
    report = replace(network(config, {}), hosts={card: host})
    fleet.report(report, START)
    fleet.bindings.give("anna", [card], [], START, 3600.0)
    fleet.rebind(START)
    assert [device.mac for device in fleet.attachments["anna"]] == [card]
    assert not fleet.step(START + 3599)
    assert fleet.step(START + 3600)
    assert "anna" not in fleet.attachments


def test_bindings_outlive_a_restart_and_the_file_outranks_them(caplog):
    """What the file has given to another since is left out, and the log says so."""
    card = "00:00:00:00:09:09"
    first = Fleet.of(small())
    first.bindings.give("anna", [card], [], START)
    learned, state = first.bindings.learned(), first.bindings.state()
    second = Fleet.of(small())
    second.restore_bindings(learned, state)
    assert second.bindings.index.by_mac[card] == "anna"
    third = Fleet.of(small(users={"anna": {"macs": ["00:00:00:00:01:01"]}, "ben": {"macs": [card]}}))
    third.restore_bindings(learned, state)
    assert third.bindings.index.by_mac[card] == "ben"
    assert "not restored" in caplog.text


@pytest.mark.parametrize("end", ["0x11", "0x11/0", "zebra/1", "0x11/x", "0x0/1"])
def test_port_of_a_switch_that_cannot_be_is_refused(end: str):
    """With path, rule and value."""
    with pytest.raises(ConfigError, match=r"links\.0\.a must be"):
        small(links=[{"a": end, "b": "0x12/9", "capacity_mbps": 20}])


def test_port_has_one_cable_and_a_prefix_one_region():
    """A clash names both places."""
    cable = {"a": "17/9", "b": "0x12/9", "capacity_mbps": 20}
    with pytest.raises(ConfigError, match=r"links\.1 must not overlap links\.0, got 0000000000000011/9"):
        small(links=[cable, cable | {"a": "0x11/9", "b": "0x21/1"}])
    region = {"dpids": [0x11], "capacity_mbps": 9, "prefixes": ["10.0.0.0/8"]}
    with pytest.raises(ConfigError, match=r"regions\.b\.prefixes must not overlap regions\.a\.prefixes"):
        small(regions={"a": region, "b": region | {"dpids": [0x12]}})
    with pytest.raises(ConfigError, match=r"prefixes\.0 must be a prefix"):
        small(regions={"a": region | {"prefixes": ["10.0.0.1/8"]}})
