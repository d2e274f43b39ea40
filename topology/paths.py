"""Which port leads where, and on which ports a broadcast may travel.

Both answers are functions of the network alone: two controllers that see the
same network send a packet the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import networkx as nx

from topology.network import Link, Network

NextHops = dict[tuple[int, int], int]
FloodPorts = dict[int, tuple[int, ...]]

_MASK: Final = (1 << 64) - 1


def switch_graph(network: Network) -> nx.Graph[int]:
    """The switches and the usable links between them.

    An edge's ``links`` holds the parallel links it stands for, each as the
    ``Link`` that leaves the lower dpid, ascending.
    """
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(sorted(network.switches))
    for link in sorted(network.usable_links):
        if link.src_dpid < link.dst_dpid:
            if not graph.has_edge(link.src_dpid, link.dst_dpid):
                graph.add_edge(link.src_dpid, link.dst_dpid, links=[])
            graph.edges[link.src_dpid, link.dst_dpid]["links"].append(link)
    return graph


def next_hops(network: Network) -> NextHops:
    """The port on which each switch sends towards each other switch, by fewest hops.

    Keys are (dpid, dst_dpid); a pair without a path, and a switch to itself,
    is absent. Every step is one hop closer to the destination, so no path
    loops. Among equally short ways the choice is by rendezvous hashing
    of (dpid, destination, link): it spreads destinations over parallel
    links and spines, and it moves only where the chosen link goes
    or a distance changes.
    """
    graph = switch_graph(network)
    out = {dpid: _links_out(graph, dpid) for dpid in graph}
    hops: NextHops = {}
    for dst in graph:
        distance = nx.single_source_shortest_path_length(graph, dst)
        for dpid, steps in distance.items():
            closer = [entry for entry in out[dpid] if distance[entry[1].dst_dpid] < steps]
            if closer:
                chosen = closer[0] if len(closer) == 1 else min(closer, key=lambda e: (_mix(e[0], dst), e[1]))
                hops[dpid, dst] = chosen[1].src_port
    return hops


def flood_ports(network: Network) -> FloodPorts:
    """The inter-switch ports of each switch on which a broadcast may travel, ascending.

    They are the ports of one breadth-first tree per connected part,
    rooted at the part's lowest dpid; each switch hangs on its lowest-numbered
    closer neighbour, by the first of their parallel links. Both ends of a
    tree link are in, so no packet comes round twice. Every switch has a key.
    """
    graph = switch_graph(network)
    ports: dict[int, list[int]] = {dpid: [] for dpid in graph}
    for part in nx.connected_components(graph):
        distance = nx.single_source_shortest_path_length(graph, min(part))
        for dpid, steps in distance.items():
            parents = [near for near in graph[dpid] if distance[near] == steps - 1]
            if parents:
                link: Link = graph.edges[dpid, min(parents)]["links"][0]
                ports[link.src_dpid].append(link.src_port)
                ports[link.dst_dpid].append(link.dst_port)
    return {dpid: tuple(sorted(numbers)) for dpid, numbers in ports.items()}


def is_loop_free(network: Network, flood: Mapping[int, tuple[int, ...]]) -> bool:
    """True if a broadcast on these ports meets each switch at most once.

    That is: every port named ends exactly one usable link whose other end
    is named too, and these links form a forest.
    """
    named = {(dpid, port_no) for dpid, numbers in flood.items() for port_no in numbers}
    chosen = [
        link
        for link in network.usable_links
        if (link.src_dpid, link.src_port) in named and (link.dst_dpid, link.dst_port) in named
    ]
    ends = [(link.src_dpid, link.src_port) for link in chosen]
    if len(ends) != len(named) or set(ends) != named:
        return False
    tree: nx.MultiGraph[int] = nx.MultiGraph()
    tree.add_nodes_from(flood)
    tree.add_edges_from((link.src_dpid, link.dst_dpid) for link in chosen if link.src_dpid < link.dst_dpid)
    return tree.number_of_nodes() == 0 or nx.is_forest(tree)


def path_links(
    network: Network, src_dpid: int, dst_dpid: int, hops: NextHops | None = None
) -> tuple[Link, ...] | None:
    """The links that traffic from one switch to another crosses, in order.

    Empty from a switch to itself, None where there is no path. Give ``hops``
    (from ``next_hops`` of the same network) to ask about many pairs.
    """
    if src_dpid == dst_dpid:
        return ()
    hops = next_hops(network) if hops is None else hops
    path: list[Link] = []
    while src_dpid != dst_dpid:
        port_no = hops.get((src_dpid, dst_dpid))
        link = None if port_no is None else network.link_from.get((src_dpid, port_no))
        if link is None or len(path) > len(network.switches):
            return None
        path.append(link)
        src_dpid = link.dst_dpid
    return tuple(path)


def _links_out(graph: nx.Graph[int], dpid: int) -> list[tuple[int, Link]]:
    """The links that leave a switch, each with its own random-looking number."""
    cables = (link for near in graph[dpid] for link in graph.edges[dpid, near]["links"])
    links = (link if link.src_dpid == dpid else link.reverse for link in cables)
    return [(_mix(_mix(_mix(link.src_dpid, link.src_port), link.dst_dpid), 0), link) for link in links]


def _mix(state: int, part: int) -> int:
    """A number that looks random but depends only on its two parts, 0..2**64-1.

    The finaliser of SplitMix64 (Steele, Lea, Flood 2014): Python's own hash() of
    small integers keeps their order and would not spread.
    """
    mixed = (state + part + 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)
