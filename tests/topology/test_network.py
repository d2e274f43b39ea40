from __future__ import annotations

import networkx as nx

from tests.topology.strategies import network_of
from topology.network import Host, Link, Network, Port

H1 = Host("02:00:00:00:00:01", frozenset({"10.0.0.1"}), 1, 3, 0.0)


def test_a_link_known_one_way_is_not_used_but_its_ports_are_no_edge_ports() -> None:
    """A miswired or half-discovered link carries nothing, and no host is learnt on it."""
    network = Network(frozenset({1, 2}), {}, frozenset({Link(1, 1, 2, 1)}))
    assert not network.usable_links
    assert not network.is_edge_port(1, 1)
    assert not network.is_edge_port(2, 1)
    assert network.is_edge_port(1, 2)


def test_links_that_cannot_carry_are_left_out() -> None:
    """A port down, a switch away, and a cable from a switch to itself make a link useless."""
    up = Link(1, 1, 2, 1)
    loop = Link(1, 8, 1, 9)
    network = Network(frozenset({1, 2}), {}, frozenset({up, up.reverse, loop, loop.reverse}))
    assert network.usable_links == {up, up.reverse}
    assert not network.with_port(Port(2, 1, "eth1", 1e9, False)).usable_links
    assert not network.without_switch(2).with_link(up).with_link(up.reverse).usable_links


def test_edge_and_core_switches_follow_the_hosts() -> None:
    """A switch with a host is edge, the others are core; a host on an absent switch counts for nobody."""
    away = Host("02:00:00:00:00:02", frozenset(), 99, 1, 0.0)
    network = network_of(nx.path_graph([1, 2])).with_hosts({H1.mac: H1, away.mac: away})
    assert network.edge_switches == {1}
    assert network.core_switches == {2}
    assert network.hosts_on(1) == (H1,)


def test_changes_return_new_values() -> None:
    """The network asked is the network as it was."""
    before = network_of(nx.path_graph([1, 2]))
    link = Link(1, 1, 2, 1)
    assert before.without_link(link).usable_links == frozenset()
    assert before.without_port(1, 1).links == frozenset()
    assert before.with_switch(7).switches == {1, 2, 7}
    assert before.usable_links == {link, link.reverse}


def test_edge_ports_are_those_up_and_not_linked() -> None:
    """Broadcast leaves a switch towards hosts on these."""
    network = network_of(nx.path_graph([1, 2]))
    assert network.edge_ports(1) == (2,)
    assert network.with_port(Port(1, 2, "eth2", 1e9, False)).edge_ports(1) == ()
