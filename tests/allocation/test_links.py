"""Shares over the links of real paths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from allocation import links as module
from allocation.links import Paths, fill_links, limit_to_links
from tests.allocation.trees import INF, many, plain

RATES = st.one_of(st.integers(0, 30).map(float), st.floats(0, 1e9), st.sampled_from([0.0, 1e6, 1e12]))


@st.composite
def networks(draw):
    """A few links, and flows that cross some of them."""
    n_links = draw(st.integers(1, 5))
    routes = draw(
        st.lists(st.lists(st.integers(0, n_links - 1), max_size=4, unique=True), min_size=1, max_size=9)
    )
    capacity = np.array([draw(st.one_of(RATES, st.just(INF))) for _ in range(n_links)])
    demand = np.array([draw(RATES) for _ in routes])
    weight = np.array([draw(st.sampled_from([1.0, 1.0, 2.0, 0.01, 300.0])) for _ in routes])
    return Paths.of(routes, n_links), capacity, demand, weight


def incidence(paths):
    """Rows are links, columns flows."""
    matrix = np.zeros((paths.n_links, len(paths.first) - 1))
    for flow in range(matrix.shape[1]):
        matrix[paths.link[paths.first[flow] : paths.first[flow + 1]], flow] = 1
    return matrix


def by_linear_programs(paths, capacity, demand, weight):
    """Raise the least level; fix every flow that cannot have more at that level; and again."""
    matrix = incidence(paths)
    n = len(demand)
    scale = max(demand.max(), 1.0)
    most, room = demand / scale, np.minimum(capacity / scale, 2 * n)
    share, free = np.zeros(n), np.ones(n, bool)
    while free.any():
        rows = np.block(
            [
                [matrix, np.zeros((len(room), 1))],
                [-np.diag(free.astype(float)), np.where(free, weight, 0)[:, None]],
            ]
        )
        limit = np.r_[room, np.zeros(n)]
        bounds = [(0, m) if f else (s, s) for m, f, s in zip(most, free, share, strict=True)] + [(0, None)]
        answer = linprog(np.r_[np.zeros(n), -1.0], rows, limit, bounds=bounds, method="highs")
        assert answer.status == 0, answer.message
        level = answer.x[n]
        used = matrix @ np.where(free, np.minimum(level * weight, most), share)
        full = used >= room - 1e-9
        stopped = free & ((level * weight >= most - 1e-9) | (matrix[full].sum(axis=0) > 0))
        assert stopped.any()
        share[stopped] = np.minimum(level * weight, most)[stopped]
        free &= ~stopped
    return share * scale


@pytest.mark.parametrize(
    ("routes", "capacity", "demand", "expected"),
    [
        # The textbook line: one long flow and a short one on each link.
        ([[0, 1], [0], [1]], [10, 20], [99, 99, 99], [5, 5, 15]),
        ([[0], [0]], [10], [3, 99], [3, 7]),
        ([[0], []], [10], [99, 99], [10, 99]),
        ([[0, 1], [1, 2], [0, 2]], [6, 8, 10], [99, 99, 99], [3, 5, 3]),
        ([[0], [0]], [0], [5, 5], [0, 0]),
        ([[0], [0]], [INF], [5, 7], [5, 7]),
        ([[0], [0]], [12], [5, 7], [5, 7]),
    ],
)
def test_small_networks(routes, capacity, demand, expected):
    """Shares that can be found by hand."""
    got = fill_links(Paths.of(routes, len(capacity)), np.array(capacity, float), np.array(demand, float))
    assert got.tolist() == expected


def test_equal_to_a_sequence_of_linear_programs():
    """Two hundred random networks, within a few bits of the programs' shares."""
    rng = np.random.default_rng(17)
    for _ in range(200):
        n_links, n_flows = int(rng.integers(1, 8)), int(rng.integers(1, 15))
        routes = [rng.permutation(n_links)[: rng.integers(0, n_links + 1)].tolist() for _ in range(n_flows)]
        paths = Paths.of(routes, n_links)
        capacity = rng.lognormal(20, 1, n_links).round()
        demand, weight = rng.lognormal(19, 1, n_flows).round(), rng.choice([1.0, 2.0, 5.0], n_flows)
        got = fill_links(paths, capacity, demand, weight)
        np.testing.assert_allclose(
            got, by_linear_programs(paths, capacity, demand, weight), rtol=1e-6, atol=4
        )


@given(networks())
@many(300)
def test_what_holds_of_every_share(network):
    """No link overfull, nobody above its demand; who has less than that meets a full link where none is richer."""
    paths, capacity, demand, weight = network
    got = fill_links(paths, capacity, demand, weight)
    matrix = incidence(paths)
    used = matrix @ got
    assert (used <= capacity).all()
    assert (got <= demand).all()
    assert (got >= 0).all()
    crossing = matrix.sum(axis=1)
    full = used >= capacity - crossing - 1e-9 * np.minimum(capacity, 1e15)
    level = (got + 1) / weight
    for flow in np.flatnonzero(got < np.floor(demand)):
        bottlenecks = np.flatnonzero(full & (matrix[:, flow] > 0))
        assert len(bottlenecks)
        richest = [((got - 1) / weight)[matrix[at] > 0].max() for at in bottlenecks]
        assert min(richest) <= level[flow] * (1 + 1e-6) + len(got) / weight.min()


