"""What was offered, granted and measured over a run, and what simpler schemes would have given.

Each tick holds what was offered since the last one against what was decided then, so no
scheme has seen the demand that it shared capacity for. The same traffic, the same tree and the same
allocator: only the caps differ. Static equal shares every pool's capacity equally among its
children; auto-bandwidth asks for the maximum of 5-minute means (of the whole history while that is shorter).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from allocation.allocate import Bound, allocate
from allocation.baselines import static_equal
from forecasting.baselines import auto_bandwidth
from planner.config import Config
from planner.history import DemandHistory
from planner.observation import Observed
from planner.pool_rows import BOTTOM_UP
from planner.snapshot import Level
from planner.structure import Structure
from telemetry.samples import DIRECTIONS

if TYPE_CHECKING:
    from planner.decision import Decision

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_COLUMNS: Final = (
    "offered_bps",
    "p50_bps",
    "p90_bps",
    "grant_bps",
    "measured_bps",
    "static_equal_bps",
    "auto_bandwidth_bps",
)
#: Auto-bandwidth looks back so far (the maximum of three 5-minute means).
_LOOK_BACK_S: Final = 900.0


class _Means:
    """Running means of every series in both directions, each over the ticks in which the value was known."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._series: tuple[str, ...] = ()
        self._row_of_series: I64 = np.empty(0, np.int64)
        #: shape (n_columns, 2, n_series)
        self.total = np.zeros((len(_COLUMNS), 2, 0))
        self.count = np.zeros((len(_COLUMNS), 2, 0))

    def add(self, series: tuple[str, ...], values: F64) -> None:
        """One tick; ``values`` has shape (n_columns, 2, n_pools)."""
        if series is not self._series:
            for name in series:
                self._rows.setdefault(name, len(self._rows))
            self._row_of_series = np.fromiter((self._rows[name] for name in series), np.int64, len(series))
            self._series = series
            room = ((0, 0), (0, 0), (0, len(self._rows) - self.total.shape[2]))
            self.total, self.count = np.pad(self.total, room), np.pad(self.count, room)
        known = ~np.isnan(values)
        # A series is in one row of the tree only, so no two rows add to one place.
        self.total[:, :, self._row_of_series] += np.where(known, values, 0.0)
        self.count[:, :, self._row_of_series] += known

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def mean(self, name: str, direction: int) -> F64:
        """Shape (n_columns,)."""
        at = (slice(None), direction, self._rows[name])
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: F64 = self.total[at] / self.count[at]
        return mean

    def sum_of(self, wanted: Callable[[str], bool]) -> F64:
        """The totals of these series, both directions together, shape (n_columns,)."""
        rows = [row for name, row in self._rows.items() if wanted(name)]
        total: F64 = self.total[:, :, rows].sum(axis=(1, 2))
        return total


@dataclass(frozen=True)
class _InForce:
    """What was decided at the last tick: it is what met the traffic that this tick saw."""

    series: tuple[str, ...]
    #: shape (4, 2, n_pools): p50, p90, grant, and what auto-bandwidth would have granted.
    rates: F64
    scarce: bool

    def by(self, series: tuple[str, ...]) -> F64:
        """The rates by the rows of another structure; NaN for pools that there were none for."""
        if series is self.series:
            return self.rates
        row_of = {name: row for row, name in enumerate(self.series)}
        rows = np.fromiter((row_of.get(name, -1) for name in series), np.int64, len(series))
        return np.where(rows >= 0, self.rates[:, :, rows], np.nan)


