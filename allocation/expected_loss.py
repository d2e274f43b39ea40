"""Grants by forecast: everybody equally likely to fall short, so that the least is left unserved.

Stages, each with the one before as lower bound: guarantees; present
use, by max-min; then the forecasts, one level raised for all until the capacity is
used; then what is left, up to the ceilings. A pool that shares by max-min
shares the same capacity by weight instead, wherever in the tree it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from allocation import allocate as staged
from allocation.allocate import Allocation
from allocation.compiled import FULL_BPS, Bits, Codes, Indices, Rates, compiled
from allocation.curves import Curves, forecast_curves, quantile_knots
from allocation.levels import share_by_level
from allocation.tree import PoolTree

#: What children of a max-min pool ask for, one after the other, as quantiles of their forecasts.
CLAIM_QUANTILES: Final = (0.5, 0.9)


@dataclass(frozen=True, eq=False)
class CurveAllocation(Allocation):
    """What every pool may use, and why. Two rows of claims: present use, and the end of the curves.

    ``stages_bps`` has the rows guarantee, present use, curves, leftover. Curves go on long after anyone
    is in need, so for ``bound`` a claim is met from the first row of ``claims_bps`` asked for on, such as
    the median: ``Bound.PARENT`` is less than that.
    """

    #: shape (n_pools,): the common level among its siblings at which a pool got its share by
    #: curve. NaN where none was sought: shares by max-min, and siblings that all reach a bound.
    level: Rates


@dataclass(frozen=True, eq=False)
class ForecastAllocation(CurveAllocation):
    """The same, by the leaves' forecasts."""

    #: shape (n_leaves,), 0 to 1: how likely each of ``tree.leaves`` wants more than its grant.
    short: Rates


def allocate_by_forecast(
    tree: PoolTree,
    quantile: Rates,
    demand_bps: Rates,
    use_bps: Rates | None = None,
    reserve_bps: Rates | None = None,
    capacity_bps: float = np.inf,
    fair_part: float = 0.0,
    leaf_class: Codes | None = None,
) -> ForecastAllocation:
    """Grants for the whole tree from the leaves' demand quantiles, exact to the bit/s.

    Where ``tree.sharing`` says so, children share by one level of ``forecast_curves``: with
    equal weights all those not at a bound are equally likely to fall short, and no other grants
    leave a smaller expected demand unserved within the same bounds. Other pools share by
    weighted max-min: the medians first, then quantile 0.9, then the tails.

    Parameters
    ----------
    tree :            Its ``sharing`` and ``priority`` are honoured.
    quantile :        shape (K,), rising, inside (0, 1).
    demand_bps :      shape (n_leaves, K), >= 0, finite, not falling along K; rows as ``tree.leaves``.
    use_bps :         shape (n_leaves,), >= 0: present use, which no forecast takes away. Where all
        of it fits, each has its own before anyone gets more. Where it does not, somebody has to be
        cut, and weighted max-min says who; nobody then gets more than it uses. None protects nothing.
    reserve_bps :     shape (n_pools,), as in ``allocate``.
    capacity_bps :    Capacity of the root; its ceiling by default.
    fair_part :       0 to 1: how much of what forecasts share is shared by max-min first, up to
        quantile 0.9. Curves treat a small user and a large one alike: both fall short as often. This much
        fairness serves those in full who want little. 0 leaves the least unserved, 1 is max-min.
    leaf_class :      shape (n_leaves,): 0 comes first wherever in the tree it stands, while the tree's own
        classes count among siblings. Present use of all classes comes before forecasts of any. None: all alike.

    Raises
    ------
    InfeasibleTree, ValueError : as ``allocate``; and for quantiles that fall or are NaN.
    """
    curves = forecast_curves(tree, quantile, demand_bps)
    probability, rate = quantile_knots(quantile, demand_bps)
    claims = np.empty((len(CLAIM_QUANTILES), len(tree.leaves)))
    for i, wanted in enumerate(CLAIM_QUANTILES):
        claims[i] = _at_probability(probability, rate, wanted)
    got = allocate_by_curves(tree, curves, claims, use_bps, reserve_bps, capacity_bps, fair_part, leaf_class)
    short = _probability_above(probability, rate, got.grant_bps[tree.leaves])
    return ForecastAllocation(**vars(got), short=short)


