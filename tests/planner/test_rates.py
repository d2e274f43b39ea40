"""Rates of the past: means over spans, gaps that are counted, and one answer out of three memories."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.rates import Samples, means
from planner.snapshot import Level, NotThere
from telemetry.ring import Window
from tests.planner.networks import PLACES, START, Running, small


def test_gaps_are_counted_and_not_averaged():
    """Of three samples in a span one is missing: the mean is that of the other two."""
    offered = np.array([[1e6, np.nan, 3e6, np.nan], [2e6, 2e6, 2e6, np.nan]])
    found = means(Samples.of_steps(0, 20.0, offered), 0.0, 120.0, 60.0)
    assert found.time.tolist() == [60.0, 120.0]
    np.testing.assert_array_equal(found.offered_bps, [[2e6, np.nan], [2e6, np.nan]])
    assert found.gaps.tolist() == [[1, 1], [0, 1]]
    assert np.isnan(found.grant_bps).all()


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=60), st.integers(1, 20))
def test_bits_are_neither_lost_nor_made(rates: list[float], spans: int):
    """Whatever the resolution, mean times seconds adds up to what there was."""
    offered = np.tile(rates, (2, 1))
    samples = Samples.of_steps(7, 5.0, offered)
    end = 35.0 + 5 * len(rates)
    found = means(samples, 35.0, end, 5.0 * spans)
    seconds = [
        5.0 * sum(time - 5.0 * spans < at <= time for at in samples.time.tolist()) for time in found.time
    ]
    total = np.nansum(found.offered_bps * np.array(seconds), axis=1)
    np.testing.assert_allclose(total, 5 * offered.sum(axis=1), rtol=1e-9, atol=1e-3)


def test_past_beyond_memory_comes_from_the_store():
    """Before the planner's first tick minutes of the store answer; then its own ticks do, with grants."""

    def load(since: float, until: float, step_s: int, names: Sequence[str], direction: int) -> Window:
        n = round((until - since) / step_s)
        demand = np.full((n, len(names)), 7e6 if "user/anna" in names else np.nan, np.float32)
        return Window(step_s, until, demand, np.zeros(demand.shape, bool))

    running = Running(small(), load=load)
    running.offered = dict.fromkeys(PLACES, 2e6)
    running.connect()
    running.tick(count=6)
    found = running.planner.rate_history(Level.USER, "anna", START - 86400 * 3, running.now, 3600)
    assert found.offered_bps[0, 0] == pytest.approx(7e6)
    assert np.isnan(found.grant_bps[0, 0])
    recent = running.planner.rate_history(Level.USER, "anna", running.now - 10, running.now)
    assert recent.offered_bps.tolist() == [[2e6, 2e6], [2e6, 2e6]]
    assert not np.isnan(recent.grant_bps).any()


def test_region_and_root_have_a_past_and_strangers_have_none():
    """A region is the sum of its users, and the root of its regions."""
    running = Running(small())
    running.offered = dict.fromkeys(PLACES, 2e6)
    running.connect()
    running.tick(count=4)

    def newest(level: Level, name: str) -> float:
        found = running.planner.rate_history(level, name, running.now - 5, running.now)
        return float(found.offered_bps[0, -1])

    assert (newest(Level.REGION, "west"), newest(Level.GLOBAL, "")) == (6e6, 10e6)
    for level in (Level.REGION, Level.USER):
        with pytest.raises(NotThere):
            newest(level, "nobody")
