"""Grants for every pool of the tree, in stages of falling urgency.

First each pool gets its guarantee. Then the rows of claims are met one after
the other, then what is left is handed out up to the ceilings, but for each
pool's reserve. Every stage shares each pool's grant among its children by
weighted max-min with the stage before as lower bound, so no later stage takes
back what an earlier one gave. One sweep over the tree per stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from allocation.compiled import FULL_BPS, Bits, Codes, Indices, Rates, compiled
from allocation.max_min import fill_classes, fill_siblings
from allocation.tree import InfeasibleTree, PoolTree, whole_bps

_NO_CLASSES: Final = np.empty(0, np.uint8)


class Bound(IntEnum):
    """Why a pool's grant is no larger. ``Allocation.stage`` says when it got its last bit."""

    #: A claim is unmet: the fair share of what the parent holds is used up.
    PARENT = 0
    #: It holds its guarantee and nothing above: it claims no more, or its fair share is less.
    GUARANTEE = 1
    #: Its last claim is met exactly and nothing was left over for it.
    CLAIM = 2
    #: Its claims are met, and it holds a share of what was left over.
    LEFTOVER = 3
    #: It is at its ceiling, or all its children are at theirs.
    CEILING = 4
    #: A link on its way is full.
    LINK = 5


# Compiled code knows numbers, not members of an enumeration.
_PARENT, _GUARANTEE, _CLAIM, _LEFTOVER, _CEILING, _ = (int(bound) for bound in Bound)


@dataclass(frozen=True, eq=False)
class Allocation:
    """What every pool may use, and why. Arrays follow ``PoolTree.names``."""

    #: shape (n_pools,), bit/s. Children never sum to more than their parent.
    grant_bps: Bits
    #: shape (n_pools,), codes of ``Bound``.
    bound: Codes
    #: shape (n_pools,): the stage in which a pool got its last bit/s;
    #: 0 the guarantee, 1 to n_claims the rows of claims, n_claims + 1 the leftover.
    stage: Codes
    #: shape (n_claims + 2, n_pools), bit/s: what each pool held after each stage.
    stages_bps: Bits
    #: shape (n_claims, n_pools), bit/s: the claims, each held between the pool's guarantee
    #: and ceiling; an inner pool claims what its children claim together.
    claims_bps: Bits
    #: shape (n_pools,), bit/s: the most that each pool could have been granted.
    ceiling_bps: Bits
    #: shape (n_pools,), bit/s: the part of a pool's grant kept back from its children's leftover.
    held_bps: Bits


def allocate(
    tree: PoolTree,
    claims_bps: Rates,
    reserve_bps: Rates | None = None,
    capacity_bps: float = np.inf,
) -> Allocation:
    """Grants for the whole tree: guarantees, then claims in order, then the leftover by weight.

    Parameters
    ----------
    tree :
    claims_bps : shape (n_claims, n_leaves)   What each of ``tree.leaves`` asks for, >= 0, in order
        of urgency and cumulative: a row asks for a total, not for more. Rounded up to whole
        bit/s. Infinity asks for all there is. There may be no rows.
    reserve_bps : shape (n_pools,)            Buffer that each pool keeps back from the leftover of
        its children, >= 0; none by default. Claims may use it. A pool in which every child
        could have its ceiling keeps none back.
    capacity_bps :                            Capacity of the root; its ceiling by default.

    Returns
    -------
    A guarantee is granted whether or not it is asked for: its owner may start at any time.

    Raises
    ------
    InfeasibleTree : if the guarantees need more than the capacity.
    ValueError : if shapes differ, or if a claim or reserve is negative or NaN (missing is not
        zero: decide before asking); names the pool.
    """
    capacity = root_capacity(tree, capacity_bps)
    limit = np.minimum(tree.limit_bps, capacity)
    ceiling = most_of_all(tree, limit)
    claims = whole_claims(tree, claims_bps, limit)
    reserve = whole_reserve(tree, reserve_bps, capacity)

    nothing = np.zeros(len(tree), np.int64)
    stages = np.empty((len(claims) + 2, len(tree)), np.int64)
    stages[0] = tree.reserved_bps
    held = nothing
    for row, claim in enumerate(claims):
        held = share_down(tree, stages[row], claim, nothing, stages[row + 1], by_class=True)
    held = share_down(tree, stages[-2], ceiling, reserve, stages[-1], by_class=False)
    return explained(tree, stages, claims, ceiling, held)


