"""Flow, port and meter replies decoded in bulk, against Ryu's own reading of the same bytes."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryu_apps import framework
from ryu_apps.codec.body import REPLY_MORE, Assembler, StatsBody
from ryu_apps.codec.entries import split_entries
from ryu_apps.codec.flow_stats import FLOW_LAYOUT, PORT_ENTRY, decode_flow_stats, decode_port_stats
from ryu_apps.codec.meter_stats import CONFIG_LAYOUT, STATS_LAYOUT, decode_meter_configs, decode_meter_stats

OFP = framework.ofproto_v1_3
PARSER = framework.ofproto_v1_3_parser
ALL_ONES_64 = 0xFFFF_FFFF_FFFF_FFFF


def body(raw: bytes) -> StatsBody:
    return StatsBody(memoryview(raw))


def wire(part) -> bytes:
    raw = bytearray()
    part.serialize(raw, 0)
    return bytes(raw)


def flow_entry(fields=None, instructions=(), **head) -> bytes:
    """An entry as a switch sends it; match and instructions are serialized by Ryu."""
    tail = wire(PARSER.OFPMatch(**(fields or {}))) + b"".join(map(wire, instructions))
    values = {
        "table_id": 0, "sec": 0, "nsec": 0, "priority": 0, "cookie": 0, "packets": 0, "octets": 0, **head,
    }  # fmt: skip
    return (
        struct.pack(
            OFP.OFP_FLOW_STATS_0_PACK_STR,
            OFP.OFP_FLOW_STATS_0_SIZE + len(tail),
            values["table_id"],
            values["sec"],
            values["nsec"],
            values["priority"],
            0,
            0,
            0,
            values["cookie"],
            values["packets"],
            values["octets"],
        )
        + tail
    )


def reply(kind: int, raw: bytes, flags: int = 0, xid: int = 5) -> bytes:
    header = struct.pack("!BBHIHH4x", 4, OFP.OFPT_MULTIPART_REPLY, 16 + len(raw), xid, kind, flags)
    return header + raw


def read(raw: bytes):
    return framework.parse_message(framework.offline_datapath(), raw)


GOTO = PARSER.OFPInstructionGotoTable(3)
METER = PARSER.OFPInstructionMeter(9)
SHAPES = [
    ({}, []),
    ({"in_port": 3, "eth_src": "02:00:00:00:00:01"}, [METER, GOTO]),
    ({"eth_type": 0x800, "ipv4_src": "10.0.0.1", "ipv4_dst": "10.0.0.2", "metadata": 4, "ip_proto": 6, "tcp_dst": 443},
     [GOTO]),
    ({"eth_type": 0x86DD, "ipv6_src": "fd00::1", "ipv6_dst": ("fd00::2", "ffff:ffff::")}, [GOTO]),
    ({"eth_dst": "02:00:00:00:00:02"}, [PARSER.OFPInstructionActions(4, [PARSER.OFPActionOutput(7)])]),
]  # fmt: skip

U64 = st.integers(0, ALL_ONES_64)
ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(SHAPES),
        st.fixed_dictionaries(
            {
                "table_id": st.integers(0, 254),
                "sec": st.integers(0, 2**32 - 1),
                "nsec": st.integers(0, 999_999_999),
                "priority": st.integers(0, 65535),
                "cookie": U64,
                "packets": U64,
                "octets": U64,
            }
        ),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(ENTRIES, st.integers(1, 9))
def test_flow_columns_are_what_ryu_reads(drawn, per_message):
    """Whatever the matches' lengths and however the reply is split, the columns equal Ryu's objects."""
    raw = [flow_entry(fields, instructions, **head) for (fields, instructions), head in drawn]
    parts = [b"".join(raw[i : i + per_message]) for i in range(0, len(raw), per_message)]
    stats = decode_flow_stats([body(part) for part in parts])
    with framework.ryus_own_bodies():
        ryus = [entry for part in parts for entry in read(reply(OFP.OFPMP_FLOW, part)).body]
    assert stats.cookie.tolist() == [e.cookie for e in ryus]
    assert stats.table_id.tolist() == [e.table_id for e in ryus]
    assert stats.priority.tolist() == [e.priority for e in ryus]
    assert stats.byte_count.value.tolist() == [e.byte_count for e in ryus]
    assert stats.packet_count.value.tolist() == [e.packet_count for e in ryus]
    assert stats.byte_count.valid.tolist() == [e.byte_count != ALL_ONES_64 for e in ryus]
    assert stats.duration_s.tolist() == [e.duration_sec + e.duration_nsec * 1e-9 for e in ryus]
    assert [bytes(stats.raw(i)) for i in range(len(stats))] == raw


def test_ryu_hands_the_application_one_body_per_message():
    """Unmodified Ryu, reading a whole message, gives the event a body of raw bytes."""
    raw = flow_entry(cookie=1) + flow_entry(cookie=2)
    message = read(reply(OFP.OFPMP_FLOW, raw, REPLY_MORE))
    assert type(message).__name__ == "OFPFlowStatsReply"
    assert [bytes(b.raw) for b in message.body] == [raw]
    assert message.flags == REPLY_MORE


def test_an_empty_reply_has_no_entries():
    """A switch without entries answers with a header alone; that is no entry and no error."""
    message = read(reply(OFP.OFPMP_FLOW, b""))
    assert message.body == []
    assert len(decode_flow_stats(message.body)) == 0
    assert len(decode_port_stats([])) == len(decode_meter_stats([])) == len(decode_meter_configs([])) == 0


def test_bytes_behind_the_message_are_not_its_entries():
    """The message's own length decides where its body ends, not the buffer it came in."""
    raw = flow_entry(cookie=1)
    assert bytes(StatsBody.parser(reply(OFP.OFPMP_FLOW, raw) + b"next", 16).raw) == raw


