from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.strategies import network_of, networks
from topology.network import Link, Network, Port
from topology.paths import path_links
from topology.routes import Flows, PartFlows, capacity_of_links, part_flows, routes_of
from topology.traffic import TrafficView


def view_of(edges: Sequence[tuple[str, str, float]]) -> TrafficView:
    """A view with these edges; each may come several times."""
    endpoints = tuple(sorted({name for src, dst, _ in edges for name in (src, dst)}))
    at = {name: row for row, name in enumerate(endpoints)}
    src = np.array([at[src] for src, _, _ in edges], np.int64)
    dst = np.array([at[dst] for _, dst, _ in edges], np.int64)
    rate = np.array([rate for _, _, rate in edges])
    return TrafficView(0.0, endpoints, src, dst, np.zeros(len(edges), np.int64), rate)


def shares_by_part(found: PartFlows, flows: Flows) -> dict[tuple[str, int], dict[Link, float]]:
    """What part of each part's traffic crosses each link."""
    known = np.bincount(flows.part, flows.rate_bps, len(found.parts))
    result: dict[tuple[str, int], dict[Link, float]] = {}
    for flow, (part, rate) in enumerate(zip(flows.part, flows.rate_bps, strict=True)):
        for link in flows.link[flows.first[flow] : flows.first[flow + 1]]:
            of = result.setdefault(found.parts[part], {})
            of[found.links[link]] = of.get(found.links[link], 0.0) + float(rate / known[part])
    return result


def plainly(
    network: Network,
    edges: Sequence[tuple[str, str, float]],
    places: Mapping[str, Sequence[int]],
    upload: bool,
) -> dict[tuple[str, int], dict[Link, float]]:
    """The same, packet by packet so to say: each edge, each pair of places, each link of the path."""
    known: dict[tuple[str, int], float] = {}
    on: dict[tuple[str, int], dict[Link, float]] = {}
    for src, dst, rate in edges:
        own, peer = (src, dst) if upload else (dst, src)
        for here in places.get(own, ()):
            for there in places.get(peer, ()):
                path = path_links(network, *((here, there) if upload else (there, here)))
                if path is None or not {here, there} <= network.switches:
                    continue
                weight = rate / len([d for d in places[peer] if d in network.switches])
                known[own, here] = known.get((own, here), 0.0) + weight
                for link in path:
                    of = on.setdefault((own, here), {})
                    of[link] = of.get(link, 0.0) + weight
    return {part: {link: bps / known[part] for link, bps in of.items()} for part, of in on.items()}


@settings(max_examples=60, deadline=None)
@given(networks(), st.data())
def test_shares_are_those_of_following_each_edge_along_its_path(
    network: Network, data: st.DataObject
) -> None:
    """For users at one or more switches, unknown endpoints, switches that are away, and parts of the network."""
    dpids = st.sampled_from([*sorted(network.switches), 99_999])
    places = data.draw(
        st.dictionaries(st.sampled_from("abcdef"), st.lists(dpids, unique=True, max_size=3), max_size=6)
    )
    pairs = st.tuples(st.sampled_from("abcdefx"), st.sampled_from("abcdefx"), st.floats(1.0, 1e9))
    edges = data.draw(st.lists(pairs.filter(lambda edge: edge[0] != edge[1]), max_size=15))
    found = part_flows(routes_of(network), view_of(edges), places)
    for crossed, upload in ((found.up, True), (found.down, False)):
        expected = plainly(network, edges, places, upload)
        shares = shares_by_part(found, crossed)
        assert shares.keys() == expected.keys()
        for part, links in expected.items():
            assert shares[part] == pytest.approx(links)
        assert (crossed.rate_bps > 0).all()


def test_a_share_is_of_the_traffic_whose_way_is_known() -> None:
    """Half stays on the switch, half crosses; what goes to a stranger says nothing."""
    network = network_of(nx.path_graph([1, 2, 3]))
    edges = [("anna", "ben", 3e6), ("anna", "carla", 3e6), ("anna", "stranger", 9e6)]
    places = {"anna": [1], "ben": [1], "carla": [3], "david": [2]}
    found = part_flows(routes_of(network), view_of(edges), places)
    (there,) = shares_by_part(found, found.up).values()
    assert {(link.src_dpid, link.dst_dpid): share for link, share in there.items()} == {
        (1, 2): 0.5,
        (2, 3): 0.5,
    }
    assert found.up.rate_bps.tolist() == [3e6, 3e6]
    down = shares_by_part(found, found.down)
    assert {part: set(links.values()) for part, links in down.items()} == {("carla", 3): {1.0}}
    assert found.down.rate_bps.tolist() == [3e6, 3e6]


def test_without_switches_or_traffic_nothing_is_crossed() -> None:
    """An empty network and an empty graph are no errors."""
    for network in (Network(), network_of(nx.path_graph([1, 2]))):
        for edges in ([], [("a", "b", 1.0)]):
            found = part_flows(routes_of(network), view_of(edges), {"a": [1], "b": [7]})
            assert len(found.up.part) == len(found.down.part) == 0


def test_a_link_carries_what_is_configured_or_the_slower_port_or_nobody_knows() -> None:
    """A configured capacity holds for its direction only."""
    network = network_of(nx.path_graph([1, 2]))
    link = Link(1, 1, 2, 1)
    network = network.with_port(Port(2, 1, "slow", 1e8, True))
    assert capacity_of_links(network, [link, link.reverse], {link: 5e6}).tolist() == [5e6, 1e8]
    network = network.with_port(Port(2, 1, "silent", 0.0, True))
    assert capacity_of_links(network, [link], {}).tolist() == [1e9]
    assert math.isnan(capacity_of_links(Network(), [link], {})[0])
