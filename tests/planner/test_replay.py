"""A replay is a planner in virtual time: it repeats itself, sees no future, and its sums add up."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import make_trace
from planner.config import Config, load, parse
from planner.config_faults import ConfigError
from planner.loop import Planner
from planner.replay import feed, run
from planner.trace import SAMPLE_TRACE, Trace, TraceError, load_trace, over_ticks

STEP_S = 5.0
USERS = ("anna", "ben", "carla", "david")
N_STEPS = 60


def small_config(**changes: Any) -> Config:
    """Two regions of one switch each, and less capacity than the four users' peaks."""
    raw: dict[str, Any] = {
        "capacity_mbps": 14,
        "regions": {
            "west": {"dpids": [1], "capacity_mbps": 8},
            "east": {"dpids": [2], "capacity_mbps": 8},
        },
        "users": {
            "anna": {"macs": ["00:00:00:00:00:01"], "guarantee_mbps": 0.5},
            "ben": {"addresses": ["10.0.0.2"]},
            "carla": {"addresses": ["10.0.0.3"]},
            "david": {"macs": ["00:00:00:00:00:04"]},
        },
        "polling": {"interval_s": STEP_S},
        "grouping": {"half_life_s": 60, "every_s": 10, "hold_s": 10},
        "forecasting": {
            "step_s": STEP_S,
            "horizons_s": [5, 10, 30],
            "min_history_steps": 8,
            "window_steps": 16,
            "train_every_s": 100,
        },
    }
    return parse(raw | changes)


def demand_of(seed: int = 0, n_steps: int = N_STEPS) -> np.ndarray[Any, Any]:
    """Two users busy at a time, shape (T, 2, 4)."""
    rng = np.random.default_rng(seed)
    phase = np.sin(np.arange(n_steps) / 4)[:, None, None] * np.array([1, 1, -1, -1])
    return np.asarray((3e6 + 2e6 * phase) * rng.uniform(0.7, 1.3, (n_steps, 2, 4)))


def trace_of(demand: np.ndarray[Any, Any], edges: bool = True) -> Trace:
    """A trace in which anna and ben, and carla and david, talk to each other."""
    n_steps = len(demand)
    src, dst = np.array([0, 1, 2, 3]), np.array([1, 0, 3, 2])
    if not edges:
        src = dst = np.empty(0, np.int64)
    return Trace(
        time=1_767_592_800.0 + STEP_S * np.arange(1, n_steps + 1, dtype=np.float64),
        users=USERS,
        demand_bps=demand,
        edge_src=src,
        edge_dst=dst,
        edge_bps=demand[:, 0, : len(src)],
    )


def save(path: Path, **parts: Any) -> Path:
    np.savez(path, **parts)
    return path


def parts_of(demand: np.ndarray[Any, Any]) -> dict[str, Any]:
    trace = trace_of(demand)
    return {"time": trace.time, "users": np.array(USERS), "demand_bps": demand.astype(np.float32)}


def rates(summary: dict[str, Any], column: str) -> dict[tuple[str, str], float]:
    return {(row["path"], row["direction"]): row[column] for row in summary["pools"]}


@pytest.fixture(scope="module")
def planner() -> Planner:
    return feed(small_config(), trace_of(demand_of()))


@pytest.fixture(scope="module")
def summary(planner: Planner) -> dict[str, Any]:
    return planner.tally.report(None)


def test_the_same_trace_gives_the_same_summary(tmp_path: Path):
    """Virtual time, seeded models and work done at once leave nothing to chance."""
    file = save(tmp_path / "t.npz", **parts_of(demand_of()))
    first, second = (run(small_config(), file, lambda share: None) for _ in range(2))
    assert first == second
    assert first["meters_equal_plan"] is None


def test_progress_rises_to_one(tmp_path: Path):
    """A reader who waits sees how long."""
    file = save(tmp_path / "t.npz", **parts_of(demand_of(n_steps=20)))
    told: list[float] = []
    run(small_config(), file, told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) == 20


def test_a_model_is_trained_and_groups_are_found(planner: Planner):
    """It is the whole loop that runs, not a part of it."""
    assert planner.forecaster.trained is not None
    found = {frozenset(group.members) for group in planner.snapshot.groups if group.source == "discovered"}
    assert found == {frozenset({"anna", "ben"}), frozenset({"carla", "david"})}
    assert not planner.problems


