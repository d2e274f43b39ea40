"""What groups offered and were granted, tick by tick, for those who ask about the recent past."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from planner.structure import Structure

F64 = npt.NDArray[np.float64]

#: Ticks remembered: an hour at the default of five seconds.
_TICKS: Final = 720


@dataclass
class GroupRecord:
    """A bounded record of all groups' rates."""

    _ticks: deque[tuple[float, dict[str, F64]]] = field(default_factory=lambda: deque(maxlen=_TICKS))

    def add(self, now: float, structure: Structure, offered_bps: F64, grant_bps: F64) -> None:
        """One tick; rates have shape (2, n_pools). A group's parts in several regions are summed."""
        rates = np.stack([offered_bps, grant_bps])
        self._ticks.append(
            (
                now,
                {group: rates[:, :, list(rows)].sum(axis=2) for group, rows in structure.group_rows.items()},
            )
        )

    def history(self, group_id: str, since: float) -> dict[str, Any]:
        """``time`` (n,), ``offered_bps`` and ``grant_bps`` (2, n); NaN where nothing was known of the group."""
        unknown = np.full((2, 2), np.nan)
        # A copy: the loop goes on while readers read.
        ticks = [(time, groups.get(group_id, unknown)) for time, groups in tuple(self._ticks) if time > since]
        rates = np.array([rate for _, rate in ticks]).reshape(-1, 2, 2)
        return {
            "time": np.array([time for time, _ in ticks]),
            "offered_bps": rates[:, 0].T,
            "grant_bps": rates[:, 1].T,
        }
