from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from bench.planted import Planted, mixed_sizes, planted_applications
from topology import local_moving
from topology.closeness import closeness
from topology.communities import (
    Communities,
    find_communities,
    follow_communities,
    is_partition,
    labels_to_start_from,
)
from topology.services import ServiceRules, effective_peers, shared_services


def found_in(planted: Planted, **options: object) -> Communities:
    return find_communities(planted.endpoints, planted.src, planted.dst, planted.rate_bps, **options)  # type: ignore[arg-type]


def agreement(planted: Planted, found: Communities) -> float:
    members = planted.truth >= 0
    return float(adjusted_rand_score(planted.truth[members], found.label[members]))


def edges_of(pairs: list[tuple[int, int]], rate_bps: float = 1e6) -> tuple[list[int], list[int], list[float]]:
    return [a for a, _ in pairs], [b for _, b in pairs], [rate_bps] * len(pairs)


def symmetric(n: int, pairs: list[tuple[int, int]], rate_bps: float = 1e6) -> sparse.csr_array:
    src, dst, rate = edges_of(pairs, rate_bps)
    one_way = sparse.coo_array((rate, (src, dst)), shape=(n, n)).tocsr()
    return sparse.csr_array(one_way + one_way.T)


@pytest.mark.parametrize("sizes", [[3, 3, 3, 3], [4, 4, 4], [3, 4, 5], [3, 3, 3, 3, 4], [6, 6]])
@pytest.mark.parametrize("seed", range(5))
def test_a_small_network_with_a_server_that_talks_to_all(sizes: list[int], seed: int) -> None:
    """The applications of a dozen hosts are found exactly, the server and faint background glue nothing."""
    planted = planted_applications(sizes, seed, services=1, background_bps=100.0)
    found = found_in(planted)
    assert agreement(planted, found) == 1.0
    assert found.services() == {planted.endpoints[-1]}


