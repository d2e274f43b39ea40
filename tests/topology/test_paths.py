from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.strategies import network_of, networks
from topology.network import Network
from topology.paths import flood_ports, is_loop_free, next_hops, path_links, switch_graph


def broadcast(network: Network, start: int) -> dict[int, int]:
    """How often each switch gets one packet flooded from ``start``: packets followed one by one."""
    flood = flood_ports(network)
    far_end = {
        (link.src_dpid, link.src_port): (link.dst_dpid, link.dst_port) for link in network.usable_links
    }
    seen = {start: 1}
    travelling = [(start, -1)]
    while travelling:
        dpid, came_in = travelling.pop()
        for port_no in flood[dpid]:
            if port_no != came_in:
                there = far_end[dpid, port_no]
                seen[there[0]] = seen.get(there[0], 0) + 1
                assert seen[there[0]] < 3, "the packet circles"
                travelling.append(there)
    return seen


@settings(max_examples=50, deadline=None)
@given(networks())
def test_a_broadcast_reaches_each_switch_of_its_part_once(network: Network) -> None:
    """Rings, meshes, parallel links and partitions alike."""
    assert is_loop_free(network, flood_ports(network))
    for part in nx.connected_components(switch_graph(network)):
        for start in part:
            assert broadcast(network, start) == dict.fromkeys(part, 1)


@settings(max_examples=50, deadline=None)
@given(networks())
def test_every_path_is_as_short_as_networkx_says(network: Network) -> None:
    """And a pair without a path has no next hop."""
    hops = next_hops(network)
    lengths = dict(nx.all_pairs_shortest_path_length(switch_graph(network)))
    for src in network.switches:
        for dst in network.switches:
            path = path_links(network, src, dst, hops)
            if dst in lengths[src]:
                assert path is not None
                assert len(path) == lengths[src][dst]
                assert all(a.dst_dpid == b.src_dpid for a, b in pairwise(path))
            else:
                assert path is None
                assert (src, dst) not in hops


@settings(max_examples=50, deadline=None)
@given(networks(), st.randoms())
def test_the_same_network_gives_the_same_answer(network: Network, random: object) -> None:
    """However the links came in."""
    links = list(network.links)
    random.shuffle(links)  # type: ignore[attr-defined]
    again = replace(network, links=frozenset(links), switches=frozenset(sorted(network.switches)))
    assert next_hops(again) == next_hops(network)
    assert flood_ports(again) == flood_ports(network)


@settings(max_examples=30, deadline=None)
@given(networks(), st.data())
def test_a_link_that_a_path_does_not_use_can_go_without_moving_it(
    network: Network, data: st.DataObject
) -> None:
    """Only what crossed the link, or was pushed to another distance, is re-routed."""
    if not network.links:
        return
    link = data.draw(st.sampled_from(sorted(network.links)))
    before = next_hops(network)
    after = next_hops(network.without_link(link).without_link(link.reverse))
    for (dpid, dst), port_no in before.items():
        path = path_links(network, dpid, dst, before)
        assert path is not None
        if link not in path and link.reverse not in path:
            assert after[dpid, dst] == port_no


def test_destinations_spread_over_equal_ways() -> None:
    """Two leaves and four spines: not everything goes through one spine."""
    leaves, spines = range(100, 116), range(1, 5)
    network = network_of(nx.Graph((leaf, spine) for leaf in leaves for spine in spines))
    hops = next_hops(network)
    used = [hops[100, leaf] for leaf in leaves if leaf != 100]
    assert len(set(used)) == 4


def test_flooding_on_all_links_of_a_ring_is_not_loop_free() -> None:
    """The predicate sees loops, ports without a partner and doubled links."""
    ring = network_of(nx.cycle_graph([1, 2, 3]))
    assert not is_loop_free(ring, {1: (1, 2), 2: (1, 2), 3: (1, 2)})
    assert not is_loop_free(ring, {1: (1,), 2: (), 3: ()})
    double = network_of(nx.path_graph([1, 2]), parallel=2)
    assert not is_loop_free(double, {1: (1, 2), 2: (1, 2)})
    assert is_loop_free(double, {1: (2,), 2: (2,)})
    assert is_loop_free(Network(), {})


def test_a_path_from_a_switch_to_itself_crosses_nothing() -> None:
    """And next hops that lead in a circle give no path rather than no end."""
    line = network_of(nx.path_graph([1, 2, 3]))
    assert path_links(line, 2, 2) == ()
    assert [link.dst_dpid for link in path_links(line, 1, 3) or ()] == [2, 3]
    assert path_links(line, 1, 3, {(1, 3): 1, (2, 3): 1}) is None
    assert path_links(line, 1, 3, {(1, 3): 77}) is None
