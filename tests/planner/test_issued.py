"""Forecasts as issued: beside what came, within a bound, whoever comes and goes."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.forecast import Forecast, Rung
from forecasting.history import History
from planner.issued import IssuedForecasts

STEP, LONG = 5.0, 3
QUANTILE = np.array([0.1, 0.25, 0.5, 0.9, 0.98])


def columns_of(numbers: list[int]) -> np.ndarray:
    number = np.array(numbers)
    return np.concatenate([2 * number, 2 * number + 1])


def add(
    record: IssuedForecasts, step: int, names: tuple[str, ...] = ("a", "b"), rung: Rung = Rung.MODEL
) -> None:
    """Demand of column c at step t is 100 t + c; forecasts are that of their target plus 10 x the level."""
    columns = columns_of([ord(name) - ord("a") for name in names])
    n = len(columns)
    demand = (100 * step + columns).astype(np.float32)[None]
    history = History(demand, np.zeros(demand.shape, bool), STEP, step * STEP, np.zeros(n, int), columns)
    target = 100 * (step + np.array([1, 2, LONG])) + columns[:, None]
    forecast = Forecast(
        QUANTILE, np.array([1, 2, LONG]) * STEP,
        (target[:, :, None] + 10 * QUANTILE).astype(np.float32),
        np.full(n, rung, np.uint8), step * STEP,
    )  # fmt: skip
    record.add(names, columns, history, forecast)


@pytest.fixture
def record() -> IssuedForecasts:
    """Steps 10 to 20 of two series."""
    record = IssuedForecasts(STEP)
    for step in range(10, 21):
        add(record, step)
    return record


def test_what_came_stands_beside_what_was_forecast_of_it(record: IssuedForecasts):
    """A row is one step: its demand, and the forecasts made for it one step and three steps before."""
    for direction in range(2):
        past = record.history("b", direction, 0.0)
        column = 2 + direction
        at = {float(time): row for row, time in enumerate(past.time)}
        row = at[15 * STEP]
        assert past.demand_bps[row] == 1500 + column
        assert past.forecast_bps[row] == pytest.approx(1500 + column + 10 * np.array([[0.1, 0.5, 0.9]] * 2))
        assert past.horizon_s.tolist() == [STEP, LONG * STEP]
        assert past.quantile.tolist() == [0.1, 0.5, 0.9]


def test_steps_to_come_have_forecasts_and_no_demand(record: IssuedForecasts):
    """What is not known yet is NaN, never zero."""
    past = record.history("a", 0, 21 * STEP)
    assert past.time.tolist() == [21 * STEP, 22 * STEP, 23 * STEP]
    assert np.isnan(past.demand_bps).all()
    assert np.isnan(past.forecast_bps[1:, 0]).all()
    assert np.isfinite(past.forecast_bps[:, 1]).all()


def test_first_steps_have_demand_and_no_forecast(record: IssuedForecasts):
    """Nothing was forecast before the record began."""
    past = record.history("a", 0, 0.0)
    assert past.time[0] == 10 * STEP
    assert past.demand_bps[0] == 1000
    assert np.isnan(past.forecast_bps[0]).all()


def test_time_rises_and_since_cuts(record: IssuedForecasts):
    """Columns are in order, from the asked moment on."""
    past = record.history("a", 0, 18 * STEP)
    assert past.time.tolist() == [step * STEP for step in range(18, 24)]


@pytest.mark.parametrize("name", ["nobody", ""])
def test_unknown_series_have_no_history(record: IssuedForecasts, name: str):
    """Who was never forecast has nothing on record."""
    past = record.history(name, 0, 0.0)
    assert past.time.shape == past.demand_bps.shape == (0,)
    assert past.forecast_bps.shape == (0, 2, 3)


def test_empty_record_has_no_history():
    """Before the first step there is nothing, and no error."""
    assert IssuedForecasts(STEP).history("a", 1, 0.0).time.shape == (0,)


def test_cells_bound_the_memory():
    """With more series there are fewer steps, never more cells; the newest stay."""
    record = IssuedForecasts(STEP, cells=7 * 4 * 12)
    for step in range(10, 40):
        add(record, step)
    few = record.rows
    assert record._figure.size <= record.cells
    assert record.history("a", 0, 0.0).time[-1] == 42 * STEP
    add(record, 40, tuple("abcdef"))
    assert record.rows < few
    assert record._figure.size <= record.cells
    past = record.history("a", 0, 0.0)
    known = ~np.isnan(past.demand_bps)
    assert past.demand_bps[known][-1] == 4000


def test_without_room_for_the_longest_horizon_the_shortest_is_kept():
    """So few rows that a forecast would overwrite the present: only the next step's is recorded."""
    record = IssuedForecasts(STEP, cells=1)
    for step in range(10, 20):
        add(record, step)
    past = record.history("a", 0, 0.0)
    assert record.rows == 2
    assert past.demand_bps[0] == 1900
    assert np.isfinite(past.forecast_bps[:, 0]).all()
    assert np.isnan(past.forecast_bps[:, 1]).all()