def allocate_by_curves(
    tree: PoolTree,
    curves: Curves,
    claims_bps: Rates | None = None,
    use_bps: Rates | None = None,
    reserve_bps: Rates | None = None,
    capacity_bps: float = np.inf,
    fair_part: float = 0.0,
    leaf_class: Codes | None = None,
) -> CurveAllocation:
    """Grants for the whole tree from any curves of its leaves, exact to the bit/s.

    Parameters
    ----------
    tree :          Pools whose sharing is ``EXPECTED_LOSS`` share by the curves, the others by max-min.
    curves :        One for each of ``tree.leaves``; beyond its last knot a leaf claims nothing.
    claims_bps :    shape (n_rows, n_leaves), >= 0: what children of max-min pools ask for, one row
        after the other, before they ask for the ends of their curves. None by default.
    use_bps, reserve_bps, capacity_bps, fair_part, leaf_class :   As in ``allocate_by_forecast``.

    Raises
    ------
    InfeasibleTree, ValueError : as ``allocate``.
    """
    leaves = tree.leaves
    if len(curves.level) != len(leaves):
        raise ValueError(
            f"curves must have one row for each of {len(leaves)} leaves, got {len(curves.level)}"
        )
    if not 0 <= fair_part <= 1:
        raise ValueError(f"fair_part must be 0 to 1, got {fair_part}")
    capacity = staged.root_capacity(tree, capacity_bps)
    limit = np.minimum(tree.limit_bps, capacity)
    ceiling = staged.most_of_all(tree, limit)
    use = np.zeros(len(leaves)) if use_bps is None else staged.checked(tree, use_bps, "use_bps")
    turn = _turns(tree, leaf_class)
    by_turn = staged.whole_claims(tree, _each_turn(np.stack([use, curves.rate_bps[:, -1]]), turn), limit)
    n_turns = len(by_turn) // 2
    # Present use a class after the other; curves have their classes in their levels.
    claims = by_turn[[n_turns - 1, -1]]
    rows = np.empty((0, len(leaves))) if claims_bps is None else claims_bps
    between = np.clip(staged.whole_claims(tree, _each_turn(rows, turn), limit), claims[0], claims[1])

    stages = np.empty((4, len(tree)), np.int64)
    stages[0] = tree.reserved_bps
    level = np.empty(len(tree))
    row_of = np.full(len(tree), -1, np.int32)
    row_of[leaves] = np.arange(len(leaves), dtype=np.int32)
    moved = _by_class(tree, curves.level, turn)
    stages[1] = lower = _fairly(tree, stages[0], by_turn[:n_turns], FULL_BPS)
    if fair_part > 0 and len(between):
        budget = lower[0] + int(fair_part * (claims[1, 0] - lower[0]))
        lower = _fairly(tree, lower, between[-n_turns:], budget)
    stages[2, 0] = claims[1, 0]
    share_by_level(
        tree.children, tree.first_child, tree.parent, tree.weight, tree.classes, tree.by_curve,
        moved, curves.rate_bps, row_of, lower, claims[1], np.maximum(between, lower), stages[2], level,
    )  # fmt: skip
    reserve = staged.whole_reserve(tree, reserve_bps, capacity)
    # In proportion to what each was foreseen to want: beyond its curve a demand goes the further the
    # larger it is. Raising the poorest instead leaves up to two thirds more unserved.
    weight = tree.weight * np.maximum(stages[2], 1)
    held = staged.share_down(tree, stages[2], ceiling, reserve, stages[3], by_class=False, weight=weight)
    median = between[n_turns - 1] if len(between) else None
    return CurveAllocation(
        **vars(staged.explained(tree, stages, claims, ceiling, held, median)),
        level=level,
    )


