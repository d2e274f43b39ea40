"""Which users' application classes are series of their own, and what is remembered of them.

Ten thousand users of eight classes would be 160,000 series; most of them carry next to nothing. So only
those that carried traffic within a window are kept, the heaviest up to a bound, in a ring
whose columns are given away again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from planner.config import Forecasting
from telemetry.ring import SeriesRing, Window

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

#: Below this rate, bit/s, in both directions together, a class carried nothing.
FLOOR_BPS: Final = 1e3
#: One that is kept gives way only to one that is heavier by this factor.
HYSTERESIS: Final = 1.5
#: Cells of the ring, at 11 bytes with the shares: 320 steps of 20,000 series are 70 MB.
_CELLS: Final = 6_400_000
#: Columns to begin with.
_FIRST_COLUMNS: Final = 256


@dataclass(frozen=True)
class Changed:
    """Slots that pairs left, and slots that were given to others; some are both."""

    #: shape (n,)
    left: I64
    #: shape (m,)
    given: I64


class ClassSeries:
    """The pairs (user, class) that are kept, by slot: its columns are 2 x slot + direction.

    A pair is user x n_classes + class.
    """

    def __init__(self, settings: Forecasting, n_users: int, n_classes: int) -> None:
        self.n_classes = n_classes
        # With one class there is nothing to tell apart: it is the user.
        possible = n_users * n_classes if n_classes > 1 else 0
        #: Pairs that may be kept.
        self.most = min(settings.max_class_series // 2, possible)
        self._window = settings.window_steps
        rows = max(self._window, min(settings.train_steps, _CELLS // max(1, 2 * self.most)))
        self.ring = SeriesRing(settings.step_s, rows, 0)
        #: shape (slots,): the pair of each, -1 where a slot is free.
        self.pair: I64 = np.empty(0, np.int64)
        #: shape (slots,): tells apart those that had a slot one after the other.
        self.serial: I64 = np.empty(0, np.int64)
        self._serials = 0
        self._slot: I64 = np.full(possible, -1, np.int64)
        #: shape (pairs,), bit/s: mean of both directions together, newer steps counting more.
        self._weight: F32 = np.zeros(possible, np.float32)
        self._seen_at: I64 = np.full(possible, np.iinfo(np.int64).min // 2)
        #: The kept series' shares of their user's traffic, by row of the step and column.
        self._share: npt.NDArray[np.float16] = np.empty((self.ring.capacity_steps, 0), np.float16)
        #: shape (2, n_users): what each user's classes carried, and the kept ones of them; newer steps count more.
        self._whole, self._kept = np.zeros((2, 2, n_users))
        self._keep = 0.5 ** (4 / self._window)

    @property
    def slots(self) -> I64:
        """Those in use, rising."""
        return np.flatnonzero(self.pair >= 0)

    def slots_of(self, user: int) -> I64:
        """The slots of one user's classes, in the classes' order."""
        mine = self._slot[user * self.n_classes : (user + 1) * self.n_classes]
        return mine[mine >= 0]

    def kept_share(self, user: int) -> F64:
        """How much of a user's traffic its kept classes carried lately, shape (2,), 0..1; NaN: not known."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._kept[:, user] / self._whole[:, user]

    def window(self, now: float, steps: int, columns: I64) -> tuple[Window, F32]:
        """The last complete steps of these columns, as many as there are, and their shares of the user's traffic."""
        window = self.ring.window(now, min(steps, self.ring.capacity_steps), columns)
        rows = len(window.demand_bps)
        step = round(window.end_time / window.step_s) - np.arange(rows, 0, -1)
        share = self._share[(step % len(self._share))[:, None], columns].astype(np.float32)
        # What an older lap or another pair left there has no demand.
        share[np.isnan(window.demand_bps)] = np.nan
        return window, share

    def add(self, now: float, end_time: float, demand_bps: F32, share: F32, censored: Bool) -> Changed:
        """Note a completed step, and choose anew whom to keep.

        demand_bps, censored : shape (2, n_users). share : shape (2, n_users, n_classes), NaN is a gap.
        """
        if not self.most:
            return Changed(*(np.empty(0, np.int64) for _ in range(2)))
        share_of = share.reshape(2, -1)
        flat = (share * demand_bps[:, :, None]).reshape(2, -1)
        # A step is called by its end here.
        step = round(end_time / self.ring.step_s)
        both = np.nan_to_num(flat).sum(axis=0)
        # A gap neither adds nor fades.
        known = ~np.isnan(flat).all(axis=0)
        self._weight[known] = self._keep * self._weight[known] + (1 - self._keep) * both[known]
        self._seen_at[both >= FLOOR_BPS] = step
        # What a clock that was set back left in the future was seen just now.
        np.minimum(self._seen_at, step, out=self._seen_at)
        changed = self._choose(step)
        slots = self.slots
        pair = self.pair[slots]
        columns = columns_of(slots)
        flags = censored[:, pair // self.n_classes]
        self.ring.add(end_time, columns, flat[:, pair].ravel(), self.ring.step_s, flags.ravel(), now=now)
        self._share[(step - 1) % len(self._share), columns] = share_of[:, pair].ravel()
        self._note_kept(pair, flat)
        return changed

    def _note_kept(self, pair: I64, flat: F32) -> None:
        n_users = self._whole.shape[1]
        for d in range(2):
            rate = np.nan_to_num(flat[d])
            whole = rate.reshape(n_users, -1).sum(axis=1)
            kept = np.bincount(pair // self.n_classes, rate[pair], n_users)
            self._whole[d] = self._keep * self._whole[d] + whole
            self._kept[d] = self._keep * self._kept[d] + kept

    def _choose(self, step: int) -> Changed:
        held = self._slot >= 0
        wanted = np.flatnonzero(step - self._seen_at < self._window)
        if len(wanted) > self.most:
            rank = self._weight[wanted] * np.where(held[wanted], np.float32(HYSTERESIS), np.float32(1))
            wanted = wanted[np.argpartition(-rank, self.most - 1)[: self.most]]
        keeps = np.zeros(len(held), np.bool_)
        keeps[wanted] = True
        gone, new = np.flatnonzero(held & ~keeps), np.flatnonzero(keeps & ~held)
        left = self._slot[gone]
        self._slot[gone], self.pair[left] = -1, -1
        self.ring.clear(columns_of(left))
        return Changed(left, self._settle(new))

    def _settle(self, new: I64) -> I64:
        """Give slots to pairs; gives the slots."""
        free = np.flatnonzero(self.pair < 0)
        short = len(new) - len(free)
        if short > 0:
            size = min(self.most, max(len(self.pair) + short, 2 * len(self.pair), _FIRST_COLUMNS))
            more = np.full(size - len(self.pair), -1, np.int64)
            free = np.concatenate([free, np.arange(len(self.pair), size)])
            self.pair, self.serial = np.concatenate([self.pair, more]), np.concatenate([self.serial, more])
            self.ring.grow(2 * size)
            wider = np.full((len(self._share), 2 * size), np.nan, np.float16)
            wider[:, : self._share.shape[1]] = self._share
            self._share = wider
        slots = free[: len(new)]
        self.pair[slots], self._slot[new] = new, slots
        self.serial[slots] = self._serials + np.arange(len(new))
        self._serials += len(new)
        return slots


def columns_of(slots: I64) -> I64:
    """The ring's columns, shape (2 x n,): all upload, then all download."""
    return np.concatenate([2 * slots, 2 * slots + 1])
