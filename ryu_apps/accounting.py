"""Who talks to whom in which application class: one numbered entry a pair.

The number goes into the cookie of the accounting entry, so statistics replies are
decoded without parsing a match. Numbers belong to this process: entries with
numbers of an earlier one are deleted and learnt again, and no packet waits for that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from planner.config import Config
from ryu_apps.pipeline import ApplicationPort
from telemetry.samples import EdgeSamples

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


@dataclass
class PairNumbers:
    """Numbers for pairs and for the endpoints in them, from 1 on, never used twice."""

    _numbers: dict[Pair, int] = field(default_factory=dict)
    _endpoints: dict[str, int] = field(default_factory=dict)
    #: Columns by pair number; row 0 is nobody's.
    _src: list[int] = field(default_factory=lambda: [0])
    _dst: list[int] = field(default_factory=lambda: [0])
    _app: list[int] = field(default_factory=lambda: [0])

    def number(self, src: str, dst: str, app: int) -> int:
        """The number of a pair (MAC addresses, application class), a new one where it has none."""
        pair = (src, dst, app)
        if pair not in self._numbers:
            self._numbers[pair] = len(self._src)
            self._src.append(self._endpoint(src))
            self._dst.append(self._endpoint(dst))
            self._app.append(app)
        return self._numbers[pair]

    def _endpoint(self, mac: str) -> int:
        return self._endpoints.setdefault(mac, len(self._endpoints))

    def __len__(self) -> int:
        return len(self._numbers)

    def named(self, edges: EdgeSamples) -> tuple[tuple[str, ...], EdgeSamples]:
        """The MAC addresses that these edges speak of, and the edges indexing them."""
        used, place = np.unique(np.concatenate([edges.src, edges.dst]), return_inverse=True)
        macs = list(self._endpoints)
        src, dst = np.split(place.astype(np.uint32), 2)
        return tuple(macs[i] for i in used.tolist()), replace(edges, src=src, dst=dst)

    def columns(self, numbers: U32) -> tuple[U32, U32, U32]:
        """Source and destination (indices of ``endpoints``) and class of these pairs, each shape (n,); ends are endpoint numbers."""
        src, dst, app = (np.array(column, np.uint32) for column in (self._src, self._dst, self._app))
        return src[numbers], dst[numbers], app[numbers]
