"""The ring against a plain reference that keeps every sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.ring import SeriesRing, Window

NAN = math.nan


@dataclass
class PlainRing:
    """Keeps each sample's seconds and bits per (step, series) in dictionaries."""

    step_s: float
    bits: dict[tuple[int, int], float] = field(default_factory=dict)
    seconds: dict[tuple[int, int], float] = field(default_factory=dict)
    censored: set[tuple[int, int]] = field(default_factory=set)

    def add(self, time: float, series: int, rate_bps: float, interval_s: float, censored: bool) -> None:
        if math.isnan(rate_bps):
            return
        step = math.floor((time - interval_s) / self.step_s)
        while step * self.step_s < time:
            start, end = step * self.step_s, (step + 1) * self.step_s
            covered = min(time, end) - max(time - interval_s, start)
            if covered > 0:
                at = (step, series)
                self.bits[at] = self.bits.get(at, 0.0) + rate_bps * covered
                self.seconds[at] = self.seconds.get(at, 0.0) + covered
                if censored:
                    self.censored.add(at)
            step += 1

    def demand_bps(self, now: float, steps: int, n_series: int) -> npt.NDArray[np.float64]:
        end = math.floor(now / self.step_s)
        rows = np.full((steps, n_series), NAN)
        for row, step in enumerate(range(end - steps, end)):
            for series in range(n_series):
                if (step, series) in self.seconds:
                    rows[row, series] = self.bits[step, series] / self.seconds[step, series]
        return rows


def one_series(step_s: float = 60.0, capacity_steps: int = 4) -> SeriesRing:
    return SeriesRing(step_s, capacity_steps, 1)


def polls(n_series: int) -> st.SearchStrategy[tuple[float, list[tuple[int, float, float, bool]]]]:
    # Quarters of a second are exact in binary, so both sides cut steps at the same place.
    quarters = st.integers(1, 200).map(lambda n: n / 4)
    rate = st.one_of(st.just(NAN), st.just(0.0), st.floats(1e-3, 1e12))
    sample = st.tuples(st.integers(0, n_series - 1), rate, quarters, st.booleans())
    return st.tuples(st.integers(4000, 4400).map(lambda n: n / 4), st.lists(sample, max_size=12))


@settings(max_examples=300, deadline=None)
@given(batches=st.lists(polls(4), max_size=10))
def test_a_ring_equals_the_plain_reference(
    batches: list[tuple[float, list[tuple[int, float, float, bool]]]],
) -> None:
    """Any samples, late, doubled or out of order, give the weighted means of what each step saw."""
    now, ring, plain = 1100.0, SeriesRing(10.0, 20, 4), PlainRing(10.0)
    for time, samples in batches:
        series, rates, intervals, flags = ([sample[part] for sample in samples] for part in range(4))
        ring.add(time, series, rates, intervals, flags, now=now)
        for sample in samples:
            plain.add(time, *sample)
    window = ring.window(now, 20)
    np.testing.assert_allclose(window.demand_bps, plain.demand_bps(now, 20, 4), rtol=1e-5)
    marked = {(int(row) + 90, int(column)) for row, column in np.argwhere(window.censored)}
    assert marked == {at for at in plain.censored if 90 <= at[0] < 110}
    assert ring.dropped == 0


@settings(deadline=None)
@given(
    rates=st.lists(st.floats(0, 1e12), min_size=1, max_size=30),
    times=st.lists(st.floats(1.7e9, 1.7e9 + 500), min_size=30, max_size=30),
    interval_s=st.floats(1e-3, 120),
)
def test_a_mean_lies_between_its_samples(rates: list[float], times: list[float], interval_s: float) -> None:
    """At real epoch times and any interval, no step leaves the range of what was put in."""
    ring = SeriesRing(60.0, 12, 1)
    for rate, time in zip(rates, times, strict=False):
        ring.add(time, [0], [rate], interval_s, [False], now=1.7e9 + 500)
    seen = ring.view(1.7e9 + 500).demand_bps
    seen = seen[~np.isnan(seen)]
    assert np.all(seen >= min(rates) * (1 - 1e-5))
    assert np.all(seen <= max(rates) * (1 + 1e-5))


