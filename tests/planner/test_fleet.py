"""The fleet: several speakers' reports as one picture."""

from __future__ import annotations

from dataclasses import replace

from planner.fleet import Fleet
from planner.report import AppliedReport, NetworkReport, SwitchFacts
from telemetry.samples import SampleBatch
from tests.planner.networks import PLACES, START, mac_of, network, small
from topology.network import Host


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
