"""Rows of one window are found by what they share, gaps included."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from forecasting.windows import rows_of, starts, whole_windows


def test_a_window_begins_where_any_shared_column_changes() -> None:
    """A gap equals a gap, and a gap is not a zero."""
    gap = np.nan
    shared = np.array(
        [[1, gap], [1, gap], [1, 0], [1, 0], [2, 0], [1, 0], [gap, gap], [gap, gap]], np.float32
    )
    assert starts(shared).tolist() == [True, False, True, False, True, True, True, False]


def test_nothing_has_no_windows() -> None:
    assert starts(np.empty((0, 3), np.float32)).tolist() == []
    assert list(whole_windows(starts(np.empty((0, 3), np.float32)), 2)) == []


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.integers(1, 7), st.randoms())
def test_parts_and_choices_have_whole_windows(sizes: list[int], at_most: int, random: object) -> None:
    """However windows are chosen or cut into parts, each comes with all of its rows, in order."""
    window = np.repeat(np.arange(len(sizes)), sizes)
    start = starts(window[:, None].astype(np.float32))
    parts = [window[part] for part in whole_windows(start, at_most)]
    assert np.concatenate(parts).tolist() == window.tolist()
    assert all(len(np.unique(part)) <= at_most for part in parts)
    assert sum(len(np.unique(part)) for part in parts) == len(sizes)

    chosen = np.arange(len(sizes))
    random.shuffle(chosen)  # type: ignore[attr-defined]
    rows, index = rows_of(chosen, np.append(np.flatnonzero(start), len(window)))
    assert window[rows].tolist() == np.repeat(chosen, np.asarray(sizes)[chosen]).tolist()
    assert chosen[index].tolist() == window[rows].tolist()
