"""Which classes are series of their own, and what is kept of them."""

from __future__ import annotations

import numpy as np
import pytest

from planner.class_series import ClassSeries, columns_of
from planner.config import Forecasting

STEP_S = 60.0


class Course:
    """Steps of some users of two classes, at the rates that the test says."""

    def __init__(self, most: int, n_users: int = 4, window_steps: int = 8) -> None:
        settings = Forecasting(
            max_class_series=most, window_steps=window_steps, train_steps=16, min_history_steps=4
        )
        self.series = ClassSeries(settings, n_users, 2)
        self.n_users, self.end = n_users, 0.0
        self.rate = np.zeros((2, n_users, 2), np.float32)

    def step(self, count: int = 1, censored: bool = False) -> None:
        """Upload and download alike."""
        for _ in range(count):
            self.end += STEP_S
            demand = self.rate.sum(axis=2)
            share = np.where(demand[:, :, None] > 0, self.rate / np.maximum(demand, 1)[:, :, None], 0)
            self.last = self.series.add(
                self.end + 1, self.end, demand, share.astype(np.float32), np.full((2, self.n_users), censored)
            )

    def busy(self, user: int, kind: int, rate_bps: float) -> None:
        self.rate[:, user, kind] = rate_bps

    @property
    def kept(self) -> list[tuple[int, int]]:
        pairs = self.series.pair[self.series.slots].tolist()
        return sorted(divmod(pair, 2) for pair in pairs)


def test_only_who_carries_traffic_is_kept() -> None:
    """And for a window after it stopped."""
    course = Course(100)
    course.busy(1, 0, 5e6)
    course.busy(2, 1, 1e3 / 4)
    course.step()
    assert course.kept == [(1, 0)]
    course.busy(1, 0, 0)
    course.step(7)
    assert course.kept == [(1, 0)]
    course.step()
    assert course.kept == []
    assert len(course.last.left) == 1


def test_heaviest_are_kept_and_give_way_only_to_clearly_heavier() -> None:
    """Two that are nearly alike do not take turns."""
    course = Course(4)
    for user, rate in enumerate((4e6, 3e6, 2e6, 1e6)):
        course.busy(user, 0, rate)
    course.step(20)
    assert course.kept == [(0, 0), (1, 0)]
    course.busy(2, 0, 4e6)
    course.step(20)
    assert course.kept == [(0, 0), (1, 0)]
    course.busy(2, 0, 6e6)
    course.step(20)
    assert course.kept == [(0, 0), (2, 0)]


def test_slot_begins_empty_for_the_next() -> None:
    """What one carried is no past of another that gets its column."""
    course = Course(2)
    course.busy(0, 0, 4e6)
    course.step(8)
    (slot,) = course.series.slots.tolist()
    first = course.series.serial[slot]
    course.busy(0, 0, 0)
    course.busy(3, 1, 2e6)
    course.step(9)
    assert course.kept == [(3, 1)]
    assert course.series.slots.tolist() == [slot]
    assert course.series.serial[slot] != first
    course.step()
    window, share = course.series.window(course.end + 1, 16, columns_of(course.series.slots))
    known = ~np.isnan(window.demand_bps)
    assert known[-1].all()
    assert not known[:8].any()
    assert np.unique(window.demand_bps[known]).tolist() == [2e6]
    assert np.array_equal(np.isnan(share), ~known)


def test_share_and_censoring_stand_beside_demand() -> None:
    """Of each step: what part of the user's traffic it was."""
    course = Course(100)
    course.busy(1, 0, 3e6)
    course.busy(1, 1, 1e6)
    course.step(3)
    course.busy(1, 1, 9e6)
    course.step(censored=True)
    columns = columns_of(course.series.slots_of(1))
    window, share = course.series.window(course.end + 1, 4, columns)
    np.testing.assert_allclose(share[:, 0], [0.75] * 3 + [0.25], atol=1e-3)
    np.testing.assert_allclose(share[:, 1], [0.25] * 3 + [0.75], atol=1e-3)
    np.testing.assert_allclose(window.demand_bps[:, 3], [1e6] * 3 + [9e6])
    assert window.censored[:, 0].tolist() == [False] * 3 + [True]


def test_gap_is_a_gap() -> None:
    """Neither zero nor a reason to be forgotten sooner."""
    course = Course(100)
    course.busy(0, 0, 1e6)
    course.step(2)
    course.rate[:] = np.nan
    course.step()
    window, share = course.series.window(course.end + 1, 3, columns_of(course.series.slots))
    assert np.isnan(window.demand_bps[-1]).all()
    assert np.isnan(share[-1]).all()
    assert course.series.kept_share(0).tolist() == [1, 1]


def test_kept_share_says_how_much_is_missing() -> None:
    """Of a user whose lighter class found no room."""
    course = Course(2)
    course.busy(0, 0, 3e6)
    course.busy(0, 1, 1e6)
    course.step(10)
    assert course.kept == [(0, 0)]
    np.testing.assert_allclose(course.series.kept_share(0), 0.75)
    assert np.isnan(course.series.kept_share(1)).all()


@pytest.mark.parametrize(("most", "n_classes"), [(0, 3), (100, 1)])
def test_nothing_is_kept_where_nothing_may_be(most: int, n_classes: int) -> None:
    """Switched off, or one class only: that is the user."""
    series = ClassSeries(Forecasting(max_class_series=most), 3, n_classes)
    share = np.ones((2, 3, n_classes), np.float32)
    changed = series.add(61.0, 60.0, np.full((2, 3), 5e6, np.float32), share, np.zeros((2, 3), np.bool_))
    assert not len(changed.left)
    assert not len(changed.given)
    assert not len(series.slots)
    assert not len(series.slots_of(0))


def test_clock_set_back_forgets_nobody() -> None:
    """Who was seen in what is now the future was seen just now."""
    course = Course(100)
    course.end = 1e6
    course.busy(0, 0, 1e6)
    course.step(2)
    course.end = 1000 * STEP_S
    course.step()
    assert course.kept == [(0, 0)]
    course.busy(0, 0, 0)
    course.step(9)
    assert course.kept == []
