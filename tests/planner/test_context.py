"""What is known of users beside their demand is kept by step, and is not known where it was not measured."""

from __future__ import annotations

import numpy as np

from forecasting.context import CHANNELS
from planner.applications import Split
from planner.config import Forecasting
from planner.context import ContextRing

NAN = float("nan")
ENTROPY, TOP, OWN, PEERS = range(len(CHANNELS))
SETTINGS = Forecasting(window_steps=8, min_history_steps=4, train_steps=8)


def split(peers: float) -> Split:
    """Anna sends to so many, half of it in each class; of ben there is no account."""
    bits = np.zeros((2, 2, 2), np.float32)
    bits[0, 0] = 1e6
    return Split(bits, np.array([[peers, 0], [0, 0]], np.float32))


DEMAND = np.array([[5e6, 5e6], [0, NAN]], np.float32)


def test_figures_of_a_step() -> None:
    """Mix and peers as the forecaster knows them; a busy user without an account is unknown, an idle one has none."""
    ring = ContextRing(SETTINGS, 2)
    ring.put(60.0, split(7), DEMAND)
    found = ring.window(60.0, 1, np.arange(4))
    np.testing.assert_allclose(found[ENTROPY, 0], [1, NAN, NAN, NAN])
    np.testing.assert_allclose(found[TOP, 0], [0.5, NAN, NAN, NAN])
    np.testing.assert_allclose(found[PEERS, 0], [3, NAN, 0, NAN])
    assert np.isnan(found[OWN]).all()


def test_window_is_by_step_and_column() -> None:
    """Steps that were missed and columns of nobody are not known; older laps are not shown."""
    ring = ContextRing(SETTINGS, 2)
    for step in (1, 2, 4):
        ring.put(60.0 * step, split(2**step - 1), DEMAND)
    found = ring.window(240.0, 4, np.array([-1, 0]))[PEERS]
    np.testing.assert_allclose(found, [[NAN, 1], [NAN, 2], [NAN, NAN], [NAN, 4]])
    ring.put(60.0 * 40, split(1), DEMAND)
    np.testing.assert_allclose(ring.window(60.0 * 40, 99, np.array([0]))[PEERS, :, 0][-3:], [NAN, NAN, 1])


def test_clock_set_back_drops_the_future() -> None:
    """What comes under those numbers again is not mixed with it."""
    ring = ContextRing(SETTINGS, 2)
    ring.put(600.0, split(7), DEMAND)
    ring.put(300.0, split(1), DEMAND)
    assert np.isnan(ring.window(600.0, 1, np.array([0]))[PEERS]).all()
