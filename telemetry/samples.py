"""What one switch said in one poll, as columns.

A batch travels from the OpenFlow process to the planner as one MessagePack
map whose columns are the arrays' own bytes; nothing is parsed row by row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

import msgpack
import numpy as np
import numpy.typing as npt

T = TypeVar("T")
F64 = npt.NDArray[np.float64]
U32 = npt.NDArray[np.uint32]
U8 = npt.NDArray[np.uint8]

#: Upload is metered where a packet enters the network, download where it leaves.
UP: Final = 0
DOWN: Final = 1
DIRECTIONS: Final = ("up", "down")

#: Bits of ``MeterSamples.flags``. A gap is a measurement that does not exist;
#: its rates are NaN. A censored sample understates demand.
GAP: Final = 1
CENSORED: Final = 2


def _column(dtype: type[np.generic]) -> Any:
    return field(default_factory=lambda: np.empty(0, dtype), metadata={"dtype": np.dtype(dtype)})


@dataclass(frozen=True)
class MeterSamples:
    """Rates through the meters of one switch since its previous poll.

    All columns have shape (n_meters,).
    """

    meter_id: U32 = _column(np.uint32)
    interval_s: F64 = _column(np.float64)
    #: Offered load before the drop, bit/s of frames. NaN where GAP is set.
    offered_bps: F64 = _column(np.float64)
    #: What the band dropped, bit/s. NaN where GAP is set.
    dropped_bps: F64 = _column(np.float64)
    flags: U8 = _column(np.uint8)


@dataclass(frozen=True)
class EdgeSamples:
    """Who sent to whom through one switch. All columns have shape (n_edges,).

    ``src`` and ``dst`` index ``SampleBatch.endpoints``; ``app`` indexes the
    configured application classes, 0 being "other".
    """

    src: U32 = _column(np.uint32)
    dst: U32 = _column(np.uint32)
    app: U32 = _column(np.uint32)
    interval_s: F64 = _column(np.float64)
    rate_bps: F64 = _column(np.float64)


@dataclass(frozen=True)
class PortSamples:
    """Rates on the ports of one switch. All columns have shape (n_ports,)."""

    port_no: U32 = _column(np.uint32)
    interval_s: F64 = _column(np.float64)
    rx_bps: F64 = _column(np.float64)
    tx_bps: F64 = _column(np.float64)
    dropped_pps: F64 = _column(np.float64)


@dataclass(frozen=True)
class SampleBatch:
    """One poll of one switch."""

    dpid: int
    #: When the replies were complete, epoch seconds.
    time: float
    meters: MeterSamples = field(default_factory=MeterSamples)
    edges: EdgeSamples = field(default_factory=EdgeSamples)
    ports: PortSamples = field(default_factory=PortSamples)
    #: MAC addresses, the endpoints that ``edges`` speaks of.
    endpoints: tuple[str, ...] = ()
    #: Polls of this switch that went unanswered since the last batch.
    lost_polls: int = 0


def _pack_columns(part: Any) -> dict[str, bytes]:
    return {f.name: np.ascontiguousarray(getattr(part, f.name)).tobytes() for f in fields(part)}


def _unpack_columns(kind: type[T], raw: object, where: str) -> T:
    if not isinstance(raw, dict):
        raise ValueError(f"{where} must be a map of columns, got {type(raw).__name__}")
    columns = {}
    for f in fields(kind):  # type: ignore[arg-type]
        columns[f.name] = _unpack_column(raw.get(f.name), f.metadata["dtype"], f"{where}.{f.name}")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{where} must have columns of one length, got {lengths}")
    return kind(**columns)


def _unpack_column(raw: object, dtype: np.dtype[Any], where: str) -> npt.NDArray[Any]:
    if not isinstance(raw, bytes):
        raise ValueError(f"{where} must be bytes, got {type(raw).__name__}")
    if len(raw) % dtype.itemsize:
        raise ValueError(f"{where} must hold whole values of {dtype.itemsize} bytes, got {len(raw)} bytes")
    return np.frombuffer(raw, dtype)


def _unpack_count(raw: object, most: int, where: str) -> int:
    if type(raw) is not int or not 0 <= raw <= most:
        raise ValueError(f"{where} must be a whole number in 0..{most}, got {raw!r:.40}")
    return raw


def _unpack_time(raw: object) -> float:
    if type(raw) not in (int, float) or not math.isfinite(raw):  # type: ignore[arg-type]
        raise ValueError(f"time must be a finite number of seconds, got {raw!r:.40}")
    return float(raw)  # type: ignore[arg-type]


def _unpack_endpoints(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(endpoint, str) for endpoint in raw):
        raise ValueError("endpoints must be a list of strings")
    return tuple(raw)


def encode_batch(batch: SampleBatch) -> bytes:
    """The bytes that ``decode_batch`` turns back into an equal batch."""
    packed: bytes = msgpack.packb(
        {
            "dpid": batch.dpid,
            "time": batch.time,
            "meters": _pack_columns(batch.meters),
            "edges": _pack_columns(batch.edges),
            "ports": _pack_columns(batch.ports),
            "endpoints": list(batch.endpoints),
            "lost_polls": batch.lost_polls,
        }
    )
    return packed


def decode_batch(body: bytes) -> SampleBatch:
    """The batch that these bytes carry.

    Raises
    ------
    ValueError : if the bytes are not a batch; says which part and why.
    """
    try:
        raw = msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException) as error:
        raise ValueError(f"sample batch is not MessagePack: {type(error).__name__}: {error!s:.80}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"sample batch must be a map, got {type(raw).__name__}")
    batch = SampleBatch(
        dpid=_unpack_count(raw.get("dpid"), 2**64 - 1, "dpid"),
        time=_unpack_time(raw.get("time")),
        meters=_unpack_columns(MeterSamples, raw.get("meters"), "meters"),
        edges=_unpack_columns(EdgeSamples, raw.get("edges"), "edges"),
        ports=_unpack_columns(PortSamples, raw.get("ports"), "ports"),
        endpoints=_unpack_endpoints(raw.get("endpoints")),
        lost_polls=_unpack_count(raw.get("lost_polls"), 2**31 - 1, "lost_polls"),
    )
    edges = batch.edges
    if len(edges.src) and max(edges.src.max(), edges.dst.max()) >= len(batch.endpoints):
        raise ValueError(f"edges must index the {len(batch.endpoints)} endpoints given")
    return batch
