"""Many meters on one switch: as Tidegate writes and reads them, and as Ryu's own objects do.

Both talk to the same bridge over the same kind of connection; only the messages and the waiting differ.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from planner.plan import MeterTable
from ryu_apps import framework
from ryu_apps.codec.body import REPLY_MORE
from ryu_apps.codec.messages import MeterCommand, meter_deletes, meter_mods
from ryu_apps.codec.meter_stats import decode_meter_configs

_HELLO: Final = bytes((4, 0, 0, 8, 0, 0, 0, 1))
_TYPE_HELLO, _TYPE_ERROR, _TYPE_ECHO, _TYPE_MULTIPART, _TYPE_BARRIER = 0, 1, 2, 19, 21
_HEADER_BYTES: Final = 8


class Connection:
    """OpenFlow to a bridge, message by message."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._read = end, end.makefile("rb")
        self.datapath = framework.offline_datapath()
        end.sendall(_HELLO)
        self._until(_TYPE_HELLO)

    def send(self, messages: bytes) -> None:
        """Send messages that are ready."""
        self._end.sendall(messages)

    def barrier(self) -> None:
        """Wait until the switch has done all of it. Raises RuntimeError if it refused a part."""
        self.send(framework.serialize([framework.ofproto_v1_3_parser.OFPBarrierRequest(self.datapath)], [2]))
        self._until(_TYPE_BARRIER)

    def configs(self) -> list[bytes]:
        """The messages of the answer to a question for all meters."""
        parser, ofp = framework.ofproto_v1_3_parser, framework.ofproto_v1_3
        request = parser.OFPMeterConfigStatsRequest(self.datapath, 0, ofp.OFPM_ALL)
        self.send(framework.serialize([request], [3]))
        replies = [self._until(_TYPE_MULTIPART)]
        while int.from_bytes(replies[-1][10:12], "big") & REPLY_MORE:
            replies.append(self._until(_TYPE_MULTIPART))
        return replies

    def _until(self, wanted: int) -> bytes:
        while True:
            head = self._read.read(_HEADER_BYTES)
            raw = bytes(head + self._read.read(int.from_bytes(head[2:4], "big") - _HEADER_BYTES))
            if head[1] == wanted:
                return raw
            if head[1] == _TYPE_ERROR:
                raise RuntimeError(f"the switch must take the messages, got an error {raw[8:12].hex()}")
            if head[1] == _TYPE_ECHO:
                self.send(raw[:1] + bytes((3,)) + raw[2:])


@contextmanager
def connected(bridge: str) -> Iterator[Connection]:
    """A connection to a bridge of this machine, beside its controller's."""
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(120)
        end.connect(f"/var/run/openvswitch/{bridge}.mgmt")
        yield Connection(end)


def table_of(count: int, version: int) -> MeterTable:
    """Meters whose rates are all others in each version."""
    meter = np.arange(1, count + 1, dtype=np.uint32)
    rate = 1_000 + (meter + version) % 10_000
    return MeterTable(meter, rate.astype(np.uint32), (rate // 4).astype(np.uint32))


def bulk(connection: Connection, count: int) -> dict[str, Any]:
    """Tidegate's way: one buffer and one barrier for all; columns out of the answer."""
    table = table_of(count, 1)
    wanted = {}
    took = {}
    for command, version in ((MeterCommand.ADD, 1), (MeterCommand.MODIFY, 2)):
        table = table_of(count, version)
        started = time.perf_counter()
        xids = np.arange(10, 10 + count)
        connection.send(meter_mods(command, table.meter_id, table.rate_kbps, table.burst_kbit, xids))
        connection.barrier()
        took[command] = time.perf_counter() - started
        wanted = table.rates()
    started = time.perf_counter()
    replies = [framework.parse_message(connection.datapath, raw) for raw in connection.configs()]
    read = decode_meter_configs([body for reply in replies for body in reply.body])
    rows = zip(read.meter_id.tolist(), read.first.rate.tolist(), read.first.burst.tolist(), strict=True)
    held = {meter: (rate, burst) for meter, rate, burst in rows}
    took_reading = time.perf_counter() - started
    connection.send(meter_deletes(table.meter_id, np.arange(10, 10 + count)))
    connection.barrier()
    return _figures(took, took_reading, held == wanted)


def by_ryu(connection: Connection, count: int) -> dict[str, Any]:
    """The named alternative: an object and a barrier for each meter; Ryu's object for each meter read."""
    parser, ofp = framework.ofproto_v1_3_parser, framework.ofproto_v1_3
    wanted: dict[int, tuple[int, int]] = {}
    took = {}
    table = table_of(count, 1)
    for command, version in ((MeterCommand.ADD, 1), (MeterCommand.MODIFY, 2)):
        table = table_of(count, version)
        wanted = table.rates()
        flags = ofp.OFPMF_KBPS | ofp.OFPMF_BURST | ofp.OFPMF_STATS
        started = time.perf_counter()
        for meter, (rate, burst) in wanted.items():
            bands = [parser.OFPMeterBandDrop(rate=rate, burst_size=burst)]
            message = parser.OFPMeterMod(connection.datapath, int(command), flags, meter, bands)
            connection.send(framework.serialize([message], [meter]))
            connection.barrier()
        took[command] = time.perf_counter() - started
    started = time.perf_counter()
    with framework.ryus_own_bodies():
        replies = [framework.parse_message(connection.datapath, raw) for raw in connection.configs()]
    entries = [entry for reply in replies for entry in reply.body]
    held = {entry.meter_id: (entry.bands[0].rate, entry.bands[0].burst_size) for entry in entries}
    took_reading = time.perf_counter() - started
    connection.send(meter_deletes(table.meter_id, np.arange(10, 10 + count)))
    connection.barrier()
    return _figures(took, took_reading, held == wanted)


def _figures(took: dict[MeterCommand, float], took_reading: float, equal: bool) -> dict[str, Any]:
    return {
        "install_ms": round(took[MeterCommand.ADD] * 1e3, 1),
        "modify_ms": round(took[MeterCommand.MODIFY] * 1e3, 1),
        "read_back_ms": round(took_reading * 1e3, 1),
        "equal": equal,
    }
