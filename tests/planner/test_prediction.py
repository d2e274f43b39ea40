"""The forecasting half: a forecast a step, what is on record of it, and where others join."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from forecasting.contest import Change, Contestant
from forecasting.coverage import Coverage
from forecasting.forecast import Forecast, Rung
from forecasting.history import History
from forecasting.segments import N_CLASSES, class_of
from planner.prediction import Arrived
from planner.snapshot import NotThere
from planner.structure import Structure
from tests.planner.networks import PLACES, Running, small


@pytest.fixture
def running() -> Running:
    """Five users that offer 2 Mbit/s each, ten ticks of one step."""
    running = Running(small())
    running.offered = dict.fromkeys(PLACES, 2e6)
    running.connect()
    running.tick(count=10)
    return running


def test_forecast_stands_until_a_step_is_complete(running: Running):
    """Ticks within a step use the forecast that there is."""
    prediction = running.planner.prediction
    before = prediction.standing
    running.tick(seconds=1.0)
    assert prediction.standing is before
    running.tick(seconds=5.0)
    assert prediction.standing is not before


def test_new_structure_is_forecast_at_once(running: Running):
    """The rows of a forecast are those of the tree that it is for."""
    running.planner.grouping.pin("studio", ("anna", "ben"), running.now)
    running.tick(seconds=0.5)
    standing = running.planner.prediction.standing
    assert standing is not None
    assert standing.structure is running.planner.structure
    assert len(standing.forecast.rung) == 2 * len(standing.structure.path)


def test_no_forecast_before_a_structure():
    """Nothing is known of, nothing is forecast."""
    running = Running(small())
    running.tick(count=2)
    assert running.planner.prediction.standing is None
    with pytest.raises(NotThere, match="before the first forecast"):
        running.planner.pool_forecast("anna", 0.0)


# What readers ask.


def test_pool_is_found_by_path_or_by_its_end(running: Running):
    """A user's id is enough; both give the rows of that pool."""
    whole = running.planner.pool_forecast("global/west/ungrouped/anna", 0.0)
    short = running.planner.pool_forecast("anna", 0.0)
    assert whole.path == short.path == "global/west/ungrouped/anna"
    assert np.array_equal(whole.demand_bps, short.demand_bps)
    assert running.planner.pool_forecast("global", 0.0).path == "global"


@pytest.mark.parametrize(
    ("pool", "line"),
    [
        ("nobody", "pool must be a path of the tree or the end of one, got 'nobody'"),
        ("", "pool must be a path"),
        ("ungrouped", "pool must be one pool, got 'ungrouped', which is global/east/ungrouped, global/west/ungrouped"),
    ],
)  # fmt: skip
def test_what_is_no_pool_is_told(running: Running, pool: str, line: str):
    """The refusal names the value and, where several are meant, all of them."""
    with pytest.raises(NotThere, match=line):
        running.planner.pool_forecast(pool, 0.0)


def test_directions_are_told_apart(running: Running):
    """Upload's figures are upload's."""
    standing = running.planner.prediction.standing
    assert standing is not None
    row = standing.structure.series.index("user/ben")
    n = len(standing.structure.path)
    found = running.planner.pool_forecast("ben", 0.0)
    assert np.array_equal(found.demand_bps[0], standing.forecast.demand_bps[row])
    assert np.array_equal(found.demand_bps[1], standing.forecast.demand_bps[n + row])


def test_issued_stands_beside_what_came(running: Running):
    """A forecast of five seconds ago is shown at the step that it was for."""
    running.offered["anna"] = 6e6
    before = running.planner.pool_forecast("anna", 0.0)
    running.tick()
    after = running.planner.pool_forecast("anna", before.end_time)
    up = after.issued[0]
    at = int(np.flatnonzero(up.time == before.end_time + 5)[0])
    assert up.demand_bps[at] == pytest.approx(6e6)
    levels = [int(np.argmin(np.abs(before.quantile - level))) for level in up.quantile]
    assert np.array_equal(up.forecast_bps[at, 0], before.demand_bps[0, 0, levels])


