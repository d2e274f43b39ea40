"""The cookie of a flow entry: what the entry is for, for whom, and what is in it.

::

    63    60 59                    32 31                             0
    | kind  |        series          |            digest             |

A statistics reply is decoded by cookie alone, and what a switch holds is compared
with what it should hold by cookies alone: an entry whose content changed has
another digest. A cookie of kind 0 is not Tidegate's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2s
from typing import Final

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

_KIND_SHIFT: Final = 60
_SERIES_SHIFT: Final = 32
MAX_KIND: Final = 0xF
MAX_SERIES: Final = 0xFFF_FFFF
MAX_DIGEST: Final = 0xFFFF_FFFF

#: For the ``cookie_mask`` of a request or a delete that means all entries of a kind, or of a kind and series.
KIND_MASK: Final = MAX_KIND << _KIND_SHIFT
SERIES_MASK: Final = KIND_MASK | MAX_SERIES << _SERIES_SHIFT


class Kind(IntEnum):
    """What a flow entry is for. The numbers are on the wire and in running switches: add, never renumber."""

    QUARANTINE = 1
    INGRESS = 2
    UPLOAD_USER = 3
    UPLOAD_GROUP = 4
    UPLOAD_REGION = 5
    ACCOUNTING = 6
    DOWNLOAD_USER = 7
    DOWNLOAD_GROUP = 8
    DOWNLOAD_REGION = 9
    FORWARDING = 10
    #: Goes to the controller: LLDP, unknown sources.
    CONTROL = 11
    #: The entry that sends what nothing else matched on to the next table.
    DEFAULT = 12
    UPLOAD_APPLICATION = 13
    DOWNLOAD_APPLICATION = 14


@dataclass(frozen=True)
class Cookies:
    """Cookies taken apart. All columns have shape (n_entries,)."""

    kind: U8
    series: U32
    digest: U32


def pack_cookie(kind: int, series: int = 0, digest: int = 0) -> int:
    """The cookie of one entry.

    Raises
    ------
    ValueError : if a part does not fit into its bits, or kind is 0.
    """
    if not 1 <= kind <= MAX_KIND:
        raise ValueError(f"cookie kind must be in 1..{MAX_KIND}, got {kind}")
    if not 0 <= series <= MAX_SERIES:
        raise ValueError(f"cookie series must be in 0..{MAX_SERIES}, got {series}")
    if not 0 <= digest <= MAX_DIGEST:
        raise ValueError(f"cookie digest must be in 0..{MAX_DIGEST}, got {digest}")
    return int(kind) << _KIND_SHIFT | series << _SERIES_SHIFT | digest


def unpack_cookie(cookie: int) -> tuple[int, int, int]:
    """Kind, series and digest of one cookie. The kind is 0, or unknown to ``Kind``, if others set it."""
    return cookie >> _KIND_SHIFT & MAX_KIND, cookie >> _SERIES_SHIFT & MAX_SERIES, cookie & MAX_DIGEST


def pack_cookies(kind: npt.ArrayLike, series: npt.ArrayLike, digest: npt.ArrayLike) -> U64:
    """``pack_cookie`` for columns, or a mixture of columns and single numbers.

    Raises
    ------
    ValueError : if a part does not fit into its bits, or kind is 0.
    """
    bounds = (
        ("kind", kind, 1, MAX_KIND),
        ("series", series, 0, MAX_SERIES),
        ("digest", digest, 0, MAX_DIGEST),
    )
    columns = []
    for name, values, low, high in bounds:
        column = np.asarray(values, np.int64)
        bad = (column < low) | (column > high)
        if bad.any():
            raise ValueError(f"cookie {name} must be in {low}..{high}, got {np.atleast_1d(column)[bad][0]}")
        columns.append(column.astype(np.uint64))
    packed: U64 = columns[0] << np.uint64(_KIND_SHIFT) | columns[1] << np.uint64(_SERIES_SHIFT) | columns[2]
    return packed


def unpack_cookies(cookie: U64) -> Cookies:
    """``unpack_cookie`` for a column, as decoded from a statistics reply."""
    cookie = np.asarray(cookie, np.uint64)
    return Cookies(
        kind=(cookie >> np.uint64(_KIND_SHIFT)).astype(np.uint8),
        series=(cookie >> np.uint64(_SERIES_SHIFT) & np.uint64(MAX_SERIES)).astype(np.uint32),
        digest=(cookie & np.uint64(MAX_DIGEST)).astype(np.uint32),
    )


def content_digest(table_id: int, priority: int, match_bytes: bytes, instruction_bytes: bytes) -> int:
    """32 bits that differ, but for one chance in four billion, where the content of two entries does.

    The same in every process and on every machine. The bytes are those on the wire.
    """
    # The match's length keeps a byte from moving unnoticed from the match to the instructions.
    head = struct.pack("!BHI", table_id, priority, len(match_bytes))
    return int.from_bytes(blake2s(head + match_bytes + instruction_bytes, digest_size=4).digest(), "big")
