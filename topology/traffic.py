"""Who talks to whom, as rates that fade.

Each edge (source, destination, application class) holds an exponentially
weighted mean of its rate. An observation costs the same however many edges
there are, and the order in which switches report does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import networkx as nx
import numpy as np
import numpy.typing as npt

from topology.traffic_view import TrafficView, to_networkx

__all__ = ["UNKNOWN", "Ignored", "Pruned", "TrafficGraph", "TrafficView"]

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: What ``TrafficGraph.intern`` gives for an endpoint it cannot take.
UNKNOWN: Final = -1

_APP_BITS: Final = 12
_ENDPOINT_BITS: Final = 25
#: After this many half-lives the stored numbers are brought back to scale;
#: a double holds over a thousand.
_RESCALE_AFTER: Final = 256.0


@dataclass(frozen=True)
class Ignored:
    """How many observations were ignored so far, by reason."""

    unknown_endpoint: int = 0
    self_loop: int = 0
    bad_rate: int = 0
    bad_interval: int = 0
    bad_app: int = 0
    bad_time: int = 0


@dataclass(frozen=True)
class Pruned:
    """What one prune took away.

    Every edge taken was at most ``threshold_bps``; together they were ``rate_bps``.
    """

    edges: int
    endpoints: int
    threshold_bps: float
    rate_bps: float


class TrafficGraph:
    """The decayed rates between endpoints.

    An edge's rate is the mean of its past rates, each weighted by
    ``2 ** (-age / half_life_s)``: a constant rate is approached to one half after one
    half-life, and silence halves it each half-life.

    Parameters
    ----------
    half_life_s :  > 0.
    floor_bps :    ``prune`` forgets edges below this, >= 0.
    max_edges :    ``prune`` keeps at most this many, the strongest.
    max_endpoints : beyond this many, new endpoints are unknown; at most 2**25.
    """

    def __init__(
        self,
        half_life_s: float,
        *,
        floor_bps: float = 1.0,
        max_edges: int = 2_000_000,
        max_endpoints: int = 200_000,
    ) -> None:
        if not 0 < half_life_s < math.inf:
            raise ValueError(f"half_life_s must be > 0 and finite, got {half_life_s}")
        if not 0 <= floor_bps < math.inf:
            raise ValueError(f"floor_bps must be >= 0 and finite, got {floor_bps}")
        if max_edges < 1:
            raise ValueError(f"max_edges must be >= 1, got {max_edges}")
        if not 1 <= max_endpoints <= 1 << _ENDPOINT_BITS:
            raise ValueError(f"max_endpoints must be in 1..{1 << _ENDPOINT_BITS}, got {max_endpoints}")
        self._half_life_s = half_life_s
        self._floor_bps = floor_bps
        self._max_edges = max_edges
        self._max_endpoints = max_endpoints
        self._id_of: dict[str, int] = {}
        # "" where an id is free.
        self._names: list[str] = []
        self._free: list[int] = []
        # Whether an id names an endpoint; always longer than ``_names``.
        self._taken = np.zeros(1024, bool)
        self._sorted: tuple[I64, tuple[str, ...]] | None = None
        # Edges ascending by key = src | dst | app. ``_scaled`` is the rate times
        # 2 ** ((t - origin) / half_life), which decay leaves as it is.
        self._key: I64 = np.empty(0, np.int64)
        self._scaled: F64 = np.empty(0, np.float64)
        self._origin: float | None = None
        self._lost_scaled = 0.0
        self.ignored = Ignored()

    def __len__(self) -> int:
        """How many edges are held."""
        return len(self._key)

    def intern(self, endpoints: Iterable[str]) -> I64:
        """The ids of these endpoints, shape (n,), new ones being added.

        ``UNKNOWN`` for an empty name, and for a new one when there are
        ``max_endpoints``. Ids hold until the next ``prune`` or ``forget``.
        """
        return np.fromiter((self._intern(name) for name in endpoints), np.int64)

    def observe(
        self,
        now: float,
        src: npt.ArrayLike,
        dst: npt.ArrayLike,
        app: npt.ArrayLike,
        rate_bps: npt.ArrayLike,
        interval_s: npt.ArrayLike,
    ) -> None:
        """Add mean rates over the ``interval_s`` that ended at ``now``.

        All of shape (n,) or scalar; several rows may name the same edge and add up.
        A NaN rate is a gap: the edge keeps its rate over the interval (at most one
        half-life) instead of fading. Ignored and counted in ``ignored``, row by row:
        an endpoint that is not an id from ``intern``, a self loop, a rate that is negative
        or infinite, an interval not > 0 and finite, an app outside 0..4095; and the whole
        call if ``now`` is not finite. Late observations get the weight of their age.
        """
        columns = np.broadcast_arrays(*(np.atleast_1d(np.asarray(c)) for c in (src, dst, app)))
        source, target, kind = (column.astype(np.int64) for column in columns)
        rate, interval, _ = np.broadcast_arrays(
            np.atleast_1d(np.asarray(rate_bps, np.float64)),
            np.atleast_1d(np.asarray(interval_s, np.float64)),
            source,
        )
        if not math.isfinite(now):
            self._count("bad_time", len(source))
            return
        keep = self._accept(source, target, kind, rate, interval)
        if not keep.any():
            return
        self._advance(now)
        key = (source[keep] << _ENDPOINT_BITS | target[keep]) << _APP_BITS | kind[keep]
        self._add(key, rate[keep], interval[keep], self._scale(now))

    def prune(self, now: float) -> Pruned:
        """Forget the weakest edges and the endpoints left without any.

        Gone are edges below ``floor_bps`` and, beyond ``max_edges``, the weakest.
        What an edge lost this way fades like the edge would have: pruned every p seconds,
        an edge is low by at most threshold / (1 - 2 ** (-p / half_life_s)), and
        ``lost_bps`` is the exact total.
        """
        rate = self._scaled / self._scale(now)
        keep = rate >= self._floor_bps
        if keep.sum() > self._max_edges:
            ranked = np.argsort(-rate, kind="stable")
            keep[ranked[self._max_edges :]] = False
        gone = rate[~keep]
        self._lost_scaled += float(self._scaled[~keep].sum())
        endpoints = self._keep(keep)
        return Pruned(len(gone), endpoints, float(gone.max(initial=0.0)), float(gone.sum()))

    def forget(self, endpoints: Iterable[str]) -> None:
        """Remove endpoints with all their edges; names not held are ignored."""
        ids = [self._id_of[name] for name in endpoints if name in self._id_of]
        source, target, _ = self._ends()
        self._keep(~(np.isin(source, ids) | np.isin(target, ids)), always_free=ids)

    def lost_bps(self, now: float) -> float:
        """By how much the sum of all rates is low at ``now`` because of pruning."""
        return self._lost_scaled / self._scale(now)

    def view(self, now: float) -> TrafficView:
        """The graph at ``now``, with fresh arrays."""
        rate = self._scaled / self._scale(now)
        source, target, app = self._ends()
        alive = rate > 0
        if not alive.all():
            source, target, app, rate = source[alive], target[alive], app[alive], rate[alive]
        used = np.zeros(len(self._names), bool)
        used[source] = used[target] = True
        by_name, names = self._by_name()
        if not used[by_name].all():
            by_name = by_name[used[by_name]]
            names = tuple(map(self._names.__getitem__, by_name.tolist()))
        position = np.empty(len(self._names), np.int64)
        position[by_name] = np.arange(len(by_name))
        return TrafficView(now, names, position[source], position[target], app, rate)

    def _by_name(self) -> tuple[I64, tuple[str, ...]]:
        """The ids in use, in the order of their names, and these; kept until an endpoint comes or goes."""
        if self._sorted is None:
            ids = sorted(self._id_of.items())
            self._sorted = (
                np.fromiter((i for _, i in ids), np.int64, len(ids)),
                tuple(name for name, _ in ids),
            )
        return self._sorted

    def to_networkx(self, now: float) -> nx.DiGraph[str]:
        """The graph at ``now`` as ``traffic_view.to_networkx`` gives it."""
        return to_networkx(self.view(now))

    def _intern(self, name: str) -> int:
        known = self._id_of.get(name)
        if known is not None:
            return known
        if not name or len(self._id_of) >= self._max_endpoints:
            return UNKNOWN
        if self._free:
            new = self._free.pop()
            self._names[new] = name
        else:
            new = len(self._names)
            self._names.append(name)
            if new + 1 >= len(self._taken):
                self._taken = np.concatenate([self._taken, np.zeros_like(self._taken)])
        self._id_of[name] = new
        self._taken[new] = True
        self._sorted = None
        return new

    def _accept(self, src: I64, dst: I64, app: I64, rate: F64, interval: F64) -> npt.NDArray[np.bool_]:
        # An id out of range is sent to a place that names nobody.
        nobody = len(self._names)
        known = (
            self._taken[np.where((src < 0) | (src > nobody), nobody, src)]
            & self._taken[np.where((dst < 0) | (dst > nobody), nobody, dst)]
        )
        keep = np.ones(len(src), bool)
        for reason, good in (
            ("unknown_endpoint", known),
            ("self_loop", src != dst),
            ("bad_app", (app >= 0) & (app < 1 << _APP_BITS)),
            ("bad_rate", np.isnan(rate) | ((rate >= 0) & np.isfinite(rate))),
            ("bad_interval", (interval > 0) & np.isfinite(interval)),
        ):
            self._count(reason, int((keep & ~good).sum()))
            keep &= good
        return keep

    def _count(self, reason: str, rows: int) -> None:
        if rows:
            counted = vars(self.ignored)
            self.ignored = Ignored(**{**counted, reason: counted[reason] + rows})

    def _add(self, key: I64, rate: F64, interval: F64, scale: float) -> None:
        gap = np.isnan(rate)
        weight = -np.expm1(-math.log(2) * interval / self._half_life_s)
        fresh, place = np.unique(key[~gap], return_inverse=True)
        added = np.bincount(place, (rate * weight)[~gap] * scale, len(fresh))
        fresh, added = fresh[added > 0], added[added > 0]
        self._hold(key[gap], interval[gap])
        at = np.searchsorted(self._key, fresh)
        held = at < len(self._key)
        held[held] = self._key[at[held]] == fresh[held]
        self._scaled[at[held]] += added[held]
        if not held.all():
            self._key = np.insert(self._key, at[~held], fresh[~held])
            self._scaled = np.insert(self._scaled, at[~held], added[~held])

    def _hold(self, key: I64, interval: F64) -> None:
        """Give edges with a gap back what they faded by while they were not measured."""
        longest: dict[int, float] = {}
        for edge, gap_s in zip(key.tolist(), interval.tolist(), strict=True):
            longest[edge] = max(longest.get(edge, 0.0), min(gap_s, self._half_life_s))
        for edge, gap_s in longest.items():
            at = int(np.searchsorted(self._key, edge))
            if at < len(self._key) and self._key[at] == edge:
                self._scaled[at] *= 2.0 ** (gap_s / self._half_life_s)

    def _scale(self, now: float) -> float:
        """What a rate at ``now`` is multiplied by to be stored."""
        if self._origin is None:
            return 1.0
        half_lives = (now - self._origin) / self._half_life_s
        return math.exp2(min(max(half_lives, -1000.0), 1000.0))

    def _advance(self, now: float) -> None:
        if self._origin is None:
            self._origin = now
        half_lives = (now - self._origin) / self._half_life_s
        if half_lives > _RESCALE_AFTER:
            factor = 2.0 ** -min(half_lives, 2000.0)
            self._scaled *= factor
            self._lost_scaled *= factor
            self._origin = now

    def _ends(self) -> tuple[I64, I64, I64]:
        pair = self._key >> _APP_BITS
        return pair >> _ENDPOINT_BITS, pair & ((1 << _ENDPOINT_BITS) - 1), self._key & ((1 << _APP_BITS) - 1)

    def _keep(self, keep: npt.NDArray[np.bool_], always_free: Sequence[int] | None = None) -> int:
        """Drop the other edges, then the given endpoints or else all without an edge; how many."""
        self._key, self._scaled = self._key[keep], self._scaled[keep]
        if always_free is None:
            used = np.zeros(len(self._names), bool)
            source, target, _ = self._ends()
            used[source] = used[target] = True
            always_free = [i for i in np.flatnonzero(~used).tolist() if self._names[i]]
        if always_free:
            self._sorted = None
        for i in always_free:
            del self._id_of[self._names[i]]
            self._names[i] = ""
            self._taken[i] = False
            self._free.append(i)
        return len(always_free)
