"""Recorded traffic shared out by Tidegate and by simpler methods, beside perfect foresight.

At each step of the last part of a file every method is told what was measured so far and
grants a capacity for the next step. All grants come from the same allocator; methods differ in
what they ask of it. Tidegate forecasts and decides as the planner does, with its shipped
defaults; its model saw only the first part of the file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from allocation.allocate import allocate
from allocation.baselines import served, static_equal
from allocation.tree import PoolTree
from bench.figures import write_figures
from bench.forecast import MEGA, TRAIN_SHARE, Series, settings_for
from forecasting.baselines import auto_bandwidth, heyp, last_value
from forecasting.forecast import Forecast
from forecasting.forecaster import Forecaster
from forecasting.history import Floats, History
from forecasting.seasonal import blocks_of, recalled
from forecasting.training import NotEnoughHistory, sample_series, train
from planner.config import Allocation as AllocationConfig
from planner.config import parse
from planner.decision import decide
from planner.meter_ids import MeterIds
from planner.observation import Observed
from planner.policy import Policies
from planner.structure import Structure, build
from topology.groups import ResourceGroup
from topology.identity import Attachment
from topology.regions import region_map

Doubles = npt.NDArray[np.float64]
Bits = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]

#: What auto-bandwidth and HEYP look back over.
REACTIVE_S: Final = 900.0
#: A grant this far off what is fair counts as unfair.
UNFAIR: Final = 0.05
REACTIVE: Final = ("last_value", "auto_bandwidth", "heyp")
METHODS: Final = ("oracle", "tidegate", "static_equal", "static_history", *REACTIVE)
_CONSOLE: Final = Console(stderr=True)


@dataclass(frozen=True)
class Network:
    """The pools that a file's series are the users of, made as the planner makes them."""

    structure: Structure
    #: shape (S,), the series of each user's pool, in the order of the pools.
    series_of_user: Indices
    #: shape (S,), the group of each user, as its number among the groups.
    group_of_user: Indices

    @classmethod
    def of(cls, names: npt.NDArray[np.str_], capacity_bps: float) -> Network:
        """Origins as groups where all names are ``origin>destination``, else one group of everybody.

        Everybody is at one switch of one region that has all the capacity. The rest is the
        configuration's defaults.
        """
        parts = [name.split(">") for name in names.tolist()]
        pairs = all(len(part) == 2 for part in parts)
        _, group = np.unique([part[0] if pairs else "" for part in parts], return_inverse=True)
        # Names in files may be anything; these sort as their numbers do.
        users = [f"u{column:06}" for column in range(len(names))]
        mbps = capacity_bps / MEGA
        macs = [f"02:00:00:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x}" for n in range(len(names))]
        config = parse(
            {
                "capacity_mbps": mbps,
                "regions": {"all": {"dpids": [1], "capacity_mbps": mbps}},
                "users": {user: {"macs": [mac]} for user, mac in zip(users, macs, strict=True)},
            }
        )
        structure = build(
            config,
            Policies(config),
            region_map({"all": [1]}),
            {
                user: (Attachment(1, 1, mac, frozenset(), "mac"),)
                for user, mac in zip(users, macs, strict=True)
            },
            [
                ResourceGroup(
                    f"g{g:06}",
                    frozenset(user for user, its in zip(users, group, strict=True) if its == g),
                    "operator",
                    "active",
                    0.0,
                    "",
                )
                for g in range(int(group.max()) + 1)
            ],
            MeterIds(),
            {},
            {},
        )
        column = np.array([users.index(user) for user in structure.users])
        return cls(structure, column, group[column])

    @property
    def tree(self) -> PoolTree:
        """The pools of the one direction in use."""
        return self.structure.trees[0]

    def for_users(self, values: Doubles) -> Doubles:
        """By series, to the order of the leaves; shape (..., S)."""
        return values[..., self.series_of_user]

    def by_series(self, grant_bps: Bits) -> Bits:
        """Every pool's grant, shape (n_pools,), to the users' by series, shape (S,)."""
        grants = np.empty(len(self.series_of_user), np.int64)
        grants[self.series_of_user] = grant_bps[self.structure.user_rows]
        return grants

    def pooled(self, demand_bps: Floats) -> Floats:
        """Demand of every pool, shape (T, n_pools), from that of the series; a gap where a member has one."""
        demand = demand_bps[:, self.series_of_user]
        total = demand.sum(axis=1)
        # Users stand by groups.
        starts = np.flatnonzero(np.diff(self.group_of_user, prepend=-1))
        return np.column_stack([total, total, np.add.reduceat(demand, starts, axis=1), demand])


def granted(network: Network, claim_bps: Doubles) -> Bits:
    """Grants by series to users whose demand is thought to be this, shape (S,); nothing is left idle.

    Where claims do not fit they share by max-min; what they leave is shared in proportion to them, so
    that a claim is exceeded by the same factor everywhere.
    """
    claim = network.for_users(claim_bps)
    spread = claim * max(float(network.tree.limit_bps[0]) / max(claim.sum(), 1.0), 1.0)
    return network.by_series(allocate(network.tree, np.stack([claim, spread])).grant_bps)


