from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from topology.map_equation import code_length


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
