"""Other people's community detection on the same graph, as one would call it: rates as weights, defaults."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final

import networkx as nx
import numpy as np
import numpy.typing as npt
from sklearn.metrics import adjusted_rand_score

from topology.traffic import TrafficView

I64 = npt.NDArray[np.int64]


def networkx_louvain(view: TrafficView) -> I64:
    """``networkx.community.louvain_communities``, resolution 1."""
    return _labels(view, nx.community.louvain_communities(_graph(view), weight="rate_bps", seed=0))


def networkx_label_propagation(view: TrafficView) -> I64:
    """``networkx.community.asyn_lpa_communities``."""
    return _labels(view, nx.community.asyn_lpa_communities(_graph(view), weight="rate_bps", seed=0))


def igraph_leiden(view: TrafficView) -> I64:
    """``igraph.Graph.community_leiden`` for modularity, until it is stable."""
    import igraph

    igraph.set_random_number_generator(random.Random(0))
    graph = igraph.Graph(len(view.endpoints), np.stack([view.src, view.dst], axis=1))
    found = graph.community_leiden("modularity", weights=view.rate_bps, n_iterations=-1)
    return np.array(found.membership, np.int64)


PEERS: Final[dict[str, Callable[[TrafficView], I64]]] = {
    "networkx Louvain": networkx_louvain,
    "networkx label propagation": networkx_label_propagation,
    "igraph Leiden": igraph_leiden,
}


def compare(view: TrafficView, truth: I64) -> dict[str, dict[str, Any]]:
    """For each peer its adjusted Rand index over endpoints whose ``truth`` is >= 0, and its time.

    ``truth`` has shape (n_endpoints,). The time includes building the peer's graph, and is the
    thread's own on the processor. A peer that is not installed gives a note.
    """
    counted = truth >= 0
    results: dict[str, dict[str, Any]] = {}
    for name, find in PEERS.items():
        began = time.thread_time()
        try:
            label = find(view)
        except ImportError as missing:
            results[name] = {"ari": None, "first_s": None, "note": f"skipped: {missing}"}
            continue
        took = time.thread_time() - began
        score = float(adjusted_rand_score(truth[counted], label[counted]))
        results[name] = {"ari": round(score, 4), "first_s": round(took, 3)}
    return results


def _graph(view: TrafficView) -> nx.Graph[int]:
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(len(view.endpoints)))
    for src, dst, rate_bps in zip(view.src.tolist(), view.dst.tolist(), view.rate_bps.tolist(), strict=True):
        if graph.has_edge(src, dst):
            graph.edges[src, dst]["rate_bps"] += rate_bps
        else:
            graph.add_edge(src, dst, rate_bps=rate_bps)
    return graph


def _labels(view: TrafficView, communities: Any) -> I64:
    label = np.full(len(view.endpoints), -1, np.int64)
    for number, members in enumerate(communities):
        label[list(members)] = number
    return label