class Tidegate:
    """The product's own path from what was measured to grants, in one direction of two."""

    def __init__(self, network: Network, series: Series, first: int) -> None:
        self._network, self._structure = network, network.structure
        n = len(self._structure.path)
        self._pools = replace(
            series, demand_bps=network.pooled(series.demand_bps), names=np.array(self._structure.path)
        )
        self._settings = settings_for(series, [series.step_s])
        self._blocks = blocks_of(self._pools.demand_bps, series.step_s, float(series.time[-1]))
        self._sharing = AllocationConfig()
        self._in_force = np.full((2, n), np.nan)
        self.forecaster = Forecaster(self._settings)
        try:
            past = sample_series(self._history(first - 1, first), self._settings)
            self.forecaster.install(train(past, self._settings))
        except NotEnoughHistory as error:
            _CONSOLE.print(f"not trained: {error}")

    def grants(self, row: int) -> Bits:
        """Grants of users for the step after a row, shape (S,). Call for each row in turn."""
        history = self._history(row, self.forecaster.steps_wanted)
        now = history.end_time
        # What it reads of the blocks had ended at least a day before.
        known = recalled(self._blocks, now, self._settings.horizon_steps, self._settings.step_s)
        history = replace(history, recalled_bps=known)
        self.forecaster.observe(history)
        forecast = self.forecaster.forecast(history, self._in_force[0])
        decision = decide(
            self._sharing,
            self._structure,
            self._observed(row),
            _both_ways(forecast),
            self._in_force,
        )
        self._in_force = decision.grant_bps.astype(np.float64)
        return self._network.by_series(decision.grant_bps[0])

    def _observed(self, row: int) -> Observed:
        """What was measured, as upload; nothing is downloaded."""
        up = self._pools.demand_bps[row].astype(np.float64)
        offered = np.stack([up, np.zeros_like(up)])
        entries = self._structure.entries
        return Observed(
            offered,
            offered,
            np.zeros(offered.shape, np.bool_),
            offered[entries.direction, entries.pool],
            offered,
        )

    def _history(self, row: int, rows: int) -> History:
        return replace(self._pools.until(row, rows), level=self._structure.level.astype(np.int64))


def _both_ways(forecast: Forecast) -> Forecast:
    """The forecast as the one of upload, and none of anything for download."""
    nothing = np.zeros_like(forecast.demand_bps)
    return replace(
        forecast,
        demand_bps=np.concatenate([forecast.demand_bps, nothing]),
        rung=np.concatenate([forecast.rung, forecast.rung]),
        champion=None if forecast.champion is None else np.concatenate([forecast.champion] * 2),
        kind=None if forecast.kind is None else np.concatenate([forecast.kind] * 2),
    )


class Reactive:
    """What methods without foresight think demand will be. An estimate stands until a newer one is known."""

    def __init__(self, series: Series, first: int) -> None:
        self._series = series
        self._rows = max(round(REACTIVE_S / series.step_s), 1)
        past = series.demand_bps[:first]
        known = np.maximum(np.count_nonzero(~np.isnan(past), axis=0), 1)
        #: shape (S,), what each series had on average before the test.
        self.mean_bps: Doubles = np.nansum(past, axis=0, dtype=np.float64) / known
        self._standing = dict.fromkeys(REACTIVE, self.mean_bps)

    def estimates(self, row: int) -> Mapping[str, Doubles]:
        """By method, shape (S,), from what was measured until the row ended."""
        step_s = self._series.step_s
        seen = self._series.demand_bps[max(row + 1 - self._rows, 0) : row + 1]
        fresh = {
            "last_value": last_value(seen[-1:]),
            "auto_bandwidth": auto_bandwidth(seen, step_s, window_s=REACTIVE_S),
            "heyp": heyp(seen, step_s, window_s=REACTIVE_S),
        }
        for name, value in fresh.items():
            self._standing[name] = np.where(np.isnan(value), self._standing[name], value).astype(np.float64)
        return self._standing


@dataclass(frozen=True)
class Replayed:
    """Everybody's grants over the test period."""

    #: shape (T',), epoch seconds: when the step that was granted for ended.
    time: npt.NDArray[np.int64]
    #: By method, shape (T', S), whole bit/s.
    grant_bps: Mapping[str, Bits]
    #: shape (T', S), bit/s; NaN where nothing was measured.
    demand_bps: Doubles
    #: shape (T', S), bit/s: what each would hold were present use all that anybody asked for; at most that use.
    use_share_bps: Doubles
    capacity_bps: int


