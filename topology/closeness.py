"""How close endpoints are: traffic without unit and scale, as communities are looked for in it.

Three passes over the edges, compiled: rates of both directions added up, shared services left out, weights.
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
import numpy.typing as npt
from scipy import sparse

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

#: Where this part of all pairs talk, or more, a faint edge says little: of two edges the one
#: 1,000 times as strong counts ten times as much.
_DENSE: Final = 0.1
_POWER_WHEN_DENSE: Final = 1 / 3
#: Where this part or less talk, that two talk at all says much: there it counts four times as much.
_SPARSE: Final = 0.01
_POWER_WHEN_SPARSE: Final = 1 / 5


def undirected(n: int, src: I64, dst: I64, rate_bps: F64) -> sparse.csr_array:
    """The rates between n endpoints, symmetric, each row in order of its columns.

    Parallel edges and directions add up; self loops and rates that are not > 0 and finite are left out.

    Raises
    ------
    ValueError : if the shapes differ or an index is not in 0..n - 1.
    """
    if not src.shape == dst.shape == rate_bps.shape or src.ndim != 1:
        raise ValueError(
            f"src, dst and rate_bps must have one shape, got {src.shape}, {dst.shape}, {rate_bps.shape}"
        )
    if len(src) and not 0 <= min(src.min(), dst.min()) <= max(src.max(), dst.max()) < n:
        raise ValueError(f"src and dst must index the {n} endpoints given")
    indptr, indices, rates = _both_ways(n, *_pairs(n, src, dst, rate_bps))
    return sparse.csr_array((rates, indices, indptr), (n, n))


def without(graph: sparse.csr_array, left_out: Mask) -> sparse.csr_array:
    """The graph without the edges of the endpoints in ``left_out``, shape (n,)."""
    if not left_out.any():
        return graph
    indptr, indices, weight = _without(graph.indptr, graph.indices, graph.data, left_out)
    return sparse.csr_array((weight, indices, indptr), graph.shape)


def closeness(rates: sparse.csr_array) -> sparse.csr_array:
    """How much of what two endpoints do is between them, 0..1 for each edge.

    A root of the rate over the geometric mean of the two endpoints' typical rates; typical is
    the rate-weighted mean over an endpoint's peers, so faint background counts little. No unit and
    no scale is left: applications of kbit/s and of Gbit/s look alike, and no elephant
    flow swallows its neighbours. The root is the cube root where a tenth of all pairs talk, and the fifth
    root where only a hundredth do (``power``).

    ``rates`` is symmetric with rates > 0, each row in order of its columns.
    """
    # SciPy picks 64-bit indices for some graphs; one type means one compilation.
    indptr, indices = rates.indptr.astype(np.int32, copy=False), rates.indices.astype(np.int32, copy=False)
    weight = _weights(indptr, indices, rates.data, power(rates))
    return sparse.csr_array((weight, rates.indices, rates.indptr), rates.shape)


def power(rates: sparse.csr_array) -> float:
    """The power of rates that counts, by how many of the pairs that could talk do.

    Endpoints with one peer only do not count: a flood of spoofed sources makes no network sparse.
    """
    peers = np.diff(rates.indptr)
    core, leaves = int(np.count_nonzero(peers > 1)), int(np.count_nonzero(peers == 1))
    density = (rates.nnz - 2 * leaves) / max(core * (core - 1), 1)
    if density <= 0:
        return _POWER_WHEN_DENSE
    sparseness = min(max(np.log(_DENSE / density) / np.log(_DENSE / _SPARSE), 0.0), 1.0)
    return float(_POWER_WHEN_DENSE + sparseness * (_POWER_WHEN_SPARSE - _POWER_WHEN_DENSE))


@numba.njit(cache=True)
def _pairs(n: int, src: I64, dst: I64, rate_bps: F64) -> tuple[I64, I32, F64]:
    """Each pair once, in rows of its larger end; its smaller ends in no order."""
    indptr = np.zeros(n + 1, np.int64)
    for k in range(len(src)):
        if src[k] != dst[k] and 0.0 < rate_bps[k] < np.inf:
            indptr[max(src[k], dst[k]) + 1] += 1
    indptr = np.cumsum(indptr)
    indices = np.empty(indptr[n], np.int32)
    rates = np.empty(indptr[n])
    place = indptr[:n].copy()
    for k in range(len(src)):
        if src[k] != dst[k] and 0.0 < rate_bps[k] < np.inf:
            large = max(src[k], dst[k])
            indices[place[large]] = min(src[k], dst[k])
            rates[place[large]] = rate_bps[k]
            place[large] += 1
    # Where the row's entry for a smaller end is; of another row if before the row's first.
    at = np.full(n, -1, np.int64)
    kept = 0
    for node in range(n):
        first, last = indptr[node], indptr[node + 1]
        row = kept
        for k in range(first, last):
            small = indices[k]
            if at[small] >= row:
                rates[at[small]] += rates[k]
            else:
                at[small] = kept
                indices[kept], rates[kept] = small, rates[k]
                kept += 1
        indptr[node] = row
    indptr[n] = kept
    return indptr, indices[:kept], rates[:kept]


@numba.njit(cache=True)
def _both_ways(n: int, indptr: I64, indices: I32, rates: F64) -> tuple[I32, I32, F64]:
    """The symmetric graph of pairs in rows of their larger end, rows in order of columns."""
    # By smaller ends, whose rows then are in order: a bucket sort, as the next step is one.
    small_ptr = np.zeros(n + 1, np.int64)
    for k in range(len(indices)):
        small_ptr[indices[k] + 1] += 1
    small_ptr = np.cumsum(small_ptr)
    place = small_ptr[:n].copy()
    larger = np.empty(len(indices), np.int32)
    rate = np.empty(len(indices))
    for node in range(n):
        for k in range(indptr[node], indptr[node + 1]):
            at = place[indices[k]]
            larger[at], rate[at] = node, rates[k]
            place[indices[k]] = at + 1
    full = np.zeros(n + 1, np.int32)
    for node in range(n):
        degree = indptr[node + 1] - indptr[node] + small_ptr[node + 1] - small_ptr[node]
        full[node + 1] = full[node] + degree
    ends = np.empty(full[n], np.int32)
    both = np.empty(full[n])
    for node in range(n):
        place[node] = full[node]
    for node in range(n):
        # All smaller ends of this row came from the rows before it.
        for k in range(small_ptr[node], small_ptr[node + 1]):
            other = larger[k]
            ends[place[node]], both[place[node]] = other, rate[k]
            ends[place[other]], both[place[other]] = node, rate[k]
            place[node] += 1
            place[other] += 1
    return full, ends, both


@numba.njit(cache=True)
def _without(indptr: I32, indices: I32, weight: F64, left_out: Mask) -> tuple[I32, I32, F64]:
    kept_ptr = np.zeros_like(indptr)
    kept_indices, kept_weight = np.empty_like(indices), np.empty_like(weight)
    kept = 0
    for node in range(len(indptr) - 1):
        if not left_out[node]:
            for k in range(indptr[node], indptr[node + 1]):
                if not left_out[indices[k]]:
                    kept_indices[kept], kept_weight[kept] = indices[k], weight[k]
                    kept += 1
        kept_ptr[node + 1] = kept
    return kept_ptr, kept_indices[:kept], kept_weight[:kept]


@numba.njit(cache=True, error_model="numpy")
def _weights(indptr: I32, indices: I32, rates: F64, power: float) -> F64:
    n = len(indptr) - 1
    # A root of each endpoint's typical rate, whose products are the geometric means.
    root = np.zeros(n)
    for node in range(n):
        total, squares = 0.0, 0.0
        for k in range(indptr[node], indptr[node + 1]):
            total += rates[k]
        for k in range(indptr[node], indptr[node + 1]):
            squares += rates[k] * (rates[k] / total)
        root[node] = np.sqrt(squares)
    weight = np.empty_like(rates)
    # Each edge once: the row of its smaller end comes to it in the order of the larger ends.
    place = np.empty(n, np.int64)
    for node in range(n):
        k = indptr[node]
        while k < indptr[node + 1] and indices[k] < node:
            other = indices[k]
            strength = min((rates[k] / root[node] / root[other]) ** power, 1.0)
            # An edge 1e-12 of its neighbours holds nothing together; zero would be no edge to the solver.
            weight[k] = weight[place[other]] = max(strength, 1e-6)
            place[other] += 1
            k += 1
        place[node] = k
    return weight