@given(networks())
@many(60)
def test_compiled_and_plain_loops_agree(network):
    """The machine code does what its source says."""
    paths, capacity, demand, weight = network
    room, demand = np.floor(capacity), np.floor(demand)
    order = np.argsort(demand / weight, kind="stable").astype(np.int32)
    share = plain(module._fill)(
        paths.first, paths.link, paths.first_flow, paths.flow, room, demand, weight, order
    )
    whole = plain(module._whole)(share, room, paths.first_flow, paths.flow)
    np.testing.assert_allclose(whole, fill_links(paths, capacity, demand, weight), rtol=1e-12, atol=1)


def test_guarantees_come_first():
    """Two flows on a link of 10: the one with 6 guaranteed has them and half of the rest."""
    paths = Paths.of([[0], [0]], 1)
    got = fill_links(paths, np.array([10.0]), np.array([99.0, 99.0]), guarantee_bps=np.array([6.0, 0.0]))
    assert got.tolist() == [8, 2]


def test_grants_are_cut_to_their_links():
    """Of a pool on two paths the narrow one decides; a small flow is spared; of unknown paths nothing is cut."""
    paths = Paths.of([[0], [1], [1], [1]], 2)
    grant = limit_to_links(
        np.array([[100, 50, 200, 70]]),
        np.array([0, 0, 1, 2]),
        np.array([5.0, 5.0, 50.0, 1.0]),
        paths,
        np.array([80.0, 90.0]),
    )
    assert grant.tolist() == [60, 30, 30, 70]
    part = limit_to_links(
        np.array([[100, 90]]),
        np.array([0, 0, 1]),
        np.array([9.0, 1.0, 1.0]),
        Paths.of([[], [0], [0]], 1),
        np.array([70.0]),
    )
    assert part.tolist() == [100, 60]


def test_use_on_a_link_is_not_cut_for_what_others_may_want():
    """A uses 40 of a link of 50, B uses 5; both were granted 60: each has its use and half of what is left."""
    paths = Paths.of([[0], [0]], 1)
    stages = np.array([[1, 1], [40, 5], [60, 60]])
    grant = limit_to_links(stages, np.array([0, 1]), np.ones(2), paths, np.array([50.0]))
    assert grant.tolist() == [42, 7]
    weighed = limit_to_links(
        stages[2:], np.array([0, 1]), np.ones(2), paths, np.array([50.0]), np.array([4.0, 1.0])
    )
    assert weighed.tolist() == [40, 10]


@many(300)
@given(networks(), st.data())
def test_limited_grants_never_rise_and_fit_every_link(network, data):
    """Whatever the stages: split as the traffic is, no link carries more than it can, but for evened-out bits."""
    paths, capacity, rate, weight = network
    n_flows = len(rate)
    pool = np.array([data.draw(st.integers(0, 3)) for _ in range(n_flows)])
    rows = np.array([[data.draw(st.integers(0, 10**9)) for _ in range(5)] for _ in range(3)])
    stages = np.maximum.accumulate(rows, axis=0)
    got = limit_to_links(stages, pool, rate + 1, paths, capacity, np.resize(weight, 5))
    assert (got <= stages[-1]).all()
    assert got[4] == stages[-1, 4]
    known = np.bincount(pool, rate + 1, 5)
    load = incidence(paths) @ ((rate + 1) / known[pool] * got[pool])
    assert (load <= capacity * (1 + 1e-12) + n_flows).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capacity_bps": [-1.0]}, r"capacity_bps\[0\] must be >= 0"),
        ({"capacity_bps": [np.nan]}, r"capacity_bps\[0\] must be >= 0 and not NaN"),
        ({"demand_bps": [np.inf, 1.0]}, "demand_bps must be finite"),
        ({"demand_bps": [1.0]}, r"demand_bps must have shape \(2,\)"),
        ({"weight": [1.0, 0.0]}, "weight must be > 0"),
        ({"guarantee_bps": [7.0, 6.0]}, "link 0: guarantees need 13 bit/s, above its capacity 10 bit/s"),
    ],
)
def test_broken_bounds_name_rule_and_value(change, message):
    """Bad input is refused by name."""
    good = {"capacity_bps": [10.0], "demand_bps": [9.0, 9.0]}
    arguments = {name: np.array(values) for name, values in (good | change).items()}
    with pytest.raises(ValueError, match=message):
        fill_links(Paths.of([[0], [0]], 1), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": [0, 1]}, "first must rise from 0 to 2"),
        ({"link": [0, 5]}, "link must be 0 to 1, got 0 to 5"),
        ({"link": [1, 1]}, "flow 0 crosses link 1 again"),
    ],
)
def test_broken_paths_are_refused(change, message):
    """Paths name links that exist, once each."""
    good = Paths(np.array([0, 2]), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match=message):
        replace(good, **change)