def replay(series: Series, network: Network, first: int) -> Replayed:
    """Train on the rows before ``first``; from there on grant each step from what was known before it."""
    rows = np.arange(first - 1, len(series.time) - 1)
    # Everybody is told of every row; where nothing was measured after it there is nothing to score.
    scored = rows[np.flatnonzero(np.isfinite(series.demand_bps[rows + 1]).any(axis=1))]
    place = {int(row): at for at, row in enumerate(scored)}
    came = series.demand_bps[scored + 1].astype(np.float64)
    made = {name: np.empty(came.shape, np.int64) for name in METHODS}
    use_share = np.empty(came.shape)
    tidegate, reactive = Tidegate(network, series, first), Reactive(series, first)
    made["static_equal"][:] = network.by_series(static_equal(network.tree).grant_bps)
    mean_bps = reactive.mean_bps
    capacity_bps = int(network.tree.limit_bps[0])
    made["static_history"][:] = granted(network, mean_bps * (capacity_bps / max(mean_bps.sum(), 1.0)))
    for row in track(rows.tolist(), f"granting {len(rows)} steps", console=_CONSOLE):
        planned, estimates = tidegate.grants(row), reactive.estimates(row)
        at = place.get(row)
        if at is None:
            continue
        made["tidegate"][at] = planned
        for name, estimate in estimates.items():
            made[name][at] = granted(network, estimate)
        made["oracle"][at] = granted(network, np.nan_to_num(came[at]))
        use = np.nan_to_num(series.demand_bps[row]).astype(np.float64)
        use_share[at] = np.minimum(granted(network, use), use)
    return Replayed(
        time=series.time[scored + 1].astype(np.int64),
        grant_bps=made,
        demand_bps=came,
        use_share_bps=use_share,
        capacity_bps=capacity_bps,
    )


def scores(replayed: Replayed) -> dict[str, dict[str, float]]:
    """Each method's figures over all steps; what they mean is in docs/performance.md."""
    demand = np.nan_to_num(replayed.demand_bps)
    total, each = demand.sum(), demand.sum(axis=1)
    wants = demand > 0
    # Granted by the true demand, nobody's served part is anything but the exact max-min share.
    fair = served(replayed.grant_bps["oracle"], demand)
    carried_by_oracle = fair.sum()
    result = {}
    for name, grant in replayed.grant_bps.items():
        carried = served(grant, demand)
        unserved = (demand - carried).sum(axis=1)
        off = np.abs(carried - fair) > UNFAIR * fair
        result[name] = {
            "carried": float(carried.sum() / total),
            "carried_of_oracle": float(carried.sum() / carried_by_oracle),
            "regret": float((carried_by_oracle - carried.sum()) / total),
            "slack": float(grant.sum() / total),
            "unserved_p99": float(np.quantile(unserved[each > 0] / each[each > 0], 0.99)),
            # Whole bits: a share may lie one off.
            "cut_below_use": float((grant < np.floor(replayed.use_share_bps) - 1).mean()),
            "fairness": float(off[wants].mean()),
            "below_fair": float((carried < (1 - UNFAIR) * fair)[wants].mean()),
            "sum_violations": int((grant.sum(axis=1) > replayed.capacity_bps).sum()),
        }
    return result


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole benchmark; gives what goes to the JSON file."""
    series = Series.load(arguments.data)
    peak = float(np.nanmax(np.nansum(series.demand_bps, axis=1, dtype=np.float64)))
    network = Network.of(series.names, arguments.capacity * peak)
    first = int(len(series.time) * TRAIN_SHARE)
    replayed = replay(series, network, first)
    figures = scores(replayed)
    best = min(REACTIVE, key=lambda name: figures[name]["regret"])
    if arguments.dump:
        dump(replayed, arguments.dump)
    return {
        "data": arguments.data.name,
        "step_s": series.step_s,
        "series": len(series.names),
        "groups": len(network.structure.group_rows),
        "train_rows": first,
        "steps": len(replayed.time),
        "capacity_of_peak": arguments.capacity,
        "capacity_mbps": arguments.capacity * peak / MEGA,
        "oracle_unserved": 1 - figures["oracle"]["carried"],
        "best_reactive": best,
        "regret_below_best_reactive": _saved(figures["tidegate"]["regret"], figures[best]["regret"]),
        "methods": figures,
    }


def _saved(ours: float, theirs: float) -> float | None:
    """The part of their regret that we spare; None where they have none."""
    return 1 - ours / theirs if theirs > 0 else None


def dump(replayed: Replayed, folder: Path) -> None:
    """Write ``grants.npz`` in Mbit/s: method (M,), time (T',), grant (M, T', S), demand (T', S), capacity (T',)."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "grants.npz",
        method=np.array(list(replayed.grant_bps)),
        time=replayed.time,
        grant=np.stack([grant / MEGA for grant in replayed.grant_bps.values()]),
        demand=replayed.demand_bps / MEGA,
        # One bit more than is ever granted: sums of rounded Mbit/s must not seem to exceed it.
        capacity=np.full(len(replayed.time), (replayed.capacity_bps + 1) / MEGA),
    )


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be > 0, got {text}")
    return value


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.replay", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a .npz with series, time and names")
    parser.add_argument(
        "--capacity", type=_fraction, required=True, help="as a part of the highest total in the file"
    )
    parser.add_argument("--json", type=Path, help="where the figures go (default: the screen)")
    parser.add_argument("--dump", type=Path, help="folder for grants.npz")
    arguments = parser.parse_args()
    try:
        report = run(arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    write_figures(report, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
