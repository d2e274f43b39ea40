"""The pipeline, judged by a plain interpreter of flow tables on random networks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan import TABLES_FOR_APPLICATIONS, UNMETERED, Binding, Plan, SwitchLayout
from ryu_apps.cookies import Kind
from ryu_apps.pipeline import (
    ApplicationPort,
    Pipeline,
    Stage,
    SwitchView,
    TooFewTablesError,
    pair_entry,
    switch_flows,
)
from tests.ryu_apps.networks import BROADCAST, STRANGER, discovered, entries_of, mac_of, planned_networks
from tests.ryu_apps.plain_tables import Packet, pass_through, travel
from topology.network import Host

N_TABLES = st.integers(4, len(Stage) + 2)
UPLOAD = (Kind.UPLOAD_APPLICATION, Kind.UPLOAD_USER, Kind.UPLOAD_GROUP, Kind.UPLOAD_REGION)
DOWNLOAD = (Kind.DOWNLOAD_APPLICATION, Kind.DOWNLOAD_USER, Kind.DOWNLOAD_GROUP, Kind.DOWNLOAD_REGION)
PROPERTY = settings(deadline=None, max_examples=150)


def class_of(packet: Packet, named: set[int]) -> int:
    """Of the classes that are named, that of the port called to, else of the port called from; 0 for none."""
    for side in ("dst", "src"):
        for app, protocol, ports in (1, "tcp", (80, 8080, 8081)), (2, "udp", (53,)), (2, "tcp", (53,)):
            if app in named and packet.get(f"{protocol}_{side}") in ports:
                return app
    return 3 if 3 in named and (packet["eth_type"], packet["ip_proto"]) in ((0x0800, 1), (0x86DD, 58)) else 0


def expected_meters(plan: Plan, dpid: int, mac: str, direction: int, pipeline: Pipeline, packet: Packet):
    """The meters that a packet of this host owes here, in this direction, outermost last."""
    layout = plan.layouts[dpid]
    binding = next((b for b in layout.bindings if b.mac == mac), Binding("", "", 0))
    kinds = (UPLOAD, DOWNLOAD)[direction]
    user, group = binding.user_meter, binding.group_meter
    classes = {app: meters for app, *meters in binding.applications}
    own = classes[class_of(packet, set(classes))] if classes else (0, 0)
    region = dict(layout.other_regions).get(group, layout.region_meter)
    owed = zip(kinds, (own[direction], user[direction], group[direction], region[direction]), strict=True)
    return [
        (kind, meter) for kind, meter in owed if meter != UNMETERED and Stage[Kind(kind).name] in pipeline
    ]


def unicast(src: str, dst: str):
    return {"eth_src": src, "eth_dst": dst, "eth_type": 0x0800, "ip_proto": 6, "tcp_src": 5000, "tcp_dst": 80}


#: Of a class called to or called from, of two, and of none; IPv4 and IPv6.
PACKETS: list[dict[str, int | str]] = [
    {"eth_type": 0x0800, "ip_proto": 6, "tcp_src": 5000, "tcp_dst": 80},
    {"eth_type": 0x86DD, "ip_proto": 6, "tcp_src": 8081, "tcp_dst": 5000},
    {"eth_type": 0x0800, "ip_proto": 6, "tcp_src": 53, "tcp_dst": 8080},
    {"eth_type": 0x0800, "ip_proto": 6, "tcp_src": 5000, "tcp_dst": 9},
    {"eth_type": 0x0800, "ip_proto": 17, "udp_src": 5000, "udp_dst": 53},
    {"eth_type": 0x0800, "ip_proto": 17, "udp_src": 80, "udp_dst": 80},
    {"eth_type": 0x0800, "ip_proto": 1},
    {"eth_type": 0x86DD, "ip_proto": 58, "icmpv6_type": 128},
]


@PROPERTY
@given(planned_networks(), N_TABLES, st.sampled_from(PACKETS))
def test_a_packet_is_metered_once_at_each_edge_and_arrives_once(network, n_tables, packet):
    """Class, user, group and region meter a packet once at its source's switch, once at its destination's, never between."""
    wiring, plan = network
    pipeline = Pipeline.fitting(n_tables, applications=True)
    entries = entries_of(discovered(wiring), plan, n_tables)
    for src, source in wiring.hosts.items():
        for dst, target in wiring.hosts.items():
            if source == target:
                continue
            journey = travel(entries, wiring.cables, source, {"eth_src": src, "eth_dst": dst, **packet})
            assert journey.delivered == [target]
            passages = journey.passages
            assert passages[0][0] == source[0]
            assert passages[-1][0] == target[0]
            up = expected_meters(plan, source[0], src, 0, pipeline, packet)
            down = expected_meters(plan, target[0], dst, 1, pipeline, packet)
            if len(passages) == 1:
                assert passages[0][1].meters == up + down
            else:
                assert passages[0][1].meters == up
                assert passages[-1][1].meters == down
            assert all(not passage.meters for _, passage in passages[1:-1])


@PROPERTY
@given(planned_networks(), N_TABLES)
def test_a_packet_meets_at_most_one_meter_in_a_table(network, n_tables):
    """The specification allows one meter instruction in an entry, and no table is visited twice."""
    wiring, plan = network
    for entries in entries_of(discovered(wiring), plan, n_tables).values():
        keys = [(e.table_id, e.priority, e.match) for e in entries]
        assert len(keys) == len(set(keys)), "two entries that replace one another"
        assert all(e.table_id < n_tables for e in entries)


@PROPERTY
@given(planned_networks(), N_TABLES)
def test_a_broadcast_reaches_every_edge_port_once(network, n_tables):
    """ARP works on any topology, without a loop and without the controller."""
    wiring, plan = network
    entries = entries_of(discovered(wiring), plan, n_tables)
    for mac, start in wiring.hosts.items():
        packet = {"eth_src": mac, "eth_dst": BROADCAST, "eth_type": 0x0806}
        journey = travel(entries, wiring.cables, start, packet)
        assert sorted(journey.delivered) == sorted(wiring.edge_ports - {start})
        assert len(journey.passages) == len(wiring.switches)


@PROPERTY
@given(planned_networks(), N_TABLES)
def test_a_stranger_is_told_to_the_controller_and_forwarded_all_the_same(network, n_tables):
    """No packet waits for the controller, and a source not known yet still fits into its region."""
    wiring, plan = network
    pipeline = Pipeline.fitting(n_tables, applications=True)
    entries = entries_of(discovered(wiring), plan, n_tables)
    for start in wiring.edge_ports:
        for dst, target in wiring.hosts.items():
            if target == start:
                continue
            journey = travel(entries, wiring.cables, start, unicast(STRANGER, dst))
            assert journey.delivered == [target]
            first = journey.passages[0][1]
            assert pipeline.table(Stage.UPLOAD_USER) in first.punted_in
            up = [meter for meter in first.meters if meter[0] in UPLOAD]
            assert up == expected_meters(plan, start[0], STRANGER, 0, pipeline, unicast(STRANGER, dst))


@PROPERTY
@given(planned_networks())
def test_an_unknown_destination_is_flooded_along_the_tree(network):
    """A host that has not spoken yet is reached, as behind any learning switch."""
    wiring, plan = network
    entries = entries_of(discovered(wiring), plan)
    for src, start in wiring.hosts.items():
        journey = travel(entries, wiring.cables, start, unicast(src, STRANGER))
        assert sorted(journey.delivered) == sorted(wiring.edge_ports - {start})


@PROPERTY
@given(planned_networks())
def test_transit_is_not_told_to_the_controller(network):
    """What another switch sent was reported there; only LLDP is wanted of it here."""
    wiring, plan = network
    entries = entries_of(discovered(wiring), plan)
    for src, source in wiring.hosts.items():
        for dst in wiring.hosts:
            passages = travel(entries, wiring.cables, source, unicast(src, dst)).passages
            assert not any(passage.punted_in for _, passage in passages[1:])


def view(**parts) -> SwitchView:
    defaults = {
        "pipeline": Pipeline(),
        "layout": SwitchLayout((Binding("u", mac_of(1), 1, (11, 12), (21, 22)),), region_meter=(31, 32)),
        "edge_ports": (1, 2),
        "hosts": (Host(mac_of(1), frozenset(), 1, 1, 0.0), Host(mac_of(2), frozenset(), 1, 2, 0.0)),
        "ports_towards": {mac_of(1): 1, mac_of(2): 2},
    }
    return SwitchView(**{**defaults, **parts})


def test_a_pending_port_carries_nothing():
    """A port that may lead to a switch could close a loop; only LLDP is taken from it."""
    entries = list(switch_flows(view()))
    packet = {**unicast(mac_of(1), mac_of(2)), "in_port": 3}
    passage = pass_through(entries, packet)
    assert (passage.out, passage.punted_in) == ([], [])
    flood: dict[str, int | str] = {
        "eth_src": mac_of(1),
        "eth_dst": BROADCAST,
        "eth_type": 0x0806,
        "in_port": 1,
    }
    assert pass_through(entries, flood).out == [2]
    assert pass_through(entries, {"in_port": 3, "eth_type": 0x88CC, "eth_src": STRANGER}).punted_in == [0]


def test_what_an_isolated_host_sends_goes_nowhere():
    """From any edge port, LLDP included, and the controller does not hear of it; others are not touched."""
    entries = list(switch_flows(view(layout=SwitchLayout(isolated=(mac_of(1),)), link_ports=(3,))))
    for port in (1, 2):
        lldp: dict[str, int | str] = {"eth_type": 0x88CC, "eth_src": mac_of(1)}
        for frame in (unicast(mac_of(1), mac_of(2)), lldp):
            passage = pass_through(entries, {**frame, "in_port": port})
            assert (passage.tables, passage.out, passage.punted_in) == ([0], [], [])
    assert pass_through(entries, {**unicast(mac_of(2), mac_of(1)), "in_port": 2}).out == [1]
    # Packets of its name in transit are another edge switch's to judge.
    assert pass_through(entries, {**unicast(mac_of(1), mac_of(2)), "in_port": 3}).out == [2]


def test_lldp_is_never_forwarded():
    """A probe tells of one cable; passed on it would invent links."""
    for port in (1, 3):
        frame = {"in_port": port, "eth_type": 0x88CC, "eth_src": STRANGER, "eth_dst": "01:80:c2:00:00:0e"}
        passage = pass_through(switch_flows(view()), frame)
        assert (passage.out, passage.punted_in) == ([], [0])


def test_a_host_on_a_port_that_became_a_link_has_no_meter():
    """Its packets are transit there, and transit is not metered."""
    entries = list(switch_flows(view(edge_ports=(2,), link_ports=(1,))))
    assert not any(e.kind is Kind.UPLOAD_USER for e in entries if ("eth_src", mac_of(1)) in e.match)
    assert not pass_through(entries, {**unicast(mac_of(1), STRANGER), "in_port": 1}).meters


def test_a_binding_to_another_port_does_not_hold_here():
    """A plan made before a host moved must not meter it by the old place's meter."""
    entries = switch_flows(view(layout=SwitchLayout((Binding("u", mac_of(1), 9, (11, 12), (21, 22)),))))
    assert not any(e.meter_id in {11, 12} for e in entries)


