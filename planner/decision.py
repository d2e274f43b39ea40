"""What one tick decides: demand from use and forecast, shared down the tree, held by the dead band."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from allocation.allocate import Bound
from allocation.buffer import reserve_from_tail, tail_bps
from allocation.curves import preset_demand
from allocation.dead_band import hold_tree
from allocation.expected_loss import ForecastAllocation, allocate_by_forecast
from allocation.links import Paths, limit_to_links
from allocation.tree import PoolTree, Sharing
from forecasting.burstiness import BURSTY, VARYING
from forecasting.forecast import Forecast
from forecasting.quantiles import nearest
from planner.away import HeldShares
from planner.config import Allocation as AllocationConfig
from planner.config import Buffer
from planner.link_limits import LinkLimits
from planner.metering import switch_shares
from planner.observation import Observed
from planner.policies import NORMAL_PRIORITY
from planner.requests import Asked
from planner.snapshot import Level
from planner.structure import Structure

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: Whoever uses something may soon want this much of it: TCP fills what it is given and no more, and
#: granted just what it uses it would be policed one moment and look content the next.
_PROBE: Final = 1.25
#: How far up a pool's own forecast its reserve reaches, by the kind of its traffic: idle, steady, varying, bursty.
_REACH: Final = np.array([0.9, 0.9, 0.95, 0.99])
#: A pool that offers this share of its grant fills it.
_FULL: Final = 0.9


@dataclass(frozen=True)
class Decision:
    """What one tick decided, shapes (2, n_pools)."""

    forecast: Forecast
    p50_bps: F64
    p90_bps: F64
    allocations: tuple[ForecastAllocation, ForecastAllocation]
    #: After the dead band.
    grant_bps: I64
    #: shape (n_entries,)
    share_bps: I64
    #: How far forecasts were asked for; None: in full.
    asked: Asked | None = None


def decide(
    settings: AllocationConfig,
    s: Structure,
    observed: Observed,
    forecast: Forecast,
    in_force_bps: F64,
    asked: Asked | None = None,
    limits: LinkLimits | None = None,
    held: HeldShares | None = None,
) -> Decision:
    """Grants for every pool and shares for every meter.

    ``in_force_bps`` has shape (2, n_pools): the grants of the last plan, NaN for pools that had none.
    ``asked`` says how far forecasts are asked for, in full if None; ``limits`` which links grants cross; ``held``
    what switches out of reach keep.
    """
    n = len(s.path)
    curve = forecast.peak_curve().astype(np.float64).reshape(2, n, -1)
    # Copies: views would keep the whole curve alive for as long as the snapshot.
    p50, p90 = (curve[:, :, nearest(forecast.quantile, level)].copy() for level in (0.5, 0.9))
    allocations = []
    grant = np.empty((2, n), np.int64)
    share = np.zeros(len(s.entries.pool), np.int64)
    for d, tree in enumerate(s.trees):
        use = _use(s, observed, d)
        demand = _demand(s, forecast.quantile, curve[d], use, asked, d)
        kind = None if forecast.kind is None else forecast.kind.reshape(2, n)[d]
        reserve = _reserve(settings.buffer, s, curve[d], forecast.quantile, p50[d], kind, d)
        if asked is not None:
            reserve += asked.reserve_bps(s.parent, d)
        # By ``leaf_class`` and not by the tree's own priority, which ranks siblings only: a first-class user comes
        # first also beside the groups of others.
        share_out = partial(
            allocate_by_forecast, quantile=forecast.quantile, demand_bps=demand, use_bps=use, reserve_bps=reserve,
            fair_part=settings.fair_part, leaf_class=s.priority[tree.leaves],
        )  # fmt: skip
        allocation = share_out(tree)
        if limits is not None:
            allocation = _within_links(tree, allocation, share_out, limits, d)
        allocations.append(allocation)
        # A pool that fills its grant gets every bit of a rise; the dead band is for those that would not notice.
        full = ~(observed.offered_bps[d] < _FULL * in_force_bps[d])
        before = np.where(full, np.nan, in_force_bps[d])
        grant[d] = hold_tree(tree, before, allocation.grant_bps, settings.dead_band)
        floor = settings.min_rate_mbps * 1e6
        share += switch_shares(s, grant[d], observed.entry_offered_bps, d, floor, held)
    return Decision(forecast, p50, p90, (allocations[0], allocations[1]), grant, share, asked)


def _within_links(
    tree: PoolTree,
    allocation: ForecastAllocation,
    share_out: Callable[[PoolTree], ForecastAllocation],
    limits: LinkLimits,
    d: int,
) -> ForecastAllocation:
    """The allocation with grants that the links carry: what a full link takes from some goes to others."""
    cut = limits.within(allocation, d)
    if (cut == allocation.grant_bps).all():
        return allocation
    full = cut < allocation.grant_bps
    ceiling = np.where(full, cut, tree.ceiling_bps)
    narrowed = replace(tree, ceiling_bps=ceiling, guarantee_bps=np.minimum(tree.guarantee_bps, ceiling))
    again = share_out(narrowed)
    # Others may have risen into links that were nearly full.
    grant = np.minimum(limits.within(again, d), again.grant_bps)
    bound = np.where(full | (grant < again.grant_bps), np.uint8(Bound.LINK), again.bound)
    return replace(again, grant_bps=grant, bound=bound)


def _use(s: Structure, observed: Observed, d: int) -> F64:
    """What each leaf uses, or used last as far as that is known; pools without users want nothing."""
    leaves = s.trees[d].leaves
    offered = observed.offered_bps[d, leaves]
    known = np.where(np.isnan(offered), observed.last_offered_bps[d, leaves], offered)
    # Where nothing was measured there is no use to protect; the forecast speaks alone.
    use: F64 = np.nan_to_num(known) * s.asks[leaves]
    return use


def _demand(s: Structure, quantile: F64, curve: F64, use: F64, asked: Asked | None, d: int) -> F64:
    """Each leaf's demand as quantiles, shape (n_leaves, K): its forecast as far as it is asked for."""
    leaves = s.trees[d].leaves
    demand: F64 = curve[leaves] * s.asks[leaves, np.newaxis]
    for kind, rows in s.curves.items():
        its = np.flatnonzero(np.isin(leaves, rows))
        demand[its] = preset_demand(kind, quantile, demand[its, -1])
    if asked is not None:
        demand *= asked.share[d, leaves, np.newaxis]
        # Of a doubtful forecast a part is asked for, or none while it waits at the parent: use still is.
        np.maximum(demand, use[:, np.newaxis] * (asked.share[d, leaves, np.newaxis] < 1), out=demand)
    demand[:, -1] = np.maximum(demand[:, -1], _PROBE * use)
    return demand