@pytest.mark.parametrize(
    ("n", "cross_talk", "least"),
    [(100, 0.0, 0.99), (1000, 0.1, 0.97), (1000, 0.2, 0.95), (10_000, 0.2, 0.97)],
)
def test_planted_applications_are_recovered(n: int, cross_talk: float, least: float) -> None:
    """At every size of the network, through cross talk and two shared services."""
    planted = planted_applications(mixed_sizes(n, 1, min(60, n // 4)), 1, cross_talk=cross_talk, services=2)
    found = found_in(planted)
    assert agreement(planted, found) >= least
    assert found.services() == set(planted.endpoints[-2:])


def test_the_scale_comes_from_the_network_where_that_is_small() -> None:
    """One large sparse application among few endpoints is split less than at a fixed resolution."""
    chosen, fixed = [], []
    for sizes in ([14, 52], [6, 7, 34, 3, 18], [3, 6, 33, 17, 3]):
        for seed in range(4):
            planted = planted_applications(sizes, seed, cross_talk=0.1, services=2)
            chosen.append(agreement(planted, found_in(planted)))
            fixed.append(agreement(planted, found_in(planted, resolution=1.0)))
    assert np.mean(chosen) > np.mean(fixed) + 0.1


def test_the_same_seed_gives_the_same_partition() -> None:
    """Bit for bit, and another order of the edges changes nothing."""
    planted = planted_applications(mixed_sizes(500, 3), 3, cross_talk=0.3)
    first, again = found_in(planted, seed=7), found_in(planted, seed=7)
    assert np.array_equal(first.label, again.label)
    back = np.arange(len(planted.src))[::-1]
    turned = Planted(
        planted.endpoints, planted.dst[back], planted.src[back], planted.rate_bps[back], planted.truth
    )
    assert np.array_equal(first.label, found_in(turned, seed=7).label)


def test_units_do_not_matter() -> None:
    """A network of kbit/s groups as one of Gbit/s."""
    planted = planted_applications(mixed_sizes(200, 5), 5, cross_talk=0.1, services=1)
    times = Planted(planted.endpoints, planted.src, planted.dst, planted.rate_bps * 2.0**20, planted.truth)
    assert np.array_equal(found_in(planted).label, found_in(times).label)


def test_an_elephant_does_not_swallow_its_neighbours() -> None:
    """A flow a thousand times as strong stays inside its application, and its application whole."""
    pairs = [*combinations(range(4), 2), *combinations(range(4, 8), 2)]
    src, dst, rate = edges_of(pairs)
    rate[0] = 1e9
    groups = find_communities("abcdefgh", src, dst, rate).groups()
    assert set(groups) == {frozenset("abcd"), frozenset("efgh")}


def test_a_warm_start_keeps_what_still_holds() -> None:
    """From the last result nothing moves; after a host changed its application only that one does."""
    planted = planted_applications([4, 4, 4, 5], 2, services=1)
    first = found_in(planted)
    assert np.array_equal(found_in(planted, start=first.label).label, first.label)
    keep = (planted.src != 0) & (planted.dst != 0)
    src = np.concatenate([planted.src[keep], [0, 0, 0, 0]])
    dst = np.concatenate([planted.dst[keep], [4, 5, 6, 7]])
    rate = np.concatenate([planted.rate_bps[keep], [planted.rate_bps[(planted.src == 4)].max()] * 4])
    moved = find_communities(planted.endpoints, src, dst, rate, start=first.label)
    assert moved.label[0] == moved.label[4]
    assert np.array_equal(moved.label[1:4] == moved.label[1], [True] * 3)


def test_a_start_is_carried_over_by_name() -> None:
    """Endpoints come and go between results; who is new starts alone."""
    last = find_communities("abcd", *edges_of([(0, 1), (2, 3)]))
    start = labels_to_start_from(last, "dxcby")
    assert start[0] == start[2]
    assert len(set(start.tolist())) == 4
    assert find_communities("dcx", *edges_of([(0, 1), (1, 2)]), start=start[[0, 2, 1]]).groups() == (
        frozenset("cdx"),
    )


def test_following_stays_near_the_last_result_and_leaves_a_poor_one() -> None:
    """Of two optima about as good the last counts; a start that puts all together is given up."""
    planted = planted_applications(mixed_sizes(600, 4), 4, cross_talk=0.3, services=2)
    edges = planted.endpoints, planted.src, planted.dst
    last = follow_communities(None, *edges, planted.rate_bps)
    assert np.array_equal(last.label, found_in(planted).label)
    rng = np.random.default_rng(1)
    followed, fresh = 0.0, 0.0
    for _ in range(5):
        rate = planted.rate_bps * rng.lognormal(0, 0.3, len(planted.rate_bps))
        afresh = find_communities(*edges, rate)
        fresh += adjusted_rand_score(last.label, afresh.label)
        now = follow_communities(last, *edges, rate)
        followed += adjusted_rand_score(last.label, now.label)
        assert now.code_length <= afresh.code_length * 1.02
        last = now
    assert followed > fresh
    poor = replace(last, label=np.zeros_like(last.label))
    assert agreement(planted, follow_communities(poor, *edges, planted.rate_bps)) > 0.8


def test_no_traffic_is_no_community() -> None:
    """No endpoints, no edges, and edges that carry nothing."""
    assert find_communities([], [], [], []).groups() == ()
    assert find_communities("ab", [], [], []).groups() == ()
    silent = find_communities("abc", [0, 1, 2, 1], [1, 1, 0, 2], [0.0, 5.0, np.nan, -1.0])
    assert silent.groups() == ()
    assert silent.label.tolist() == [0, 1, 2]


@pytest.mark.parametrize("n", [2, 3, 8, 40, 400])
def test_one_clique_is_one_community_without_services(n: int) -> None:
    """That everyone talks to everyone makes nobody a service."""
    names = [str(i) for i in range(n)]
    found = find_communities(names, *edges_of(list(combinations(range(n), 2))))
    assert found.groups() == (frozenset(names),)
    assert not found.services()


@pytest.mark.parametrize("clients", [1, 3, 11, 200])
def test_a_lone_server_and_its_clients_are_one_application(clients: int) -> None:
    """It talks to everyone, but there is nothing else that it would glue."""
    names = [str(i) for i in range(clients + 1)]
    found = find_communities(names, *edges_of([(i, 0) for i in range(1, clients + 1)]))
    assert found.groups() == (frozenset(names),)


def test_a_busy_member_is_no_service() -> None:
    """It talks to everyone, but nearly all of its traffic is with its own application."""
    planted = planted_applications([4, 4, 4], 0)
    everyone = np.arange(1, 12)
    src = np.concatenate([planted.src, np.zeros(11, np.int64)])
    rate = np.concatenate([planted.rate_bps, np.full(11, planted.rate_bps.min() / 1e4)])
    found = find_communities(planted.endpoints, src, np.concatenate([planted.dst, everyone]), rate)
    assert not found.services()
    assert agreement(planted, found) == 1.0


def test_effective_peers_counts_equal_peers_and_hardly_faint_ones() -> None:
    """Three equal rates are three peers, a strong and a faint one little more than one."""
    graph = symmetric(4, [(0, 1), (0, 2), (0, 3)])
    assert effective_peers(graph) == pytest.approx([3, 1, 1, 1])
    faint = symmetric(3, [(0, 1)]) + symmetric(3, [(0, 2)], 1e-2)
    assert 1 < effective_peers(sparse.csr_array(faint))[0] < 1.01
    assert not shared_services(sparse.csr_array((3, 3))).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.floats(0, 0.5), st.integers(0, 1000))
def test_labels_are_a_partition_into_connected_parts(n: int, p: float, seed: int) -> None:
    """Each endpoint in exactly one community, numbered by first member, hanging together."""
    rng = np.random.default_rng(seed)
    pairs = [pair for pair in combinations(range(n), 2) if rng.random() < p]
    names = [str(i) for i in range(n)]
    src, dst, _ = edges_of(pairs)
    found = find_communities(names, src, dst, rng.lognormal(10, 3, len(pairs)))
    groups = found.groups(min_size=1)
    assert is_partition(groups, names)
    assert list(dict.fromkeys(found.label.tolist())) == list(range(len(groups)))
    linked = {frozenset((str(a), str(b))) for a, b in pairs}
    for group in groups:
        reached, todo = set(), [min(group)]
        while todo:
            name = todo.pop()
            reached.add(name)
            todo += [other for other in group - reached if frozenset((name, other)) in linked]
        assert reached == group


def test_is_partition_sees_what_is_wrong() -> None:
    """Twice, missing, too many, empty."""
    assert is_partition([{"a"}, {"b"}], "ab")
    assert not is_partition([{"a", "b"}, {"b"}], "ab")
    assert not is_partition([{"a"}], "ab")
    assert not is_partition([{"a"}, {"b"}], "a")
    assert not is_partition([{"a"}, set()], "a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 0.0}, r"resolution must be > 0 and finite, got 0\.0"),
        ({"start": np.zeros(3)}, r"start must have shape \(2,\), got \(3,\)"),
        ({"dst": [2]}, "src and dst must index the 2 endpoints given"),
        ({"dst": [0, 1]}, "src, dst and rate_bps must have one shape"),
    ],
)
def test_input_out_of_bounds_is_refused(options: dict[str, object], message: str) -> None:
    """With rule and value."""
    with pytest.raises(ValueError, match=message):
        find_communities("ab", **{"src": [0], "dst": [1], "rate_bps": [1.0], **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad", [{"min_reach": 0.0}, {"min_company": 2.0}, {"min_ratio": 0.5}, {"min_peers": 0}]
)
def test_service_rules_out_of_bounds_are_refused(bad: dict[str, float]) -> None:
    """With rule and value."""
    with pytest.raises(ValueError, match="must be"):
        ServiceRules(**bad)  # type: ignore[arg-type]


def test_resolution_sets_how_tight_a_community_is() -> None:
    """A ring falls into more parts the higher it is."""
    n = 60
    ring = edges_of([(i, (i + 1) % n) for i in range(n)])
    counts = [
        len(set(find_communities(list(map(str, range(n))), *ring, resolution=r).label)) for r in (0.1, 1, 5)
    ]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 20), st.integers(0, 1000), st.floats(0.02, 0.8), st.just(0.0) | st.floats(0, 0.5))
