"""Forecasts as they were issued, beside what came: a bounded record of the recent past."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forecasting.forecast import Forecast, Rung
from forecasting.history import History
from forecasting.quantiles import nearest

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: Figures kept in all, at 4 bytes. Half a day of minutes for 1,000 users, an hour for 10,000.
CELLS: Final = 12_000_000
#: The levels that are kept; of a forecast without them, the nearest that it has.
LEVELS: Final = (0.1, 0.5, 0.9)
#: A row's figures for one series: what came, then the levels at the shortest and at the longest horizon.
_FIGURES: Final = 1 + 2 * len(LEVELS)
_EMPTY: Final = np.iinfo(np.int64).min


@dataclass(frozen=True)
class IssuedHistory:
    """One series in one direction, step by step. NaN: not known, or nothing was forecast."""

    #: shape (n,), end of each step, epoch seconds, rising.
    time: F64
    #: shape (n,), bit/s; NaN is a gap, and for steps that are still to come.
    demand_bps: F32
    #: shape (2,): how long before the end of a step each forecast of it was issued.
    horizon_s: F64
    #: shape (K,), the levels as they were forecast.
    quantile: F64
    #: shape (n, 2, K), bit/s: issued at the shortest and at the longest horizon.
    forecast_bps: F32

    def at(self, rows: npt.NDArray[np.intp]) -> IssuedHistory:
        """Some of its steps."""
        return replace(
            self, time=self.time[rows], demand_bps=self.demand_bps[rows], forecast_bps=self.forecast_bps[rows]
        )


class IssuedForecasts:
    """A ring of steps: a row is one step, with what was forecast of it before and what then came.

    The more series, the fewer rows: ``cells`` bounds both together. With so few rows that the
    longest horizon does not fit, only the shortest is recorded. Rows are of series columns as
    ``DemandHistory`` numbers them. Safe for readers in other threads.
    """

    def __init__(self, step_s: float, cells: int = CELLS) -> None:
        self.step_s = step_s
        self.cells = cells
        self._lock = threading.Lock()
        self._number: dict[str, int] = {}
        self._names: tuple[str, ...] = ()
        self._horizon_s: F64 = np.full(2, np.nan)
        self._quantile: F64 = np.full(len(LEVELS), np.nan)
        self._newest = _EMPTY
        self._step_of_row: I64 = np.empty(0, np.int64)
        #: shape (rows, figures, columns)
        self._figure: F32 = np.empty((0, _FIGURES, 0), np.float32)

    @property
    def rows(self) -> int:
        """Steps that there is room for, those still to come included."""
        return len(self._step_of_row)

    def add(self, names: tuple[str, ...], columns: I64, history: History, forecast: Forecast) -> None:
        """A step was completed and forecasts were issued at its end.

        Parameters
        ----------
        names : shape (n_pools,)         Series, as the structure calls them.
        columns : shape (2 x n_pools,)   Their columns: all upload, then all download.
        history :                        Of those columns; its last row is the step.
        forecast :                       Of those columns, from the end of the step.
        """
        if not history.n_series:
            return
        with self._lock:
            step = self._note(names, columns, history)
            self._horizon_s = forecast.horizon_s[[0, -1]]
            level = [nearest(forecast.quantile, wanted) for wanted in LEVELS]
            self._quantile = forecast.quantile[level]
            for at, horizon in enumerate((0, -1)):
                ahead = round(float(forecast.horizon_s[horizon]) / self.step_s)
                if ahead < self.rows:
                    first = 1 + at * len(LEVELS)
                    issued = forecast.demand_bps[:, horizon, level].T
                    # What rests on nothing measured is no forecast: often it is zero.
                    issued = np.where(forecast.rung == Rung.LAST_PLAN, np.float32(np.nan), issued)
                    self._row(step + ahead)[first : first + len(LEVELS), columns] = issued

    def came(self, names: tuple[str, ...], columns: I64, history: History) -> None:
        """A step was completed of series that are forecast at another time; arguments as of ``add``."""
        if history.n_series:
            with self._lock:
                self._note(names, columns, history)

    def forget(self, names: Iterable[str]) -> None:
        """These series are no more: their columns are given to others."""
        with self._lock:
            gone = [number for name in names if (number := self._number.pop(name, None)) is not None]
            self._names = ()
            self._figure[:, :, [column for number in gone for column in (2 * number, 2 * number + 1)]] = (
                np.nan
            )

    def history(self, name: str, direction: int, since: float) -> IssuedHistory:
        """What is on record of one series from ``since`` on: nothing if it is not known.

        ``direction`` is 0 for upload, 1 for download. Steps to come follow, without demand.
        """
        with self._lock:
            number = self._number.get(name)
            column = -1 if number is None else 2 * number + direction
            known = self._step_of_row != _EMPTY
            known &= self._step_of_row * self.step_s >= since
            if not 0 <= column < self._figure.shape[2]:
                known[:] = False
            rows = np.flatnonzero(known)
            rows = rows[np.argsort(self._step_of_row[rows])]
            figure = (
                self._figure[rows, :, max(column, 0)] if len(rows) else np.empty((0, _FIGURES), np.float32)
            )
            return IssuedHistory(
                self._step_of_row[rows].astype(np.float64) * self.step_s,
                figure[:, 0],
                self._horizon_s.copy(),
                self._quantile.copy(),
                figure[:, 1:].reshape(-1, 2, len(LEVELS)),
            )

    def _note(self, names: tuple[str, ...], columns: I64, history: History) -> int:
        """Write down what came of the last step of a history; gives the step's number."""
        step = round(history.end_time / self.step_s)
        self._know(names, columns)
        self._make_room(int(columns.max()) + 1)
        if step < self._newest:
            # The clock was set back: what is now in the future did not happen.
            self._step_of_row[self._step_of_row > step] = _EMPTY
        self._newest = step
        self._row(step)[0, columns] = history.demand_bps[-1]
        return step

    def _know(self, names: tuple[str, ...], columns: I64) -> None:
        if names is not self._names:
            self._number.update(zip(names, (columns[: len(names)] // 2).tolist(), strict=True))
            self._names = names

    def _make_room(self, n_columns: int) -> None:
        if n_columns <= self._figure.shape[2]:
            return
        # Columns in reserve, as in the ring of demand: growing copies everything.
        n_columns += n_columns // 8
        n_rows = max(2, self.cells // (_FIGURES * n_columns))
        figure = np.full((n_rows, _FIGURES, n_columns), np.nan, np.float32)
        step_of_row = np.full(n_rows, _EMPTY, np.int64)
        kept = np.sort(self._step_of_row[self._step_of_row != _EMPTY])[-n_rows:]
        for step in kept.tolist():
            figure[step % n_rows, :, : self._figure.shape[2]] = self._figure[step % self.rows]
            step_of_row[step % n_rows] = step
        self._figure, self._step_of_row = figure, step_of_row

    def _row(self, step: int) -> Any:
        """The figures of a step, shape (figures, columns), NaN where nothing was written."""
        row = step % self.rows
        if self._step_of_row[row] != step:
            self._step_of_row[row] = step
            self._figure[row] = np.nan
        return self._figure[row]
