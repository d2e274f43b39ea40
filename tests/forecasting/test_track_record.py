"""The track record: what came is learnt once, from whom it concerns, whatever clock and columns do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from forecasting.contest import CONTESTANTS, Change, Contestant
from forecasting.forecast import Floats
from forecasting.history import History
from forecasting.settings import ForecastSettings
from forecasting.track_record import DRIFT_EVERY_STEPS, WIDER, Issued, TrackRecord

SETTINGS = ForecastSettings(
    step_s=60.0, horizons_s=(60.0, 180.0), quantiles=(0.1, 0.5, 0.9), calibration_series=50
)
FAN = np.array([900.0, 1000, 1100], np.float32)
N = 10


def issued(end_time: float, fan: Floats = FAN, level: int = 0) -> Issued:
    """One fan for ten series at both horizons, from every contestant."""
    made = np.tile(fan, (N, 2, 1))
    everyone = np.full(N, level)
    return Issued(
        end_time,
        np.arange(N),
        everyone,
        4 * everyone,
        np.full(N, 1000, np.float32),
        np.stack([made] * len(CONTESTANTS)),
        made,
    )


def history(end_time: float, value: float, n_steps: int = 8, **columns: Any) -> History:
    """So many rows of one rate."""
    demand = np.full((n_steps, N), value, np.float32)
    columns.setdefault("censored", np.zeros(demand.shape, np.bool_))
    return History(demand, step_s=60.0, end_time=end_time, **columns)


def truths(record: TrackRecord) -> dict[float, int]:
    """Truths of the last day by horizon."""
    return {row.horizon_s: row.n_day for row in record.live_coverage()}


def test_each_horizon_is_learnt_when_it_comes_due() -> None:
    """After a step the first, after three the second; nothing twice."""
    record = TrackRecord(SETTINGS)
    record.observe(history(600.0, 1000))
    record.remember(issued(600.0))
    seen = []
    for now in (600.0, 660.0, 660.0, 720.0, 780.0, 840.0):
        record.observe(history(now, 1000))
        seen.append(truths(record))
    assert seen == [{}, {60: N}, {60: N}, {60: N}, {60: N, 180: N}, {60: N, 180: N}]


def test_steps_that_were_missed_are_made_up_for() -> None:
    """One look after three steps learns both horizons from their own rows; too old a row is not there any more."""
    record = TrackRecord(SETTINGS)
    record.remember(issued(600.0))
    came = history(780.0, 2000)
    came.demand_bps[-3] = 1.0
    record.observe(came)
    low, high = record.live_coverage()
    assert low.day.tolist() == [1, 1, 1]
    assert high.day.tolist() == [0, 0, 0]
    late = TrackRecord(SETTINGS)
    late.remember(issued(600.0))
    late.observe(history(780.0, 2000, n_steps=2))
    assert truths(late) == {180: N}


def test_a_clock_that_steps_back_forgets_the_future() -> None:
    """Forecasts made in what is now the future never come due, and later ones do."""
    record = TrackRecord(SETTINGS)
    record.observe(history(600.0, 1000))
    record.remember(issued(600.0))
    assert record.observe(history(300.0, 5000)) == ()
    assert record.waits_for(300.0)
    record.remember(issued(300.0))
    record.observe(history(360.0, 1000))
    assert truths(record) == {60: N}
    assert not record.waits_for(300.0)


def test_no_rows_teach_nothing() -> None:
    """A history without rows leaves everything as it is."""
    record = TrackRecord(SETTINGS)
    record.remember(issued(600.0))
    assert record.observe(history(660.0, 1.0, n_steps=0)) == ()
    assert truths(record) == {}


@pytest.mark.parametrize(
    "columns",
    [
        {"censored": np.ones((8, N), np.bool_)},
        {"series_id": np.arange(100, 100 + N)},
    ],
)
def test_what_is_not_known_is_not_learnt(columns: dict[str, Any]) -> None:
    """Censored samples and series that are gone are no truths."""
    record = TrackRecord(SETTINGS)
    record.remember(issued(600.0))
    record.observe(history(660.0, 5000, **columns))
    record.observe(History(np.empty((8, 0), np.float32), np.empty((8, 0), np.bool_), 60.0, 780.0))
    assert truths(record) == {}
    assert not any(one.offset.any() for one in record.calibrations)


def drifted(value: float, steps: int, level: int = 1) -> TrackRecord:
    """A record whose forecasts of one level met this rate at every step."""
    record = TrackRecord(SETTINGS)
    for step in range(steps):
        now = 6000.0 + 60 * step
        record.observe(history(now, value, level=np.full(N, level)))
        record.remember(issued(now, level=level))
    return record


def test_a_level_that_misses_too_much_is_widened() -> None:
    """About the median, not below 0, and only its own series; until the next look, then again if need be."""
    record = drifted(5000, 60)
    assert list(record.narrow_levels) == [1]
    demand = np.tile(np.array([0, 1000, 1100], np.float32), (2, 2, 1))
    record.widen(demand, np.array([0, 1]))
    assert demand[0].tolist() == [[0, 1000, 1100]] * 2
    assert demand[1].tolist() == [[0, 1000, 1000 + 100 * WIDER]] * 2
    for step in range(70 + DRIFT_EVERY_STEPS):
        now = 6000.0 + 60 * (60 + step)
        record.observe(history(now, 1050, level=np.full(N, 1)))
        record.remember(issued(now, level=1))
    assert not record.narrow_levels


def test_a_level_that_does_not_drift_is_left_alone() -> None:
    """A forecast that holds is not touched."""
    record = drifted(1050, 60)
    demand = np.tile(FAN, (2, 2, 1))
    record.widen(demand, np.array([0, 1]))
    assert not record.narrow_levels
    assert (demand == FAN).all()


def test_a_sample_of_each_level_is_followed() -> None:
    """All series of a small level, at most the bound of a large one, none that cannot be forecast."""
    record = TrackRecord(SETTINGS)
    level = np.repeat([0, 1], [1000, 20])
    able = np.arange(10, 1020)
    rows = record.followed(level, able)
    assert np.isin(rows, able).all()
    assert np.bincount(level[rows]).tolist() == [50, 20]
    assert record.followed(level, np.empty(0, np.int64)).size == 0


def test_without_calibration_nobody_is_followed() -> None:
    """Rate 0 turns the whole record off."""
    record = TrackRecord(replace(SETTINGS, calibration_rate=0.0))
    assert record.followed(np.zeros(5, np.int64), np.arange(5)).size == 0


def test_a_new_model_starts_a_contest_of_its_own() -> None:
    """What its predecessor issued does not count, and no champion stays."""
    record = TrackRecord(SETTINGS)
    record.contest.restore_champions(np.full((1, 2), Contestant.RECENT, np.uint8))
    record.remember(issued(600.0))
    record.start_anew()
    record.observe(history(660.0, 5000))
    assert truths(record) == {}
    assert not record.contest.champion.any()


def test_a_champion_changes_when_another_is_better() -> None:
    """The model far off and persistence right: after an hour persistence speaks, and ``observe`` says so."""
    record = TrackRecord(SETTINGS)
    changes: list[Change] = []
    for step in range(100):
        now = 6000.0 + 60 * step
        changes += record.observe(history(now, 1000.0 + step % 3))
        made = issued(now)
        made.contestants_bps[Contestant.MODEL] += 5000
        made.contestants_bps[Contestant.RECENT] += 2000
        record.remember(made)
    assert {(one.before, one.after) for one in changes} == {(Contestant.MODEL, Contestant.PERSISTENCE)}
    assert {one.horizon for one in changes} == {0, 1}