# Where others join.


def test_adjustment_changes_what_everybody_sees(running: Running):
    """Grants, the record and readers all have the adjusted forecast."""

    def doubled(structure: Structure, forecast: Forecast, now: float) -> Forecast:
        return replace(forecast, demand_bps=forecast.demand_bps * 2)

    before = running.planner.pool_forecast("anna", 0.0).demand_bps
    running.planner.prediction.adjustments.append(doubled)
    running.tick()
    assert running.planner.pool_forecast("anna", 0.0).demand_bps[0, 0, 0] == pytest.approx(
        2 * before[0, 0, 0], rel=0.2
    )
    assert running.planner.snapshot.pools.p50_bps[0, running.row("anna")] > 3e6


def test_listener_hears_what_came_beside_what_was_forecast(running: Running):
    """Once a step, for every series: demand and the quantiles issued one step before, as adjusted."""
    heard: list[Arrived] = []
    running.planner.prediction.listeners.append(heard.append)
    standing = running.planner.prediction.standing
    assert standing is not None
    running.offered["anna"] = 6e6
    running.tick()
    running.tick(seconds=1.0, count=2)
    (arrived,) = heard
    row = arrived.structure.series.index("user/anna")
    assert arrived.demand_bps[row] == pytest.approx(6e6)
    assert np.array_equal(arrived.forecast_bps, standing.forecast.demand_bps[:, 0])
    assert arrived.end_time == standing.forecast.end_time + 5


def test_listener_hears_of_series_by_their_column(running: Running):
    """When pools come between two steps, the old ones keep their forecast and the new have none."""
    heard: list[Arrived] = []
    running.planner.prediction.listeners.append(heard.append)
    standing = running.planner.prediction.standing
    assert standing is not None
    running.planner.grouping.pin("studio", ("david", "emma"), running.now)
    running.tick()
    arrived = heard[-1]
    emma, studio = (arrived.structure.series.index(name) for name in ("user/emma", "group/studio@east"))
    was = standing.structure.series.index("user/emma")
    assert np.array_equal(arrived.forecast_bps[emma], standing.forecast.demand_bps[was, 0])
    assert np.isnan(arrived.forecast_bps[studio]).all()


def test_lost_steps_are_not_compared(running: Running):
    """After steps without a tick nothing was issued for the newest one."""
    heard: list[Arrived] = []
    running.planner.prediction.listeners.append(heard.append)
    running.tick(seconds=60.0)
    assert heard == []


def test_who_joins_and_fails_costs_only_itself(running: Running):
    """A plan is made, the fault is told, and is gone with its cause."""

    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("injected")

    prediction = running.planner.prediction
    prediction.adjustments.append(fail)
    prediction.listeners.append(fail)
    before = running.planner.snapshot.plan.version
    assert running.tick().version == before + 1
    assert any("goes on without" in problem for problem in running.planner.snapshot.health.problems)
    prediction.adjustments[0] = lambda structure, forecast, now: forecast
    prediction.listeners.clear()
    running.tick()
    assert running.planner.snapshot.plan.version == before + 2


# What is learnt.


def test_event_steps_are_not_learnt_from(running: Running, monkeypatch: pytest.MonkeyPatch):
    """Series with an event on are censored for calibration and contest, and for nobody else."""
    prediction, seen = running.planner.prediction, []
    heard: list[Arrived] = []

    def observe(history: History) -> tuple[Change, ...]:
        seen.append(history)
        return ()

    def scheduled(structure: Structure, now: float, lead_s: float, tail_s: float) -> np.ndarray:
        assert (lead_s, tail_s) == (0, 5)
        return np.tile([series == "user/anna" for series in structure.series], 2)

    prediction.scheduled = scheduled
    prediction.listeners.append(heard.append)
    monkeypatch.setattr(prediction.forecaster, "observe", observe)
    running.tick()
    (history,) = seen
    structure = running.planner.structure
    assert structure is not None
    rows = np.flatnonzero(history.censored.any(axis=0)) % len(structure.path)
    assert {structure.series[row] for row in rows} == {"user/anna"}
    assert not heard[0].censored.any()


