"""Splits the body of a statistics reply into entries of varying length.

One pass over the bytes copies the fixed head of each entry into a row of a
structured array and notes where the entry began. Whoever wants more of an entry
than its head (its match, say) asks for that entry's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numba
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


class Body(Protocol):
    """What one multipart message holds behind its header."""

    @property
    def raw(self) -> memoryview:
        """The entries' bytes."""


@dataclass(frozen=True)
class Layout:
    """How the entries of one statistics type look on the wire."""

    name: str
    #: The leading bytes of an entry that are wanted, big-endian.
    head: np.dtype[np.void]
    #: Where in the entry its 16-bit length stands.
    length_at: int
    #: The least length the specification allows; less than ``head`` where part of the head is optional.
    smallest: int


@dataclass(frozen=True)
class Entries:
    """The entries of one reply, over all its messages, in the order they came."""

    #: shape (n_entries,), structured as ``Layout.head``. Where an entry is shorter than
    #: the head the rest of its row is all ones, which is how OpenFlow says "not counted".
    heads: npt.NDArray[np.void]
    #: shape (n_entries,), where the entry begins in its part.
    offsets: I64
    #: shape (n_entries,), bytes.
    lengths: I64
    #: shape (n_parts + 1,), the first entry of each part, and the end.
    part_starts: I64
    parts: tuple[memoryview, ...]

    def raw(self, index: int) -> memoryview:
        """The bytes of one entry."""
        part = int(np.searchsorted(self.part_starts, index, side="right")) - 1
        at = int(self.offsets[index])
        return self.parts[part][at : at + int(self.lengths[index])]


@dataclass(frozen=True)
class Counter:
    """A counter of each entry. A switch that does not keep it answers all ones: that is not a number."""

    value: U64
    #: False where the switch does not keep this counter; ``value`` means nothing there.
    valid: Bool

    def as_float(self) -> F64:
        """The values, NaN where there is none."""
        return np.where(self.valid, self.value.astype(np.float64), np.nan)


def counter(column: npt.NDArray[Any]) -> Counter:
    """A big-endian column of counters, told apart from those that are not kept."""
    value = column.astype(np.uint64)
    return Counter(value, value != np.iinfo(column.dtype).max)


def duration_s(heads: npt.NDArray[np.void]) -> F64:
    """Seconds since the thing was installed, shape (n_entries,).

    A switch that has no finer clock answers all ones nanoseconds; whole
    seconds are what it then knows.
    """
    nanoseconds = heads["duration_nsec"].astype(np.float64)
    nanoseconds[nanoseconds == 0xFFFFFFFF] = 0.0
    seconds: F64 = heads["duration_sec"] + nanoseconds * 1e-9
    return seconds


# Compiled when imported (or loaded from the cache), not at the first reply: the event loop must not wait for it.
@numba.njit(
    "Tuple((int64, int64))"
    "(Array(uint8, 1, 'C', readonly=True), int64, int64, int64, uint8[:, ::1], int64[::1], int64[::1])",
    cache=True,
)  # type: ignore[untyped-decorator, unused-ignore]
def _split(
    raw: U8, length_at: int, smallest: int, row: int, heads: U8, offsets: I64, lengths: I64
) -> tuple[int, int]:
    """Fill rows from ``row`` on; return the next free row and where a bad entry stands, or -1."""
    at = 0
    width = heads.shape[1]
    while at < raw.size:
        if at + smallest > raw.size:
            return row, at
        length = int(raw[at + length_at]) << 8 | int(raw[at + length_at + 1])
        if length < smallest or length % 8 != 0 or at + length > raw.size:
            return row, at
        present = min(width, length)
        for i in range(present):
            heads[row, i] = raw[at + i]
        for i in range(present, width):
            heads[row, i] = 0xFF
        offsets[row] = at
        lengths[row] = length
        row += 1
        at += length
    return row, -1


def split_entries(bodies: Sequence[Body], layout: Layout) -> Entries:
    """The entries of a reply, whose messages' bodies are given in the order they came.

    Raises
    ------
    ValueError : if an entry's length is not a multiple of 8, less than the least
        allowed, or reaches past its message; names the message and the offset in its body.
    """
    parts = tuple(body.raw for body in bodies)
    most = sum(len(part) // layout.smallest for part in parts)
    heads = np.empty((most, layout.head.itemsize), np.uint8)
    offsets = np.empty(most, np.int64)
    lengths = np.empty(most, np.int64)
    starts = [0]
    for number, part in enumerate(parts):
        raw = np.frombuffer(part, np.uint8)
        row, bad_at = _split(raw, layout.length_at, layout.smallest, starts[-1], heads, offsets, lengths)
        if bad_at >= 0:
            raise ValueError(_why_bad(part, bad_at, layout, number))
        starts.append(row)
    count = starts[-1]
    rows = heads[:count].reshape(-1).view(layout.head)
    return Entries(rows, offsets[:count], lengths[:count], np.array(starts, np.int64), parts)


def _why_bad(part: memoryview, at: int, layout: Layout, number: int) -> str:
    left = len(part) - at
    where = f"{layout.name} entry at offset {at} of message {number}"
    if left < layout.smallest:
        return f"{where} must have at least {layout.smallest} bytes, got {left}"
    length = int.from_bytes(part[at + layout.length_at : at + layout.length_at + 2], "big")
    return (
        f"{where} must have a length that is a multiple of 8 from {layout.smallest} to the {left} bytes left, "
        f"got {length}"
    )
