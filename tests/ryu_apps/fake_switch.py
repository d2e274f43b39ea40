"""A switch that keeps state: flow and meter tables, counters, OpenFlow's errors.

It takes the bytes that the application sends and answers with bytes, which are read
the way Ryu reads them before they go to whoever listens. Nothing of the
application's own code decides what it holds.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ryu_apps import framework

OFP = framework.ofproto_v1_3
_HEADER = struct.Struct("!BBHI")
_FLOW_MOD = struct.Struct("!QQBBHHHIIIHxx")
_METER_MOD = struct.Struct("!HHI")
_MATCH_AT = 8 + _FLOW_MOD.size
NOT_KEPT = 2**64 - 1


@dataclass
class Flow:
    """One flow entry."""

    cookie: int
    match: bytes
    instructions: bytes
    idle_timeout_s: int
    created: float
    n_bytes: int = 0
    used: float = 0.0

    @property
    def meters(self) -> set[int]:
        """The meters that its instructions name."""
        return {struct.unpack("!I", body)[0] for kind, body in self._tlvs() if kind == OFP.OFPIT_METER}

    def _tlvs(self):
        at = 0
        while at < len(self.instructions):
            kind, length = struct.unpack_from("!HH", self.instructions, at)
            yield kind, self.instructions[at + 4 : at + length]
            at += length


Band = tuple[int, int, int, int]  # type, rate, burst, precedence


@dataclass
class Meter:
    """One meter of one band or more."""

    bands: list[Band]
    flags: int
    created: float
    bytes_in: int = 0
    bytes_dropped: int = 0

    @property
    def rate(self) -> int:
        """Of the first band."""
        return self.bands[0][1]

    @rate.setter
    def rate(self, rate: int) -> None:
        kind, _, burst, precedence = self.bands[0]
        self.bands[0] = (kind, rate, burst, precedence)

    @property
    def burst(self) -> int:
        """Of the first band."""
        return self.bands[0][2]

    @property
    def limit(self) -> float:
        """The rate above which packets are dropped."""
        return min((rate for kind, rate, *_ in self.bands if kind == OFP.OFPMBT_DROP), default=math.inf)


def unchanged(value: int) -> int:
    """What a switch without quirks makes of a number."""
    return value


@dataclass
class FakeClock:
    """Time that passes when told to."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeSwitch:
    """The far end of a connection. ``datapath`` is what Ryu would hand to the application."""

    dpid: int
    clock: Callable[[], float] = field(default_factory=FakeClock)
    n_tables: int = 254
    max_meters: int = 1000
    max_flows: int = 10_000
    software: bytes = b"2.17 Open vSwitch"
    #: A modified meter starts its counters at zero, and goes on counting its duration.
    clears_on_modify: bool = True
    ports: tuple[int, ...] = (1, 2, 3)
    #: Entries of a statistics reply in one message.
    entries_a_message: int = 3
    # Quirks of meters.
    #: What the switch makes of a rate and of a burst, without a word.
    rounds: Callable[[int], int] = unchanged
    cuts: Callable[[int], int] = unchanged
    #: OFPMF_* that it takes, and those that it says it takes (None: the same).
    takes_flags: int = 15
    says_flags: int | None = None
    #: OFPMBT_* that it takes, and those that it says it takes (None: the same).
    takes_bands: frozenset[int] = frozenset({OFP.OFPMBT_DROP})
    says_bands: frozenset[int] | None = None
    max_bands: int = 8
    takes_modify: bool = True
    #: As many as it really holds; None: as many as it says.
    room: int | None = None
    #: Ids below are refused.
    first_meter_id: int = 1
    #: False: counters are all ones.
    counts: bool = True
    #: Tells the bands of a meter in the other order.
    turns_bands: bool = False
    #: Called after each message was worked off.
    watch: Callable[[], None] = lambda: None
    #: Where messages to the controller go, as Ryu reads them.
    deliver: Callable[[Any], None] = lambda message: None
    flows: dict[tuple[int, int, bytes], Flow] = field(default_factory=dict)
    meters: dict[int, Meter] = field(default_factory=dict)
    port_bytes: dict[int, int] = field(default_factory=dict)
    #: (type, code) of every error sent.
    errors: list[tuple[int, int]] = field(default_factory=list)
    #: What happened, in order: ("meter", command, id), ("flow", command, cookie), ("barrier",), ...
    journal: list[tuple[Any, ...]] = field(default_factory=list)
    #: Every buffer received.
    received: list[bytes] = field(default_factory=list)
    silent: bool = False
    #: Refuse so many of the next meter-mods that add.
    refuse_adds: int = 0
    #: Multipart types that are refused.
    refuse_stats: set[int] = field(default_factory=set)
    datapath: Any = None
    _reader: Any = field(default_factory=framework.offline_datapath)

    def __post_init__(self) -> None:
        self.datapath = framework.offline_datapath()
        self.datapath.id = self.dpid
        self.datapath.xid = 0
        self.datapath.ports = {}
        self.datapath.send = self.receive

    # What tests look at.

    def meter_rates(self) -> dict[int, tuple[int, int]]:
        """Rate in kbit/s and burst in kbit by meter id."""
        return {meter_id: (meter.rate, meter.burst) for meter_id, meter in self.meters.items()}

    def cookies(self) -> list[int]:
        """The cookies of all entries, sorted."""
        return sorted(flow.cookie for flow in self.flows.values())

    def flow(self, cookie: int) -> Flow:
        """The entry with this cookie."""
        return next(flow for flow in self.flows.values() if flow.cookie == cookie)

    # The wire.

    def receive(self, raw: bytes) -> bool:
        """Take a buffer of messages, in order."""
        self.received.append(bytes(raw))
        for message in split_messages(raw):
            self._take(message)
            self.watch()
        return True

    def _take(self, raw: bytes) -> None:
        _, kind, _, xid = _HEADER.unpack_from(raw)
        if kind == OFP.OFPT_FLOW_MOD:
            self._flow_mod(raw, xid)
        elif kind == OFP.OFPT_METER_MOD:
            self._meter_mod(raw, xid)
        elif kind == OFP.OFPT_BARRIER_REQUEST:
            self.journal.append(("barrier",))
            self._answer(OFP.OFPT_BARRIER_REPLY, xid)
        elif kind == OFP.OFPT_FEATURES_REQUEST:
            self._answer(
                OFP.OFPT_FEATURES_REPLY,
                xid,
                struct.pack("!QIBB2xII", self.dpid, 256, self.n_tables, 0, 0x4F, 0),
            )
        elif kind == OFP.OFPT_MULTIPART_REQUEST:
            self._multipart(struct.unpack_from("!H", raw, 8)[0], raw, xid)
        elif kind not in {OFP.OFPT_SET_CONFIG, OFP.OFPT_PACKET_OUT}:
            raise AssertionError(f"a switch would not understand message type {kind}")

    def _answer(self, kind: int, xid: int, body: bytes = b"") -> None:
        if not self.silent:
            raw = _HEADER.pack(OFP.OFP_VERSION, kind, 8 + len(body), xid) + body
            self.deliver(framework.parse_message(self._reader, raw))

    def _error(self, raw: bytes, xid: int, kind: int, code: int) -> None:
        self.errors.append((kind, code))
        self._answer(OFP.OFPT_ERROR, xid, struct.pack("!HH", kind, code) + raw[:64])

    # Tables.

    def _flow_mod(self, raw: bytes, xid: int) -> None:
        cookie, mask, table, command, idle, _hard, priority, _buffer, _port, _group, flags = (
            _FLOW_MOD.unpack_from(raw, 8)
        )
        match_end = _MATCH_AT + struct.unpack_from("!H", raw, _MATCH_AT + 2)[0]
        instructions_at = _MATCH_AT + (match_end - _MATCH_AT + 7) // 8 * 8
        match = raw[_MATCH_AT:instructions_at]
        self.journal.append(("flow", command, cookie))
        if command == OFP.OFPFC_DELETE:
            assert table == OFP.OFPTT_ALL
            assert len(match) == 8, "a delete by cookie matches on nothing"
            self.flows = {k: f for k, f in self.flows.items() if (f.cookie ^ cookie) & mask}
            return
        assert command == OFP.OFPFC_ADD, f"flow-mod command {command} is not one that Tidegate uses"
        flow = Flow(cookie, match, raw[instructions_at:], idle, self.clock())
        key = (table, priority, match)
        if table >= self.n_tables:
            self._error(raw, xid, OFP.OFPET_FLOW_MOD_FAILED, OFP.OFPFMFC_BAD_TABLE_ID)
        elif flow.meters - self.meters.keys():
            self._error(raw, xid, OFP.OFPET_METER_MOD_FAILED, OFP.OFPMMFC_INVALID_METER)
        elif key not in self.flows and len(self.flows) >= self.max_flows:
            self._error(raw, xid, OFP.OFPET_FLOW_MOD_FAILED, OFP.OFPFMFC_TABLE_FULL)
        else:
            if key in self.flows and not flags & OFP.OFPFF_RESET_COUNTS:
                flow.n_bytes = self.flows[key].n_bytes
            self.flows[key] = flow

    def _meter_mod(self, raw: bytes, xid: int) -> None:
        command, flags, meter_id = _METER_MOD.unpack_from(raw, 8)
        self.journal.append(("meter", command, meter_id))
        failed = OFP.OFPET_METER_MOD_FAILED
        if command == OFP.OFPMC_DELETE:
            self.meters.pop(meter_id, None)
            self.flows = {k: f for k, f in self.flows.items() if meter_id not in f.meters}
            return
        bands = [
            (kind, rate, burst, precedence)
            for kind, _, rate, burst, precedence in struct.iter_unpack("!HHIIB3x", raw[16:])
        ]
        failure = self._why_not(command, flags, meter_id, [kind for kind, *_ in bands])
        if failure is not None:
            self._error(raw, xid, failed, failure)
            return
        made = [(k, self.rounds(rate), self.cuts(burst), p) for k, rate, burst, p in bands]
        if command == OFP.OFPMC_ADD:
            self.meters[meter_id] = Meter(made, flags, self.clock())
            return
        meter = self.meters[meter_id]
        meter.bands, meter.flags = made, flags
        if self.clears_on_modify:
            meter.bytes_in = meter.bytes_dropped = 0

    def _why_not(self, command: int, flags: int, meter_id: int, kinds: list[int]) -> int | None:
        """The OFPMMFC_* with which a meter is refused."""
        room = self.max_meters if self.room is None else self.room
        adding = command == OFP.OFPMC_ADD
        if adding and self.refuse_adds:
            self.refuse_adds -= 1
            return int(OFP.OFPMMFC_UNKNOWN)
        reasons: dict[int, bool] = {
            OFP.OFPMMFC_INVALID_METER: meter_id < self.first_meter_id,
            OFP.OFPMMFC_BAD_COMMAND: not adding and not self.takes_modify,
            OFP.OFPMMFC_BAD_FLAGS: bool(flags & ~self.takes_flags),
            OFP.OFPMMFC_BAD_BAND: bool(set(kinds) - self.takes_bands),
            OFP.OFPMMFC_OUT_OF_BANDS: len(kinds) > self.max_bands,
            OFP.OFPMMFC_METER_EXISTS: adding and meter_id in self.meters,
            OFP.OFPMMFC_OUT_OF_METERS: adding and len(self.meters) >= room,
            OFP.OFPMMFC_UNKNOWN_METER: not adding and meter_id not in self.meters,
        }
        return next((code for code, is_so in reasons.items() if is_so), None)

    def pass_time(self, seconds: float) -> None:
        """Let time pass; entries that were idle for too long go."""
        assert isinstance(self.clock, FakeClock)
        self.clock.now += seconds
        now = self.clock.now
        self.flows = {
            k: f
            for k, f in self.flows.items()
            if not f.idle_timeout_s or now - max(f.created, f.used) < f.idle_timeout_s
        }

    def count(self, cookie: int, n_bytes: int) -> None:
        """A packet of so many bytes met an entry."""
        flow = self.flow(cookie)
        flow.n_bytes += n_bytes
        flow.used = self.clock()

    # Statistics.

    def _multipart(self, kind: int, raw: bytes, xid: int) -> None:
        self.journal.append(("stats", kind))
        if kind in self.refuse_stats:
            self._error(raw, xid, OFP.OFPET_BAD_REQUEST, OFP.OFPBRC_BAD_MULTIPART)
            return
        entries = {
            OFP.OFPMP_DESC: self._description,
            OFP.OFPMP_METER_FEATURES: self._meter_features,
            OFP.OFPMP_FLOW: self._flow_stats,
            OFP.OFPMP_METER: self._meter_stats,
            OFP.OFPMP_METER_CONFIG: self._meter_configs,
            OFP.OFPMP_PORT_STATS: self._port_stats,
        }[kind]()
        size = self.entries_a_message
        parts = [entries[i : i + size] for i in range(0, len(entries), size)] or [[]]
        for number, part in enumerate(parts, start=1):
            more = OFP.OFPMPF_REPLY_MORE if number < len(parts) else 0
            body = struct.pack("!HH4x", kind, more) + b"".join(part)
            self._answer(OFP.OFPT_MULTIPART_REPLY, xid, body)

    def _age(self, created: float) -> tuple[int, int]:
        nanoseconds = round((self.clock() - created) * 1e9)
        return nanoseconds // 10**9, nanoseconds % 10**9

    def _description(self) -> list[bytes]:
        return [struct.pack("!256s256s256s32s256s", b"test", b"fake", self.software, b"0", b"")]

    def _meter_features(self) -> list[bytes]:
        flags = self.takes_flags if self.says_flags is None else self.says_flags
        bands = self.takes_bands if self.says_bands is None else self.says_bands
        kinds = sum(1 << kind for kind in bands)
        return [struct.pack("!IIIBB2x", self.max_meters, kinds, flags, self.max_bands, 8)]

    def _flow_stats(self) -> list[bytes]:
        return [
            struct.pack(
                "!HBxIIHHHH4xQQQ",
                48 + len(flow.match) + len(flow.instructions), table, *self._age(flow.created), priority,
                flow.idle_timeout_s, 0, 0, flow.cookie, flow.n_bytes // 1000, flow.n_bytes,
            )
            + flow.match
            + flow.instructions
            for (table, priority, _), flow in self.flows.items()
        ]  # fmt: skip

    def _meter_stats(self) -> list[bytes]:
        return [self._counted(meter_id, meter) for meter_id, meter in self.meters.items()]

    def _counted(self, meter_id: int, meter: Meter) -> bytes:
        size = 40 + 16 * len(meter.bands)
        counts = [(meter.bytes_in // 1000, meter.bytes_in)]
        counts += [(meter.bytes_dropped // 1000, meter.bytes_dropped)] * len(meter.bands)
        if not self.counts:
            counts = [(NOT_KEPT, NOT_KEPT)] * len(counts)
        head = struct.pack("!IH6xIQQII", meter_id, size, 1, *counts[0], *self._age(meter.created))
        return head + b"".join(struct.pack("!QQ", *count) for count in counts[1:])

    def _meter_configs(self) -> list[bytes]:
        return [
            struct.pack("!HHI", 8 + 16 * len(meter.bands), meter.flags, meter_id)
            + b"".join(
                struct.pack("!HHIIB3x", kind, 16, rate, burst, precedence)
                for kind, rate, burst, precedence in (meter.bands[::-1] if self.turns_bands else meter.bands)
            )
            for meter_id, meter in self.meters.items()
        ]

    def _port_stats(self) -> list[bytes]:
        return [
            struct.pack(
                "!I4x12QII",
                port,
                0,
                0,
                self.port_bytes.get(port, 0),
                0,
                *([0] * 8),
                *self._age(self._started),
            )
            for port in self.ports
        ]

    _started: float = 999_000.0


def split_messages(raw: bytes) -> list[bytes]:
    """The messages in a buffer."""
    messages, at = [], 0
    while at < len(raw):
        length = _HEADER.unpack_from(raw, at)[2]
        messages.append(bytes(raw[at : at + length]))
        at += length
    assert at == len(raw), "the buffer ends within a message"
    return messages