def test_calendar_that_fails_costs_itself(running: Running):
    """Forecasts are made and learnt from without it, and the problem is told."""

    def scheduled(structure: Structure, now: float, lead_s: float, tail_s: float) -> np.ndarray:
        raise OSError("calendar")

    running.planner.prediction.scheduled = scheduled
    before = running.planner.prediction.standing
    running.tick()
    assert running.planner.prediction.standing is not before
    assert any("calendar" in problem for problem in running.planner.prediction.problems)


def test_champion_that_changes_is_logged(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """An operator sees who forecasts what, since when and why."""
    change = Change(1.0, 6 * N_CLASSES, 1, Contestant.MODEL, Contestant.PERSISTENCE, 0.5, 0.25)
    monkeypatch.setattr(running.planner.forecaster, "observe", lambda history: (change,))
    with caplog.at_level("INFO", "tidegate.planner"):
        running.tick()
    assert f"user up {class_of(0)} 15 s ahead: model -> persistence (loss 0.5 -> 0.25)" in caplog.text


def test_coverage_is_of_the_pools_level(running: Running, monkeypatch: pytest.MonkeyPatch):
    """Upload's of the users at both horizons; what has no evidence is NaN, and without any there is none."""
    quantile = np.asarray(running.planner.prediction.settings.quantiles)
    assert running.planner.pool_forecast("anna", 0.0).coverage is None
    rows = tuple(
        Coverage(level, horizon_s, quantile * 0, quantile * level, 9, False)
        for level, horizon_s in ((5, 5.0), (6, 5.0), (6, 15.0))
    )
    monkeypatch.setattr(running.planner.forecaster, "coverage", lambda: rows)
    running.tick()
    found = running.planner.pool_forecast("anna", 0.0).coverage
    assert found is not None
    assert np.array_equal(found[0], np.tile(quantile * 6, (2, 1)))
    assert np.isnan(found[1]).all()
    assert running.planner.prediction.quality().coverage == rows


def test_points_add_up_the_tree(running: Running):
    """Each pool's point is the sum of those below it, in both directions; nobody is surer than sure."""
    running.tick()
    standing = running.planner.prediction.standing
    assert standing is not None
    s = standing.structure
    found = [running.planner.pool_forecast(path, 0.0) for path in s.path]
    point = np.stack([one.point_bps for one in found if one.point_bps is not None])
    for row in range(len(s.path)):
        below = point[s.parent == row]
        if len(below):
            np.testing.assert_allclose(point[row], below.sum(axis=0), rtol=1e-9, atol=1e-6)
    confidence = np.stack([one.confidence for one in found if one.confidence is not None])
    assert len(confidence) == len(s.path)
    assert ((confidence >= 0) & (confidence <= 1) | np.isnan(confidence)).all()


def test_listener_hears_which_rung_forecast(running: Running):
    """A series that is new has none; the others the rung of the forecast that came due."""
    heard: list[Arrived] = []
    running.planner.prediction.listeners.append(heard.append)
    standing = running.planner.prediction.standing
    assert standing is not None
    running.planner.grouping.pin("studio", ("david", "emma"), running.now)
    running.tick()
    arrived = heard[-1]
    emma, studio = (arrived.structure.series.index(name) for name in ("user/emma", "group/studio@east"))
    assert arrived.rung[emma] == standing.forecast.rung[standing.structure.series.index("user/emma")]
    assert arrived.rung[studio] == Rung.LAST_PLAN
