"""Local moving with aggregation: the compiled heart of ``communities``.

Maximises a Potts model: the weight inside communities minus ``density`` times
``size`` times ``size`` for each pair of nodes inside them. With sizes of one this is the constant
Potts model (Traag, Van Dooren, Nesterov, "Narrow scope for resolution-limit-free
community detection", Phys. Rev. E 84, 2011), with sizes of the nodes' strength it is
modularity. By Louvain's moves (Blondel et al. 2008) taken from a queue (Ozaki et al. 2016).
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
import numpy.typing as npt
from scipy import sparse

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: Rounds after the third change next to nothing; this only bounds the time.
MAX_ROUNDS: Final = 10


@numba.njit(cache=True)
def stack_of_empty(count: I64) -> tuple[I64, int]:
    """A stack of the communities without nodes, and how many there are. ``count`` has shape (n_nodes,)."""
    empty = np.flatnonzero(count == 0)
    # One place more: while a node is being moved, its own community may be empty too.
    stack = np.empty(len(count) + 1, np.int64)
    stack[: len(empty)] = empty
    return stack, len(empty)


@numba.njit(cache=True)
def queue_neighbours(
    indptr: npt.NDArray[np.int32],
    indices: npt.NDArray[np.int32],
    label: I64,
    node: int,
    queue: I64,
    queued: npt.NDArray[np.bool_],
    head: int,
    length: int,
) -> int:
    """Visit a moved node's neighbours in other communities again. Returns the length of the ring ``queue``."""
    for k in range(indptr[node], indptr[node + 1]):
        other = indices[k]
        if label[other] != label[node] and not queued[other]:
            queued[other] = True
            queue[(head + length) % len(queue)] = other
            length += 1
    return length


@numba.njit(cache=True)
def move_nodes(
    indptr: npt.NDArray[np.int32],
    indices: npt.NDArray[np.int32],
    weight: F64,
    size: F64,
    label: I64,
    density: float,
    order: I64,
    inertia: float,
) -> int:
    """Move nodes to the neighbouring community that gains most, until none gains.

    ``label``, shape (n_nodes,) with values below n_nodes, is changed in place; ``order``
    is the order of the first visits. A node may also leave for a community of its own; it
    stays where it is unless it gains this part, ``inertia``, of all its weight.
    The quality only grows. Returns the number of moves.
    """
    n_nodes = len(indptr) - 1
    total = np.zeros(n_nodes)
    count = np.zeros(n_nodes, np.int64)
    for node in range(n_nodes):
        total[label[node]] += size[node]
        count[label[node]] += 1
    stack, n_empty = stack_of_empty(count)
    queue = order.copy()
    queued = np.ones(n_nodes, np.bool_)
    head, length = 0, n_nodes
    towards = np.zeros(n_nodes)
    touched = np.empty(n_nodes, np.int64)
    moves = 0
    while length > 0:
        node = queue[head]
        head = (head + 1) % n_nodes
        length -= 1
        queued[node] = False
        own = label[node]
        n_touched = 0
        strength = 0.0
        for k in range(indptr[node], indptr[node + 1]):
            if indices[k] != node:
                other = label[indices[k]]
                if towards[other] == 0.0:
                    touched[n_touched] = other
                    n_touched += 1
                towards[other] += weight[k]
                strength += weight[k]
        best = own
        best_gain = towards[own] - density * size[node] * (total[own] - size[node])
        # Rounding must not make two equal gains chase each other.
        margin = 1e-9 * (abs(best_gain) + density * size[node])
        best_gain += inertia * strength
        if count[own] > 1 and best_gain < -margin:
            best, best_gain = stack[n_empty - 1], 0.0
        for k in range(n_touched):
            other = touched[k]
            if other != own:
                gain = towards[other] - density * size[node] * total[other]
                if gain > best_gain + margin:
                    best, best_gain = other, gain
        for k in range(n_touched):
            towards[touched[k]] = 0.0
        if best == own:
            continue
        moves += 1
        if count[best] == 0:
            n_empty -= 1
        total[own] -= size[node]
        total[best] += size[node]
        count[own] -= 1
        count[best] += 1
        if count[own] == 0:
            stack[n_empty] = own
            n_empty += 1
        label[node] = best
        length = queue_neighbours(indptr, indices, label, node, queue, queued, head, length)
    return moves


