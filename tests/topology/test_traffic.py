from __future__ import annotations

import io
import json
import math
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology.traffic import UNKNOWN, Ignored, TrafficGraph
from topology.traffic_view import to_graphml, to_json

Row = tuple[float, int, int, int, float, float]
HALF_LIFE_S = 60.0
NAMES = [f"02:00:00:00:00:{i:02x}" for i in range(6)]


def rates(graph: TrafficGraph, now: float) -> dict[tuple[str, str, int], float]:
    view = graph.view(now)
    rows = zip(view.src, view.dst, view.app, view.rate_bps, strict=True)
    return {(view.endpoints[s], view.endpoints[d], int(a)): float(r) for s, d, a, r in rows}


def one(graph: TrafficGraph, now: float, rate_bps: float, interval_s: float = 5.0, app: int = 0) -> None:
    ids = graph.intern(NAMES)
    graph.observe(now, ids[0], ids[1], app, rate_bps, interval_s)


observations = st.lists(
    st.tuples(
        st.floats(0, 3600),
        st.integers(0, 5),
        st.integers(0, 5),
        st.integers(0, 3),
        st.just(0.0) | st.floats(1e-3, 1e9),
        st.floats(0.1, 60),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(observations, st.randoms())
def test_rates_decay_as_the_definition_says_in_whatever_order_they_come(
    rows: list[Row], random: object
) -> None:
    """Against a plain sum over all observations, each weighted by its age."""
    expected: dict[tuple[str, str, int], float] = {}
    for now, src, dst, app, rate_bps, interval_s in rows:
        if src != dst and rate_bps > 0:
            weight = (1 - 2 ** (-interval_s / HALF_LIFE_S)) * 2 ** (-(4000 - now) / HALF_LIFE_S)
            edge = NAMES[src], NAMES[dst], app
            expected[edge] = expected.get(edge, 0.0) + rate_bps * weight
    random.shuffle(rows)  # type: ignore[attr-defined]
    graph = TrafficGraph(HALF_LIFE_S)
    ids = graph.intern(NAMES)
    for now, src, dst, app, rate_bps, interval_s in rows:
        graph.observe(now, ids[src], ids[dst], app, rate_bps, interval_s)
    assert rates(graph, 4000.0) == pytest.approx(expected, rel=1e-9, abs=1e-30)


@settings(deadline=None)
@given(observations)
def test_a_batch_is_its_rows_one_by_one(rows: list[Row]) -> None:
    """Rows of the same edge add up."""
    together, apart = TrafficGraph(HALF_LIFE_S), TrafficGraph(HALF_LIFE_S)
    ids = together.intern(NAMES)
    apart.intern(NAMES)
    if rows:
        columns = np.array(rows).T
        src, dst, app = columns[1:4].astype(int)
        together.observe(100.0, ids[src], ids[dst], app, columns[4], columns[5])
    for _, src, dst, app, rate_bps, interval_s in rows:
        apart.observe(100.0, ids[src], ids[dst], app, rate_bps, interval_s)
    assert rates(together, 100.0) == pytest.approx(rates(apart, 100.0))


def test_a_constant_rate_is_reached_and_silence_halves_it() -> None:
    """One half after one half-life, all of it in the long run, then one half again."""
    graph = TrafficGraph(HALF_LIFE_S)
    for step in range(1, 13):
        one(graph, step * 5.0, 8e6)
    edge = NAMES[0], NAMES[1], 0
    assert rates(graph, 60.0)[edge] == pytest.approx(4e6)
    for step in range(13, 1000):
        one(graph, step * 5.0, 8e6)
    assert rates(graph, 4995.0)[edge] == pytest.approx(8e6)
    assert rates(graph, 4995.0 + HALF_LIFE_S)[edge] == pytest.approx(4e6)


def test_a_gap_is_not_silence() -> None:
    """An edge that was not measured keeps its rate, for at most a half-life; a new one is not made."""
    graph = TrafficGraph(HALF_LIFE_S)
    one(graph, 0.0, 8e6)
    before = rates(graph, 0.0)
    one(graph, 30.0, math.nan, interval_s=30.0)
    assert rates(graph, 30.0) == pytest.approx(before)
    one(graph, 30.0, math.nan, app=3)
    assert rates(graph, 30.0).keys() == before.keys()
    one(graph, 630.0, math.nan, interval_s=600.0)
    assert rates(graph, 630.0)[NAMES[0], NAMES[1], 0] < before[NAMES[0], NAMES[1], 0] / 500


def test_bad_observations_are_ignored_and_counted() -> None:
    """Each for its reason; good rows of the same call are taken."""
    graph = TrafficGraph(HALF_LIFE_S)
    a, b = graph.intern(NAMES[:2])
    src = [a, UNKNOWN, 99, a, a, a, a, a, a, a]
    dst = [b, b, b, a, b, b, b, b, b, b]
    app = [0, 0, 0, 0, 4096, -1, 0, 0, 0, 0]
    rate = [1e6, 1, 1, 1, 1, 1, -1, math.inf, 1, 1]
    interval = [5, 5, 5, 5, 5, 5, 5, 5, 0, math.nan]
    graph.observe(0.0, src, dst, app, rate, interval)
    graph.observe(math.nan, a, b, 0, 1.0, 5.0)
    assert graph.ignored == Ignored(
        unknown_endpoint=2, self_loop=1, bad_app=2, bad_rate=2, bad_interval=2, bad_time=1
    )
    assert len(graph) == 1


def test_endpoints_beyond_the_bound_are_unknown() -> None:
    """So is a name that is empty; a known one keeps its id."""
    graph = TrafficGraph(HALF_LIFE_S, max_endpoints=2)
    assert graph.intern(["a", "", "b", "c", "a"]).tolist() == [0, UNKNOWN, 1, UNKNOWN, 0]


def test_ids_grow_past_the_first_block() -> None:
    """Nothing is lost when the table of ids is enlarged."""
    graph = TrafficGraph(HALF_LIFE_S)
    ids = graph.intern(map(str, range(5000)))
    graph.observe(0.0, ids[:-1], ids[1:], 0, 1e6, 5.0)
    assert len(graph) == 4999
    assert graph.ignored == Ignored()


@settings(max_examples=40, deadline=None)
@given(observations, st.integers(1, 5))
def test_what_pruning_loses_is_known(rows: list[Row], max_edges: int) -> None:
    """To the bit/s, and each edge taken was at most the threshold reported."""
    pruned = TrafficGraph(HALF_LIFE_S, floor_bps=1e3, max_edges=max_edges)
    whole = TrafficGraph(HALF_LIFE_S)
    for now, src, dst, app, rate_bps, interval_s in sorted(rows):
        for graph in (pruned, whole):
            ids = graph.intern(NAMES)
            graph.observe(now, ids[src], ids[dst], app, rate_bps, interval_s)
        before = rates(pruned, now)
        report = pruned.prune(now)
        after = rates(pruned, now)
        assert len(pruned) <= max_edges
        assert all(
            before[edge] <= report.threshold_bps * (1 + 1e-12) for edge in before.keys() - after.keys()
        )
        assert sum(before.values()) - sum(after.values()) == pytest.approx(report.rate_bps, abs=1e-3)
    end = 3600.0
    missing = sum(rates(whole, end).values()) - sum(rates(pruned, end).values())
    assert missing == pytest.approx(pruned.lost_bps(end), rel=1e-6, abs=1e-3)


def test_ids_of_endpoints_without_edges_are_used_again() -> None:
    """After a prune; memory is bounded by what is alive."""
    graph = TrafficGraph(HALF_LIFE_S, max_endpoints=2)
    one(graph, 0.0, 1e6)
    assert graph.prune(1e4).endpoints == 2
    assert graph.intern(["x", "y"]).min() >= 0
    assert graph.view(1e4).endpoints == ()


def test_a_removed_endpoint_takes_its_edges_along() -> None:
    """The others keep theirs, and the name can come back."""
    graph = TrafficGraph(HALF_LIFE_S)
    ids = graph.intern(NAMES)
    graph.observe(0.0, ids[[0, 1, 2]], ids[[1, 2, 3]], 0, 1e6, 5.0)
    graph.forget([NAMES[1], "stranger"])
    assert set(rates(graph, 0.0)) == {(NAMES[2], NAMES[3], 0)}
    one(graph, 0.0, 1e6)
    assert len(graph) == 2


def test_a_long_life_does_not_lose_precision() -> None:
    """After thousands of half-lives the stored numbers are still in range."""
    graph = TrafficGraph(1.0)
    for day in range(20):
        one(graph, 1.7e9 + 86_400.0 * day, 1e9, interval_s=60.0)
    assert rates(graph, 1.7e9 + 86_400.0 * 19) == pytest.approx({(NAMES[0], NAMES[1], 0): 1e9})


def test_networkx_sees_the_sum_and_the_classes() -> None:
    """One edge for each direction."""
    graph = TrafficGraph(HALF_LIFE_S)
    assert nx.is_empty(graph.to_networkx(0.0))
    one(graph, 0.0, 1e6, app=1)
    one(graph, 0.0, 3e6, app=2)
    seen = graph.to_networkx(0.0)
    edge = seen.edges[NAMES[0], NAMES[1]]
    assert edge["rate_bps"] == pytest.approx(sum(edge["app_bps"].values()))
    assert edge["app_bps"][2] == pytest.approx(3 * edge["app_bps"][1])
    assert not seen.has_edge(NAMES[1], NAMES[0])


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"half_life_s": 0.0}, "half_life_s must be > 0 and finite, got 0"),
        ({"half_life_s": 1.0, "floor_bps": -1.0}, "floor_bps must be >= 0 and finite, got -1"),
        ({"half_life_s": 1.0, "max_edges": 0}, "max_edges must be >= 1, got 0"),
        ({"half_life_s": 1.0, "max_endpoints": 0}, "max_endpoints must be in 1..33554432, got 0"),
    ],
)
def test_bounds_are_checked(bounds: dict[str, float], message: str) -> None:
    """With rule and value."""
    with pytest.raises(ValueError, match=message):
        TrafficGraph(**bounds)  # type: ignore[arg-type]


