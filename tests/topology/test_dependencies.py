from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology.dependencies import MIN_STEPS, find_dependencies, lagged_correlation

STEP_S = 60.0


def test_traffic_between_groups_is_summed_by_direction() -> None:
    """What stays inside a group, or leads to who is in none, is no dependency."""
    found = find_dependencies(
        ["web", "db", "idle"],
        [0, 0, 1, -1],
        [0, 1, 2, 0, 0, 3, 0],
        [2, 2, 0, 1, 3, 2, 2],
        [1e6, 2e6, 5e5, 9e9, 9e9, 9e9, math.nan],
    )
    graph = found.to_networkx()
    assert dict(graph.edges) == {("web", "db"): {"rate_bps": 3e6}, ("db", "web"): {"rate_bps": 5e5}}
    assert set(graph) == {"web", "db", "idle"}


def test_a_trickle_between_busy_groups_is_no_dependency() -> None:
    """It counts where it is a part of what one of them does."""
    sources, targets, rates = [0, 1, 0, 3], [1, 2, 2, 1], [1e9, 1e9, 1e3, 1e3]
    found = find_dependencies("abcd", [0, 1, 2, 3], sources, targets, rates)
    assert set(found.to_networkx().edges) == {("a", "b"), ("b", "c"), ("d", "b")}
    every = find_dependencies("abcd", [0, 1, 2, 3], sources, targets, rates, min_part=0.0)
    assert len(every.rate_bps) == 4


@pytest.mark.parametrize("lag", [-3, 0, 2])
def test_who_follows_whom_is_found_with_the_lag(lag: int) -> None:
    """Through noise, a common course of the day, and holes."""
    rng = np.random.default_rng(5)
    bursts = rng.gamma(0.5, 2e6, 400)
    day = 5e6 * np.sin(np.arange(380) / 60)
    caller = bursts[10:390] + day + rng.normal(0, 2e5, 380)
    callee = 0.3 * bursts[10 - lag : 390 - lag] + day + rng.normal(0, 2e5, 380)
    demand = np.stack([caller, callee, day + rng.gamma(0.5, 2e6, 380)], axis=1)
    demand[rng.random(demand.shape) < 0.05] = math.nan
    found = find_dependencies(
        ["web", "db", "other"],
        [0, 1, 2],
        [0, 1, 0],
        [1, 0, 2],
        [1e6, 1e6, 1e6],
        demand_bps=demand,
        step_s=STEP_S,
    )
    graph = found.to_networkx()
    assert graph.edges["web", "db"]["lag_s"] == lag * STEP_S
    assert graph.edges["db", "web"]["lag_s"] == -lag * STEP_S
    assert graph.edges["web", "db"]["correlation"] > 0.7
    assert graph.edges["web", "other"]["correlation"] < 0.3


def test_too_little_to_tell_from_is_not_known() -> None:
    """Few steps, mostly gaps, or a demand that never changes."""
    rng = np.random.default_rng(0)
    n = MIN_STEPS + 5
    demand = rng.random((n, 4))
    demand[:, 1] = 7.0
    demand[3:, 2] = math.nan
    first, second = np.zeros(3, np.int64), np.array([1, 2, 3])
    correlation, lag = lagged_correlation(demand, first, second, 2)
    assert np.isnan(correlation).tolist() == np.isnan(lag).tolist() == [True, True, False]
    assert np.isnan(lagged_correlation(demand[:MIN_STEPS], first, second, 2)[0]).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 4), st.floats(0, 0.2), st.sampled_from([1e-3, 1.0, 1e12]))
def test_the_correlation_is_pearsons_of_the_changes(
    seed: int, max_lag: int, missing: float, unit: float
) -> None:
    """Against numpy, pair by pair and lag by lag."""
    rng = np.random.default_rng(seed)
    series = unit * rng.lognormal(0, 1, (60, 3))
    series[rng.random(series.shape) < missing] = math.nan
    first, second = np.array([0, 0, 1, 2]), np.array([1, 2, 2, 0])
    correlation, lag = lagged_correlation(series, first, second, max_lag)
    change = np.diff(series, axis=0)
    for pair, (a, b) in enumerate(zip(first, second, strict=True)):
        expected = {}
        for steps in range(-max_lag, max_lag + 1):
            rows = [(change[t, a], change[t + steps, b]) for t in range(59) if 0 <= t + steps < len(change)]
            known = np.array([row for row in rows if not np.isnan(row).any()])
            if len(known) >= MIN_STEPS:
                expected[steps] = np.corrcoef(known.T)[0, 1]
        if not expected:
            assert math.isnan(correlation[pair])
            continue
        assert correlation[pair] == pytest.approx(max(expected.values()), abs=1e-9)
        assert expected[int(lag[pair])] == pytest.approx(correlation[pair], abs=1e-9)


def test_no_groups_and_no_traffic_are_an_empty_graph() -> None:
    """With or without endpoints."""
    assert len(find_dependencies([], [], [], [], []).to_networkx()) == 0
    assert len(find_dependencies([], [-1, -1], [0], [1], [1.0]).rate_bps) == 0
    assert len(find_dependencies(["a"], [0], [], [], [], demand_bps=np.zeros((30, 1))).rate_bps) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_s": 0.0}, "step_s must be > 0, max_lag >= 0 and min_part in"),
        ({"group_of": [0, 2]}, "group_of must be -1 or index the 2 groups"),
        ({"dst": [2]}, "src and dst must index the 2 endpoints of group_of"),
        ({"dst": [0, 1]}, "src, dst and rate_bps must have one shape"),
        ({"demand_bps": [[1.0]]}, r"demand_bps must have shape \(n_steps, 2\), got \(1, 1\)"),
    ],
)
def test_input_out_of_bounds_is_refused(options: dict[str, object], message: str) -> None:
    """With rule and value."""
    columns = {"groups": "ab", "group_of": [0, 1], "src": [0], "dst": [1], "rate_bps": [1.0]}
    with pytest.raises(ValueError, match=message):
        find_dependencies(**{**columns, **options})  # type: ignore[arg-type]