def _turns(tree: PoolTree, leaf_class: Codes | None) -> Indices:
    """Whose turn comes first, shape (n_leaves,): the classes that there are, numbered from 0."""
    if leaf_class is None:
        return np.zeros(len(tree.leaves), np.int32)
    if leaf_class.shape != tree.leaves.shape:
        raise ValueError(f"leaf_class must have shape {tree.leaves.shape}, got {leaf_class.shape}")
    return np.unique(leaf_class, return_inverse=True)[1].astype(np.int32)


def _each_turn(claims_bps: Rates, turn: Indices) -> Rates:
    """Each row of claims once for every turn: those whose turn has come ask for it, the others as before."""
    last = int(turn.max(initial=0))
    if last == 0:
        return claims_bps
    rows, before = [], np.zeros(len(turn))
    for claim in claims_bps:
        rows += [np.where(turn <= t, claim, before) for t in range(last + 1)]
        before = claim
    return np.stack(rows) if rows else claims_bps


def _fairly(tree: PoolTree, lower: Bits, rows: Bits, budget_bps: int) -> Bits:
    """The rows of claims met by max-min one after the other, until the budget is used up."""
    nothing = np.zeros(len(tree), np.int64)
    for row in rows:
        fairly = np.empty(len(tree), np.int64)
        staged.share_down(tree, lower, row, nothing, fairly, by_class=True, budget_bps=budget_bps)
        lower = fairly
    return lower


def _by_class(tree: PoolTree, level: Rates, turn: Indices) -> Rates:
    """The levels, moved so that a higher class has all its curve before a lower one begins."""
    if level.size == 0 or not (tree.classes.any() or turn.any()):
        return level
    slot = _class_slots(tree.parent, tree.children, tree.first_child, tree.classes)[tree.leaves]
    slot = slot + turn * (slot.max() + 1)
    lowest, highest = level[:, 0].min(), level[:, -1].max()
    moved: Rates = (level - lowest) / (highest - lowest) + slot[:, np.newaxis]
    return moved


@compiled
def _class_slots(parent: Indices, children: Indices, first_child: Indices, priority: Codes) -> Indices:
    """How many whole levels each pool's turn comes after the first; siblings stand by falling class."""
    n = len(parent)
    # Levels that the classes below a pool take together, one after the other.
    span = np.ones(n, np.int32)
    for pool in range(n - 1, -1, -1):
        members = children[first_child[pool] : first_child[pool + 1]]
        done, widest = 0, 0
        for k in range(len(members)):
            if k > 0 and priority[members[k]] != priority[members[k - 1]]:
                done, widest = done + widest, 0
            widest = max(widest, span[members[k]])
        if len(members) > 0:
            span[pool] = done + widest
    slot = np.zeros(n, np.int32)
    for pool in range(n):
        members = children[first_child[pool] : first_child[pool + 1]]
        done, widest = 0, 0
        for k in range(len(members)):
            if k > 0 and priority[members[k]] != priority[members[k - 1]]:
                done, widest = done + widest, 0
            widest = max(widest, span[members[k]])
            slot[members[k]] = slot[pool] + done
    return slot


def _at_probability(probability: Rates, rate: Rates, wanted: float) -> Rates:
    """The rate that demand stays within with a given probability, shape (n_leaves,)."""
    k = min(int(np.searchsorted(probability, wanted, side="right")), len(probability) - 1)
    part = (wanted - probability[k - 1]) / (probability[k] - probability[k - 1])
    found: Rates = rate[:, k - 1] + part * (rate[:, k] - rate[:, k - 1])
    return found


@compiled
def _probability_above(probability: Rates, rate: Rates, grant: Bits) -> Rates:
    """P(demand > grant), shape (n_leaves,); where demand has an atom at the grant it counts as met."""
    short = np.zeros(len(grant))
    for i in range(len(grant)):
        k = len(probability) - 1
        while k >= 0 and rate[i, k] > grant[i]:
            k -= 1
        if k < 0:
            short[i] = 1.0
        elif k < len(probability) - 1:
            part = (grant[i] - rate[i, k]) / (rate[i, k + 1] - rate[i, k])
            short[i] = 1 - (probability[k] + part * (probability[k + 1] - probability[k]))
    return short
