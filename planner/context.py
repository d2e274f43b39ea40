"""What is known of users beside their demand, step by step: the mix of applications, and peers.

Kept as half-precision figures, for as many steps as fit a bound; see ``forecasting.context``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.context import CHANNELS, mix
from planner.applications import IDLE_BPS, Split
from planner.config import Forecasting

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

#: Figures kept in all, at 2 bytes: 400 steps of 10,000 users are 48 MB.
_CELLS: Final = 24_000_000
#: Whatever that costs, so many windows are kept, for trainings.
_LEAST_WINDOWS: Final = 2
#: Of each user and direction; ``own_share`` is reckoned where it is asked for.
_KEPT: Final = ("mix_entropy", "mix_top_share", "peers")
_PLACE: Final = np.array([CHANNELS.index(name) for name in _KEPT])
_EMPTY: Final = np.iinfo(np.int64).min


class ContextRing:
    """A ring of steps. A user's columns are its number for upload, and n_users + its number for download."""

    def __init__(self, settings: Forecasting, n_users: int) -> None:
        self.step_s = settings.step_s
        self.n_users = n_users
        most = max(_LEAST_WINDOWS * settings.window_steps, _CELLS // max(1, 2 * len(_KEPT) * n_users))
        rows = min(settings.train_steps, most)
        self._step_of_row = np.full(rows, _EMPTY, np.int64)
        # Memory is touched as steps come.
        self._figure = np.empty((rows, len(_KEPT), 2 * n_users), np.float16)

    def put(self, end_time: float, split: Split, demand_bps: F32) -> None:
        """Note a completed step. ``demand_bps`` has shape (2, n_users), NaN is a gap."""
        step = round(end_time / self.step_s)
        self._step_of_row[self._step_of_row > step] = _EMPTY
        row = step % len(self._step_of_row)
        self._step_of_row[row] = step
        heard = split.peers > 0
        idle = demand_bps < IDLE_BPS
        entropy, top = mix(split.bits.reshape(2 * self.n_users, -1))
        self._figure[row, 0], self._figure[row, 1] = entropy, top
        peers = np.where(heard | idle, np.log2(1 + split.peers), np.float32(np.nan))
        self._figure[row, 2] = peers.ravel()

    def window(self, end_time: float, steps: int, columns: I64) -> F32:
        """The context of the last steps up to a moment, shape (len(CHANNELS), R, n), R <= steps.

        Columns below zero are of nobody.
        """
        steps = min(steps, len(self._step_of_row))
        wanted = round(end_time / self.step_s) - np.arange(steps - 1, -1, -1)
        rows = wanted % len(self._step_of_row)
        at, known = np.flatnonzero(self._step_of_row[rows] == wanted), np.flatnonzero(columns >= 0)
        found = np.full((len(CHANNELS), steps, len(columns)), np.nan, np.float32)
        kept = np.arange(len(_KEPT))
        found[np.ix_(_PLACE, at, known)] = self._figure[
            rows[at][None, :, None], kept[:, None, None], columns[known][None, None, :]
        ]
        return found
