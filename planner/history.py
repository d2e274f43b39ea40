"""The rings of every pool's demand: which column is whose, and refilled from the store after a restart.

One ring has the recent past by step, the other eight days by blocks of a quarter of an hour: what was at
this time yesterday and last week.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.history import History
from forecasting.seasonal import DAY_S, SEASONS_S, Blocks, block_s_for, blocks_of, moments
from forecasting.training import choose_series
from planner.config import Forecasting
from planner.config_fields import UNGROUPED
from planner.observation import CENSORED_SHARE
from planner.snapshot import Level
from planner.structure import Structure
from telemetry.ring import SeriesRing, Window

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

#: Cells of the ring, at 9 bytes: the longest history that fits is kept. Four days of minutes
#: for 1,000 users.
_CELLS: Final = 24_000_000
#: Whatever that costs, so many windows are kept: on fewer a model learns too little to be promoted.
_LEAST_WINDOWS: Final = 5

#: Past beyond the longest season: horizons and blocks that are under way.
_BEYOND_S: Final = DAY_S + 4 * 3600.0
#: Cells of the ring of blocks, at 9 bytes: eight days for 15,000 pools in both directions, fewer days for more.
_BLOCK_CELLS: Final = 24_000_000
#: Stored rows that may be read in a tick, 0.06 s a million.
_READ_ROWS: Final = 1_000_000
#: Rows of a pool that the store keeps of each minute.
_ROWS_A_MINUTE: Final = 2

#: A training draws some 20,000 windows: so many series, and so many cells, are plenty.
_MOST_SAMPLED: Final = 2000
_LEAST_SAMPLED: Final = 200
_SAMPLED_CELLS: Final = 8_000_000

#: Gives the window of (since, until) for series names in one direction; the store's ``load_window``.
Loader = Callable[[float, float, int, Sequence[str], int], Window]


@dataclass
class _Recall:
    """Blocks that are still to be read from the store, and for whom."""

    names: list[str] = field(default_factory=list)
    #: Numbers of blocks.
    blocks: set[int] = field(default_factory=set)


@dataclass
class DemandHistory:
    """Demand by step and by block. A series keeps its column for good: 2 x number + direction."""

    settings: Forecasting
    n_expected: int
    load: Loader | None = None
    ring: SeriesRing = field(init=False)
    #: Means over a quarter of an hour, of eight days or as many as fit.
    blocks: SeriesRing = field(init=False)
    _number: dict[str, int] = field(default_factory=dict)
    _recall: _Recall = field(default_factory=_Recall)
    #: Numbers of each group's members when it was last seen, as bytes, by the group's own.
    _members: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        most = max(
            _LEAST_WINDOWS * self.settings.window_steps,
            min(self.settings.train_steps, _CELLS // max(1, 2 * self.n_expected)),
        )
        self.ring = SeriesRing(self.settings.step_s, most, 0)
        block_s = block_s_for(self.settings.step_s)
        least, wanted = (math.ceil((season + _BEYOND_S) / block_s) for season in (0.0, SEASONS_S[-1]))
        most = max(least, min(wanted, _BLOCK_CELLS // max(1, 2 * self.n_expected)))
        self.blocks = SeriesRing(block_s, most, 0)

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
                self.blocks.grow(needed + needed // 8)
            # The store keeps whole seconds; steps of other lengths start without a past.
            if self.load is not None and float(self.settings.step_s).is_integer():
                self._refill(first, new, now)
            if self.load is not None and self.blocks.step_s.is_integer():
                end = self._block_at(now)
                self._recall.names += new
                self._recall.blocks = set(range(end - self.blocks.capacity_steps, end))
        number = np.fromiter(
            (self._number[name] for name in structure.series), np.int64, len(structure.series)
        )
        if new:
            self._seed_groups(structure, number, number >= first, now)
        changed = self._changed_groups(structure, number)
        if changed.any():
            self._seed_groups(structure, number, changed, now, over=True)
        return np.concatenate([2 * number, 2 * number + 1])

    def numbers(self, names: Sequence[str]) -> list[int]:
        """The numbers of those of these series that were ever seen: their columns are 2 x number + direction."""
        return [self._number[name] for name in names if name in self._number]

    def demand_of(self, series: Sequence[Sequence[str]], now: float) -> F64:
        """The sums of these series, both directions together, shape (n_steps, n_sums); NaN where one is not known."""
        numbers = [self.numbers(names) for names in series]
        columns = [2 * number + d for found in numbers for number in found for d in range(2)]
        steps = min(self.settings.window_steps, self.ring.capacity_steps)
        window = self.ring.window(now, steps, np.array(columns, np.int64))
        total = np.full((len(window.demand_bps), len(series)), np.nan)
        at = 0
        for place, found in enumerate(numbers):
            if found:
                total[:, place] = window.demand_bps[:, at : at + 2 * len(found)].sum(axis=1)
            at += 2 * len(found)
        return total

    def _changed_groups(self, structure: Structure, number: I64) -> Bool:
        """Groups with other members than when they were last seen, by row."""
        changed = np.zeros(len(number), bool)
        users, above = number[structure.user_rows], structure.parent[structure.user_rows]
        starts = np.flatnonzero(np.diff(above, prepend=-1))
        for start, end in pairwise([*starts.tolist(), len(users)]):
            row = int(above[start])
            # Who is in no group has only that in common: thousands come and go, and no past is theirs together.
            if structure.path[row].endswith(f"/{UNGROUPED}"):
                continue
            members = np.sort(users[start:end]).tobytes()
            before = self._members.get(int(number[row]), members)
            self._members[int(number[row])] = members
            changed[row] = before != members
        return changed

    def _refill(self, first: int, names: list[str], now: float) -> None:
        assert self.load is not None
        step = int(self.settings.step_s)
        steps = min(self.ring.capacity_steps, self.settings.train_steps)
        windows = [self.load(now - (steps + 1) * step, now, step, names, d) for d in range(2)]
        for d, window in enumerate(windows):
            columns = 2 * np.arange(first, first + len(names)) + d
            self.ring.restore(window, columns)
            self._restore_blocks(window, columns)

    def _restore_blocks(self, window: Window, columns: I64) -> None:
        """The blocks that lie whole in a window of steps."""
        block_s = self.blocks.step_s
        since = window.end_time - len(window.demand_bps) * window.step_s
        cut = math.ceil((math.ceil(since / block_s) * block_s - since) / window.step_s)
        made = blocks_of(window.demand_bps[cut:], window.step_s, window.end_time)
        whole = self._block_at(window.end_time) - made.first
        if whole > 0:
            means = made.mean_bps[:whole]
            end_time = (made.first + whole) * block_s
            self.blocks.restore(Window(block_s, end_time, means, np.zeros(means.shape, bool)), columns)

    def recall(self, now: float) -> None:
        """Read on in the store for what is remembered in blocks; call once a tick.

        Eight days of everybody take minutes to read. So a tick reads a few blocks, first those that
        forecasts will soon look back to.
        """
        waiting = self._recall
        if self.load is None or not waiting.blocks:
            waiting.names = []
            return
        end, block_s = self._block_at(now), self.blocks.step_s
        season = [round(season_s / block_s) for season_s in SEASONS_S]

        def until_needed(block: int) -> int:
            # A target lies up to a few blocks after the moment itself.
            return min(
                (block + one - end for one in season if block + one - end >= -2), default=2 * season[-1]
            )

        first = min(waiting.blocks, key=lambda block: (until_needed(block), block))
        minutes = max(1.0, block_s / 60)
        at_most = max(1, int(_READ_ROWS / (_ROWS_A_MINUTE * minutes * max(1, len(self._number)))))
        last = first
        while last + 1 in waiting.blocks and last + 1 - first < at_most:
            last += 1
        number = np.fromiter((self._number[name] for name in waiting.names), np.int64, len(waiting.names))
        for d in range(2):
            window = self.load(first * block_s, (last + 1) * block_s, int(block_s), waiting.names, d)
            self.blocks.restore(window, 2 * number + d)
        # Only now: what failed is tried again.
        waiting.blocks.difference_update(range(first, last + 1))

    def _block_at(self, time: float) -> int:
        return math.floor(time / self.blocks.step_s)

    def _seed_groups(
        self, structure: Structure, number: I64, new: Bool, now: float, *, over: bool = False
    ) -> None:
        """Give these groups the past of their members: the sums, where all of them are known.

        Else a re-clustering would leave the forecast of every new group without any history, and that of a
        group whose members changed with a history that is not theirs: ``over`` it the members' is written.
        """
        users = np.flatnonzero(structure.level == Level.USER)
        above = structure.parent[users]
        users, above = users[new[above]], above[new[above]]
        if not len(users):
            return
        # Users are in the order of their groups.
        starts = np.flatnonzero(np.diff(above, prepend=-1))
        steps = min(self.settings.window_steps, self.ring.capacity_steps)
        for ring, back in ((self.ring, steps), (self.blocks, self.blocks.capacity_steps)):
            for d in range(2):
                window = ring.window(now, back, 2 * number[users] + d)
                held = window.demand_bps * window.censored
                demand = np.add.reduceat(window.demand_bps, starts, axis=1)
                censored = np.add.reduceat(held, starts, axis=1) > CENSORED_SHARE * demand
                summed = Window(ring.step_s, window.end_time, demand, censored)
                ring.restore(summed, 2 * number[above[starts]] + d, over=over)

    def add(self, now: float, columns: I64, offered_bps: F64, censored: Bool, interval_s: float) -> None:
        """Note what all pools offered over the interval that ended now; shapes (2, n_pools)."""
        rate_bps, seen_s, flags = offered_bps.ravel(), np.full(columns.shape, interval_s), censored.ravel()
        for ring in (self.ring, self.blocks):
            ring.add(now, columns, rate_bps, seen_s, flags, now=now)

    def recent(
        self, structure: Structure, columns: I64, now: float, steps: int, *, seasons: bool = True
    ) -> History:
        """The last complete steps of the structure's pools, as the forecaster wants them.

        ``seasons`` : whether with the demand of a day and a week before.
        """
        history = self._history(columns, level_of_series(structure), now, steps)
        return (
            replace(history, recalled_bps=self._recalled(columns, history.end_time)) if seasons else history
        )

    def sample(self, structure: Structure, columns: I64, now: float, steps: int) -> History:
        """A long past of some of the structure's pools, every level among them: to train on.

        The longer the past, the fewer the series. Copying all of it would hold up the loop for seconds.
        """
        steps = min(steps, self.ring.capacity_steps)
        at_most = min(_MOST_SAMPLED, max(_LEAST_SAMPLED, _SAMPLED_CELLS // steps))
        level = level_of_series(structure)
        rows = choose_series(level, at_most)
        first = self._block_at(now) - self.blocks.capacity_steps
        kept = np.arange(first, first + self.blocks.capacity_steps)
        means = self.blocks.means(now, kept, columns[rows])
        history = self._history(columns[rows], level[rows], now, steps)
        return replace(history, blocks=Blocks(means, first, self.blocks.step_s))

    def _recalled(self, columns: I64, end_time: float) -> F32:
        """Demand a day and a week before the end and before each horizon, shape (2, H + 1, n)."""
        step_s, block_s = self.settings.step_s, self.blocks.step_s
        ahead = np.rint(np.asarray(self.settings.horizons_s) / step_s).astype(np.int64)
        when = moments(end_time, ahead, step_s)
        found = np.empty((*when.shape[:2], len(columns)), np.float32)
        for season, moment in enumerate(when[:, :, 0]):
            # The blocks around the moments of a season lie side by side; all others stay where they are.
            first = math.floor(moment.min() / block_s - 0.5)
            wanted = np.arange(first, math.floor(moment.max() / block_s - 0.5) + 2)
            means = self.blocks.means(end_time, wanted, columns)
            found[season] = Blocks(means, first, block_s).at(moment)
        return found

    def _history(self, columns: I64, level: I64, now: float, steps: int) -> History:
        window = self.ring.window(now, min(steps, self.ring.capacity_steps), columns)
        return History(window.demand_bps, window.censored, window.step_s, window.end_time, level, columns)


def level_of_series(structure: Structure) -> I64:
    """What the forecaster calls the levels, shape (2 x n_pools,): upload and download are told apart."""
    level: I64 = np.concatenate([structure.level * 2, structure.level * 2 + 1]).astype(np.int64)
    return level