def test_the_last_row_is_the_last_complete_step() -> None:
    """The step under way is not shown, and its end is not waited for longer than needed."""
    ring = one_series()
    ring.add(65.0, [0], [7.0], [5.0], [False], now=65.0)
    assert np.isnan(ring.window(119.9, 1).demand_bps).all()
    assert ring.window(120.0, 1).demand_bps.tolist() == [[7.0]]
    assert ring.window(120.0, 1).end_time == 120.0


def test_a_sample_over_two_steps_counts_in_both() -> None:
    """A poll at 02 s past the minute tells of the minute before by three of its five seconds."""
    ring = one_series()
    ring.add(60.0, [0], [100.0], [5.0], [False], now=60.0)
    ring.add(62.0, [0], [200.0], [5.0], [False], now=62.0)
    assert ring.window(120.0, 2).demand_bps[:, 0] == pytest.approx([(5 * 100 + 3 * 200) / 8, 200.0])


def test_a_gap_is_not_a_zero() -> None:
    """A lost poll leaves NaN, and censors nothing."""
    ring = one_series()
    ring.add(30.0, [0], [NAN], [5.0], [True], now=30.0)
    window = ring.window(60.0, 1)
    assert np.isnan(window.demand_bps).all()
    assert not window.censored.any()
    assert ring.dropped == 0


def test_a_zero_is_not_a_gap() -> None:
    """A silent user was measured."""
    ring = one_series()
    ring.add(30.0, [0], [0.0], [5.0], [False], now=30.0)
    assert ring.window(60.0, 1).demand_bps.tolist() == [[0.0]]


def test_one_censored_sample_censors_the_step() -> None:
    """Understated once is understated."""
    ring = one_series()
    for time, flag in ((10.0, False), (15.0, True), (20.0, False)):
        ring.add(time, [0], [1.0], [5.0], [flag], now=time)
    assert ring.window(60.0, 1).censored.tolist() == [[True]]


def test_a_sample_older_than_the_ring_is_dropped() -> None:
    """It would land in a row that a later step holds."""
    ring = one_series(capacity_steps=3)
    ring.add(1000.0, [0], [5.0], [5.0], [False], now=1000.0)
    ring.add(500.0, [0], [9.0], [5.0], [False], now=1000.0)
    assert ring.dropped == 1
    assert np.nanmax(ring.window(1020.0, 3).demand_bps) == 5.0


def test_a_sample_from_the_future_is_dropped() -> None:
    """One step ahead is a clock that runs fast, two is a clock that is wrong."""
    ring = one_series()
    ring.add(119.0, [0], [1.0], [5.0], [False], now=30.0)
    assert ring.dropped == 0
    ring.add(125.0, [0], [2.0], [5.0], [False], now=30.0)
    ring.add(math.inf, [0], [2.0], [5.0], [False], now=30.0)
    ring.add(NAN, [0], [2.0], [5.0], [False], now=30.0)
    assert ring.dropped == 3
    assert ring.window(120.0, 1).demand_bps.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("rate_bps", "interval_s"),
    [(-1.0, 5.0), (math.inf, 5.0), (1e39, 5.0), (1.0, 0.0), (1.0, -5.0), (1.0, NAN), (1.0, math.inf)],
)
def test_what_no_counter_can_give_is_dropped(rate_bps: float, interval_s: float) -> None:
    """It is counted, and the sample beside it is kept."""
    ring = SeriesRing(60.0, 4, 2)
    ring.add(30.0, [0, 1], [rate_bps, 8.0], [interval_s, 5.0], [True, False], now=30.0)
    window = ring.window(60.0, 1)
    assert ring.dropped == 1
    assert np.isnan(window.demand_bps[0, 0])
    assert window.demand_bps[0, 1] == 8.0
    assert not window.censored.any()


