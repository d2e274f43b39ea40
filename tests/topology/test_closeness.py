from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from topology.closeness import closeness, power, undirected, without
from topology.local_moving import aggregate, renumber


def some_traffic(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs both ways, several times, with themselves, and rates that mean nothing."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(0, 3 * n + 1))
    rate = rng.lognormal(3, 2, m)
    bad = rng.random(m) < 0.1
    rate[bad] = rng.choice([0.0, -1.0, np.nan, np.inf], int(bad.sum()))
    return rng.integers(0, n, m), rng.integers(0, n, m), rate


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 20), st.integers(0, 10_000))
def test_both_directions_add_up_to_one_rate(n: int, seed: int) -> None:
    """As a matrix and its transpose do, in rows that are in order."""
    src, dst, rate = some_traffic(n, seed)
    good = np.isfinite(rate) & (rate > 0) & (src != dst)
    plain = np.zeros((n, n))
    np.add.at(plain, (src[good], dst[good]), rate[good])
    graph = undirected(n, src, dst, rate)
    np.testing.assert_allclose(graph.toarray(), plain + plain.T)
    assert graph.nnz == np.count_nonzero(plain + plain.T)
    rows = np.split(graph.indices, graph.indptr[1:-1])
    assert all((np.diff(row) > 0).all() for row in rows)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 20), st.integers(0, 10_000))
def test_closeness_is_what_its_docstring_says(n: int, seed: int) -> None:
    """A root of the rate over the geometric mean of the typical rates, of those who are not left out."""
    graph = undirected(n, *some_traffic(n, seed))
    left_out = np.random.default_rng(seed).random(n) < 0.2
    rates = without(graph, left_out)
    plain = graph.toarray() * np.outer(~left_out, ~left_out)
    np.testing.assert_array_equal(rates.toarray(), plain)
    total = plain.sum(axis=1)
    typical = np.divide((plain**2).sum(axis=1), total, out=np.ones(n), where=total > 0)
    part = plain / np.sqrt(np.outer(typical, typical))
    expected = np.where(plain > 0, np.clip(part ** power(rates), 1e-6, 1.0), 0.0)
    np.testing.assert_allclose(closeness(rates).toarray(), expected)


@pytest.mark.parametrize("rate", [5e-324, 1e-300, 1e300])
def test_the_faintest_and_the_strongest_rates_have_a_weight(rate: float) -> None:
    """Above 0 and at most 1, whatever rounds to nothing or to infinity on the way."""
    graph = undirected(3, np.array([0, 1]), np.array([1, 2]), np.array([rate, 1.0]))
    weight = closeness(graph).data
    assert ((weight > 0) & (weight <= 1)).all()


def test_faint_edges_count_more_where_few_pairs_talk() -> None:
    """The cube root in a clique, the fifth root in a long ring; and a flood of spoofed sources changes nothing."""
    clique = np.array(list(combinations(range(12), 2))).T
    assert power(undirected(12, clique[0], clique[1], np.ones(66))) == pytest.approx(1 / 3)
    ring = np.arange(1000)
    assert power(undirected(1000, ring, (ring + 1) % 1000, np.ones(1000))) == pytest.approx(1 / 5)
    middle = np.arange(50)
    between = power(undirected(50, middle, (middle + 1) % 50, np.ones(50)))
    assert 1 / 5 < between < 1 / 3
    victim = np.zeros(5000, np.int64)
    src, dst = np.concatenate([clique[0], np.arange(12, 5012)]), np.concatenate([clique[1], victim])
    assert power(undirected(5012, src, dst, np.ones(5066))) == pytest.approx(1 / 3)
    assert power(sparse.csr_array((3, 3))) == pytest.approx(1 / 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 20), st.integers(0, 10_000))
def test_the_graph_between_communities_holds_what_leaves_them(n: int, seed: int) -> None:
    """As a product with the matrix of memberships, without its diagonal."""
    graph = undirected(n, *some_traffic(n, seed))
    label = renumber(np.random.default_rng(seed).integers(0, 4, n))
    member = np.eye(int(label.max()) + 1)[label]
    expected = member.T @ graph.toarray() @ member
    np.fill_diagonal(expected, 0.0)
    coarse, size = aggregate(graph, np.ones(n), label)
    np.testing.assert_allclose(coarse.toarray(), expected)
    np.testing.assert_array_equal(size, np.bincount(label))