def test_a_multipart_reply_is_whole_with_its_last_message():
    """Messages wait, by transaction, until the one that says no more follow."""
    waiting = Assembler()
    first, second, other = body(b"a"), body(b"b"), body(b"c")
    assert waiting.add(5, [first], REPLY_MORE) is None
    assert waiting.add(6, [other], REPLY_MORE) is None
    assert waiting.add(5, [second], 0) == [first, second]
    assert waiting.add(5, [], 0) == []
    waiting.forget(6)
    assert waiting.add(6, [other], 0) == [other]
    waiting.add(7, [first], REPLY_MORE)
    waiting.clear()
    assert waiting.add(7, [second], 0) == [second]


def test_a_counter_of_all_ones_is_no_number():
    """A switch that does not count bytes says all ones; that is neither a count nor zero."""
    stats = decode_flow_stats([body(flow_entry(packets=5, octets=ALL_ONES_64))])
    assert stats.byte_count.valid.tolist() == [False]
    assert np.isnan(stats.byte_count.as_float()).all()
    assert stats.packet_count.as_float().tolist() == [5.0]


def test_a_switch_without_nanoseconds_still_has_seconds():
    """All ones nanoseconds mean the switch has no finer clock."""
    assert decode_flow_stats([body(flow_entry(sec=7, nsec=0xFFFFFFFF))]).duration_s.tolist() == [7.0]


def test_single_entries_can_be_read_whole():
    """Learnt hosts are read back after a restart: match and instructions of chosen entries, over messages."""
    entries = [flow_entry(*shape, cookie=i) for i, shape in enumerate(SHAPES)]
    stats = decode_flow_stats([body(b"".join(entries[:2])), body(b""), body(b"".join(entries[2:]))])
    whole = framework.flow_entries(stats, np.flatnonzero((stats.cookie == 1) | (stats.cookie == 4)))
    assert [dict(e.match.items()) for e in whole] == [SHAPES[1][0], SHAPES[4][0]]
    assert whole[0].instructions[0].meter_id == 9


