"""The traffic graph at one moment, as others see it: arrays, networkx, GraphML, JSON."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrafficView:
    """The graph at one moment.

    ``endpoints`` names the endpoints that have an edge, ascending; ``src`` and ``dst``,
    shape (n_edges,), index it; ``app`` is the application class, ``rate_bps`` > 0.
    """

    time: float
    endpoints: tuple[str, ...]
    src: I64
    dst: I64
    app: I64
    rate_bps: F64


def strongest(view: TrafficView, at_most: int) -> TrafficView:
    """The view with its strongest edges only, and the endpoints that these leave; equal ones by their place."""
    if len(view.rate_bps) <= at_most:
        return view
    kept = np.sort(np.argsort(-view.rate_bps, kind="stable")[:at_most])
    ends = np.concatenate([view.src[kept], view.dst[kept]])
    used, place = np.unique(ends, return_inverse=True)
    names = tuple(view.endpoints[i] for i in used.tolist())
    return TrafficView(
        view.time, names, place[:at_most], place[at_most:], view.app[kept], view.rate_bps[kept]
    )


def to_networkx(view: TrafficView) -> nx.DiGraph[str]:
    """One edge a direction: ``rate_bps`` is its sum, ``app_bps`` the part of each class."""
    graph: nx.DiGraph[str] = nx.DiGraph(time=view.time)
    graph.add_nodes_from(view.endpoints)
    for src, dst, app, rate_bps in _rows(view):
        if not graph.has_edge(src, dst):
            graph.add_edge(src, dst, rate_bps=0.0, app_bps={})
        edge: dict[str, Any] = graph.edges[src, dst]
        edge["rate_bps"] += rate_bps
        edge["app_bps"][app] = rate_bps
    return graph


def to_multigraph(view: TrafficView) -> nx.MultiDiGraph[str]:
    """One edge a direction and class, whose key is the class: plain attributes, for files."""
    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph(time=view.time)
    graph.add_nodes_from(view.endpoints)
    for src, dst, app, rate_bps in _rows(view):
        graph.add_edge(src, dst, app, rate_bps=rate_bps)
    return graph


def to_graphml(view: TrafficView) -> bytes:
    """The multigraph as GraphML, UTF-8, for Gephi, Cytoscape or ``networkx.read_graphml``."""
    written = io.BytesIO()
    nx.write_graphml(to_multigraph(view), written)
    return written.getvalue()


def to_json(view: TrafficView) -> dict[str, Any]:
    """The multigraph as JSON-able values in the node-link form of ``networkx.node_link_graph``."""
    data: dict[str, Any] = nx.node_link_data(to_multigraph(view), edges="edges")
    return data


def _rows(view: TrafficView) -> list[tuple[str, str, int, float]]:
    ends = (map(view.endpoints.__getitem__, column.tolist()) for column in (view.src, view.dst))
    return list(zip(*ends, view.app.tolist(), view.rate_bps.tolist(), strict=True))
