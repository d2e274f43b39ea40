"""Who talks to whom in which application class: one numbered entry a pair.

The number goes into the cookie of the accounting entry, so statistics replies are
decoded without parsing a match. Numbers belong to this process: entries with
numbers of an earlier one are deleted and learnt again, and no packet waits for that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from planner.config import Config
from ryu_apps.pipeline import ApplicationPort
from telemetry.samples import EdgeSamples

Bool = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]
U32 = npt.NDArray[np.uint32]

Pair = tuple[str, str, int]


def application_ports(config: Config) -> tuple[ApplicationPort, ...]:
    """Every server port of every application class, ranges written out: OpenFlow 1.3 knows no ranges."""
    return tuple(
        ApplicationPort(app, match.protocol, port)
        for app, matches in enumerate(config.applications.values(), start=1)
        for match in matches
        for first, last in (match.ports or ((0, 0),))
        for port in range(first, last + 1)
    )


#: A switch's duration and our clock may differ by this much over the life of an entry.
_SLACK_S: Final = 5.0

_ROW: Final = np.dtype(
    [("src", np.uint64), ("dst", np.uint64), ("app", np.uint32), ("since", np.float64), ("seen", np.float64)]
)


@dataclass
class PairNumbers:
    """Numbers for pairs, from 1 on. One that no switch reports any longer is given to another pair.

    So there are never many more numbers than entries in the switches. ``now`` and other
    moments are epoch seconds.
    """

    _numbers: dict[Pair, int] = field(default_factory=dict)
    #: By number; row 0 is nobody's, and ``since`` is inf where a row is free.
    _rows: npt.NDArray[np.void] = field(default_factory=lambda: _free_rows(1))
    _free: list[int] = field(default_factory=list)

    def number(self, src: str, dst: str, app: int, now: float) -> int:
        """The number of a pair (MAC addresses, application class), given anew where it has none."""
        pair = (src, dst, app)
        number = self._numbers.get(pair)
        if number is None:
            if not self._free:
                size = len(self._rows)
                self._rows = np.concatenate([self._rows, _free_rows(size)])
                self._free.extend(range(2 * size - 1, size - 1, -1))
            number = self._numbers[pair] = self._free.pop()
            self._rows[number] = (_mac_number(src), _mac_number(dst), app, now, now)
        elif self._rows["since"][number] > now:
            # The clock was set back; by its new time no entry could be young enough.
            self._rows["since"][number] = now
        return number

    def __len__(self) -> int:
        return len(self._numbers)

    def are_theirs(self, numbers: U32, made_at: F64) -> Bool:
        """Whether entries with these numbers, made at these moments, are of the pairs that have the numbers now.

        An entry older than its number's use for that pair speaks of another one,
        or is of an earlier process. Shape (n,) each.
        """
        within = numbers < len(self._rows)
        since = self._rows["since"][np.where(within, numbers, 0)]
        return within & (made_at >= since - _SLACK_S)

    def seen(self, numbers: U32, now: float) -> None:
        """Some switch has entries with these numbers now."""
        self._rows["seen"][numbers] = now

    def recycle(self, unseen_since: float) -> None:
        """Take the numbers back that no switch reported since."""
        rows = self._rows
        for number in np.flatnonzero(np.isfinite(rows["since"]) & (rows["seen"] < unseen_since)).tolist():
            row = rows[number]
            del self._numbers[_mac_text(row["src"]), _mac_text(row["dst"]), int(row["app"])]
            rows[number] = _free_rows(1)[0]
            self._free.append(number)

    def columns(self, numbers: U32) -> tuple[U32, U32, U32]:
        """Source, destination and class of these pairs, each shape (n,).

        The ends are numbers of pairs until ``named`` puts endpoints in their place.
        """
        return numbers, numbers, self._rows["app"][numbers]

    def named(self, edges: EdgeSamples) -> tuple[tuple[str, ...], EdgeSamples]:
        """The MAC addresses that these edges speak of, and the edges indexing them."""
        ends = np.concatenate([self._rows["src"][edges.src], self._rows["dst"][edges.dst]])
        macs, place = np.unique(ends, return_inverse=True)
        src, dst = np.split(place.astype(np.uint32), 2)
        return tuple(map(_mac_text, macs)), replace(edges, src=src, dst=dst)


def _free_rows(count: int) -> npt.NDArray[np.void]:
    rows = np.zeros(count, _ROW)
    rows["since"] = np.inf
    return rows


def _mac_number(mac: str) -> int:
    return int(mac.replace(":", ""), 16)


def _mac_text(number: int) -> str:
    return int(number).to_bytes(6, "big").hex(":")