APPS = (
    ApplicationPort(1, "tcp", 80),
    ApplicationPort(2, "udp", 53),
    ApplicationPort(3, "icmp", 0),
    ApplicationPort(4, "tcp", 0),
)


@pytest.mark.parametrize(
    ("fields", "app"),
    [
        ({"eth_type": 0x0800, "ip_proto": 6, "tcp_src": 9, "tcp_dst": 80}, 1),
        ({"eth_type": 0x86DD, "ip_proto": 6, "tcp_src": 80, "tcp_dst": 9}, 1),
        ({"eth_type": 0x0800, "ip_proto": 17, "udp_src": 9, "udp_dst": 53}, 2),
        ({"eth_type": 0x0800, "ip_proto": 17, "udp_src": 9, "udp_dst": 9}, 0),
        ({"eth_type": 0x0800, "ip_proto": 6, "tcp_src": 9, "tcp_dst": 9}, 4),
        ({"eth_type": 0x0800, "ip_proto": 1}, 3),
        ({"eth_type": 0x86DD, "ip_proto": 58, "icmpv6_type": 128}, 3),
        ({"eth_type": 0x0806}, 0),
    ],
)
def test_packets_are_classified_by_server_port(fields, app):
    """The class stands in the metadata when the pair is looked up, for IPv4 and IPv6 and both ways."""
    entries = list(switch_flows(view(applications=APPS)))
    packet = {"eth_src": mac_of(1), "eth_dst": mac_of(2), **fields, "in_port": 1}
    passage = pass_through(entries, packet)
    assert Pipeline().table(Stage.ACCOUNTING) in passage.punted_in
    assert passage.metadata >> 32 == app


