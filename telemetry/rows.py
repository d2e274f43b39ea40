"""A batch of measurements on its way into the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SampleRows:
    """Rates of many series in one direction, measured up to ``time``.

    ``names``, ``rate_bps``, ``interval_s`` and ``censored`` have n rows. A
    rate of NaN is a gap; the store keeps no row for it. Hand over the same
    ``names`` tuple each time when the series are the same: its look-up is
    then done once.
    """

    time: float
    direction: int
    names: tuple[str, ...]
    rate_bps: F64
    interval_s: F64
    censored: Bools

    def __post_init__(self) -> None:
        if not np.isfinite(self.time):
            raise ValueError(f"time must be finite, got {self.time}")
        shapes = {c.shape for c in (self.rate_bps, self.interval_s, self.censored)}
        if shapes != {(len(self.names),)}:
            raise ValueError(f"columns must have shape ({len(self.names)},) like names, got {sorted(shapes)}")

    def __len__(self) -> int:
        return len(self.names)


def rows_of(
    time: float,
    direction: int,
    names: Sequence[str],
    rate_bps: npt.ArrayLike,
    interval_s: npt.ArrayLike,
    censored: npt.ArrayLike,
) -> SampleRows:
    """Rows from anything like an array; a scalar interval or flag holds for all."""
    shape = (len(names),)
    return SampleRows(
        time,
        direction,
        names if isinstance(names, tuple) else tuple(names),
        np.asarray(rate_bps, dtype=np.float64),
        np.broadcast_to(np.asarray(interval_s, dtype=np.float64), shape),
        np.broadcast_to(np.asarray(censored, dtype=np.bool_), shape),
    )