def test_ids_that_were_freed_are_given_again() -> None:
    """Before new ones, so that the arrays stay small."""
    graph = TrafficGraph(HALF_LIFE_S)
    ids = graph.intern(["a", "b"])
    graph.observe(0.0, ids[0], ids[1], 0, 1e6, 5.0)
    graph.forget(["a"])
    assert graph.intern(["c"]).tolist() == [ids[0]]
    assert graph.intern(["b"]).tolist() == [ids[1]]


def test_graphml_and_json_are_read_back_by_networkx() -> None:
    """With every class of every edge, and with endpoints' names as they are."""
    graph = TrafficGraph(HALF_LIFE_S)
    one(graph, 0.0, 1e6, app=1)
    one(graph, 0.0, 3e6, app=2)
    view = graph.view(0.0)
    from_graphml = nx.read_graphml(io.BytesIO(to_graphml(view)), force_multigraph=True, edge_key_type=int)
    from_json = nx.node_link_graph(json.loads(json.dumps(to_json(view))), edges="edges")
    seen: Any
    for seen in (from_graphml, from_json):
        assert set(seen.nodes) == set(NAMES[:2])
        edges = {(a, b, int(app)): rate for a, b, app, rate in seen.edges(keys=True, data="rate_bps")}
        assert edges == pytest.approx(rates(graph, 0.0))
    assert from_json.graph["time"] == 0.0


