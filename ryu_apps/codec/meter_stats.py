"""Meter statistics and meter configuration replies as columns.

Tidegate's meters have one band, a drop, or a remark and perhaps a drop above it; of a
foreign meter with more, the first two are given and ``n_bands`` tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ryu_apps.codec.entries import F64, I64, Body, Bool, Counter, Layout, counter, duration_s, split_entries

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]

_BAND_BYTES: Final = 16

#: ofp_meter_stats and its first two ofp_meter_band_stats (OpenFlow 1.3.5, 7.3.5.13).
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
            ("packet_second_count", ">u8"),
            ("byte_second_count", ">u8"),
        ]
    ),
    length_at=4,
    smallest=40,
)

#: ofp_meter_config and its first two bands, as far as drop and remark need (OpenFlow 1.3.5, 7.3.5.14 and 7.3.4.4).
CONFIG_LAYOUT: Final = Layout(
    name="meter configuration",
    head=np.dtype(
        [
            ("length", ">u2"),
            ("flags", ">u2"),
            ("meter_id", ">u4"),
            ("type", ">u2"),
            ("band_length", ">u2"),
            ("rate", ">u4"),
            ("burst", ">u4"),
            ("precedence", "u1"),
            ("pad", "V3"),
            ("second_type", ">u2"),
            ("second_length", ">u2"),
            ("second_rate", ">u4"),
            ("second_burst", ">u4"),
            ("second_precedence", "u1"),
            ("second_pad", "V3"),
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
    #: The second band's; not valid where the meter has none.
    byte_second_count: Counter

    def __len__(self) -> int:
        return len(self.meter_id)


@dataclass(frozen=True)
class BandColumns:
    """One band of each meter; all 0, which is no type, where the meter has none. Columns have shape (n_meters,)."""

    #: OFPMBT_*.
    type: U16
    #: kbit/s, or packets/s if the meter's flags say so.
    rate: U32
    #: kbit, or packets.
    burst: U32
    #: A remark's number of levels; means nothing for others.
    precedence: U32


@dataclass(frozen=True)
class MeterConfigs:
    """How the meters of one switch are set. All columns have shape (n_meters,)."""

    meter_id: U32
    #: OFPMF_* bits.
    flags: U16
    n_bands: I64
    first: BandColumns
    second: BandColumns

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
        byte_second_count=counter(heads["byte_second_count"]),
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
    return MeterConfigs(
        meter_id=heads["meter_id"].astype(np.uint32),
        flags=heads["flags"].astype(np.uint16),
        n_bands=n_bands,
        first=_band(heads, n_bands > 0, ""),
        second=_band(heads, n_bands > 1, "second_"),
    )


def _band(heads: npt.NDArray[np.void], there: Bool, prefix: str) -> BandColumns:
    def column(name: str) -> U32:
        return np.where(there, heads[prefix + name], 0).astype(np.uint32)

    kind = column("type").astype(np.uint16)
    return BandColumns(kind, column("rate"), column("burst"), column("precedence"))