def test_a_known_pair_is_counted_and_no_longer_reported():
    """One punt a pair; then the switch counts by itself, and the packet takes the same way."""
    known = pair_entry(Pipeline(), mac_of(1), mac_of(2), 1, 7, 60)
    entries = [*switch_flows(view(applications=APPS)), known]
    web = {**unicast(mac_of(1), mac_of(2)), "in_port": 1}
    before, after = pass_through(entries[:-1], web), pass_through(entries, web)
    assert after.punted_in == []
    assert (after.out, after.meters, after.tables) == (before.out, before.meters, before.tables)
    other_class = pass_through(entries, {**web, "tcp_dst": 9})
    assert other_class.punted_in == [Pipeline().table(Stage.ACCOUNTING)]


def test_new_pairs_are_not_reported_while_the_accounting_table_is_full():
    """Otherwise each packet of each pair without an entry would go to the controller."""
    passage = pass_through(
        switch_flows(view(report_pairs=False)), {**unicast(mac_of(1), mac_of(2)), "in_port": 1}
    )
    assert (passage.punted_in, passage.out) == ([], [2])


@pytest.mark.parametrize("kind", [135, 136])
def test_neighbour_discovery_of_known_hosts_is_seen(kind):
    """An IPv6 address shows there, also of a host long known."""
    packet = {
        "eth_src": mac_of(1), "eth_dst": mac_of(2), "eth_type": 0x86DD, "ip_proto": 58, "icmpv6_type": kind,
        "in_port": 1,
    }  # fmt: skip
    assert Pipeline().table(Stage.CLASSIFY) in pass_through(switch_flows(view()), packet).punted_in


