"""Segments: one number for a level and a kind of traffic, and back."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from forecasting.burstiness import BURSTY, CLASS_NAMES, IDLE, STEADY
from forecasting.segments import N_CLASSES, class_of, level_of, segments


def test_level_and_kind_make_a_segment() -> None:
    """Silence, a constant and a leaping series, each at its own level."""
    demand = np.zeros((64, 3), np.float32)
    demand[:, 1] = 5e6
    demand[::2, 2] = 5e6
    found = segments(demand, np.array([0, 3, 1])).tolist()
    assert found == [IDLE, 3 * N_CLASSES + STEADY, N_CLASSES + BURSTY]
    assert [(level_of(one), class_of(one)) for one in found] == [(0, "idle"), (3, "steady"), (1, "bursty")]


@given(st.integers(0, 1000), st.integers(0, N_CLASSES - 1))
def test_segments_tell_level_and_class_apart(level: int, kind: int) -> None:
    """Every pair has its own number."""
    segment = level * N_CLASSES + kind
    assert (level_of(segment), class_of(segment)) == (level, CLASS_NAMES[kind])


def test_nobody_is_in_no_segment() -> None:
    """No series, no segments."""
    assert segments(np.empty((64, 0), np.float32), np.empty(0, np.int64)).size == 0