def test_an_absurd_interval_fills_the_ring_and_no_more() -> None:
    """A counter unread for a year is no reason to loop over a year."""
    ring = one_series(capacity_steps=3)
    ring.add(600.0, [0], [4.0], [1e17], [False], now=600.0)
    assert ring.window(600.0, 3).demand_bps[:, 0].tolist() == [4.0, 4.0, 4.0]


def test_rows_of_an_older_lap_are_gaps() -> None:
    """After an outage longer than the ring nothing old is shown as new."""
    ring = one_series(capacity_steps=3)
    for time in (30.0, 90.0, 150.0):
        ring.add(time, [0], [1.0], [5.0], [True], now=time)
    later = 30.0 + 60 * 50
    ring.add(later, [0], [2.0], [5.0], [False], now=later)
    window = ring.view(later + 60)
    assert window.demand_bps[-1, 0] == 2.0
    assert np.isnan(window.demand_bps[:-1]).all()
    assert not window.censored.any()


def test_a_clock_set_back_starts_those_steps_afresh() -> None:
    """What was filed under the wrong hour does not mix with the right one."""
    ring = one_series(capacity_steps=10)
    for time in (630.0, 690.0, 750.0):
        ring.add(time, [0], [1000.0], [5.0], [True], now=time)
    for time in (510.0, 570.0, 630.0, 690.0):
        ring.add(time, [0], [1.0], [5.0], [False], now=time)
    window = ring.window(720.0, 4)
    assert window.demand_bps[:, 0].tolist() == [1.0, 1.0, 1.0, 1.0]


def test_a_clock_that_leaps_and_returns_costs_only_what_it_touched() -> None:
    """One batch under a wrong clock does not shut the ring."""
    ring = one_series(capacity_steps=10)
    ring.add(90.0, [0], [1.0], [5.0], [False], now=90.0)
    ring.add(1e9, [0], [5.0], [5.0], [False], now=1e9)
    ring.add(150.0, [0], [2.0], [5.0], [False], now=150.0)
    assert np.nanmax(ring.view(180.0).demand_bps) == 2.0
    assert ring.dropped == 0


def test_a_batch_that_reaches_back_into_a_newer_lap_leaves_it_alone() -> None:
    """A restored window may be newer than what a slow sensor still sends."""
    ring = SeriesRing(60.0, 2, 1)
    ring.restore(Window(60.0, 600.0, np.full((2, 1), 3.0, np.float32), np.zeros((2, 1), np.bool_)))
    ring.add(350.0, [0], [9.0], [5.0], [False], now=350.0)
    assert np.isnan(ring.window(600.0, 2).demand_bps).all()
    ring.restore(Window(60.0, 600.0, np.full((2, 1), 3.0, np.float32), np.zeros((2, 1), np.bool_)))
    ring.restore(Window(60.0, 360.0, np.full((2, 1), 1.0, np.float32), np.zeros((2, 1), np.bool_)))
    assert ring.window(600.0, 2).demand_bps[:, 0].tolist() == [3.0, 3.0]


def test_a_window_is_a_value() -> None:
    """Later samples do not change a window already given out."""
    ring = one_series()
    ring.add(30.0, [0], [1.0], [5.0], [False], now=30.0)
    window = ring.window(60.0, 1)
    ring.add(35.0, [0], [9.0], [5.0], [True], now=60.0)
    assert window.demand_bps.tolist() == [[1.0]]
    assert not window.censored.any()


def test_growing_keeps_what_is_known() -> None:
    """New columns are gaps; old ones stay; also where there was spare room."""
    ring = SeriesRing(60.0, 3, 2)
    ring.add(30.0, [1], [5.0], [5.0], [True], now=30.0)
    for n_series in (3, 4, 5, 40):
        ring.grow(n_series)
        window = ring.window(60.0, 1)
        assert window.demand_bps.shape == (1, n_series)
        assert window.demand_bps[0, 1] == 5.0
        assert window.censored[0, 1]
        assert np.count_nonzero(~np.isnan(window.demand_bps)) == 1
    ring.add(45.0, [39], [6.0], [5.0], [False], now=45.0)
    assert ring.window(60.0, 1).demand_bps[0, 39] == 6.0


