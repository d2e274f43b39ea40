"""Meter replies and meter-mods, against Ryu's own reading and writing."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryu_apps import framework
from ryu_apps.codec.body import StatsBody
from ryu_apps.codec.messages import (
    METER_FLAGS,
    MeterCommand,
    join_messages,
    meter_deletes,
    meter_mods,
    remarking_meter_mods,
    whole_kbps,
)
from ryu_apps.codec.meter_stats import decode_meter_configs, decode_meter_stats

OFP = framework.ofproto_v1_3
PARSER = framework.ofproto_v1_3_parser
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)


def body(raw: bytes) -> StatsBody:
    return StatsBody(memoryview(raw))


def read_by_ryu(kind: int, raw: bytes):
    header = struct.pack("!BBHIHH4x", 4, OFP.OFPT_MULTIPART_REPLY, 16 + len(raw), 5, kind, 0)
    with framework.ryus_own_bodies():
        return framework.parse_message(framework.offline_datapath(), header + raw).body


def serialized(message, xid: int = 0) -> bytes:
    message.xid = xid
    message.serialize()
    return bytes(message.buf)


KINDS = st.just((OFP.OFPMBT_DROP, 0)) | st.tuples(st.just(OFP.OFPMBT_DSCP_REMARK), st.integers(0, 255))
BANDS = st.tuples(KINDS, U32, U32)
METERS = st.lists(
    st.tuples(
        U32, U32, U64, U64, U32, st.integers(0, 999_999_999), st.lists(st.tuples(U64, U64), max_size=3)
    ),
    max_size=12,
)


@settings(deadline=None)
@given(METERS)
def test_meter_statistics_are_what_ryu_reads(meters):
    """Meters with no, one or more bands: the columns equal Ryu's objects, the first band's among them."""
    raw = b"".join(
        struct.pack(OFP.OFP_METER_STATS_PACK_STR, meter_id, 40 + 16 * len(bands), *rest)
        + b"".join(struct.pack("!QQ", *band) for band in bands)
        for meter_id, *rest, bands in meters
    )
    stats = decode_meter_stats([body(raw)])
    ryus = read_by_ryu(OFP.OFPMP_METER, raw)
    assert stats.meter_id.tolist() == [m.meter_id for m in ryus]
    assert stats.n_bands.tolist() == [len(m.band_stats) for m in ryus]
    assert stats.duration_s.tolist() == [m.duration_sec + m.duration_nsec * 1e-9 for m in ryus]
    for name in ("flow_count", "packet_in_count", "byte_in_count"):
        assert getattr(stats, name).value.tolist() == [getattr(m, name) for m in ryus]
    for name in ("packet_band_count", "byte_band_count"):
        column = getattr(stats, name)
        expected = [getattr(m.band_stats[0], name) if m.band_stats else 2**64 - 1 for m in ryus]
        assert column.value.tolist() == expected
        assert column.valid.tolist() == [value != 2**64 - 1 for value in expected]


def test_a_flow_count_of_all_ones_is_no_number():
    """The flow count is 32 bits wide, and all ones of those mean it is not kept."""
    raw = struct.pack(OFP.OFP_METER_STATS_PACK_STR, 1, 40, 2**32 - 1, 0, 0, 0, 0)
    assert decode_meter_stats([body(raw)]).flow_count.valid.tolist() == [False]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 15), U32, st.lists(BANDS, max_size=3)), max_size=12))
def test_meter_configurations_are_what_ryu_reads(meters):
    """Flags, id and the first two bands as Ryu reads them; a band that is not there has type 0."""
    raw = b"".join(
        struct.pack("!HHI", 8 + 16 * len(bands), flags, meter_id)
        + b"".join(
            struct.pack("!HHIIB3x", kind, 16, rate, burst, level) for (kind, level), rate, burst in bands
        )
        for flags, meter_id, bands in meters
    )
    configs = decode_meter_configs([body(raw)])
    ryus = read_by_ryu(OFP.OFPMP_METER_CONFIG, raw)
    assert configs.meter_id.tolist() == [m.meter_id for m in ryus]
    assert configs.flags.tolist() == [m.flags for m in ryus]
    assert configs.n_bands.tolist() == [len(m.bands) for m in ryus]
    for place, columns in enumerate((configs.first, configs.second)):
        band = [m.bands[place] if len(m.bands) > place else None for m in ryus]
        assert columns.type.tolist() == [b.type if b else 0 for b in band]
        assert columns.rate.tolist() == [b.rate if b else 0 for b in band]
        assert columns.burst.tolist() == [b.burst_size if b else 0 for b in band]
        assert columns.precedence.tolist() == [getattr(b, "prec_level", 0) for b in band]


MODS = st.lists(
    st.tuples(
        st.sampled_from([MeterCommand.ADD, MeterCommand.MODIFY]),
        st.integers(1, 0xFFFF0000),
        st.integers(1, 2**32 - 1),
        U32,
        U32,
    ),
    max_size=10,
)


@settings(deadline=None)
@given(MODS)
def test_meter_mods_are_the_bytes_ryu_writes(mods):
    """Many meter-mods at once are, byte for byte, Ryu's one by one."""
    datapath = framework.offline_datapath()
    expected = [
        serialized(
            PARSER.OFPMeterMod(
                datapath, command, METER_FLAGS, meter_id, [PARSER.OFPMeterBandDrop(rate, burst)]
            ),
            xid,
        )
        for command, meter_id, rate, burst, xid in mods
    ]
    command, ids, rate, burst, xid = map(list, zip(*mods, strict=True)) if mods else [[]] * 5
    assert meter_mods(command, ids, rate, burst, xid) == b"".join(expected)


