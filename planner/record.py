"""What pools offered and were granted, tick by tick, for those who ask about the recent past."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: Ticks remembered: an hour at the default of five seconds.
_TICKS: Final = 720
#: Rates remembered, at 4 bytes: an hour of 4,000 users, a quarter of an hour of 15,000.
_CELLS: Final = 12_000_000


@dataclass(frozen=True)
class TickRates:
    """What some pools together offered and were granted at each tick. NaN: not known."""

    #: shape (n,), epoch seconds at which the tick was.
    time: F64
    #: shape (2, n), bit/s, upload and download.
    offered_bps: F64
    grant_bps: F64


@dataclass(frozen=True, eq=False)
class _Tick:
    time: float
    #: shape (n_pools,), the numbers of the series; one array for as long as the pools are the same.
    number: I64
    #: shape (2, 2, n_pools): offered and granted, upload and download.
    rate_bps: F32


@dataclass
class RateRecord:
    """A bounded record of all pools' rates, by the numbers that ``DemandHistory`` gives to series.

    One thread adds; any may read.
    """

    cells: int = _CELLS
    _ticks: deque[_Tick] = field(default_factory=lambda: deque(maxlen=_TICKS))
    _columns: I64 | None = None

    def add(self, now: float, columns: I64, offered_bps: F64, grant_bps: F64) -> None:
        """One tick; rates have shape (2, n_pools), ``columns`` shape (2 x n_pools,): all upload, then all download."""
        if columns is not self._columns or not self._ticks:
            self._columns, number = columns, columns[: len(columns) // 2] // 2
        else:
            number = self._ticks[-1].number
        rates = np.stack([offered_bps, grant_bps]).astype(np.float32)
        self._ticks.append(_Tick(now, number, rates))
        while len(self._ticks) > max(1, self.cells // max(1, rates.size)):
            self._ticks.popleft()

    @property
    def since(self) -> float:
        """When the oldest tick on record was; infinity without one."""
        ticks = tuple(self._ticks)
        return ticks[0].time if ticks else float("inf")

    def history(self, numbers: Iterable[int], since: float, until: float) -> TickRates:
        """The sums over these series of each tick in (since, until].

        A tick that knew none of them, or not the rate of one, is NaN: what is not known adds up to nothing known.
        """
        wanted = np.fromiter(numbers, np.int64)
        # A copy: the loop goes on while readers read.
        ticks = [tick for tick in tuple(self._ticks) if since < tick.time <= until]
        rates = np.full((len(ticks), 2, 2), np.nan)
        rows: dict[int, npt.NDArray[np.intp]] = {}
        for at, tick in enumerate(ticks):
            key = id(tick.number)
            if key not in rows:
                rows[key] = np.flatnonzero(np.isin(tick.number, wanted))
            if len(rows[key]):
                rates[at] = tick.rate_bps[:, :, rows[key]].sum(axis=2, dtype=np.float64)
        return TickRates(np.array([tick.time for tick in ticks]), rates[:, 0].T, rates[:, 1].T)