def test_a_ring_restored_from_its_own_window_is_the_same() -> None:
    """A restart forgets nothing that was complete, and samples of this run win."""
    old, new = SeriesRing(10.0, 6, 3), SeriesRing(10.0, 6, 3)
    for time in range(5, 60, 5):
        old.add(time, [0, 2], [time, NAN], 5.0, [time > 30, False], now=time)
    kept = old.view(60.0)
    new.add(60.0, [0], [1e6], [5.0], [False], now=60.0)
    new.restore(kept)
    restored = new.view(60.0)
    np.testing.assert_array_equal(restored.demand_bps[:-1], kept.demand_bps[:-1])
    np.testing.assert_array_equal(restored.censored[:-1], kept.censored[:-1])
    assert restored.demand_bps[-1, 0] == 1e6


def test_times_are_the_ends_of_steps() -> None:
    """Each row is stamped by the moment when it was complete."""
    assert one_series().window(200.0, 3).times.tolist() == [60.0, 120.0, 180.0]


def test_an_empty_poll_is_fine() -> None:
    """A switch without meters has nothing to say."""
    ring = SeriesRing(60.0, 4, 0)
    ring.add(30.0, [], [], [], [], now=30.0)
    assert ring.window(60.0, 2).demand_bps.shape == (2, 0)


def test_broken_bounds_name_rule_and_value() -> None:
    """A caller's mistake is told at once, not stored."""
    ring = SeriesRing(60.0, 4, 2)
    with pytest.raises(ValueError, match=r"series must be in 0\.\.1, got 0\.\.2"):
        ring.add(30.0, [0, 2], [1.0, 1.0], 5.0, [False, False], now=30.0)
    with pytest.raises(ValueError, match=r"got -1\.\.-1"):
        ring.add(30.0, [-1], [1.0], 5.0, [False], now=30.0)
    with pytest.raises(ValueError, match="must share one shape"):
        ring.add(30.0, [0, 1], [1.0], 5.0, [False], now=30.0)
    with pytest.raises(ValueError, match=r"steps must be in 1\.\.4, got 5"):
        ring.window(60.0, 5)
    with pytest.raises(ValueError, match="cannot shrink from 2, got 1"):
        ring.grow(1)
    with pytest.raises(
        ValueError, match=r"window must have steps of 60\.0 s and 2 series, got 60\.0 s and 1"
    ):
        ring.restore(one_series().view(0.0))
    with pytest.raises(ValueError, match="must share one shape"):
        Window(60.0, 0.0, np.zeros((1, 2), np.float32), np.zeros((2, 1), np.bool_))
    for arguments, rule in (((0.0, 4, 1), "step_s"), ((60.0, 0, 1), "capacity"), ((60.0, 4, -1), "n_series")):
        with pytest.raises(ValueError, match=rule):
            SeriesRing(*arguments)


def test_a_window_of_some_series_is_that_part_of_the_whole() -> None:
    """Picked columns, in any order, hold what the whole window holds there, older laps included."""
    rng = np.random.default_rng(3)
    ring = SeriesRing(10.0, 5, 6)
    for poll in range(1, 14):
        now = 10.0 * poll
        rates = np.where(rng.random(6) < 0.2, NAN, rng.random(6))
        if poll % 4:
            ring.add(now, np.arange(6), rates, 10.0, rng.random(6) < 0.3, now=now)
    chosen = np.array([4, 0, 5, 4])
    whole, part = ring.window(130.0, 5), ring.window(130.0, 5, chosen)
    np.testing.assert_array_equal(part.demand_bps, whole.demand_bps[:, chosen])
    np.testing.assert_array_equal(part.censored, whole.censored[:, chosen])
    assert ring.window(130.0, 5, np.empty(0, np.int64)).demand_bps.shape == (5, 0)
    for stranger in (-1, 6):
        with pytest.raises(ValueError, match="series must be in 0"):
            ring.window(130.0, 5, np.array([stranger]))