def test_plans_know_nothing_of_what_comes():
    """Change everything after a moment: the grants up to it are the same, and the later ones are not."""
    demand = demand_of()
    other = demand.copy()
    other[40:] = demand[40:][::-1] * 0.3
    one, two = (feed(small_config(), trace_of(d)) for d in (demand, other))
    assert one.structure is not None
    series = [name for name in one.structure.series if name.startswith(("group/", "user/"))]
    for name in series:
        before, after = (
            planner.record.history(planner.history.numbers([name]), 0.0, float("inf"))
            for planner in (one, two)
        )
        past = before.time <= trace_of(demand).time[39]
        assert past.sum() > 35
        np.testing.assert_array_equal(before.grant_bps[:, past], after.grant_bps[:, past])
    assert len(series) > 4
    assert one.tally.report(None) != two.tally.report(None)


def test_a_plan_polices_what_comes_after_it():
    """A burst from nothing meets the meters that were set before anybody saw it."""
    demand = np.full((30, 2, 4), 1e5)
    demand[20:, :, :2] = 20e6
    reports = [feed(small_config(), trace_of(demand[:n])).snapshot.pools for n in (20, 21)]
    before, after = reports
    west = before.path.index("global/west")
    # What the region got through in the burst's first tick is what it was granted before it.
    assert after.delivered_bps[0, west] <= before.grant_bps[0, west] * (1 + 1e-9)
    assert after.offered_bps[0, after.path.index("global/west")] == pytest.approx(40e6)


def test_pools_offer_the_sum_of_their_children(summary: dict[str, Any]):
    """The tree adds up, level by level."""
    for column in ("offered_bps", "static_equal_bps"):
        value = rates(summary, column)
        for direction in ("up", "down"):
            users = sum(rate for (path, d), rate in value.items() if d == direction and path.count("/") == 3)
            assert users == pytest.approx(value["global", direction])
            regions = value["global/west", direction] + value["global/east", direction]
            assert regions == pytest.approx(value["global", direction])


def test_nobody_gets_more_through_than_was_offered(summary: dict[str, Any]):
    """Neither measured, nor under the schemes beside it."""
    for row in summary["pools"]:
        for column in ("measured_bps", "static_equal_bps", "auto_bandwidth_bps"):
            assert row[column] <= row["offered_bps"] * (1 + 1e-9), (row["path"], column)
    for part in ("all", "scarce"):
        assert all(0 < share <= 1 for share in summary["totals"][part].values())


def test_regions_get_no_more_than_their_capacity_through(summary: dict[str, Any]):
    """Scarce ticks are there, and the made-up meters held."""
    assert summary["window"]["scarce_ticks"] > 0
    for (path, _), rate in rates(summary, "measured_bps").items():
        if path in ("global/west", "global/east"):
            assert rate <= 8e6


def test_what_is_missing_is_unknown_and_not_zero():
    """A user whose polls are lost for a while is planned for as before."""
    demand = demand_of()
    gaps = demand.copy()
    gaps[30:40, :, 3] = np.nan
    planner = feed(small_config(), trace_of(gaps))
    assert not planner.problems
    offered = rates(planner.tally.report(None), "offered_bps")
    path = next(path for path, _ in offered if path.endswith("/david"))
    known = np.r_[0:30, 40:N_STEPS]
    # The first tick has no plan before it, and a lost poll's predecessor serves a while longer.
    assert offered[path, "up"] == pytest.approx(demand[known, 0, 3].mean(), rel=0.1)
    blind = feed(small_config(), trace_of(gaps[:38]))
    row = next(row for row, path in enumerate(blind.snapshot.pools.path) if path.endswith("/david"))
    assert np.isnan(blind.snapshot.pools.offered_bps[0, row])
    assert blind.snapshot.pools.grant_bps[0, row] > 0.5e6


def test_a_trace_of_nothing_but_gaps_ends_in_an_empty_summary():
    """Nothing known is nothing counted."""
    planner = feed(small_config(), trace_of(np.full((12, 2, 4), np.nan), edges=False))
    assert planner.tally.report(None)["window"]["ticks"] == 0


