"""Applications as communities of the traffic graph.

Two endpoints belong together when the traffic between them is much of what
either does. How dense a community must be does not depend on how large the rest of
the network is, once there is a rest. Where there are enough endpoints, the shortest description
of the traffic then decides who belongs where. Shared services are set aside first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numba
import numpy as np
import numpy.typing as npt
from scipy import sparse

from topology.closeness import closeness, undirected, without
from topology.local_moving import optimise
from topology.map_equation import code_length, flat_code_length, shorten
from topology.services import ServiceRules, shared_services

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

#: A network of more endpoints than this is judged as if it were many of this size.
DEFAULT_HORIZON: Final = 300
#: Up to this many endpoints several starts cost nothing and find better optima.
_SMALL: Final = 2_000
_TRIES_WHEN_SMALL: Final = 8
#: Up to there several resolutions are tried as well: these times the usual one.
_SCALES: Final = (0.6, 1.0, 1.4, 2.0, 3.0)
#: The coarsest not on fewer endpoints: a host on its way from one application of four to another would join them.
_COARSER_FROM: Final = 40
#: From a warm start an endpoint moves only for this part of all its closeness: who is nearly as close to
#: two applications must not go to and fro.
_INERTIA: Final = 0.05
#: From this many endpoints on the code has the last word: on fewer it would put small applications together.
_BY_CODE_FROM: Final = 100
#: There an endpoint moves from a warm start only to save so many bits each time that it is named.
_INERTIA_BITS: Final = 0.5
#: A fresh result must be shorter to describe than the one at hand by this part.
_WORTH_MOVING: Final = 0.01


@dataclass(frozen=True)
class Communities:
    """A partition of the endpoints.

    ``label``, shape (n_endpoints,), numbers the communities from 0 by their first endpoint; a
    shared service and an endpoint without traffic are alone in theirs.
    ``is_service``, shape (n_endpoints,), marks the shared services. ``resolution`` is what the search began
    with; ``code_length``, in bits, compares partitions of different resolutions, the shorter the better;
    ``flat_code_length`` is what it would be if all were one.
    """

    endpoints: tuple[str, ...]
    label: I64
    is_service: npt.NDArray[np.bool_]
    resolution: float
    code_length: float
    flat_code_length: float
    kind: Literal["community"] = "community"

    @property
    def structure(self) -> float:
        """By which part the communities shorten the description of the traffic; <= 0: they tell nothing."""
        flat = self.flat_code_length
        return 1 - self.code_length / flat if flat > 0 else 0.0

    def groups(self, min_size: int = 2) -> tuple[frozenset[str], ...]:
        """The communities of at least ``min_size`` endpoints, in order of label."""
        members: dict[int, list[str]] = {}
        for name, label in zip(self.endpoints, self.label.tolist(), strict=True):
            members.setdefault(label, []).append(name)
        return tuple(frozenset(names) for names in members.values() if len(names) >= min_size)

    def services(self) -> frozenset[str]:
        """The shared services."""
        return frozenset(self.endpoints[i] for i in np.flatnonzero(self.is_service).tolist())


def find_communities(
    endpoints: Sequence[str],
    src: npt.ArrayLike,
    dst: npt.ArrayLike,
    rate_bps: npt.ArrayLike,
    *,
    resolution: float | None = None,
    seed: int = 0,
    start: I64 | None = None,
    services: ServiceRules | None = None,
) -> Communities:
    """Partition the endpoints by who talks to whom.

    The same input and seed give the same result.

    Parameters
    ----------
    endpoints :        n names.
    src, dst :         shape (n_edges,), indices into them. Parallel edges, directions and
                       application classes add up; self loops are ignored.
    rate_bps :         shape (n_edges,). Edges whose rate is not > 0 and finite are ignored.
    resolution :       > 0; higher gives smaller, tighter communities. None gives 1 up to
                       ``DEFAULT_HORIZON`` endpoints with traffic and beyond that their number over it:
                       then the density asked of a community stays as the network grows. On a small
                       network, without ``start``, that is one of several, of which the one counts
                       whose communities describe the traffic in the fewest bits (``map_equation``).
                       From 100 endpoints on those bits have the last word on each endpoint, and from
                       ``start`` the only one.
    start :            shape (n,), labels to start from, such as ``labels_to_start_from`` the last
                       result: faster, and nearer to it. None starts from single endpoints.

    Raises
    ------
    ValueError : if ``resolution`` or a shape or index breaks a bound above.
    """
    if resolution is not None and not 0 < resolution < np.inf:
        raise ValueError(f"resolution must be > 0 and finite, got {resolution}")
    n = len(endpoints)
    if start is not None and np.shape(start) != (n,):
        raise ValueError(f"start must have shape ({n},), got {np.shape(start)}")
    rates = undirected(
        n, np.asarray(src, np.int64), np.asarray(dst, np.int64), np.asarray(rate_bps, np.float64)
    )
    is_service = shared_services(rates, services)
    graph = closeness(without(rates, is_service))
    if graph.nnz == 0:
        nobody = np.arange(n, dtype=np.int64)
        return Communities(tuple(endpoints), nobody, is_service, resolution or 1.0, 0.0, 0.0)
    scales: tuple[float, ...] = (1.0,)
    if resolution is None and start is None and n <= _SMALL:
        scales = _SCALES if n >= _COARSER_FROM else _SCALES[1:]
    usual = resolution or _usual_resolution(graph)
    flat = flat_code_length(graph)
    found = []
    for scale in scales:
        label = _cluster(graph, usual * scale, np.random.default_rng(seed), start)
        label = _connected_parts(graph.indptr, graph.indices, label)
        label = _by_first_member(_adopt_singles(graph, label))
        measures = usual * scale, code_length(graph, label), flat
        found.append(Communities(tuple(endpoints), label, is_service, *measures))
    return min(found, key=lambda one: one.code_length)


def follow_communities(
    last: Communities | None,
    endpoints: Sequence[str],
    src: npt.ArrayLike,
    dst: npt.ArrayLike,
    rate_bps: npt.ArrayLike,
) -> Communities:
    """The communities, near to the last result where that is as good.

    Started from ``last`` and afresh; the fresh result counts only if its code is shorter by
    a hundredth. Warm starts alone could settle in a poor optimum and never leave it,
    fresh ones alone move a few in a hundred endpoints each time for nothing.
    """
    fresh = find_communities(endpoints, src, dst, rate_bps)
    if last is None:
        return fresh
    start = labels_to_start_from(last, endpoints)
    warm = find_communities(endpoints, src, dst, rate_bps, resolution=last.resolution, start=start)
    return fresh if fresh.code_length < warm.code_length * (1 - _WORTH_MOVING) else warm


def labels_to_start_from(last: Communities, endpoints: Sequence[str]) -> I64:
    """The last result's labels for these endpoints, shape (n,), for ``start``; newcomers are alone."""
    if last.endpoints == tuple(endpoints):
        return last.label.copy()
    label_of = dict(zip(last.endpoints, last.label.tolist(), strict=True))
    fresh = len(last.endpoints)
    return np.array([label_of.get(name, fresh + i) for i, name in enumerate(endpoints)], np.int64)


