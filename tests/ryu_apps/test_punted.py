"""Reading who sent a packet from its first bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_apps.framework import arp, ethernet, icmpv6, ipv4, ipv6, packet, tcp, vlan
from ryu_apps.pipeline import PUNT_BYTES
from ryu_apps.punted import Punted, read_punted

SRC, DST = "0a:00:00:00:00:01", "0a:00:00:00:00:02"


def frame(eth_type: int, *layers, tags: int = 0) -> bytes:
    whole = packet.Packet()
    inner = [vlan.vlan(vid=7, ethertype=eth_type if i == tags - 1 else 0x8100) for i in range(tags)]
    for layer in (ethernet.ethernet(DST, SRC, 0x8100 if tags else eth_type), *inner, *layers):
        whole.add_protocol(layer)
    whole.serialize()
    return bytes(whole.data)


@given(st.binary(max_size=200))
def test_random_bytes_never_raise(raw):
    """Hosts send what they like."""
    punted = read_punted(raw)
    assert (punted is None) == (len(raw) < 14)


@given(st.sampled_from([0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8]), st.binary(max_size=60))
def test_a_packet_cut_short_anywhere_never_raises(eth_type, payload):
    """The controller is sent the first bytes only, and hosts lie about lengths."""
    raw = bytes(12) + eth_type.to_bytes(2, "big") + payload
    assert isinstance(read_punted(raw), Punted)


@pytest.mark.parametrize("tags", [0, 1, 2])
def test_the_senders_address_is_read_through_vlan_tags(tags):
    """IPv4, IPv6 and ARP, untagged, tagged, and tagged twice."""
    four = frame(0x0800, ipv4.ipv4(src="10.0.0.1", dst="10.0.0.2", proto=6), tcp.tcp(), tags=tags)
    six = frame(0x86DD, ipv6.ipv6(src="fd00::1", dst="fd00::2", nxt=6), tcp.tcp(), tags=tags)
    ask = frame(0x0806, arp.arp(src_mac=SRC, src_ip="10.0.0.3", dst_ip="10.0.0.4"), tags=tags)
    for raw, address in ((four, "10.0.0.1"), (six, "fd00::1"), (ask, "10.0.0.3")):
        assert read_punted(raw[:PUNT_BYTES]) == Punted(SRC, DST, address)


def test_an_arp_reply_names_its_sender():
    """Who answers says what it is called."""
    raw = frame(0x0806, arp.arp(opcode=arp.ARP_REPLY, src_mac=SRC, src_ip="10.0.0.3", dst_ip="10.0.0.4"))
    assert read_punted(raw) == Punted(SRC, DST, "10.0.0.3")


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1"])
def test_an_address_that_no_host_can_have_is_none(address):
    """An ARP probe and a DHCP request claim nothing yet; the MAC is learnt all the same."""
    assert read_punted(frame(0x0800, ipv4.ipv4(src=address))) == Punted(SRC, DST, None)
    assert read_punted(frame(0x0806, arp.arp(src_mac=SRC, src_ip=address))) == Punted(SRC, DST, None)


def test_duplicate_address_detection_claims_nothing():
    """It comes from the unspecified address."""
    body = icmpv6.icmpv6(type_=135, data=icmpv6.nd_neighbor(dst="fd00::1"))
    assert read_punted(frame(0x86DD, ipv6.ipv6(src="::", dst="ff02::1", nxt=58), body)) == Punted(
        SRC, DST, None
    )


def test_another_protocol_has_no_address():
    """Only the MAC is known."""
    assert read_punted(frame(0x88B5)) == Punted(SRC, DST, None)