def test_users_of_the_trace_must_be_in_the_configuration(tmp_path: Path):
    """Each stranger has a line of its own."""
    parts = parts_of(demand_of(n_steps=10)) | {"users": np.array(["anna", "ben", "zoe", "yan"])}
    with pytest.raises(ConfigError) as refused:
        run(small_config(), save(tmp_path / "t.npz", **parts), lambda share: None)
    assert refused.value.faults == [
        "users.zoe must be given, the trace has this user",
        "users.yan must be given, the trace has this user",
    ]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"demand_bps": np.zeros((3, 2, 4))}, "demand_bps must have shape (60, 2, 4), got (3, 2, 4)"),
        ({"demand_bps": np.full((60, 2, 4), -1.0)}, "demand_bps must be >= 0"),
        ({"time": np.array([1.0])}, "time must have shape (T,) with T >= 2"),
        ({"time": np.r_[0:59, 99].astype(float)}, "time must rise evenly"),
        ({"users": np.array(["anna", "ben", "anna", "david"])}, "users must be at least one, each once"),
        ({"users": np.arange(4)}, "users must be texts"),
        ({"edge_src": np.array([0])}, "edge_src, edge_dst, edge_bps must come together"),
        (
            {"edge_src": np.array([0]), "edge_dst": np.array([4]), "edge_bps": np.ones(1)},
            "edge_dst must be rows of users, 0 to 3",
        ),
    ],
)
def test_a_bad_trace_says_what_is_wrong(tmp_path: Path, change: dict[str, Any], text: str):
    """File, part, rule and value in one line."""
    file = save(tmp_path / "t.npz", **(parts_of(demand_of()) | change))
    with pytest.raises(TraceError) as refused:
        load_trace(file)
    assert str(refused.value).startswith(f"{file}: ")
    assert text in str(refused.value)


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path):
    """Whatever the bytes are, the answer is one line."""
    objects = tmp_path / "objects.npz"
    np.savez(objects, time=np.array([{}], object))
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "text").write_text("time,users\n")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes(SAMPLE_TRACE.read_bytes()[:1000])
    for name in ("objects.npz", "one.npy", "text", "empty", "cut.npz"):
        with pytest.raises(TraceError, match="must be a trace"):
            load_trace(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_trace(tmp_path / "absent.npz")


def test_rates_over_ticks_keep_the_bytes():
    """Ticks longer or shorter than a step, or across two, carry what the steps carried."""
    trace = trace_of(np.arange(8.0)[:, None, None] * np.ones((8, 2, 4)), edges=False)
    for tick_s in (2.5, 5.0, 7.5, 10.0, 20.0):
        ends = trace.since + tick_s * np.arange(1, int(40 / tick_s) + 1, dtype=np.float64)
        mean = over_ticks(trace, trace.demand_bps, ends, tick_s)
        whole = ends <= trace.time[-1]
        carried = (mean[whole, 0, 0] * tick_s).sum()
        last = ends[whole][-1]
        expected = sum(
            rate * STEP_S * np.clip((last - (end - STEP_S)) / STEP_S, 0, 1)
            for rate, end in zip(trace.demand_bps[:, 0, 0], trace.time, strict=True)
        )
        assert carried == pytest.approx(expected)


def test_a_tick_that_was_hardly_measured_is_a_gap():
    """Half a tick suffices; less does not."""
    demand = np.ones((4, 2, 4))
    demand[1] = np.nan
    demand[2:] = np.nan
    trace = trace_of(demand, edges=False)
    two = over_ticks(trace, trace.demand_bps, trace.since + np.array([10.0, 20.0]), 10.0)
    assert two[0, 0, 0] == pytest.approx(1.0)
    assert np.isnan(two[1, 0, 0])


def test_the_sample_trace_is_what_its_generator_makes():
    """Nobody edited the file by hand, and it fits the example configuration."""
    made, shipped = make_trace.make(), load_trace(SAMPLE_TRACE)
    assert tuple(made["users"]) == shipped.users
    np.testing.assert_array_equal(made["time"], shipped.time)
    np.testing.assert_allclose(made["demand_bps"], shipped.demand_bps, atol=1001)
    np.testing.assert_allclose(made["edge_bps"], shipped.edge_bps, atol=1001)
    assert SAMPLE_TRACE.stat().st_size < 300_000
    config = load(Path(__file__).parents[2] / "config" / "demo.yaml")
    assert set(shipped.users) <= config.users.keys()


def test_a_quiet_log(caplog: pytest.LogCaptureFixture):
    """A replay of sound input has nothing to warn of."""
    with caplog.at_level(logging.WARNING):
        feed(small_config(), trace_of(demand_of(n_steps=12)))
    assert not caplog.records
