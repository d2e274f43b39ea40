"""Live coverage: what lay below each quantile over the last hour and day, and whether that is drift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.coverage import DAY_S, DRIFT, ERRORS, HOUR_S, JOIN_S, LEAST_STEPS, CoverageRecord

QUANTILE = np.array([0.1, 0.5, 0.9])
HORIZON_S = np.array([60.0, 300.0])
NOW = 1_000_000_000.0
#: Quantiles of a uniform law on 0 .. 1.
ISSUED = np.tile(QUANTILE, (50, 1)).astype(np.float32)


def fed(shares: list[float], step_s: float = 60.0, level: int = 3) -> tuple[CoverageRecord, float]:
    """A record that saw, step by step, this share of fifty truths inside the band and the rest above it."""
    record, now = CoverageRecord(QUANTILE, HORIZON_S), NOW
    for share in shares:
        now += step_s
        came = np.where(np.arange(50) < share * 50, 0.3, 2.0).astype(np.float32)
        record.add(now, 0, ISSUED, came, np.full(50, level))
    return record, now


def test_shares_are_of_the_hour_and_of_the_day() -> None:
    """A bad hour after good ones is the hour's, and a part of the day's."""
    record, now = fed([1.0] * 120 + [0.5] * 60)
    (row,) = record.table(now)
    assert (row.level, row.horizon_s) == (3, 60)
    assert row.hour.tolist() == [0, 0.5, 0.5]
    assert row.day == pytest.approx([0, 5 / 6, 5 / 6])
    assert row.n_day == 180 * 50


def test_what_is_old_is_forgotten_without_anything_new() -> None:
    """When nothing is measured any more, an hour later nothing is known of the hour."""
    record, now = fed([1.0] * 30)
    (row,) = record.table(now + HOUR_S)
    assert np.isnan(row.hour).all()
    assert not np.isnan(row.day).any()
    (row,) = record.table(now + DAY_S)
    assert row.n_day == 0


def test_truth_at_its_quantile_counts_half() -> None:
    """An idle series says neither that its forecast of zero is too high nor too low."""
    record = CoverageRecord(QUANTILE, HORIZON_S)
    record.add(
        NOW, 1, np.zeros((4, 3), np.float32), np.array([0, 0, 0, np.nan], np.float32), np.zeros(4, int)
    )
    (row,) = record.table(NOW)
    assert row.hour.tolist() == [0.5, 0.5, 0.5]
    assert row.n_day == 3


def test_clock_set_back_forgets_the_future() -> None:
    """What a wrong clock measured did not happen."""
    record, now = fed([0.0] * 30)
    back = now - 20 * 60
    record.add(back, 0, ISSUED, np.full(50, 0.3, np.float32), np.full(50, 3))
    (row,) = record.table(back)
    assert row.n_day < 12 * 50
    assert row.hour[-1] > 0


@pytest.mark.parametrize(
    ("share", "narrow", "drifting"), [(0.8, False, False), (0.5, True, True), (1.0, False, True)]
)
def test_drift_is_beyond_a_tenth(share: float, narrow: bool, drifting: bool) -> None:
    """Too narrow and too wide are both drift; only the narrow are to be widened."""
    record, now = fed([share] * LEAST_STEPS)
    assert record.table(now)[0].drifting == drifting
    assert record.too_narrow(now) == ((3,) if narrow else ())


def test_few_steps_are_no_drift() -> None:
    """Chance has its way over some minutes."""
    record, now = fed([0.0] * (LEAST_STEPS - 1))
    assert not record.table(now)[0].drifting


@given(
    st.lists(st.tuples(st.floats(1, 1500), st.floats(0, 1)), min_size=1, max_size=80),
)
def test_running_sums_are_the_sums(steps: list[tuple[float, float]]) -> None:
    """The same as counting all steps of the window again."""
    record, now, all_steps = CoverageRecord(QUANTILE, HORIZON_S), NOW, []
    for pause_s, share in steps:
        now += pause_s
        came = np.where(np.arange(50) < round(share * 50), 0.3, 2.0).astype(np.float32)
        record.add(now, 0, ISSUED, came, np.full(50, 3))
        all_steps.append((now, round(share * 50)))
    (row,) = record.table(now)
    hour = [inside for at, inside in all_steps if at > now - HOUR_S]
    assert row.hour[-1] == pytest.approx(sum(hour) / (50 * len(hour)))
    # The day is cut by minutes: a part goes when its last step is a day old.
    day = [inside for at, inside in all_steps if at > now - DAY_S]
    most = [inside for at, inside in all_steps if at > now - DAY_S - JOIN_S]
    assert 50 * len(day) <= row.n_day <= 50 * len(most)
    inside = np.array(hour) / 50
    off = inside.mean() - 0.8
    bound = max(DRIFT, ERRORS * inside.std() / np.sqrt(len(hour)))
    if abs(abs(off) - bound) > 1e-9:
        assert row.drifting == (len(hour) >= LEAST_STEPS and abs(off) > bound)


def test_levels_and_horizons_are_apart() -> None:
    """Each gets its own row, in order, from truths that came together."""
    record, level = CoverageRecord(QUANTILE, HORIZON_S), np.array([5, 0])
    for horizon in (1, 0):
        record.add(NOW, horizon, ISSUED[:2], np.array([0.05, 0.95], np.float32), level)
    rows = record.table(NOW)
    assert [(row.level, row.horizon_s) for row in rows] == [(0, 60), (0, 300), (5, 60), (5, 300)]
    assert rows[0].day.tolist() == [0, 0, 0]
    assert rows[2].day.tolist() == [1, 1, 1]


def test_chance_is_no_drift() -> None:
    """A single series over 25 steps is mostly chance: of 200 honest forecasts hardly one drifts."""
    rng, record = np.random.default_rng(3), CoverageRecord(QUANTILE, HORIZON_S)
    for step in range(25):
        came = rng.uniform(0, 1, 200).astype(np.float32)
        record.add(NOW + 60 * step, 0, np.tile(ISSUED, (4, 1)), came, np.arange(200))
    assert sum(row.drifting for row in record.table(NOW + 24 * 60)) <= 4


def test_one_bad_horizon_is_no_narrow_level() -> None:
    """Most horizons have to catch too little before a level is widened."""
    record, now = fed([0.5] * 60)
    for step in range(60):
        came = np.where(np.arange(50) < 40, 0.3, 2.0).astype(np.float32)
        record.add(now - 60 * (59 - step), 1, ISSUED, came, np.full(50, 3))
    assert record.too_narrow(now) == ()
