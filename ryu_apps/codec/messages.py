"""Many OpenFlow messages as one buffer, so that one send carries them all."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]

_VERSION: Final = 4
_OFPT_METER_MOD: Final = 29
_OFPMBT_DROP: Final = 1
_OFPMBT_DSCP_REMARK: Final = 2
_HEADER_BYTES: Final = 8
#: OFPMF_KBPS | OFPMF_BURST | OFPMF_STATS: how Tidegate's meters are set.
METER_FLAGS: Final = 1 | 4 | 8
#: OFPM_MAX: the greatest id of an ordinary meter.
MAX_METER_ID: Final = 0xFFFF0000
MAX_KBPS: Final = 0xFFFFFFFF

_HEADER_FIELDS: Final = [("version", "u1"), ("type", "u1"), ("length", ">u2"), ("xid", ">u4")]
_METER_FIELDS: Final = [*_HEADER_FIELDS, ("command", ">u2"), ("flags", ">u2"), ("meter_id", ">u4")]
#: ofp_meter_mod without a band (OpenFlow 1.3.5, 7.3.4.4).
_METER_MOD: Final = np.dtype(_METER_FIELDS)
#: ofp_meter_band_drop and ofp_meter_band_dscp_remark: one leaves unused what the other calls its level.
_BAND: Final = np.dtype(
    [
        ("type", ">u2"),
        ("length", ">u2"),
        ("rate", ">u4"),
        ("burst", ">u4"),
        ("precedence", "u1"),
        ("pad", "u1", (3,)),
    ]
)


class MeterCommand(IntEnum):
    """OFPMC_*."""

    ADD = 0
    MODIFY = 1
    DELETE = 2


def whole_kbps(rate_bps: npt.NDArray[np.float64]) -> U32:
    """The rates that meters can be set to, kbit/s, none above what is asked except that none is below 1.

    Rounded down, so that children do not outgrow their parent; a meter of rate 0 is not allowed.

    Raises
    ------
    ValueError : if a rate is negative or not a number.
    """
    rates = np.asarray(rate_bps, np.float64)
    if not np.all(rates >= 0):
        raise ValueError(f"rate_bps must be >= 0, got {rates[~(rates >= 0)][0]}")
    return np.clip(np.floor(rates / 1000), 1, MAX_KBPS).astype(np.uint32)


def _within(name: str, values: npt.ArrayLike, low: int, high: int, count: int) -> I64:
    """The values as a column, checked before they would wrap in a narrower field."""
    column = np.asarray(values, np.int64)
    if column.ndim not in (0, 1) or (column.ndim == 1 and len(column) != count):
        raise ValueError(f"{name} must be one number or {count}, got shape {column.shape}")
    bad = column[(column < low) | (column > high)] if column.size else column
    if bad.size:
        raise ValueError(f"{name} must be in {low}..{high}, got {bad.flat[0]}")
    return column


def meter_mods(
    command: MeterCommand | npt.ArrayLike,
    meter_id: npt.ArrayLike,
    rate_kbps: npt.ArrayLike,
    burst_kbit: npt.ArrayLike,
    xid: npt.ArrayLike,
    flags: int = METER_FLAGS,
) -> bytes:
    """Meter-mods that add or modify meters of one drop band each, in the order given.

    Parameters
    ----------
    command : one or shape (n_meters,)      ADD or MODIFY.
    meter_id : shape (n_meters,)            1..OFPM_MAX.
    rate_kbps, burst_kbit : one or shape (n_meters,)   At least 1, at least 0.
    xid : one or shape (n_meters,)          Given to Ryu's ``datapath.send`` the switch's errors carry these.
    flags :                                 OFPMF_* of all.

    Raises
    ------
    ValueError : if a bound above is broken.
    """
    messages = _banded(command, meter_id, xid, flags, 1)
    _fill_band(messages["bands"][:, 0], _OFPMBT_DROP, rate_kbps, burst_kbit)
    return messages.tobytes()


def remarking_meter_mods(
    command: MeterCommand | npt.ArrayLike,
    meter_id: npt.ArrayLike,
    marked: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
    dropped: tuple[npt.ArrayLike, npt.ArrayLike] | None,
    xid: npt.ArrayLike,
    flags: int = METER_FLAGS,
) -> bytes:
    """As ``meter_mods``, of meters that raise the drop precedence of what exceeds them.

    ``marked`` are rate, burst and by how many levels (1..255); ``dropped`` rate and burst of
    a second band that drops; None: there is none.

    Raises
    ------
    ValueError : if a bound is broken.
    """
    messages = _banded(command, meter_id, xid, flags, 1 if dropped is None else 2)
    rate_kbps, burst_kbit, levels = marked
    first = messages["bands"][:, 0]
    _fill_band(first, _OFPMBT_DSCP_REMARK, rate_kbps, burst_kbit)
    first["precedence"] = _within("precedence", levels, 1, 255, len(messages))
    if dropped is not None:
        _fill_band(messages["bands"][:, 1], _OFPMBT_DROP, *dropped)
    return messages.tobytes()


def _banded(
    command: MeterCommand | npt.ArrayLike,
    meter_id: npt.ArrayLike,
    xid: npt.ArrayLike,
    flags: int,
    n_bands: int,
) -> npt.NDArray[np.void]:
    """Meter-mods with so many bands, all but the bands filled in."""
    ids = np.atleast_1d(np.asarray(meter_id, np.int64))
    count = len(ids)
    messages = np.zeros(count, np.dtype([*_METER_FIELDS, ("bands", _BAND, (n_bands,))]))
    messages["version"] = _VERSION
    messages["type"] = _OFPT_METER_MOD
    messages["length"] = messages.dtype.itemsize
    messages["xid"] = _within("xid", xid, 0, 0xFFFFFFFF, count)
    messages["command"] = _within("command", command, MeterCommand.ADD, MeterCommand.MODIFY, count)
    messages["flags"] = _within("flags", flags, 0, 0xFFFF, count)
    messages["meter_id"] = _within("meter_id", ids, 1, MAX_METER_ID, count)
    return messages


def _fill_band(
    bands: npt.NDArray[np.void], kind: int, rate_kbps: npt.ArrayLike, burst_kbit: npt.ArrayLike
) -> None:
    bands["type"] = kind
    bands["length"] = _BAND.itemsize
    bands["rate"] = _within("rate_kbps", rate_kbps, 1, MAX_KBPS, len(bands))
    bands["burst"] = _within("burst_kbit", burst_kbit, 0, MAX_KBPS, len(bands))


def meter_deletes(meter_id: npt.ArrayLike, xid: npt.ArrayLike) -> bytes:
    """Meter-mods that delete meters, in the order given.

    Raises
    ------
    ValueError : if an id is not in 1..OFPM_MAX (deleting all meters at once is not offered).
    """
    ids = np.atleast_1d(np.asarray(meter_id, np.int64))
    messages = np.zeros(len(ids), _METER_MOD)
    messages["version"] = _VERSION
    messages["type"] = _OFPT_METER_MOD
    messages["length"] = _METER_MOD.itemsize
    messages["xid"] = _within("xid", xid, 0, 0xFFFFFFFF, len(ids))
    messages["command"] = MeterCommand.DELETE
    messages["flags"] = METER_FLAGS
    messages["meter_id"] = _within("meter_id", ids, 1, MAX_METER_ID, len(ids))
    return messages.tobytes()


def join_messages(messages: Sequence[bytes | bytearray | memoryview], xid: npt.ArrayLike) -> bytes:
    """Serialized messages one behind the other, each with the transaction id given for it.

    ``xid`` has shape (n_messages,).

    Raises
    ------
    ValueError : if a message is not as long as its header says.
    """
    joined = np.frombuffer(bytearray().join(messages), np.uint8)
    if not messages:
        return b""
    lengths = np.fromiter(map(len, messages), np.int64, len(messages))
    if lengths.min() < _HEADER_BYTES:
        raise ValueError(
            f"message {lengths.argmin()} must have {_HEADER_BYTES} bytes or more, got {lengths.min()}"
        )
    starts = np.cumsum(lengths) - lengths
    stated = joined[starts + 2].astype(np.int64) << 8 | joined[starts + 3]
    if (stated != lengths).any():
        wrong = int(np.argmax(stated != lengths))
        raise ValueError(
            f"message {wrong} must have the {stated[wrong]} bytes it states, got {lengths[wrong]}"
        )
    xids = np.broadcast_to(_within("xid", xid, 0, 0xFFFFFFFF, len(messages)), len(messages))
    joined[starts[:, None] + np.arange(4, 8)] = xids.astype(">u4").view(np.uint8).reshape(-1, 4)
    return joined.tobytes()