def test_the_compiled_pass_equals_the_interpreted_one_and_only_improves(
    n: int, seed: int, density: float, inertia: float
) -> None:
    """Same moves from the same order; the quality never falls and ends where no single move helps."""
    rng = np.random.default_rng(seed)
    pairs = [pair for pair in combinations(range(n), 2) if rng.random() < 0.3]
    graph = closeness(symmetric(n, pairs)) if pairs else sparse.csr_array((n, n))
    size = rng.uniform(0.5, 2, n)
    start = rng.integers(0, n, n)
    compiled, plain = start.copy(), start.copy()
    arguments = graph.indptr.astype(np.int32), graph.indices.astype(np.int32), graph.data.astype(float), size
    order = rng.permutation(n)
    moves = local_moving.move_nodes(*arguments, compiled, density, order, inertia)
    assert moves == local_moving.move_nodes.py_func(*arguments, plain, density, order, inertia)
    assert np.array_equal(compiled, plain)
    reached = local_moving.quality(graph, size, compiled, density)
    assert reached >= local_moving.quality(graph, size, start, density) - 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(0, 1000), st.floats(0.02, 0.8))
def test_no_single_move_improves_the_optimum(n: int, seed: int, density: float) -> None:
    """Tried one by one, with the quality computed anew."""
    rng = np.random.default_rng(seed)
    pairs = [(0, 1), *(pair for pair in combinations(range(n), 2) if rng.random() < 0.3)]
    graph = closeness(symmetric(n, pairs))
    size = rng.uniform(0.5, 2, n)
    label = local_moving.optimise(graph, size, rng.integers(0, n, n), density, rng)
    reached = local_moving.quality(graph, size, label, density)
    for node in range(n):
        for there in range(n):
            other = label.copy()
            other[node] = there
            assert local_moving.quality(graph, size, other, density) <= reached + 1e-7


@pytest.mark.parametrize("n_spoofed", [10, 1000])
def test_a_flood_of_spoofed_sources_parts_no_application(n_spoofed: int) -> None:
    """They hang on their victim, which is no shared service for that; the others stay as they were."""
    planted = planted_applications([4, 5, 6, 8], 0)
    before = found_in(planted)
    n = len(planted.endpoints)
    names = (*planted.endpoints, *(f"spoofed-{i:04}" for i in range(n_spoofed)))
    src = np.concatenate([planted.src, np.arange(n, n + n_spoofed)])
    dst = np.concatenate([planted.dst, np.zeros(n_spoofed, np.int64)])
    rate = np.concatenate([planted.rate_bps, np.full(n_spoofed, 1e3)])
    after = find_communities(names, src, dst, rate)
    assert not after.services()
    assert np.array_equal(before.label, after.label[:n])
