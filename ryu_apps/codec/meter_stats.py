"""Meter statistics and meter configuration replies as columns.

Tidegate's meters have one band, a drop; of a foreign meter with more, the first is
given and ``n_bands`` tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ryu_apps.codec.entries import F64, I64, Body, Counter, Layout, counter, duration_s, split_entries

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]

_BAND_BYTES: Final = 16

#: ofp_meter_stats and its first ofp_meter_band_stats (OpenFlow 1.3.5, 7.3.5.13).
STATS_LAYOUT: Final = Layout(
    name="meter statistics",
    head=np.dtype(
        [
            ("meter_id", ">u4"),
            ("length", ">u2"),
            ("pad", "V6"),
            ("flow_count", ">u4"),
            ("packet_in_count", ">u8"),
            ("byte_in_count", ">u8"),
            ("duration_sec", ">u4"),
            ("duration_nsec", ">u4"),
            ("packet_band_count", ">u8"),
            ("byte_band_count", ">u8"),
        ]
    ),
    length_at=4,
    smallest=40,
)

#: ofp_meter_config and the common part of its first band (OpenFlow 1.3.5, 7.3.5.14 and 7.3.4.4).
CONFIG_LAYOUT: Final = Layout(
    name="meter configuration",
    head=np.dtype(
        [
            ("length", ">u2"),
            ("flags", ">u2"),
            ("meter_id", ">u4"),
            ("band_type", ">u2"),
            ("band_length", ">u2"),
            ("rate", ">u4"),
            ("burst", ">u4"),
            ("pad", "V4"),
        ]
    ),
    length_at=0,
    smallest=8,
)


@dataclass(frozen=True)
class MeterStats:
    """The meters of one switch. All columns have shape (n_meters,)."""

    meter_id: U32
    n_bands: I64
    #: Since the meter was installed.
    duration_s: F64
    #: Flow entries that use the meter.
    flow_count: Counter
    #: What came in, before the drop: offered load, in packets and bytes of frames.
    packet_in_count: Counter
    byte_in_count: Counter
    #: What the first band dropped. Not valid where the meter has no band.
    packet_band_count: Counter
    byte_band_count: Counter

    def __len__(self) -> int:
        return len(self.meter_id)


@dataclass(frozen=True)
class MeterConfigs:
    """How the meters of one switch are set. All columns have shape (n_meters,)."""

    meter_id: U32
    #: OFPMF_* bits.
    flags: U16
    n_bands: I64
    #: OFPMBT_* of the first band; 0, which is no type, where there is none. Likewise ``rate`` and ``burst``.
    band_type: U16
    #: kbit/s, or packets/s if the flags say so.
    rate: U32
    #: kbit, or packets.
    burst: U32

    def __len__(self) -> int:
        return len(self.meter_id)


def decode_meter_stats(bodies: Sequence[Body]) -> MeterStats:
    """The columns of a meter statistics reply, whose messages' bodies are given in order.

    Raises
    ------
    ValueError : if an entry's length is impossible; names the message and the offset.
    """
    entries = split_entries(bodies, STATS_LAYOUT)
    heads = entries.heads
    return MeterStats(
        meter_id=heads["meter_id"].astype(np.uint32),
        n_bands=(entries.lengths - STATS_LAYOUT.smallest) // _BAND_BYTES,
        duration_s=duration_s(heads),
        flow_count=counter(heads["flow_count"]),
        packet_in_count=counter(heads["packet_in_count"]),
        byte_in_count=counter(heads["byte_in_count"]),
        packet_band_count=counter(heads["packet_band_count"]),
        byte_band_count=counter(heads["byte_band_count"]),
    )


def decode_meter_configs(bodies: Sequence[Body]) -> MeterConfigs:
    """The columns of a meter configuration reply, whose messages' bodies are given in order.

    Raises
    ------
    ValueError : if an entry's length is impossible; names the message and the offset.
    """
    entries = split_entries(bodies, CONFIG_LAYOUT)
    heads = entries.heads
    n_bands = (entries.lengths - CONFIG_LAYOUT.smallest) // _BAND_BYTES
    has_band = n_bands > 0
    return MeterConfigs(
        meter_id=heads["meter_id"].astype(np.uint32),
        flags=heads["flags"].astype(np.uint16),
        n_bands=n_bands,
        band_type=np.where(has_band, heads["band_type"], 0).astype(np.uint16),
        rate=np.where(has_band, heads["rate"], 0).astype(np.uint32),
        burst=np.where(has_band, heads["burst"], 0).astype(np.uint32),
    )
