from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from topology.map_equation import code_length, move_nodes, shorten


def graph_of(n: int, edges: dict[tuple[int, int], float]) -> sparse.csr_array:
    pairs = np.array(list(edges), np.int64).reshape(-1, 2)
    one_way = sparse.coo_array((list(edges.values()), (pairs[:, 0], pairs[:, 1])), shape=(n, n)).tocsr()
    return sparse.csr_array(one_way + one_way.T)


def entropy(parts: list[float]) -> float:
    total = sum(parts)
    return -float(sum(p / total * np.log2(p / total) for p in parts if p > 0))


def plainly(n: int, edges: dict[tuple[int, int], float], label: list[int]) -> float:
    """The definition: how often an index is used, times the entropy of its names, index by index."""
    total = 2 * sum(edges.values())
    visited = [sum(w for pair, w in edges.items() if node in pair) / total for node in range(n)]
    exits = {
        c: sum(w for (a, b), w in edges.items() if (label[a] == c) != (label[b] == c)) / total
        for c in set(label)
    }
    bits = sum(exits.values()) * entropy(list(exits.values())) if sum(exits.values()) > 0 else 0.0
    for c, leave in exits.items():
        names = [visited[node] for node in range(n) if label[node] == c] + [leave]
        bits += sum(names) * entropy(names) if sum(names) > 0 else 0.0
    return float(bits)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(0, 1000))
def test_the_code_is_as_long_as_the_definition_says(n: int, seed: int) -> None:
    """Summed up index by index in plain Python."""
    rng = np.random.default_rng(seed)
    edges = {pair: float(rng.lognormal()) for pair in combinations(range(n), 2) if rng.random() < 0.5}
    label = rng.integers(0, 4, n)
    if edges:
        assert code_length(graph_of(n, edges), label) == pytest.approx(plainly(n, edges, label.tolist()))


def test_the_partition_that_the_network_has_is_the_shortest() -> None:
    """Of two cliques joined by one edge: two, not one and not many."""
    edges = {pair: 1.0 for block in (range(5), range(5, 10)) for pair in combinations(block, 2)} | {
        (0, 5): 1.0
    }
    graph = graph_of(10, edges)
    two = np.repeat([0, 1], 5)
    assert code_length(graph, two) < code_length(graph, np.zeros(10, np.int64))
    assert code_length(graph, two) < code_length(graph, np.repeat([0, 1, 2, 3], [2, 3, 2, 3]))
    assert code_length(graph, two) < code_length(graph, np.arange(10))


def test_no_traffic_needs_no_code() -> None:
    """Nothing to describe."""
    assert code_length(sparse.csr_array((3, 3)), np.arange(3)) == 0.0


def random_graph(n: int, seed: int) -> sparse.csr_array:
    rng = np.random.default_rng(seed)
    pairs = [(0, 1), *(pair for pair in combinations(range(n), 2) if rng.random() < 0.3)]
    return graph_of(n, {pair: float(rng.lognormal()) for pair in pairs})


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 20), st.integers(0, 1000), st.just(0.0) | st.floats(0, 2), st.booleans())
def test_shortening_never_makes_the_code_longer(n: int, seed: int, inertia: float, merge: bool) -> None:
    """Whatever it starts from; and the labels are numbered without a gap."""
    graph, rng = random_graph(n, seed), np.random.default_rng(seed)
    start = rng.integers(0, n, n)
    label = shorten(graph, start, inertia=inertia, merge=merge)
    assert code_length(graph, label) <= code_length(graph, start) + 1e-9
    assert set(label.tolist()) == set(range(label.max() + 1))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(0, 1000))
def test_no_single_move_shortens_the_code_further(n: int, seed: int) -> None:
    """Tried one by one with the code measured anew, to each neighbour's community and to one of its own.

    A pass looks again only at the neighbours of who moved, so it is made until one changes nothing.
    """
    graph, rng = random_graph(n, seed), np.random.default_rng(seed)
    before, label = None, rng.integers(0, n, n)
    while before is None or not np.array_equal(before, label):
        before, label = label, shorten(graph, label)
    shortest = code_length(graph, label)
    for node in range(n):
        near = label[graph.indices[graph.indptr[node] : graph.indptr[node + 1]]]
        # Where all neighbours are in its own community, it stays without being asked.
        if (near != label[node]).any():
            for there in {*near.tolist(), n}:
                other = label.copy()
                other[node] = there
                assert code_length(graph, other) >= shortest - 1e-7


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 15), st.integers(0, 1000), st.just(0.0) | st.floats(0, 1))
def test_the_compiled_moves_equal_the_interpreted_ones(n: int, seed: int, inertia: float) -> None:
    """From the same order."""
    graph, rng = random_graph(n, seed), np.random.default_rng(seed)
    visited = np.asarray(graph.sum(axis=1)).ravel() / graph.sum()
    edges = graph.indptr.astype(np.int32), graph.indices.astype(np.int32), graph.data / graph.sum(), visited
    compiled = rng.integers(0, n, n)
    plain, order = compiled.copy(), rng.permutation(n)
    moves = move_nodes(*edges, compiled, order, inertia)
    assert moves == move_nodes.py_func(*edges, plain, order, inertia)
    assert np.array_equal(compiled, plain)


def test_a_stranger_goes_home_and_halves_are_put_together() -> None:
    """A node of one clique found in the other moves; two halves of a clique are one after a merge."""
    edges = {pair: 1.0 for block in (range(6), range(6, 12)) for pair in combinations(block, 2)} | {
        (0, 6): 1.0
    }
    graph = graph_of(12, edges)
    two = np.repeat([0, 1], 6)
    assert shorten(graph, np.repeat([0, 1], [7, 5])).tolist() == two.tolist()
    halves = np.repeat([0, 1, 2], [3, 3, 6])
    assert shorten(graph, halves, merge=True).tolist() == two.tolist()
    strayed = np.repeat([0, 1], [7, 5])
    assert shorten(graph, strayed, inertia=50.0).tolist() == strayed.tolist()
    assert shorten(sparse.csr_array((3, 3)), np.array([4, 0, 4])).tolist() == [1, 0, 1]