@dataclass
class Tally:
    """Sums over all ticks, and over those in which some pool was short."""

    config: Config
    since: float = float("nan")
    until: float = float("nan")
    ticks: int = 0
    scarce_ticks: int = 0
    _all: _Means = field(default_factory=_Means)
    _scarce: _Means = field(default_factory=_Means)
    _static: tuple[Structure, F64] | None = None
    _in_force: _InForce | None = None
    _paths_of: Structure | None = None
    _paths: dict[str, tuple[str, int]] = field(default_factory=dict)

    def add(
        self,
        now: float,
        s: Structure,
        observed: Observed,
        decision: Decision,
        history: DemandHistory,
        columns: I64,
    ) -> None:
        """One tick: what was offered since the last one, and what was decided then to meet it."""
        if not self.config.allocation.compare:
            return
        before, self._in_force = self._in_force, self._decided(now, s, observed, decision, history, columns)
        if before is None or not np.isfinite(observed.offered_bps).any():
            return
        p50, p90, grant, auto = before.by(s.series)
        offered = observed.offered_bps
        static, auto = (
            np.stack([_carried(s, given[d], offered[d]) for d in range(2)])
            for given in (self._static_grants(s), auto)
        )
        values = np.stack([offered, p50, p90, grant, observed.delivered_bps, static, auto])
        self.since = now if np.isnan(self.since) else self.since
        self.until = now
        self.ticks += 1
        self._all.add(s.series, values)
        if before.scarce:
            self.scarce_ticks += 1
            self._scarce.add(s.series, values)
        if self._paths_of is not s:
            self._paths_of = s
            self._paths.update(
                (name, (path, int(level)))
                for name, path, level in zip(s.series, s.path, s.level, strict=True)
            )

    def _decided(
        self,
        now: float,
        s: Structure,
        observed: Observed,
        decision: Decision,
        history: DemandHistory,
        columns: I64,
    ) -> _InForce:
        steps = max(1, round(_LOOK_BACK_S / self.config.forecasting.step_s))
        past = history.recent(s, columns, now, steps, seasons=False)
        estimate = auto_bandwidth(past.demand_bps, past.step_s).astype(np.float64).reshape(2, -1)
        # A pool without history is given what it has now, as a first reservation would be.
        claims = np.where(np.isnan(estimate), np.nan_to_num(observed.offered_bps), estimate)
        auto = [
            allocate(tree, claims[d, tree.leaves][None, :] * s.asks[tree.leaves]).grant_bps
            for d, tree in enumerate(s.trees)
        ]
        rates = np.stack([decision.p50_bps, decision.p90_bps, decision.grant_bps, np.stack(auto)])
        scarce = any((allocation.bound == Bound.PARENT).any() for allocation in decision.allocations)
        return _InForce(s.series, rates, scarce)

    def _static_grants(self, s: Structure) -> F64:
        if self._static is None or self._static[0] is not s:
            grants = np.stack([static_equal(tree).grant_bps for tree in s.trees]).astype(np.float64)
            self._static = (s, grants)
        return self._static[1]

    def report(self, meters_equal_plan: bool | None) -> dict[str, Any]:
        """The summary as REST and the command line show it."""
        scarce = self.scarce_ticks > 0
        pools = []
        for name, (path, level) in sorted(self._paths.items(), key=lambda item: (item[1][1], item[1][0])):
            for d, direction in enumerate(DIRECTIONS):
                row: dict[str, Any] = {
                    "path": path,
                    "level": Level(level).name.lower(),
                    "direction": direction,
                }
                row |= dict(zip(_COLUMNS, map(_number, self._all.mean(name, d)), strict=True))
                if scarce and name in self._scarce:
                    means = map(_number, self._scarce.mean(name, d))
                    row["scarce"] = dict(zip(_COLUMNS, means, strict=True))
                pools.append(row)
        return {
            "window": {
                "since": _number(self.since),
                "until": _number(self.until),
                "ticks": self.ticks,
                "scarce_ticks": self.scarce_ticks,
                "what": "means over all ticks; 'scarce': over those in which a pool was short",
            },
            "pools": pools,
            "totals": {
                "all": self._carried_shares(self._all),
                "scarce": self._carried_shares(self._scarce) if scarce else None,
            },
            "meters_equal_plan": meters_equal_plan,
        }

    def _carried_shares(self, means: _Means) -> dict[str, float | None]:
        """Share of what users offered that was, or would have been, carried; both directions together."""
        total = means.sum_of(lambda name: self._paths[name][1] == Level.USER)
        offered = total[0]
        names = {"tidegate": 4, "static_equal": 5, "auto_bandwidth": 6}
        return {
            f"carried_{name}": _number(total[column] / offered) if offered > 0 else None
            for name, column in names.items()
        }


def _carried(s: Structure, grant_bps: F64, offered_bps: F64) -> F64:
    """What every pool would have carried: users or their classes by their caps, pools the sum of those."""
    carried = np.full(len(s.path), np.nan)
    carried[s.asks] = np.minimum(grant_bps, offered_bps)[s.asks]
    for level in BOTTOM_UP:
        rows = np.flatnonzero(s.level == level)
        known = rows[~np.isnan(carried[rows])]
        parents = np.unique(s.parent[known])
        total = np.bincount(s.parent[known], carried[known], len(s.path))
        carried[parents] = total[parents]
    return carried


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
