"""Which ports lead to switches, by signed LLDP."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_apps.discovery import Discovery, probe, read_probe
from ryu_apps.framework import lldp, packet
from topology.network import Link

KEY, MAC = b"k" * 32, bytes.fromhex("0a0000000001")
A, B, C = (1, 1), (2, 1), (3, 1)
BOTH = frozenset({1, 2, 3})


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_a_probe_says_where_it_left(dpid, port_no):
    """Any datapath id and port comes back as it was sent."""
    assert read_probe(probe(dpid, port_no, MAC, KEY), KEY) == (dpid, port_no)


def test_a_probe_is_lldp_to_others():
    """A neighbour that is no switch of ours reads chassis, port and time to live."""
    frame = packet.Packet(probe(0xA1, 3, MAC, KEY))
    tlvs = frame.get_protocol(lldp.lldp).tlvs
    assert [type(tlv) for tlv in tlvs[:3]] == [lldp.ChassisID, lldp.PortID, lldp.TTL]
    assert tlvs[0].chassis_id == b"00000000000000a1"


def test_a_probe_signed_with_another_key_is_refused():
    """A host can send LLDP too, and could make itself a link that all traffic takes."""
    assert read_probe(probe(1, 1, MAC, b"other"), KEY) is None


@given(st.data())
def test_a_probe_with_any_byte_of_its_message_changed_is_refused(data):
    """Neither the switch nor the port can be put in another's place."""
    frame = bytearray(probe(1, 1, MAC, KEY))
    signed = frame.index(b"\x02tg\x01") + 4
    at = data.draw(st.integers(signed, signed + 12 + 16 - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    assert read_probe(bytes(frame), KEY) is None


@given(st.binary(max_size=80), st.booleans())
def test_random_bytes_are_no_probe_and_no_error(payload, is_lldp):
    """Whatever hosts send, reading it cannot fail."""
    frame = b"\x01\x80\xc2\x00\x00\x0e" + MAC + b"\x88\xcc" + payload if is_lldp else payload
    assert read_probe(frame, KEY) is None


def test_an_unsigned_frame_of_our_form_is_refused():
    """Zeros in place of a signature are no signature."""
    body = b"\x02tg\x01" + struct.pack("!QI", 1, 1) + bytes(16)
    frame = b"\x01\x80\xc2\x00\x00\x0e" + MAC + b"\x88\xcc" + struct.pack("!H", 127 << 9 | len(body)) + body
    assert read_probe(frame, KEY) is None


@pytest.fixture
def found() -> Discovery:
    """Two switches with a link between their ports 1 and a quiet port 2 each."""
    discovery = Discovery(settle_s=3, link_timeout_s=4)
    for dpid in (1, 2):
        for port_no in (1, 2):
            discovery.port_up(dpid, port_no, 0)
    discovery.heard(A, B, 1)
    discovery.heard(B, A, 1)
    discovery.advance(3, BOTH)
    return discovery


def test_a_port_is_pending_until_it_has_been_quiet():
    """Nothing may pass where a loop could close."""
    discovery = Discovery(settle_s=3, link_timeout_s=4)
    discovery.port_up(1, 1, 0)
    assert not discovery.advance(2.9, BOTH)
    assert (discovery.settled(1), discovery.edge_ports(1)) == (False, ())
    assert discovery.advance(3, BOTH)
    assert (discovery.settled(1), discovery.edge_ports(1)) == (True, (1,))


def test_a_port_reported_up_again_does_not_start_its_wait_anew():
    """Switches repeat port status for many reasons; a host must not wait for the last of them."""
    discovery = Discovery(settle_s=3, link_timeout_s=4)
    discovery.port_up(1, 1, 0)
    discovery.port_up(1, 1, 2)
    assert discovery.advance(3, BOTH)


def test_a_probe_makes_both_its_ends_link_ports(found):
    """One direction is proof enough that no host sits there."""
    assert found.links == {Link(*A, *B), Link(*B, *A)}
    assert (found.link_ports(1), found.edge_ports(1)) == ((1,), (2,))
    assert not found.heard(A, B, 2), "heard again it changes nothing"


def test_an_edge_port_may_turn_out_to_be_a_link(found):
    """A switch may be plugged in behind a port where a host was."""
    assert found.heard((1, 2), (2, 2), 5)
    assert (found.edge_ports(1), found.link_ports(1)) == ((), (1, 2))


def test_a_link_not_heard_of_dies_and_its_ports_stay_link_ports(found):
    """No host is behind a broken cable, so the port does not become an edge by itself."""
    assert not found.advance(5, BOTH)
    assert found.advance(5.1, BOTH)
    assert (found.links, found.link_ports(1), found.edge_ports(1)) == (frozenset(), (1,), (2,))


def test_each_direction_of_a_link_dies_by_itself(found):
    """A fibre may break one way."""
    found.heard(A, B, 4)
    found.advance(6, BOTH)
    assert found.links == {Link(*A, *B)}


def test_a_link_to_a_switch_whose_channel_is_lost_lives_on(found):
    """It is not probed, so its silence means nothing; back again it gets a whole time-out."""
    assert not found.advance(100, frozenset({1, 3}))
    found.reprieve(2, 100)
    assert not found.advance(104, BOTH)
    assert found.advance(104.1, BOTH)


def test_a_port_that_went_down_loses_its_role_and_its_links(found):
    """What is plugged in next may be anything."""
    found.port_down(*A)
    assert found.links == frozenset()
    found.port_up(*A, 10)
    assert not found.settled(1)


def test_a_port_whose_role_is_known_keeps_it_unless_found_afresh(found):
    """A switch that reconnects goes on forwarding; one that started anew is looked at anew."""
    found.port_up(1, 2, 10)
    assert found.edge_ports(1) == (2,)
    found.port_up(1, 2, 10, afresh=True)
    assert (found.edge_ports(1), found.settled(1)) == ((), False)


def test_a_moved_cable_takes_its_link_along(found):
    """A port has one cable: what was heard on it before is history, both ways."""
    found.port_up(3, 1, 1)
    assert found.heard(A, C, 2)
    assert found.links == {Link(*A, *C)}


def test_forgetting_a_switch_forgets_its_ports_and_links(found):
    """Nothing of it is left, and nothing of the others is lost."""
    found.forget(2)
    assert (found.links, found.edge_ports(2), found.link_ports(2)) == (frozenset(), (), ())
    assert found.edge_ports(1) == (2,)


PLACES = st.tuples(st.integers(1, 3), st.integers(1, 3))
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("up"), PLACES, st.booleans()),
        st.tuples(st.just("down"), PLACES),
        st.tuples(st.just("heard"), PLACES, PLACES),
        st.tuples(st.just("wait"), st.floats(0, 6), st.frozensets(st.integers(1, 3))),
        st.tuples(st.just("reprieve"), st.integers(1, 3)),
    ),
    max_size=30,
)


