"""Yesterday and last week: the right moments, gaps as gaps, and nothing of the future."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting.seasonal import DAY_S, SEASONS_S, WEEK_S, Blocks, blocks_of, moments, recalled

HALF_HOUR = 1800.0


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([60.0, 240.0, 300.0, 420.0, 900.0, 1800.0, 5400.0]),
    st.lists(st.integers(1, 400), min_size=1, max_size=4, unique=True).map(sorted),
    st.floats(0, 1),
    st.integers(0, 86_399),
)
def test_nothing_after_the_cutoff_matters(
    step_s: float, ahead: list[int], share: float, offset_s: int
) -> None:
    """Blocks of the whole file tell a cutoff the same, whatever comes after it: any step, horizon and phase."""
    n_steps = int(8.5 * DAY_S / step_s)
    cutoff = int(share * (n_steps - 1))
    rng = np.random.default_rng(offset_s)
    demand = rng.uniform(0, 1e6, (n_steps, 1)).astype(np.float32)
    changed = demand.copy()
    changed[cutoff + 1 :] = 1e12
    end = 1e9 + offset_s
    then = end - (n_steps - 1 - cutoff) * step_s
    one, other = (
        recalled(blocks_of(seen, step_s, end), then, np.array(ahead), step_s) for seen in (demand, changed)
    )
    np.testing.assert_array_equal(one, other)


def test_moments_lie_whole_seasons_back() -> None:
    """The cutoff's and a target's own moment, one day and one week earlier; a day ahead, two days."""
    end = 40 * DAY_S
    when = moments(end, np.array([2, 60]), HALF_HOUR)[..., 0]
    middle = HALF_HOUR / 2
    assert when[0].tolist() == [
        end - middle - DAY_S,
        end + 1800 + middle - DAY_S,
        end + 60 * 1800 - middle - 2 * DAY_S,
    ]
    assert when[1, :2].tolist() == [end - middle - WEEK_S, end + 1800 + middle - WEEK_S]


def test_a_daily_pattern_is_recalled() -> None:
    """On half-hours, which are blocks themselves, yesterday's value at the target's time comes back exactly."""
    n_day = 48
    demand = np.tile(np.arange(n_day, dtype=np.float32), 9)[:, None] * np.array([1, 10], np.float32)
    end = 9 * DAY_S
    made = recalled(blocks_of(demand, HALF_HOUR, end), end, np.array([1, 5]), HALF_HOUR)
    assert made.shape == (len(SEASONS_S), 3, 2)
    for season in made:
        np.testing.assert_allclose(season, [[47, 470], [0, 0], [4, 40]])
    one = recalled(
        blocks_of(demand, HALF_HOUR, end), np.array([end]), np.array([1, 5]), HALF_HOUR, np.array([1])
    )
    np.testing.assert_allclose(one[0, :, 0], [470, 0, 40])


def test_between_the_middles_of_blocks() -> None:
    """Straight from one middle to the next; beside a gap what is known; outside, nothing."""
    blocks = Blocks(np.array([[0], [10], [np.nan], [30], [np.nan], [np.nan]], np.float32), 2, 900.0)
    start = 2 * 900.0
    when = start + np.array([450, 900, 1350, 1800, 2250, 4100, 4900, -900, 9000])
    np.testing.assert_allclose(blocks.at(when)[:, 0], [0, 5, 10, 10, 30, np.nan, np.nan, np.nan, np.nan])


def test_blocks_are_means_of_what_was_measured() -> None:
    """Aligned to the epoch; a gap counts in no mean, and a block of gaps is one."""
    demand = np.array([[8], [2], [np.nan], [4], [np.nan], [np.nan], [np.nan], [6]], np.float32)
    # Steps of 300 s that end at 900, 1200, ...: the first is the last third of block 0.
    blocks = blocks_of(demand, 300.0, 900.0 + 7 * 300)
    assert (blocks.first, blocks.block_s) == (0, 900.0)
    np.testing.assert_allclose(blocks.mean_bps[:, 0], [8, 3, np.nan, 6][: len(blocks.mean_bps)])


def test_no_rows_are_no_blocks() -> None:
    """Before anything was measured every question is answered with NaN."""
    blocks = blocks_of(np.empty((0, 2), np.float32), 60.0, 1e9)
    assert np.isnan(recalled(blocks, 1e9, np.array([1]), 60.0)).all()


@pytest.mark.parametrize(
    ("mean", "block_s", "rule"),
    [
        (np.zeros((1, 1)), 0.0, "block_s must be > 0, got 0.0"),
        (np.zeros(3), 900.0, "mean_bps must have shape"),
    ],
)
def test_blocks_that_are_none_are_refused(mean: np.ndarray, block_s: float, rule: str) -> None:
    """A caller's mistake is told."""
    with pytest.raises(ValueError, match=rule):
        Blocks(mean.astype(np.float32), 0, block_s)
