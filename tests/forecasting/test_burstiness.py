"""Burstiness: bounded, blind to size, and right where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forecasting.burstiness import BURSTY, CLASS_NAMES, IDLE, STEADY, VARYING, classes

WINDOWS = arrays(
    np.float32,
    st.tuples(st.integers(0, 40), st.integers(0, 5)),
    elements=st.one_of(st.floats(1.0, 2.0**43, width=32), st.just(0.0), st.just(np.nan), st.just(np.inf)),
)


def noise(spread: float, n_steps: int = 64, n_series: int = 200, seed: int = 0) -> np.ndarray:
    """Shape (n_steps, n_series); each sample a megabit or so, apart from all others."""
    rng = np.random.default_rng(seed)
    return (1e6 * rng.lognormal(0, spread, (n_steps, n_series))).astype(np.float32)


@given(WINDOWS)
def test_every_series_has_a_class(demand: np.ndarray) -> None:
    """Whatever is in the window, gaps and infinities included, there is one class for each series."""
    found = classes(demand)
    assert found.dtype == np.uint8
    assert found.shape == (demand.shape[1],)
    assert (found < len(CLASS_NAMES)).all()


@given(WINDOWS, st.integers(-20, 20))
def test_size_does_not_matter(demand: np.ndarray, power: int) -> None:
    """A series at twice the rate is of the same class."""
    np.testing.assert_array_equal(classes(demand * np.float32(2.0**power)), classes(demand))


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        (np.zeros((64, 3)), IDLE),
        (np.where(np.arange(64) == 40, 1e7, 0)[:, None], IDLE),
        (np.full((64, 3), 5e6), STEADY),
        (1e6 * (2 + np.sin(np.arange(64) / 20))[:, None], STEADY),
        (noise(0.2), VARYING),
        (noise(1.5), BURSTY),
        (np.where(np.arange(64) % 4 == 0, 1e7, 1e4)[:, None], BURSTY),
        (np.full((2, 3), 5e6), VARYING),
        (np.full((64, 3), np.nan), VARYING),
        (np.empty((0, 3)), VARYING),
    ],
)
def test_known_kinds(demand: np.ndarray, expected: int) -> None:
    """Silence and a rare burst are idle, a slow swing is steady, and too few samples say nothing."""
    assert set(classes(demand.astype(np.float32)).tolist()) == {expected}


def test_gaps_do_not_change_the_class() -> None:
    """A series of which a fifth was lost is of the class it would have been."""
    rng = np.random.default_rng(1)
    for spread in (0.02, 0.2, 1.5):
        whole = noise(spread)
        lossy = np.where(rng.random(whole.shape) < 0.2, np.float32(np.nan), whole)
        np.testing.assert_array_equal(classes(lossy), classes(whole))