@given(EVENTS)
def test_whatever_happens_a_port_has_one_role_and_one_cable(events):
    """Edge, link or pending, never two of them; no port is an end of two cables."""
    discovery, now = Discovery(3, 4), 0.0
    for event in events:
        what, arguments = event[0], list(event[1:])
        match what, arguments:
            case "up", [place, afresh]:
                discovery.port_up(place[0], place[1], now, afresh)
            case "down", [place]:
                discovery.port_down(*place)
                assert not any(
                    place in ((k.src_dpid, k.src_port), (k.dst_dpid, k.dst_port)) for k in discovery.links
                )
            case "heard", [source, at]:
                discovery.heard(source, at, now)
            case "wait", [seconds, connected]:
                now += seconds
                discovery.advance(now, connected)
            case "reprieve", [dpid]:
                discovery.reprieve(dpid, now)
        cables: dict[tuple[int, int], tuple[int, int]] = {}
        for link in discovery.links:
            source, target = (link.src_dpid, link.src_port), (link.dst_dpid, link.dst_port)
            for one, other in ((source, target), (target, source)):
                assert cables.setdefault(one, other) == other
                assert one[1] in discovery.link_ports(one[0])
        for dpid in (1, 2, 3):
            assert not set(discovery.edge_ports(dpid)) & set(discovery.link_ports(dpid))
