"""Series that err alike: one level of the tree and one kind of traffic.

Calibration and the choice of a champion are made by segment. The step is the
same for all series of a forecaster, so it needs no place in the number.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from forecasting.burstiness import CLASS_NAMES, classes
from forecasting.history import Floats, Ints

N_CLASSES: Final = len(CLASS_NAMES)


def segments(demand_bps: Floats, level: Ints) -> Ints:
    """The segment of each series, shape (S,).

    demand_bps : shape (T, S), the window; level : shape (S,), >= 0.
    """
    result: Ints = level * N_CLASSES + classes(demand_bps).astype(np.int64)
    return result


def level_of(segment: int) -> int:
    """The level that a segment belongs to."""
    return segment // N_CLASSES


def class_of(segment: int) -> str:
    """What kind of traffic a segment is."""
    return CLASS_NAMES[segment % N_CLASSES]