def root_capacity(tree: PoolTree, capacity_bps: float) -> int:
    """The root's capacity in whole bit/s.

    Raises
    ------
    InfeasibleTree : if the guarantees need more.
    """
    capacity = whole_bps(capacity_bps)
    if tree.reserved_bps[0] > capacity:
        raise InfeasibleTree(
            f"{tree.names[0]}: guarantees need {tree.reserved_bps[0]} bit/s, above its capacity {capacity} bit/s"
        )
    return capacity


def explained(
    tree: PoolTree, stages: Bits, claims: Bits, ceiling: Bits, held: Bits, met_bps: Bits | None = None
) -> Allocation:
    """The last stage as grants, with what bound each; a claim is met from ``met_bps`` on, the last one by default."""
    grant = stages[-1].copy()
    last_claim = claims[-1] if len(claims) else tree.reserved_bps
    if met_bps is not None:
        last_claim = met_bps
    return Allocation(
        grant_bps=grant,
        bound=_bounds(grant, last_claim, tree.reserved_bps, ceiling),
        stage=_last_rise(stages),
        stages_bps=stages,
        claims_bps=claims,
        ceiling_bps=ceiling,
        held_bps=held,
    )


def most_of_all(tree: PoolTree, limit: Bits) -> Bits:
    """The most that each pool could be granted: what its leaves could use, within every ceiling."""
    return _roll_up_limits(tree.parent, tree.first_child, tree.reserved_bps, limit)


def whole_claims(tree: PoolTree, claims_bps: Rates, limit: Bits) -> Bits:
    """Claims of every pool in whole bit/s, shape (n_claims, n_pools), no row below the one before."""
    asked = np.asarray(claims_bps, np.float64)
    if asked.ndim != 2 or asked.shape[1] != len(tree.leaves):
        raise ValueError(f"claims_bps must have shape (n_claims, {len(tree.leaves)}), got {asked.shape}")
    claims = np.empty((len(asked), len(tree)), np.int64)
    before = tree.reserved_bps
    for row, claim in enumerate(np.ascontiguousarray(asked)):
        if not _roll_up_claims(
            tree.parent, tree.leaves, claim, before, tree.reserved_bps, limit, claims[row]
        ):
            _refuse(tree, tree.leaves, claim, f"claims_bps[{row}]")
        before = claims[row]
    return claims


@compiled
def _roll_up_limits(parent: Indices, first_child: Indices, reserved: Bits, limit: Bits) -> Bits:
    total = np.zeros(len(parent), np.int64)
    for i in range(len(parent) - 1, -1, -1):
        is_leaf = first_child[i] == first_child[i + 1]
        total[i] = max(reserved[i], limit[i] if is_leaf else min(total[i], limit[i]))
        if i > 0:
            total[parent[i]] = min(total[parent[i]] + total[i], FULL_BPS)
    return total


@compiled
def _roll_up_claims(
    parent: Indices, leaves: Indices, claim: Rates, before: Bits, reserved: Bits, limit: Bits, total: Bits
) -> bool:
    """Fill ``total`` from the leaves' claims, rounded up, none below ``before``; False if one is not >= 0."""
    total[:] = 0
    leaf, good = len(leaves) - 1, True
    for i in range(len(parent) - 1, -1, -1):
        own = min(total[i], limit[i])
        if leaf >= 0 and leaves[leaf] == i:
            asked = claim[leaf]
            if not asked >= 0:
                asked, good = 0.0, False
            own = max(before[i], int(np.ceil(min(asked, limit[i]))))
            leaf -= 1
        total[i] = max(reserved[i], own)
        if i > 0:
            total[parent[i]] = min(total[parent[i]] + total[i], FULL_BPS)
    return good


