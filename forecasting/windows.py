"""Rows that belong to one window: they follow each other and share what was measured.

Features come as one row per window and horizon. What a model reads of the window itself
is the same in all of its rows, and need be reckoned only once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from forecasting.history import Bools, Floats, Ints


def starts(shared: Floats) -> Bools:
    """Where a window begins, shape (n,): its row differs from the one before. Gaps equal gaps.

    shared : shape (n, C)   The columns that all rows of a window have alike.
    """
    differs = np.ones(len(shared), np.bool_)
    if len(shared) == 0:
        return differs
    differs[1:] = False
    for column in shared.T:
        # Bits, not numbers: a NaN equals no NaN, and no number is worth a second comparison.
        bits = np.ascontiguousarray(column, np.float32).view(np.uint32)
        differs[1:] |= bits[1:] != bits[:-1]
    return differs


def whole_windows(start: Bools, at_most: int) -> Iterator[slice]:
    """Rows in parts of at most so many windows, none of them cut."""
    first = np.flatnonzero(start)
    bounds = [*first[::at_most], len(start)]
    for one, after in pairwise(bounds):
        yield slice(int(one), int(after))


def rows_of(chosen: Ints, first_row: Ints) -> tuple[Ints, Ints]:
    """Rows of the chosen windows one after the other, and which of them each belongs to.

    first_row : shape (m + 1,)   Where each window begins, and after the last one the number of rows.
    """
    size = first_row[chosen + 1] - first_row[chosen]
    index = np.repeat(np.arange(len(chosen)), size)
    within = np.arange(len(index)) - np.repeat(np.cumsum(size) - size, size)
    return first_row[chosen][index] + within, index