def test_an_empty_graph_is_exported_as_such() -> None:
    """No endpoints is no error."""
    view = TrafficGraph(HALF_LIFE_S).view(5.0)
    assert nx.is_empty(nx.read_graphml(io.BytesIO(to_graphml(view))))
    assert to_json(view)["nodes"] == []


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.integers(0, 5),
            st.integers(0, 1),
            st.floats(1e-3, 1e9),
            st.floats(0.1, 60),
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 4),
    st.floats(5.0, 100.0),
)
def test_no_edge_is_low_by_more_than_the_stated_bound(
    rows: list[tuple[int, int, int, float, float]], max_edges: int, period_s: float
) -> None:
    """The largest threshold so far over 1 - 2 ** (-period / half-life), at any moment, for each edge."""
    pruned = TrafficGraph(HALF_LIFE_S, floor_bps=1e4, max_edges=max_edges)
    whole = TrafficGraph(HALF_LIFE_S)
    threshold = 0.0
    for step, (src, dst, app, rate_bps, interval_s) in enumerate(rows):
        now = step * period_s
        for graph in (pruned, whole):
            ids = graph.intern(NAMES)
            graph.observe(now, ids[src], ids[dst], app, rate_bps, interval_s)
        threshold = max(threshold, pruned.prune(now).threshold_bps)
        bound = threshold / (1 - 2 ** (-period_s / HALF_LIFE_S))
        held = rates(pruned, now)
        for edge, true_bps in rates(whole, now).items():
            assert true_bps - held.get(edge, 0.0) <= bound * (1 + 1e-9) + 1e-9


def test_a_counter_that_jumped_back_is_a_gap() -> None:
    """The collector sends NaN; should a negative rate come through, it is refused. Neither changes the edge."""
    graph = TrafficGraph(HALF_LIFE_S)
    one(graph, 0.0, 8e6)
    before = rates(graph, 0.0)
    one(graph, 0.0, -4e9)
    one(graph, 0.0, math.nan, interval_s=1e-9)
    assert rates(graph, 0.0) == pytest.approx(before)
    assert graph.ignored == Ignored(bad_rate=1)


def test_spoofed_sources_fill_the_room_for_newcomers_and_no_more() -> None:
    """Memory stays bounded, who is known keeps its edges, and a prune gives the room back."""
    graph = TrafficGraph(HALF_LIFE_S, max_endpoints=100)
    one(graph, 0.0, 8e6)
    before = rates(graph, 0.0)
    spoofed = graph.intern(f"spoofed-{i}" for i in range(10_000))
    victim = graph.intern(NAMES[:1])[0]
    graph.observe(0.0, spoofed, victim, 0, 64.0, 5.0)
    assert graph.ignored.unknown_endpoint == 10_000 - (100 - len(NAMES))
    assert {edge: rate for edge, rate in rates(graph, 0.0).items() if edge in before} == before
    assert graph.intern(["newcomer"])[0] == UNKNOWN
    one(graph, 600.0, 8e6)
    graph.prune(600.0)
    assert graph.intern(["newcomer"])[0] != UNKNOWN