def whole_reserve(tree: PoolTree, reserve_bps: Rates | None, capacity: int) -> Bits:
    """Reserves in whole bit/s, shape (n_pools,); refuses what is negative or NaN."""
    if reserve_bps is None:
        return np.zeros(len(tree), np.int64)
    reserve = np.asarray(reserve_bps, np.float64)
    if reserve.shape != (len(tree),):
        raise ValueError(f"reserve_bps must have shape ({len(tree)},), got {reserve.shape}")
    _refuse(tree, np.arange(len(tree), dtype=np.int32), reserve, "reserve_bps")
    return np.ceil(np.minimum(reserve, capacity)).astype(np.int64)


def checked(tree: PoolTree, leaf_bps: Rates, what: str) -> Rates:
    """One figure for each of ``tree.leaves``; refuses what is negative or NaN."""
    values = np.asarray(leaf_bps, np.float64)
    if values.shape != tree.leaves.shape:
        raise ValueError(f"{what} must have shape {tree.leaves.shape}, got {values.shape}")
    _refuse(tree, tree.leaves, values, what)
    return values


def _refuse(tree: PoolTree, pools: Indices, values: Rates, what: str) -> None:
    if len(values) == 0 or values.min() >= 0:  # NaN makes the minimum NaN, and this false
        return
    i = int((~(values >= 0)).argmax())
    raise ValueError(f"{tree.names[pools[i]]}: {what} must be >= 0 and not NaN, got {values[i]}")


def share_down(
    tree: PoolTree,
    before: Bits,
    most: Bits,
    reserve: Bits,
    after: Bits,
    by_class: bool,
    budget_bps: int = FULL_BPS,
    weight: Rates | None = None,
) -> Bits:
    """One stage: fill ``after`` between ``before`` and ``most``; returns what each pool held back.

    Pools share by their own weight unless another is given, shape (n_pools,).
    """
    after[0] = max(before[0], min(most[0], budget_bps))
    priority = tree.classes if by_class and tree.classes.any() else _NO_CLASSES
    by = tree.weight if weight is None else weight
    return _share_tree(tree.children, tree.first_child, before, most, by, reserve, after, priority)


@compiled
def _share_tree(
    children: Indices,
    first_child: Indices,
    before: Bits,
    most: Bits,
    weight: Rates,
    reserve: Bits,
    after: Bits,
    priority: Codes,
) -> Bits:
    """Fill ``after`` top-down from the root's entry; returns what each pool held back.

    All but ``children`` and ``first_child`` have shape (n_pools,); ``priority`` is empty where
    classes do not count.
    """
    held = np.zeros_like(after)
    for pool in range(len(after)):
        # Asked before the slice is made: making one for each leaf costs more than all the sharing.
        if first_child[pool] == first_child[pool + 1]:
            continue
        members = children[first_child[pool] : first_child[pool + 1]]
        budget = after[pool]
        if reserve[pool] > 0:
            least, wanted = 0, 0
            for child in members:
                least += before[child]
                wanted = min(wanted + most[child], FULL_BPS)
            # Holding back more than the children could still use would serve nobody.
            kept = min(reserve[pool], max(wanted - budget, 0))
            held[pool] = budget - max(least, budget - kept)
            budget -= held[pool]
        if len(priority) == 0 or priority[members[0]] == priority[members[-1]]:
            fill_siblings(budget, members, before, most, weight, after)
        else:
            fill_classes(budget, members, priority, before, most, weight, after)
    return held


@compiled
def _bounds(grant: Bits, last_claim: Bits, reserved: Bits, ceiling: Bits) -> Codes:
    """``Bound`` of every pool."""
    bound = np.empty(len(grant), np.uint8)
    for i in range(len(grant)):
        if grant[i] >= ceiling[i]:
            bound[i] = _CEILING
        elif grant[i] == reserved[i] and reserved[i] > 0:
            bound[i] = _GUARANTEE
        elif grant[i] < last_claim[i]:
            bound[i] = _PARENT
        else:
            bound[i] = _CLAIM if grant[i] == last_claim[i] else _LEFTOVER
    return bound


@compiled
def _last_rise(stages: Bits) -> Codes:
    last = np.zeros(stages.shape[1], np.uint8)
    for stage in range(1, len(stages)):
        for i in range(stages.shape[1]):
            if stages[stage, i] > stages[stage - 1, i]:
                last[i] = stage
    return last