@settings(deadline=None)
@given(MODS, st.integers(1, 255), st.booleans(), st.integers(0, 15))
def test_remarking_meters_are_the_bytes_ryu_writes(mods, level, dropping, flags):
    """One band that marks, and a second one that drops where it is wanted."""
    datapath = framework.offline_datapath()
    expected = [
        serialized(
            PARSER.OFPMeterMod(
                datapath,
                command,
                flags,
                meter_id,
                [
                    PARSER.OFPMeterBandDscpRemark(rate, burst, level),
                    *([PARSER.OFPMeterBandDrop(rate, burst)] if dropping else []),
                ],
            ),
            xid,
        )
        for command, meter_id, rate, burst, xid in mods
    ]
    command, ids, rate, burst, xid = map(list, zip(*mods, strict=True)) if mods else [[]] * 5
    dropped = (rate, burst) if dropping else None
    assert remarking_meter_mods(command, ids, (rate, burst, level), dropped, xid, flags) == b"".join(expected)


def test_meter_deletes_are_the_bytes_ryu_writes():
    """A delete carries no band."""
    datapath = framework.offline_datapath()
    expected = [
        serialized(PARSER.OFPMeterMod(datapath, OFP.OFPMC_DELETE, METER_FLAGS, i, []), x)
        for i, x in ((3, 8), (7, 9))
    ]
    assert meter_deletes([3, 7], [8, 9]) == b"".join(expected)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((0, [0], 1, 1, 1), "meter_id must be in 1..4294901760, got 0"),
        ((0, [0xFFFFFFFF], 1, 1, 1), "meter_id must be in"),
        ((0, [1], 0, 1, 1), "rate_kbps must be in 1..4294967295, got 0"),
        ((0, [1], 2**32, 1, 1), "rate_kbps must be in"),
        ((0, [1], 1, -1, 1), "burst_kbit must be in"),
        ((2, [1], 1, 1, 1), "command must be in 0..1, got 2"),
        ((0, [1, 2], [1, 2, 3], 1, 1), r"rate_kbps must be one number or 2, got shape \(3,\)"),
    ],
)
def test_a_meter_mod_that_no_switch_takes_is_refused(arguments, complaint):
    """A value that would wrap or is not allowed is refused before it is on the wire."""
    with pytest.raises(ValueError, match=complaint):
        meter_mods(*arguments)


def test_rates_are_rounded_down_to_whole_kilobits():
    """A meter never gives more than its grant, except that its least rate is 1 kbit/s."""
    assert whole_kbps(np.array([0.0, 999.9, 1000.0, 1999.9, 5e6, 1e20])).tolist() == [
        1,
        1,
        1,
        1,
        5000,
        2**32 - 1,
    ]


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_a_rate_that_is_no_rate_is_refused(bad):
    """A missing grant must not become the least rate."""
    with pytest.raises(ValueError, match="rate_bps must be >= 0"):
        whole_kbps(np.array([5.0, bad]))


def test_joined_messages_are_ryus_with_their_xids():
    """Messages of different kinds and lengths, joined, are those that Ryu would send one by one."""
    datapath = framework.offline_datapath()

    def make():
        return [
            PARSER.OFPBarrierRequest(datapath),
            PARSER.OFPFlowMod(datapath, cookie=3, match=PARSER.OFPMatch(in_port=1), instructions=[]),
            PARSER.OFPEchoRequest(datapath, data=b"hello"),
        ]

    xids = [0xFFFFFFFF, 0, 0x01020304]
    expected = b"".join(serialized(message, xid) for message, xid in zip(make(), xids, strict=True))
    assert framework.serialize(make(), xids) == expected
    assert join_messages([], []) == b""


def test_a_message_of_another_length_than_it_states_is_refused():
    """A wrong length would make the switch read the rest of the buffer as rubbish."""
    hello = bytes([4, 0, 0, 8, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="message 1 must have the 8 bytes it states, got 9"):
        join_messages([hello, hello + b"x"], [1, 2])
    with pytest.raises(ValueError, match="message 0 must have 8 bytes or more, got 3"):
        join_messages([b"abc"], [1])


class RecordingDatapath:
    """A switch's connection that keeps what was sent."""

    def __init__(self, xid: int):
        offline = framework.offline_datapath()
        self.ofproto, self.ofproto_parser = offline.ofproto, offline.ofproto_parser
        self.xid = xid
        self.sent: list[bytes] = []

    def send(self, raw: bytes) -> None:
        self.sent.append(raw)


def test_a_batch_is_one_send_with_successive_xids():
    """Thousands of messages are one buffer, and their ids wrap as Ryu's own do."""
    datapath = RecordingDatapath(xid=0xFFFFFFFE)
    xids = framework.send_all(datapath, [PARSER.OFPBarrierRequest(datapath) for _ in range(3)])
    assert xids.tolist() == [0xFFFFFFFF, 0, 1]
    assert datapath.xid == 1
    assert len(datapath.sent) == 1
    assert datapath.sent[0][4:8] + datapath.sent[0][12:16] == b"\xff\xff\xff\xff\0\0\0\0"
    assert framework.send_all(datapath, []).tolist() == []
    assert len(datapath.sent) == 1
