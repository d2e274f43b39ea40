"""What was offered, granted and measured over a run, and what simpler schemes would have given.

The same traffic, the same tree and the same allocator: only the caps differ. Static
equal shares every pool's capacity equally among its children; auto-bandwidth asks for the
maximum of 5-minute means (of the whole history while that is shorter).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from allocation.allocate import Bound, allocate
from allocation.baselines import served, static_equal
from forecasting.baselines import auto_bandwidth
from planner.config import Config
from planner.history import DemandHistory
from planner.observation import Observed
from planner.snapshot import Level
from planner.structure import Structure
from telemetry.samples import DIRECTIONS

if TYPE_CHECKING:
    from planner.loop import Decision

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


@dataclass
class _Means:
    """Running means by (series, direction), each over the ticks in which the value was known."""

    total: dict[tuple[str, int], F64] = field(default_factory=dict)
    count: dict[tuple[str, int], F64] = field(default_factory=dict)

    def add(self, series: tuple[str, ...], values: F64) -> None:
        """One tick; ``values`` has shape (n_columns, 2, n_pools)."""
        known = ~np.isnan(values)
        filled = np.where(known, values, 0.0)
        for row, name in enumerate(series):
            for d in range(2):
                key = (name, d)
                if key not in self.total:
                    self.total[key] = np.zeros(len(_COLUMNS))
                    self.count[key] = np.zeros(len(_COLUMNS))
                self.total[key] += filled[:, d, row]
                self.count[key] += known[:, d, row]

    def mean(self, key: tuple[str, int]) -> F64:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: F64 = self.total[key] / self.count[key]
        return mean


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
    _static: tuple[Structure, tuple[I64, I64]] | None = None
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
        """One tick."""
        if not self.config.allocation.compare:
            return
        static, auto = self._alternatives(now, s, observed, history, columns)
        values = np.stack(
            [
                observed.offered_bps,
                decision.p50_bps,
                decision.p90_bps,
                decision.grant_bps.astype(np.float64),
                observed.delivered_bps,
                static,
                auto,
            ]
        )
        if not np.isfinite(values[0]).any():
            return
        self.since = now if np.isnan(self.since) else self.since
        self.until = now
        self.ticks += 1
        self._all.add(s.series, values)
        if any((allocation.bound == Bound.PARENT).any() for allocation in decision.allocations):
            self.scarce_ticks += 1
            self._scarce.add(s.series, values)
        self._paths.update(
            (name, (path, int(level))) for name, path, level in zip(s.series, s.path, s.level, strict=True)
        )

    def _alternatives(
        self, now: float, s: Structure, observed: Observed, history: DemandHistory, columns: I64
    ) -> tuple[F64, F64]:
        if self._static is None or self._static[0] is not s:
            up, down = (static_equal(tree).grant_bps for tree in s.trees)
            self._static = (s, (up, down))
        steps = max(1, round(_LOOK_BACK_S / self.config.forecasting.step_s))
        past = history.recent(s, columns, now, steps)
        estimate = auto_bandwidth(past.demand_bps, past.step_s).astype(np.float64).reshape(2, -1)
        static, auto = np.empty(observed.offered_bps.shape), np.empty(observed.offered_bps.shape)
        for d, tree in enumerate(s.trees):
            # A pool without history is given what it has now, as a first reservation would be.
            claim = np.where(np.isnan(estimate[d]), np.nan_to_num(observed.offered_bps[d]), estimate[d])
            grant = allocate(
                tree, claim[tree.leaves][None, :] * (s.level[tree.leaves] == Level.USER)
            ).grant_bps
            for result, given in ((static, self._static[1][d]), (auto, grant)):
                result[d] = _carried(s, given, observed.offered_bps[d])
        return static, auto

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
                row |= dict(zip(_COLUMNS, map(_number, self._all.mean((name, d))), strict=True))
                if scarce and (name, d) in self._scarce.total:
                    means = map(_number, self._scarce.mean((name, d)))
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
        users = [key for key in means.total if key[0].startswith("user/")]
        total = (
            np.sum([means.total[key] for key in users], axis=0) if users else np.full(len(_COLUMNS), np.nan)
        )
        offered = total[0]
        names = {"tidegate": 4, "static_equal": 5, "auto_bandwidth": 6}
        return {
            f"carried_{name}": _number(total[column] / offered) if offered > 0 else None
            for name, column in names.items()
        }


def _carried(s: Structure, grant_bps: I64, offered_bps: F64) -> F64:
    """What every pool would have carried: users by their caps, pools the sum of their users."""
    carried = np.full(len(s.path), np.nan)
    users = np.flatnonzero(s.level == Level.USER)
    carried[users] = served(grant_bps[users], offered_bps[users])
    for level in (Level.USER, Level.GROUP, Level.REGION):
        rows = np.flatnonzero(s.level == level)
        known = rows[~np.isnan(carried[rows])]
        parents = np.unique(s.parent[known])
        total = np.bincount(s.parent[known], carried[known], len(s.path))
        carried[parents] = total[parents]
    return carried


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
