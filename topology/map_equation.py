"""The map equation: how short a description of traffic a partition allows.

Rosvall and Bergstrom, "Maps of random walks on complex networks reveal community structure", PNAS 105, 2008. Of
partitions found at different resolutions it tells which scale the network itself has.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


def code_length(graph: sparse.csr_array, label: I64) -> float:
    """Bits for each step of a random walk, >= 0, when communities share short names.

    ``graph`` is symmetric with weights > 0, ``label``, shape (n_nodes,), >= 0. L = q H(Q) + sum_c p_c H(P_c):
    to name the community entered, q being how often one is entered, and the node or the exit within it.
    """
    total = float(graph.sum())
    if total <= 0:
        return 0.0
    owner = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    n_communities = int(label.max()) + 1
    visited = np.bincount(owner, graph.data, graph.shape[0]) / total
    leaves = label[owner] != label[graph.indices]
    left = np.bincount(label[owner[leaves]], graph.data[leaves], n_communities) / total
    inside = np.bincount(label, visited, n_communities)
    terms = (_plogp(left.sum()), -2 * _plogp(left), -_plogp(visited), _plogp(left + inside))
    return max(0.0, float(sum(np.sum(term) for term in terms)))


def flat_code_length(graph: sparse.csr_array) -> float:
    """Bits for each step when all share one list of names, >= 0: what communities are to improve on."""
    total = float(graph.sum())
    if total <= 0:
        return 0.0
    visited = np.asarray(graph.sum(axis=1), np.float64).ravel() / total
    return max(0.0, -float(np.sum(_plogp(visited))))


def _plogp(p: npt.ArrayLike) -> F64:
    part = np.asarray(p, np.float64)
    bits: F64 = part * np.log2(np.where(part > 0, part, 1.0))
    return bits