def is_partition(groups: Iterable[Collection[str]], endpoints: Iterable[str]) -> bool:
    """True if each endpoint is in exactly one group, no group is empty and no one else is in any."""
    listed = [member for group in groups for member in group]
    groups_are_filled = all(len(group) > 0 for group in groups)
    return groups_are_filled and len(listed) == len(set(listed)) and set(listed) == set(endpoints)


def _usual_resolution(graph: sparse.csr_array) -> float:
    strength: F64 = np.asarray(graph.sum(axis=1), np.float64).ravel()
    talking = int((strength > 0).sum())
    # Where endpoints have hundreds of close peers, communities are larger than the horizon.
    horizon = max(DEFAULT_HORIZON, 2 * float(strength.sum()) / talking)
    return max(1.0, talking / horizon)


def _expectation(graph: sparse.csr_array, resolution: float) -> tuple[F64, float]:
    """Each endpoint's size and the density: two endpoints are expected density * size * size close.

    Sizes are the square roots of the strengths, between the constant Potts model (too
    coarse on small networks) and modularity (splits applications around a busy server).
    """
    strength: F64 = np.asarray(graph.sum(axis=1), np.float64).ravel()
    size = np.sqrt(strength)
    return size, resolution * float(strength.sum()) / float(size.sum()) ** 2


def _cluster(graph: sparse.csr_array, resolution: float, rng: np.random.Generator, start: I64 | None) -> I64:
    n = graph.shape[0]
    if start is not None and n >= _BY_CODE_FROM:
        return shorten(graph, start, inertia=_INERTIA_BITS, merge=True)
    size, density = _expectation(graph, resolution)
    if start is not None:
        # What one round leaves to gain, the next call gains.
        return optimise(graph, size, start, density, rng, 1, _INERTIA)
    singles = np.arange(n, dtype=np.int64)
    tries = _TRIES_WHEN_SMALL if n <= _SMALL else 1
    found = [optimise(graph, size, singles, density, rng) for _ in range(tries)]
    best = min(found, key=lambda label: code_length(graph, label)) if tries > 1 else found[0]
    return shorten(graph, best) if n >= _BY_CODE_FROM else best


def _adopt_singles(graph: sparse.csr_array, label: I64) -> I64:
    """Give an endpoint left alone to the community that has more than half its closeness.

    So a server keeps all its clients, however many: pairs of clients never talk,
    and beyond some number the density alone would turn them away.
    """
    alone = np.bincount(label)[label] == 1
    singles = np.flatnonzero(alone & (np.diff(graph.indptr) > 0))
    edges = graph[singles].tocoo()
    here = ~alone[edges.col]
    pull = sparse.coo_array(
        (edges.data[here], (edges.row[here], label[edges.col[here]])), shape=(len(singles), len(label))
    ).tocoo()
    pull.sum_duplicates()
    strong = pull.data > np.bincount(edges.row, edges.data, len(singles))[pull.row] / 2
    label = label.copy()
    label[singles[pull.row[strong]]] = pull.col[strong]
    return label


@numba.njit(cache=True)
def _connected_parts(indptr: I32, indices: I32, label: I64) -> I64:
    """Communities split where no edge joins their parts, numbered by their first member."""
    part = np.full(len(label), -1, np.int64)
    reached = np.empty(len(label), np.int64)
    parts = 0
    for first in range(len(label)):
        if part[first] >= 0:
            continue
        part[first], reached[0] = parts, first
        looked_at, known = 0, 1
        while looked_at < known:
            node = reached[looked_at]
            looked_at += 1
            for k in range(indptr[node], indptr[node + 1]):
                other = indices[k]
                if part[other] < 0 and label[other] == label[first]:
                    part[other], reached[known] = parts, other
                    known += 1
        parts += 1
    return part


def _by_first_member(label: I64) -> I64:
    _, first, place = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[place]
