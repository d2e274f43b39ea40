"""The ring of every pool's demand: which column is whose, and refilled from the store after a restart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.history import History
from forecasting.training import choose_series
from planner.config import Forecasting
from planner.observation import CENSORED_SHARE
from planner.snapshot import Level
from planner.structure import Structure
from telemetry.ring import SeriesRing, Window

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

#: Cells of the ring, at 9 bytes: the longest history that fits is kept. Four days of minutes
#: for 1,000 users.
_CELLS: Final = 24_000_000
#: Whatever that costs, so many windows are kept: on fewer a model learns too little to be promoted.
_LEAST_WINDOWS: Final = 5

#: A training draws some 20,000 windows: so many series, and so many cells, are plenty.
_MOST_SAMPLED: Final = 2000
_LEAST_SAMPLED: Final = 200
_SAMPLED_CELLS: Final = 8_000_000

#: Gives the window of (since, until) for series names in one direction; the store's ``load_window``.
Loader = Callable[[float, float, int, Sequence[str], int], Window]


@dataclass
class DemandHistory:
    """Demand by step. A series keeps its column for good: 2 x number + direction."""

    settings: Forecasting
    n_expected: int
    load: Loader | None = None
    ring: SeriesRing = field(init=False)
    _number: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        most = max(
            _LEAST_WINDOWS * self.settings.window_steps,
            min(self.settings.train_steps, _CELLS // max(1, 2 * self.n_expected)),
        )
        self.ring = SeriesRing(self.settings.step_s, most, 0)

    def columns(self, structure: Structure, now: float) -> I64:
        """The columns of the structure's pools, shape (2 x n_pools,): all upload, then all download.

        Series seen for the first time are given one, and their past from the store.
        """
        new = [name for name in structure.series if name not in self._number]
        if new:
            first = len(self._number)
            self._number.update((name, first + i) for i, name in enumerate(new))
            needed = 2 * len(self._number)
            if needed > self.ring.n_series:
                # Growing copies the whole ring (2 s at 10,000 users): room for groups yet to be found.
                self.ring.grow(needed + needed // 8)
            # The store keeps whole seconds; steps of other lengths start without a past.
            if self.load is not None and float(self.settings.step_s).is_integer():
                self._refill(first, new, now)
        number = np.fromiter(
            (self._number[name] for name in structure.series), np.int64, len(structure.series)
        )
        if new:
            self._seed_groups(structure, number, number >= first, now)
        return np.concatenate([2 * number, 2 * number + 1])

    def _refill(self, first: int, names: list[str], now: float) -> None:
        assert self.load is not None
        step = int(self.settings.step_s)
        steps = min(self.ring.capacity_steps, self.settings.train_steps)
        windows = [self.load(now - (steps + 1) * step, now, step, names, d) for d in range(2)]
        shape = (len(windows[0].demand_bps), self.ring.n_series)
        if not shape[0]:
            return
        demand = np.full(shape, np.nan, np.float32)
        censored = np.zeros(shape, bool)
        for d, window in enumerate(windows):
            columns = 2 * np.arange(first, first + len(names)) + d
            demand[:, columns] = window.demand_bps
            censored[:, columns] = window.censored
        self.ring.restore(Window(self.ring.step_s, windows[0].end_time, demand, censored))

    def _seed_groups(self, structure: Structure, number: I64, new: Bool, now: float) -> None:
        """Give groups that are new the past of their members: the sums, where all of them are known.

        Else a re-clustering would leave the forecast of every new group without any history.
        """
        users = np.flatnonzero(structure.level == Level.USER)
        above = structure.parent[users]
        users, above = users[new[above]], above[new[above]]
        if not len(users):
            return
        # Users are in the order of their groups.
        starts = np.flatnonzero(np.diff(above, prepend=-1))
        steps = min(self.settings.window_steps, self.ring.capacity_steps)
        demand = np.full((steps, self.ring.n_series), np.nan, np.float32)
        censored = np.zeros(demand.shape, bool)
        for d in range(2):
            window = self.ring.window(now, steps, 2 * number[users] + d)
            held = window.demand_bps * window.censored
            groups = 2 * number[above[starts]] + d
            demand[:, groups] = np.add.reduceat(window.demand_bps, starts, axis=1)
            censored[:, groups] = np.add.reduceat(held, starts, axis=1) > CENSORED_SHARE * demand[:, groups]
        self.ring.restore(Window(self.ring.step_s, window.end_time, demand, censored))

    def add(self, now: float, columns: I64, offered_bps: F64, censored: Bool, interval_s: float) -> None:
        """Note what all pools offered over the interval that ended now; shapes (2, n_pools)."""
        self.ring.add(
            now, columns, offered_bps.ravel(), np.full(columns.shape, interval_s), censored.ravel(), now=now
        )

    def recent(self, structure: Structure, columns: I64, now: float, steps: int) -> History:
        """The last complete steps of the structure's pools, as the forecaster wants them."""
        return self._history(columns, level_of_series(structure), now, steps)

    def sample(self, structure: Structure, columns: I64, now: float, steps: int) -> History:
        """A long past of some of the structure's pools, every level among them: to train on.

        The longer the past, the fewer the series. Copying all of it would hold up the loop for seconds.
        """
        steps = min(steps, self.ring.capacity_steps)
        at_most = min(_MOST_SAMPLED, max(_LEAST_SAMPLED, _SAMPLED_CELLS // steps))
        level = level_of_series(structure)
        rows = choose_series(level, at_most)
        return self._history(columns[rows], level[rows], now, steps)

    def _history(self, columns: I64, level: I64, now: float, steps: int) -> History:
        window = self.ring.window(now, min(steps, self.ring.capacity_steps), columns)
        return History(window.demand_bps, window.censored, window.step_s, window.end_time, level, columns)


def level_of_series(structure: Structure) -> I64:
    """What the forecaster calls the levels, shape (2 x n_pools,): upload and download are told apart."""
    level: I64 = np.concatenate([structure.level * 2, structure.level * 2 + 1]).astype(np.int64)
    return level
