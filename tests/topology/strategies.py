"""Networks to test on, drawn from networkx's generators."""

from __future__ import annotations

import networkx as nx
import numpy as np
from hypothesis import strategies as st

from topology.network import Link, Network, Port


def network_of(graph: nx.Graph[int], parallel: int = 1) -> Network:
    """A network with a switch for each node and ``parallel`` cables for each edge."""
    network = Network(switches=frozenset(graph))
    next_port = dict.fromkeys(graph, 1)
    ports, links = {}, set()
    for a, b in sorted(graph.edges):
        for _ in range(parallel):
            link = Link(a, next_port[a], b, next_port[b])
            links |= {link, link.reverse}
            next_port[a] += 1
            next_port[b] += 1
    for dpid in graph:
        for port_no in range(1, next_port[dpid] + 1):
            ports[dpid, port_no] = Port(dpid, port_no, f"s{dpid}-eth{port_no}", 1e9, True)
    return Network(network.switches, ports, frozenset(links))


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Rings, meshes, trees, lattices, partitions and random graphs of up to 16 switches."""
    n = draw(st.integers(1, 16))
    seed = draw(st.integers(0, 10_000))
    shape = draw(st.sampled_from(["random", "ring", "mesh", "tree", "lattice", "parts", "none"]))
    rng = np.random.default_rng(seed)
    graph = {
        "random": lambda: nx.gnp_random_graph(n, rng.uniform(0.1, 0.6), seed=seed),
        "ring": lambda: nx.cycle_graph(n) if n > 2 else nx.path_graph(n),
        "mesh": lambda: nx.complete_graph(n),
        "tree": lambda: nx.random_labeled_tree(n, seed=seed),
        "lattice": lambda: nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, max(1, n // 3))),
        "parts": lambda: nx.disjoint_union(nx.complete_graph(max(1, n // 2)), nx.cycle_graph(3)),
        "none": lambda: nx.empty_graph(n),
    }[shape]()
    # Dpids far apart and out of order: nothing may rest on 0..n-1.
    labels = {node: int(value) for node, value in zip(graph, rng.permutation(10_000), strict=False)}
    return network_of(nx.relabel_nodes(graph, labels), draw(st.integers(1, 3)))
