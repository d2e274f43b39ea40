"""What has been measured: a window of demand, cleaned once at the rim.

Everything behind this module may rely on rates that are finite and not
negative, or NaN for a gap.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from forecasting.seasonal import Blocks

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def _no_ids() -> Ints:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class History:
    """Demand of many series on a regular grid, oldest row first.

    Raises
    ------
    ValueError : when shapes do not fit each other or the step is not > 0.
    """

    #: shape (T, S), bit/s; NaN is a gap.
    demand_bps: Floats
    #: shape (T, S); True where the sample understates demand.
    censored: Bools
    step_s: float
    #: Epoch seconds at which the last row ended.
    end_time: float
    #: shape (S,); which pool of series each belongs to (level and direction), >= 0.
    level: Ints = field(default_factory=_no_ids)
    #: shape (S,); names a series across calls, whatever its column.
    series_id: Ints = field(default_factory=_no_ids)
    #: shape (2, H + 1, S), bit/s: demand a day and a week before the last row and before each
    #: horizon, for whoever keeps that apart from the window; see ``seasonal.recalled``.
    recalled_bps: Floats | None = None
    #: Demand in blocks, further back than the rows; for whoever keeps that apart from the window.
    #: Whoever draws cutoffs from the rows reads at each of them only blocks that had ended, at
    #: least a day before: that is why no cut of the rows has to cut the blocks.
    blocks: Blocks | None = None
    #: shape (len(context.CHANNELS), R, S), R <= T: what is known beside the demand of the latest R
    #: rows; NaN where it is not.
    context: Floats | None = None

    def __post_init__(self) -> None:
        demand = np.asarray(self.demand_bps, np.float32)
        if demand.ndim != 2:
            raise ValueError(f"demand_bps must have shape (T, S), got {demand.shape}")
        if np.shape(self.censored) != demand.shape:
            raise ValueError(f"censored must have shape {demand.shape}, got {np.shape(self.censored)}")
        if not self.step_s > 0:
            raise ValueError(f"step_s must be > 0, got {self.step_s!r}")
        n_series = demand.shape[1]
        level = np.asarray(self.level, np.int64)
        series_id = np.asarray(self.series_id, np.int64)
        if level.size == 0:
            level = np.zeros(n_series, np.int64)
        if series_id.size == 0:
            series_id = np.arange(n_series, dtype=np.int64)
        for name, ids in (("level", level), ("series_id", series_id)):
            if ids.shape != (n_series,):
                raise ValueError(f"{name} must have shape ({n_series},), got {ids.shape}")
        if n_series and level.min() < 0:
            raise ValueError(f"level must be >= 0, got {level.min()}")
        recalled = self.recalled_bps
        if recalled is not None and (recalled.ndim != 3 or recalled.shape[2] != n_series):
            raise ValueError(f"recalled_bps must have shape (2, H + 1, {n_series}), got {recalled.shape}")
        if self.blocks is not None and self.blocks.mean_bps.shape[1] != n_series:
            raise ValueError(f"blocks must have {n_series} series, got {self.blocks.mean_bps.shape[1]}")
        around = self.context
        if around is not None and (
            around.ndim != 3 or around.shape[1] > len(demand) or around.shape[2] != n_series
        ):
            rule = f"shape (channels, <= {len(demand)} rows, {n_series})"
            raise ValueError(f"context must have {rule}, got {around.shape}")
        object.__setattr__(self, "demand_bps", demand)
        object.__setattr__(self, "censored", np.asarray(self.censored, np.bool_))
        object.__setattr__(self, "level", level)
        object.__setattr__(self, "series_id", series_id)

    @property
    def n_steps(self) -> int:
        """T, the rows."""
        return len(self.demand_bps)

    @property
    def n_series(self) -> int:
        """S, the columns."""
        return len(self.series_id)

    def tail(self, n_steps: int) -> History:
        """The latest ``n_steps`` rows, or all there are."""
        start = max(self.n_steps - n_steps, 0)
        return replace(
            self,
            demand_bps=self.demand_bps[start:],
            censored=self.censored[start:],
            context=None if self.context is None else self.context[:, max(self._known_rows(start), 0) :],
        )

    def until(self, n_steps: int) -> History:
        """The oldest ``n_steps`` rows, as they stood when the last of them ended."""
        ended = self.end_time - (self.n_steps - n_steps) * self.step_s
        return replace(
            self,
            demand_bps=self.demand_bps[:n_steps],
            censored=self.censored[:n_steps],
            end_time=ended,
            # It belonged to another moment.
            recalled_bps=None,
            context=None if self.context is None else self.context[:, : max(self._known_rows(n_steps), 0)],
        )

    def context_at(self, rows: Ints, series: Ints) -> Floats | None:
        """The context of n windows, shape (channels, w, n); rows of shape (w, n), series of shape (n,).

        NaN for rows of which nothing is kept.
        """
        if self.context is None:
            return None
        row = rows - (self.n_steps - self.context.shape[1])
        inside = (row >= 0) & (rows < self.n_steps)
        if not inside.any():
            return None
        found = self.context[:, np.where(inside, row, 0), series]
        return np.where(inside, found, np.float32(np.nan))

    def _known_rows(self, n_steps: int) -> int:
        """Rows of the context among the oldest ``n_steps`` rows; below zero: they are all older."""
        rows = 0 if self.context is None else self.context.shape[1]
        return n_steps - (self.n_steps - rows)

    def pick(self, series: npt.NDArray[np.intp]) -> History:
        """The same rows for some series, given by their columns."""
        return replace(
            self,
            demand_bps=self.demand_bps[:, series],
            censored=self.censored[:, series],
            level=self.level[series],
            series_id=self.series_id[series],
            recalled_bps=None if self.recalled_bps is None else self.recalled_bps[:, :, series],
            blocks=None if self.blocks is None else self.blocks.pick(series),
            context=None if self.context is None else self.context[:, :, series],
        )


def clean(demand_bps: Floats, max_rate_bps: float) -> Floats:
    """The rates that can be believed, shape as given.

    What is infinite or negative was not measured and becomes a gap; what is
    beyond any link is brought back to ``max_rate_bps``. A copy only where
    something had to change.
    """
    demand = np.asarray(demand_bps, np.float32)
    if demand.size == 0:
        return demand
    # fmin and fmax skip NaN, so two cheap passes tell whether there is work.
    if np.fmin.reduce(demand, axis=None) >= 0 and np.fmax.reduce(demand, axis=None) <= max_rate_bps:
        return demand
    believed = np.where(np.isfinite(demand) & (demand >= 0), demand, np.float32(np.nan))
    return np.fmin(believed, np.float32(max_rate_bps), where=~np.isnan(believed), out=believed)