def test_series_that_join_and_leave_keep_their_own(record: IssuedForecasts):
    """A newcomer has no past, a leaver no present, and neither gets the other's."""
    add(record, 21, ("b", "c"))
    a, b, c = (record.history(name, 0, 20 * STEP) for name in "abc")
    assert a.demand_bps[0] == 2000
    assert np.isnan(a.demand_bps[1])
    assert b.demand_bps[1] == 2102
    assert np.isnan(c.demand_bps[0])
    assert c.demand_bps[1] == 2104


def test_a_gap_of_steps_leaves_nothing_old(record: IssuedForecasts):
    """After an hour without a step the row is a new one, without figures of the step that was there."""
    add(record, 20 + record.rows)
    past = record.history("a", 0, 21 * STEP)
    assert past.demand_bps[past.time == (20 + record.rows) * STEP] == 100 * (20 + record.rows)
    assert np.isnan(past.forecast_bps[past.time == (20 + record.rows) * STEP]).all()


def test_clock_set_back_forgets_the_future(record: IssuedForecasts):
    """Demand of steps that have not been is not shown, and the steps that come are recorded."""
    add(record, 12)
    past = record.history("a", 0, 0.0)
    assert past.time[-1] == 15 * STEP
    assert np.isnan(past.demand_bps[past.time > 12 * STEP]).all()


def test_what_rests_on_nothing_measured_is_no_forecast(record: IssuedForecasts):
    """The last plan's figure, or zero, is not on record as if demand had been forecast."""
    add(record, 21, rung=Rung.LAST_PLAN)
    past = record.history("a", 0, 22 * STEP)
    assert np.isnan(past.forecast_bps[0, 0]).all()


def test_forgotten_series_leaves_nothing_to_the_next(record: IssuedForecasts):
    """Its column is given to another, which starts without a past; the others keep theirs."""
    record.forget(["b", "nobody"])
    assert record.history("b", 0, 0.0).time.size == 0
    columns = columns_of([1])
    demand = np.array([[7.0, 8.0]], np.float32)
    now = History(demand, np.zeros((1, 2), bool), STEP, 21 * STEP, np.zeros(2, int), columns)
    record.came(("c",), columns, now)
    past = record.history("c", 1, 0.0)
    known = ~np.isnan(past.demand_bps)
    assert past.demand_bps[known].tolist() == [8]
    assert past.time[known].tolist() == [21 * STEP]
    assert np.isnan(past.forecast_bps).all()
    assert not np.isnan(record.history("a", 0, 0.0).demand_bps[:11]).any()


def test_what_came_is_noted_without_a_forecast(record: IssuedForecasts):
    """Series that are forecast now and then have no gaps in between."""
    columns = columns_of([0, 1])
    demand = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    record.came(
        ("a", "b"), columns, History(demand, np.zeros((1, 4), bool), STEP, 21 * STEP, series_id=columns)
    )
    past = record.history("b", 0, 21 * STEP)
    # Columns come all upload, then all download.
    assert past.demand_bps[0] == 2
    # What had been issued for that step before stands.
    assert not np.isnan(past.forecast_bps[0]).any()
    record.came((), columns_of([]), History(np.empty((1, 0), np.float32), np.zeros((1, 0), bool), STEP, 0.0))