def test_means_are_of_the_steps_asked_for():
    """In the order asked for; a step that is not complete, or that the ring no longer holds, is a gap."""
    ring = SeriesRing(10, 4, 2)
    for step in range(100, 106):
        ring.add(10 * step + 10, [0, 1], [step, 2 * step], 10.0, [False, False], now=10 * step + 10)
    found = ring.means(1055, np.array([104, 102, 105, 99, 98, 200]), np.array([1, 0]))
    assert found[:2].tolist() == [[208, 104], [204, 102]]
    assert np.isnan(found[2:]).all()


def test_means_refuse_series_that_are_not_there():
    """The bound is told."""
    ring = SeriesRing(10, 4, 2)
    with pytest.raises(ValueError, match=r"series must be in 0\.\.1, got 0\.\.2"):
        ring.means(1000, np.array([99]), np.array([0, 2]))


def test_restore_of_some_series_leaves_the_others():
    """A window of two columns goes where it is told to."""
    ring = SeriesRing(10, 4, 3)
    window = Window(10, 1000, np.array([[7, 5]], np.float32), np.array([[True, False]]))
    ring.restore(window, np.array([2, 0]))
    found = ring.window(1000, 1)
    assert found.demand_bps[0, [0, 2]].tolist() == [5, 7]
    assert np.isnan(found.demand_bps[0, 1])
    assert found.censored[0].tolist() == [False, False, True]


def test_cleared_series_begins_anew():
    """Its column is as new; the others keep theirs, and what comes next is measured from nothing."""
    ring = SeriesRing(10, 4, 2)
    for step in (100, 101):
        ring.add(10 * step + 5, [0, 1], [8.0, 6.0], 5.0, [True, True], now=10 * step + 5)
    ring.clear(np.array([1]))
    found = ring.window(1020, 2)
    assert found.demand_bps[:, 0].tolist() == [8, 8]
    assert np.isnan(found.demand_bps[:, 1]).all()
    assert found.censored[:, 1].tolist() == [False, False]
    ring.add(1020, [1], [2.0], 5.0, [False], now=1020)
    assert ring.window(1020, 1).demand_bps[0, 1] == 2
    with pytest.raises(ValueError, match=r"series must be in 0\.\.1"):
        ring.clear(np.array([2]))


def test_what_was_seen_is_written_over_only_where_asked() -> None:
    """And never by what is not known."""
    ring = SeriesRing(60.0, 10, 1)
    for minute in range(1, 5):
        ring.add(
            60.0 * minute, np.array([0]), np.array([1e6]), np.array([60.0]), np.array([False]), now=240.0
        )
    demand = np.array([[5e6], [np.nan], [7e6]], np.float32)
    window = Window(60.0, 240.0, demand, np.ones((3, 1), np.bool_))
    ring.restore(window)
    assert ring.window(240.0, 3).demand_bps[:, 0].tolist() == [1e6, 1e6, 1e6]
    ring.restore(window, over=True)
    assert ring.window(240.0, 3).demand_bps[:, 0].tolist() == [5e6, 1e6, 7e6]
    assert ring.window(240.0, 3).censored[:, 0].tolist() == [True, False, True]


def test_steps_held_are_those_with_anything_in_them():
    """Gaps in time are no steps; what the ring has no room for any more is not counted."""
    ring = SeriesRing(10, 4, 1)
    assert ring.steps_held == 0
    for time in (1005, 1008, 1025):
        ring.add(time, [0], [1.0], 1.0, [False], now=time)
    assert ring.steps_held == 2
    for time in range(1035, 1205, 10):
        ring.add(time, [0], [1.0], 1.0, [False], now=time)
    assert 4 <= ring.steps_held <= 6
