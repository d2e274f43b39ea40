"""Flow and port statistics replies as columns.

What a flow entry is for stands in its cookie (see ``ryu_apps.cookies``), so its
match and instructions are not parsed; ``FlowStats.raw`` gives their bytes for the
few entries of which more must be known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ryu_apps.codec.entries import (
    F64,
    U8,
    U64,
    Body,
    Counter,
    Entries,
    Layout,
    counter,
    duration_s,
    split_entries,
)

#: ofp_flow_stats up to the match, which has at least 8 bytes (OpenFlow 1.3.5, 7.3.5.2).
FLOW_LAYOUT: Final = Layout(
    name="flow statistics",
    head=np.dtype(
        [
            ("length", ">u2"),
            ("table_id", "u1"),
            ("pad", "u1"),
            ("duration_sec", ">u4"),
            ("duration_nsec", ">u4"),
            ("priority", ">u2"),
            ("idle_timeout", ">u2"),
            ("hard_timeout", ">u2"),
            ("flags", ">u2"),
            ("pad2", "V4"),
            ("cookie", ">u8"),
            ("packet_count", ">u8"),
            ("byte_count", ">u8"),
        ]
    ),
    length_at=0,
    smallest=56,
)

#: ofp_port_stats (OpenFlow 1.3.5, 7.3.5.6); all entries have this length and say nothing about it.
PORT_ENTRY: Final = np.dtype(
    [
        ("port_no", ">u4"),
        ("pad", "V4"),
        ("rx_packets", ">u8"),
        ("tx_packets", ">u8"),
        ("rx_bytes", ">u8"),
        ("tx_bytes", ">u8"),
        ("rx_dropped", ">u8"),
        ("tx_dropped", ">u8"),
        ("rx_errors", ">u8"),
        ("tx_errors", ">u8"),
        ("rx_frame_err", ">u8"),
        ("rx_over_err", ">u8"),
        ("rx_crc_err", ">u8"),
        ("collisions", ">u8"),
        ("duration_sec", ">u4"),
        ("duration_nsec", ">u4"),
    ]
)


@dataclass(frozen=True)
class FlowStats:
    """The flow entries of one switch. All columns have shape (n_entries,)."""

    cookie: U64
    table_id: U8
    priority: npt.NDArray[np.uint16]
    #: Since the entry was installed.
    duration_s: F64
    packet_count: Counter
    #: Bytes of frames.
    byte_count: Counter
    entries: Entries

    def __len__(self) -> int:
        return len(self.cookie)

    def raw(self, index: int) -> memoryview:
        """The bytes of one entry, match and instructions included."""
        return self.entries.raw(index)


@dataclass(frozen=True)
class PortStats:
    """The ports of one switch. All columns have shape (n_ports,)."""

    port_no: npt.NDArray[np.uint32]
    #: Since the port was configured; also when the counters last began at zero.
    duration_s: F64
    rx_packets: Counter
    tx_packets: Counter
    rx_bytes: Counter
    tx_bytes: Counter
    rx_dropped: Counter
    tx_dropped: Counter

    def __len__(self) -> int:
        return len(self.port_no)


def decode_flow_stats(bodies: Sequence[Body]) -> FlowStats:
    """The columns of a flow statistics reply, whose messages' bodies are given in order.

    Raises
    ------
    ValueError : if an entry's length is impossible; names the message and the offset.
    """
    entries = split_entries(bodies, FLOW_LAYOUT)
    heads = entries.heads
    return FlowStats(
        cookie=heads["cookie"].astype(np.uint64),
        table_id=heads["table_id"].copy(),
        priority=heads["priority"].astype(np.uint16),
        duration_s=duration_s(heads),
        packet_count=counter(heads["packet_count"]),
        byte_count=counter(heads["byte_count"]),
        entries=entries,
    )


def decode_port_stats(bodies: Sequence[Body]) -> PortStats:
    """The columns of a port statistics reply, whose messages' bodies are given in order.

    Raises
    ------
    ValueError : if a message does not hold a whole number of entries.
    """
    for number, body in enumerate(bodies):
        if len(body.raw) % PORT_ENTRY.itemsize:
            raise ValueError(
                f"port statistics message {number} must hold entries of {PORT_ENTRY.itemsize} bytes, "
                f"got {len(body.raw)} bytes: cut short at offset "
                f"{len(body.raw) // PORT_ENTRY.itemsize * PORT_ENTRY.itemsize}"
            )
    ports = np.frombuffer(b"".join(body.raw for body in bodies), PORT_ENTRY)
    return PortStats(
        port_no=ports["port_no"].astype(np.uint32),
        duration_s=duration_s(ports),
        rx_packets=counter(ports["rx_packets"]),
        tx_packets=counter(ports["tx_packets"]),
        rx_bytes=counter(ports["rx_bytes"]),
        tx_bytes=counter(ports["tx_bytes"]),
        rx_dropped=counter(ports["rx_dropped"]),
        tx_dropped=counter(ports["tx_dropped"]),
    )