def optimise(
    graph: sparse.csr_array,
    size: F64,
    start: I64,
    density: float,
    rng: np.random.Generator,
    max_rounds: int = MAX_ROUNDS,
    inertia: float = 0.0,
) -> I64:
    """Labels of higher or equal quality than ``start``, numbered from 0.

    ``graph`` is symmetric with weights > 0 and an empty diagonal; ``size``, shape
    (n_nodes,), is >= 0. A round moves nodes, then whole communities, level by level; the next
    goes on from its result, until nothing moves or after ``max_rounds``. What would gain less than
    ``inertia``, a part of its weight, stays.
    """
    label = renumber(start)
    for _ in range(max_rounds):
        moved = _one_round(graph, size, label, density, rng, inertia)
        if moved is None:
            break
        label = moved
    return label


def quality(graph: sparse.csr_array, size: F64, label: I64, density: float) -> float:
    """The weight inside communities minus ``density * size * size`` for each pair inside them."""
    edges = graph.tocoo()
    inside = float(edges.data[label[edges.row] == label[edges.col]].sum()) / 2
    pairs = (np.bincount(label, size) ** 2 - np.bincount(label, size**2)) / 2
    return inside - density * float(pairs.sum())


def _one_round(
    graph: sparse.csr_array, size: F64, label: I64, density: float, rng: np.random.Generator, inertia: float
) -> I64 | None:
    """One pass over all levels; None if nothing moved on any."""
    own = label.copy()
    changed = _move(graph, size, own, density, rng, inertia)
    own = renumber(own)
    label = own
    while True:
        graph, size = aggregate(graph, size, own)
        own = np.arange(len(size), dtype=np.int64)
        if not _move(graph, size, own, density, rng, inertia):
            return label if changed else None
        changed = True
        own = renumber(own)
        label = own[label]


def _move(
    graph: sparse.csr_array, size: F64, label: I64, density: float, rng: np.random.Generator, inertia: float
) -> bool:
    order = rng.permutation(len(size))
    # SciPy picks 64-bit indices for some results; one type means one compilation.
    indptr, indices = graph.indptr.astype(np.int32, copy=False), graph.indices.astype(np.int32, copy=False)
    moves: int = move_nodes(indptr, indices, graph.data, size, label, density, order, inertia)
    return moves > 0


def aggregate(graph: sparse.csr_array, size: F64, label: I64) -> tuple[sparse.csr_array, F64]:
    """The graph between communities, without what is inside them, and the size of each.

    ``label``, shape (n_nodes,), numbers the communities from 0 without a gap.
    """
    n_communities = int(label.max()) + 1
    members = np.argsort(label, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(label, minlength=n_communities))])
    indptr, indices, weight = _between(graph.indptr, graph.indices, graph.data, label, members, bounds)
    coarse = sparse.csr_array((weight, indices, indptr), (n_communities, n_communities))
    total: F64 = np.bincount(label, size, n_communities).astype(np.float64)
    return coarse, total


@numba.njit(cache=True)
def _between(
    indptr: npt.NDArray[np.int32],
    indices: npt.NDArray[np.int32],
    weight: F64,
    label: I64,
    members: I64,
    bounds: I64,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], F64]:
    """Communities one after the other; ``members`` in their order, those of each from its bound to the next."""
    n_communities = len(bounds) - 1
    ends, sums = np.empty(len(indices), np.int32), np.empty(len(indices))
    first = np.zeros(n_communities + 1, np.int32)
    # Where the row's entry for another community is; of another row if before the row's first.
    at = np.full(n_communities, -1, np.int64)
    filled = 0
    for community in range(n_communities):
        for place in range(bounds[community], bounds[community + 1]):
            node = members[place]
            for k in range(indptr[node], indptr[node + 1]):
                other = label[indices[k]]
                if other == community:
                    continue
                if at[other] >= first[community]:
                    sums[at[other]] += weight[k]
                else:
                    at[other] = filled
                    ends[filled], sums[filled] = other, weight[k]
                    filled += 1
        first[community + 1] = filled
    return first, ends[:filled].copy(), sums[:filled].copy()


def renumber(label: I64) -> I64:
    """The same communities, numbered from 0 without a gap."""
    return np.unique(label, return_inverse=True)[1].astype(np.int64)
