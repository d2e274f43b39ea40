"""Which of a forecast's levels stands for a wanted one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MEDIAN = 0.5


def nearest(quantile: npt.ArrayLike, level: float = MEDIAN) -> int:
    """Place of the level nearest to ``level``, the first of two as near; the median's unless told.

    quantile : shape (K,), the levels that a forecast has.
    """
    return int(np.abs(np.asarray(quantile) - level).argmin())