def test_a_switch_with_too_few_tables_is_refused_by_name_and_number():
    """Below four tables there is no metering both ways; the error says what is needed."""
    assert Pipeline.fitting(4).stages == (
        Stage.INGRESS, Stage.UPLOAD_USER, Stage.DOWNLOAD_USER, Stage.FORWARDING,
    )  # fmt: skip
    with pytest.raises(TooFewTablesError, match="at least 4 tables, got 3"):
        Pipeline.fitting(3)


def test_a_short_pipeline_says_what_it_lacks():
    """Outer meters go first, since children's grants fit into them already."""
    assert Pipeline.fitting(254).missing == ()
    assert Pipeline.fitting(8).missing == (Stage.UPLOAD_REGION, Stage.DOWNLOAD_REGION)


def test_classes_are_the_first_that_a_switch_with_few_tables_does_without():
    """Both directions at once, with the number of tables that the planner knows, and told by name."""
    assert Pipeline.fitting(TABLES_FOR_APPLICATIONS, applications=True) == Pipeline(tuple(Stage))
    short = Pipeline.fitting(TABLES_FOR_APPLICATIONS - 1, applications=True)
    assert short.missing == (Stage.UPLOAD_APPLICATION, Stage.DOWNLOAD_APPLICATION)
    assert short.stages == Pipeline.fitting(254).stages
    fewer = Pipeline.fitting(9, applications=True)
    assert fewer.missing == (Stage.UPLOAD_APPLICATION, Stage.UPLOAD_REGION, Stage.DOWNLOAD_APPLICATION)


def test_networks_without_classes_have_no_stage_for_them():
    """Nobody pays for what nobody has: the tables, entries and cookies are as they were."""
    pipeline = Pipeline.fitting(254)
    assert len(pipeline.stages) == 10
    assert pipeline.missing == ()
    kinds = {entry.kind for entry in switch_flows(view(pipeline=pipeline, applications=APPS))}
    assert not kinds & {Kind.UPLOAD_APPLICATION, Kind.DOWNLOAD_APPLICATION}


def test_a_port_of_a_class_is_four_entries_a_device_and_direction():
    """Both versions of IP and both sides; and one more for all the rest."""
    layout = SwitchLayout((Binding("u", mac_of(1), 1, (11, 12), (21, 22), ((0, 41, 42), (1, 43, 44))),))
    pipeline = Pipeline.fitting(254, applications=True)
    entries = list(switch_flows(view(pipeline=pipeline, layout=layout, applications=APPS)))
    meters = [entry.meter_id for entry in entries]
    assert [meters.count(meter) for meter in (41, 42, 43, 44)] == [1, 1, 4, 4]