@pytest.mark.parametrize("length", [0, 8, 55, 57, 60, 120, 65535])
def test_an_impossible_length_is_refused_where_it_stands(length):
    """A corrupt length names its message and offset, and does not loop."""
    good = flow_entry()
    bad = struct.pack("!H", length) + flow_entry()[2:]
    with pytest.raises(
        ValueError, match=rf"flow statistics entry at offset 56 of message 1 .* got {length}$"
    ):
        decode_flow_stats([body(good), body(good + bad)])


def test_a_cut_entry_is_refused():
    """A message that ends inside an entry's head is refused."""
    with pytest.raises(ValueError, match="offset 56 of message 0 must have at least 56 bytes, got 3"):
        decode_flow_stats([body(flow_entry() + b"abc")])


def test_an_entry_may_not_span_two_messages():
    """OpenFlow splits replies between entries; half an entry is corrupt even if its rest follows."""
    raw = flow_entry({"in_port": 1, "eth_src": "02:00:00:00:00:01"})
    with pytest.raises(ValueError, match="of message 0"):
        decode_flow_stats([body(raw[:64]), body(raw[64:])])


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([FLOW_LAYOUT, STATS_LAYOUT, CONFIG_LAYOUT]), st.lists(st.binary(max_size=300), max_size=4)
)
def test_any_bytes_are_entries_or_an_error(layout, parts):
    """Random bytes either split into entries that make up all of them, or raise ValueError."""
    try:
        entries = split_entries([body(part) for part in parts], layout)
    except ValueError:
        return
    assert b"".join(bytes(entries.raw(i)) for i in range(len(entries.heads))) == b"".join(parts)


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), max_size=40), st.binary(max_size=8))
def test_plausible_lengths_split_like_a_plain_loop(eighths, tail):
    """Lengths near the least and around the edges split exactly as an obvious loop splits them."""
    raw = b"".join(struct.pack("!H", 8 * n) + bytes(8 * n)[2:] if n else b"\0\0" for n in eighths) + tail
    expected, at = [], 0
    while at + 56 <= len(raw):
        length = int.from_bytes(raw[at : at + 2], "big")
        if length < 56 or length % 8 or at + length > len(raw):
            break
        expected.append((at, length))
        at += length
    if at < len(raw):
        with pytest.raises(ValueError, match=f"offset {at} of message 0"):
            split_entries([body(raw)], FLOW_LAYOUT)
    else:
        entries = split_entries([body(raw)], FLOW_LAYOUT)
        assert list(zip(entries.offsets.tolist(), entries.lengths.tolist(), strict=True)) == expected


def test_ports_are_what_ryu_reads():
    """Port columns equal Ryu's objects; a counter of all ones is not valid."""
    rows = [
        (1, *range(10, 22), 5, 250_000_000),
        (OFP.OFPP_LOCAL, 1, 2, 3, 4, ALL_ONES_64, 6, *[ALL_ONES_64] * 6, 6, 0),
    ]
    raw = b"".join(struct.pack(OFP.OFP_PORT_STATS_PACK_STR, *row) for row in rows)
    assert PORT_ENTRY.itemsize == OFP.OFP_PORT_STATS_SIZE
    stats = decode_port_stats(read(reply(OFP.OFPMP_PORT_STATS, raw)).body)
    with framework.ryus_own_bodies():
        ryus = read(reply(OFP.OFPMP_PORT_STATS, raw)).body
    for name in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_dropped", "tx_dropped"):
        assert getattr(stats, name).value.tolist() == [getattr(port, name) for port in ryus]
    assert stats.port_no.tolist() == [1, OFP.OFPP_LOCAL]
    assert stats.duration_s.tolist() == [5.25, 6.0]
    assert stats.rx_dropped.valid.tolist() == [True, False]


def test_ports_cut_short_are_refused():
    """Port entries have one length; a rest is an error that says where."""
    with pytest.raises(
        ValueError, match=r"port statistics message 0 .* got 115 bytes: cut short at offset 112"
    ):
        decode_port_stats([body(bytes(115))])