def _reserve(
    buffer: Buffer,
    s: Structure,
    curve: F64,
    quantile: F64,
    p50: F64,
    kind: npt.NDArray[np.uint8] | None,
    d: int,
) -> F64:
    """What each pool keeps for surprises: the more bursty its demand and the higher its class, the more of the tail."""
    capacity = s.trees[d].capacity_below(float(s.ceiling_bps[d, 0])).astype(np.float64)
    reach = np.full(len(s.path), _REACH[VARYING]) if kind is None else _REACH[kind]
    reach = np.where(s.priority < NORMAL_PRIORITY, _REACH[BURSTY], reach)
    high = tail_bps(curve, quantile, reach)
    reserve = reserve_from_tail(p50, high, capacity, buffer.min_fraction, buffer.max_fraction)
    # A user's own tail is in its curve, or in its classes'; reserves are for pools.
    reserve[s.level >= Level.USER] = 0
    reserve[s.trees[d].leaves] = 0
    return reserve


def compile_ahead() -> None:
    """Have compiled code ready before the first tick, which should not wait for a compiler."""
    tree = PoolTree(
        ("a", "a/b"), np.array([-1, 0]), np.zeros(2), np.full(2, 1e6), np.ones(2),
        sharing=np.full(2, Sharing.EXPECTED_LOSS, np.uint8),
    )  # fmt: skip
    made = allocate_by_forecast(tree, np.array([0.1, 0.5, 0.9]), np.array([[1.0, 2.0, 3.0]]), fair_part=0.25)
    hold_tree(tree, np.zeros(2), made.grant_bps, 0.1)
    one = np.array([1], np.int32)
    limit_to_links(made.stages_bps, one, np.ones(1), Paths.of([[0]], 1), np.zeros(1), tree.weight)
