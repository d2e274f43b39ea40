"""The map equation: how short a description of traffic a partition allows.

Rosvall and Bergstrom, "Maps of random walks on complex networks reveal community structure", PNAS 105, 2008. Of
partitions found at different resolutions it tells which scale the network itself has, and which
endpoints are better off in another community.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
from scipy import sparse

from topology.local_moving import aggregate, queue_neighbours, renumber, stack_of_empty

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


def code_length(graph: sparse.csr_array, label: I64) -> float:
    """Bits for each step of a random walk, >= 0, when communities share short names.

    ``graph`` is symmetric with weights > 0, ``label``, shape (n_nodes,), >= 0. L = q H(Q) + sum_c p_c H(P_c):
    to name the community entered, q being how often one is entered, and the node or the exit within it.
    """
    visited = _visited(graph)
    total = float(visited.sum())
    if total <= 0:
        return 0.0
    inside, left = _flows(graph.indptr, graph.indices, graph.data, visited, label, int(label.max()) + 1)
    inside, left = inside / total, left / total
    terms = (_plogp(left.sum()), -2 * _plogp(left), -_plogp(visited / total), _plogp(left + inside))
    return max(0.0, float(sum(np.sum(term) for term in terms)))


def flat_code_length(graph: sparse.csr_array) -> float:
    """Bits for each step when all share one list of names, >= 0: what communities are to improve on."""
    visited = _visited(graph)
    total = float(visited.sum())
    if total <= 0:
        return 0.0
    return max(0.0, -float(np.sum(_plogp(visited / total))))


def shorten(
    graph: sparse.csr_array,
    label: I64,
    *,
    inertia: float = 0.0,
    merge: bool = False,
) -> I64:
    """Labels of equal or smaller code length, numbered from 0.

    Nodes move one by one to the community, of a neighbour or new, that shortens the code most, until none does;
    then with ``merge`` whole communities likewise. What would shorten it by less than ``inertia`` bits for each
    visit to the node stays. ``graph`` is symmetric with weights > 0 and an empty diagonal.
    """
    visited = _visited(graph)
    total = float(visited.sum())
    label = renumber(label)
    if total <= 0:
        return label
    indptr, indices = graph.indptr.astype(np.int32, copy=False), graph.indices.astype(np.int32, copy=False)
    # In the order of rows, which memory likes twice as well as a random one.
    order = np.arange(len(label), dtype=np.int64)
    move_nodes(indptr, indices, graph.data / total, visited / total, label, order, inertia)
    label = renumber(label)
    if not merge:
        return label
    coarse, flow = aggregate(graph, visited / total, label)
    own = np.arange(len(flow), dtype=np.int64)
    move_nodes(coarse.indptr, coarse.indices, coarse.data / total, flow, own, own.copy(), inertia)
    return renumber(own[label])


@numba.njit(cache=True)
def move_nodes(
    indptr: I32,
    indices: I32,
    weight: F64,
    visited: F64,
    label: I64,
    order: I64,
    inertia: float,
) -> int:
    """Move nodes to the community that shortens the code most, until no move does.

    ``weight``, shape (n_edges,), and ``visited``, shape (n_nodes,), are parts of all traffic. ``label``, values
    below n_nodes, is changed in place; ``order`` is the order of the first visits. Returns the number of moves.
    """
    n_nodes = len(visited)
    inside, left, leaves = np.zeros(n_nodes), np.zeros(n_nodes), np.zeros(n_nodes)
    count = np.zeros(n_nodes, np.int64)
    for node in range(n_nodes):
        own = label[node]
        inside[own] += visited[node]
        count[own] += 1
        for k in range(indptr[node], indptr[node + 1]):
            leaves[node] += weight[k]
            if label[indices[k]] != own:
                left[own] += weight[k]
    # The code is plogp(sum of left) + the sum of these over communities, and what no move changes.
    bits = np.zeros(n_nodes)
    for community in range(n_nodes):
        bits[community] = _bits(left[community], inside[community])
    all_left = left.sum()
    stack, n_empty = stack_of_empty(count)
    queue = order.copy()
    queued = np.ones(n_nodes, np.bool_)
    head, length = 0, n_nodes
    towards = np.zeros(n_nodes)
    touched = np.empty(n_nodes + 1, np.int64)
    moves = 0
    while length > 0:
        node = queue[head]
        head = (head + 1) % n_nodes
        length -= 1
        queued[node] = False
        own = label[node]
        n_touched = 0
        for k in range(indptr[node], indptr[node + 1]):
            other = label[indices[k]]
            if towards[other] == 0.0:
                touched[n_touched] = other
                n_touched += 1
            towards[other] += weight[k]
        # All that it does is inside.
        if n_touched == 0 or (n_touched == 1 and touched[0] == own):
            towards[own] = 0.0
            continue
        left_own = max(0.0, left[own] - leaves[node] + 2 * towards[own]) if count[own] > 1 else 0.0
        bits_own = _bits(left_own, inside[own] - visited[node]) if count[own] > 1 else 0.0
        all_now = _plogp_of(all_left)
        best, best_left, best_bits = own, 0.0, 0.0
        # Rounding must not make two equal codes chase each other.
        best_change = -inertia * leaves[node] - 1e-12
        if count[own] > 1:
            touched[n_touched] = stack[n_empty - 1]
            n_touched += 1
        for k in range(n_touched):
            other = touched[k]
            if other == own:
                continue
            left_other = max(0.0, left[other] + leaves[node] - 2 * towards[other])
            bits_other = _bits(left_other, inside[other] + visited[node])
            left_then = max(0.0, all_left + left_own - left[own] + left_other - left[other])
            change = bits_own - bits[own] + bits_other - bits[other] + _plogp_of(left_then) - all_now
            if change < best_change:
                best, best_left, best_bits, best_change = other, left_other, bits_other, change
        for k in range(n_touched):
            towards[touched[k]] = 0.0
        if best == own:
            continue
        moves += 1
        if count[best] == 0:
            n_empty -= 1
        all_left = max(0.0, all_left + left_own - left[own] + best_left - left[best])
        left[own], left[best] = left_own, best_left
        bits[own], bits[best] = bits_own, best_bits
        inside[own] -= visited[node]
        inside[best] += visited[node]
        count[own] -= 1
        count[best] += 1
        if count[own] == 0:
            inside[own] = 0.0
            stack[n_empty] = own
            n_empty += 1
        label[node] = best
        length = queue_neighbours(indptr, indices, label, node, queue, queued, head, length)
    return moves


@numba.njit(cache=True)
def _bits(left: float, inside: float) -> float:
    return _plogp_of(left + inside) - 2 * _plogp_of(left)


@numba.njit(cache=True)
def _plogp_of(part: float) -> float:
    return part * np.log2(part) if part > 0 else 0.0


@numba.njit(cache=True)
def _flows(
    indptr: I32, indices: I32, weight: F64, visited: F64, label: I64, n_communities: int
) -> tuple[F64, F64]:
    """What visits each community and what leaves it, shape (n_communities,) each."""
    inside, left = np.zeros(n_communities), np.zeros(n_communities)
    for node in range(len(visited)):
        inside[label[node]] += visited[node]
        for k in range(indptr[node], indptr[node + 1]):
            if label[indices[k]] != label[node]:
                left[label[node]] += weight[k]
    return inside, left


def _visited(graph: sparse.csr_array) -> F64:
    """How much visits each node, shape (n_nodes,): a compiled sum, in a third of SciPy's time."""
    visited: F64 = _row_sums(graph.indptr, graph.data)
    return visited


@numba.njit(cache=True)
def _row_sums(indptr: I32, weight: F64) -> F64:
    sums = np.zeros(len(indptr) - 1)
    for node in range(len(sums)):
        for k in range(indptr[node], indptr[node + 1]):
            sums[node] += weight[k]
    return sums


def _plogp(p: npt.ArrayLike) -> F64:
    part = np.asarray(p, np.float64)
    bits: F64 = part * np.log2(np.where(part > 0, part, 1.0))
    return bits
