"""What must hold of every allocation, as predicates for code and tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from allocation.allocate import allocate
from allocation.compiled import Bits, Rates
from allocation.tree import PoolTree, whole_bps


def is_feasible(tree: PoolTree, grant_bps: Bits, capacity_bps: float = np.inf) -> bool:
    """Whether the grants keep every promise, to the bit/s.

    Children sum to no more than their parent, the root fits the capacity, and
    each pool is between its guarantee and its ceiling. ``grant_bps`` has shape
    (n_pools,).
    """
    grant = np.asarray(grant_bps, np.int64)
    return bool(
        grant[0] <= whole_bps(capacity_bps)
        and (_children_total(tree, grant) <= grant).all()
        and (grant >= tree.reserved_bps).all()
        and (grant <= tree.limit_bps).all()
    )


def idle_bps(tree: PoolTree, grant_bps: Bits, upper_bps: Bits, held_bps: Bits | None = None) -> Bits:
    """What each pool keeps to itself though a child could use it, bit/s, shape (n_pools,).

    Parameters
    ----------
    upper_bps : shape (n_pools,)   The most each pool can use: a row of ``Allocation.claims_bps``
        beside the same row of ``stages_bps``, or ``ceiling_bps`` beside ``grant_bps``.
    held_bps : shape (n_pools,)    What may stay idle, such as ``Allocation.held_bps``.
    """
    # As floats: many ceilings of "none" would overflow, and where they are inexact they do not bind.
    wanted = np.bincount(tree.parent[1:], np.asarray(upper_bps, np.float64)[1:], len(tree))
    usable = np.minimum(grant_bps if held_bps is None else grant_bps - held_bps, wanted).astype(np.int64)
    idle: Bits = np.maximum(usable - _children_total(tree, grant_bps), 0)
    return idle


def is_max_min(
    tree: PoolTree, grant_bps: Bits, lower_bps: Bits, upper_bps: Bits, tolerance_bps: float = 1.0
) -> bool:
    """Whether no pool can gain without a poorer sibling losing, within a tolerance.

    Poorer means less per unit of weight. A pool may be richer than a sibling
    only by its lower bound, and poorer only by its upper bound.

    Parameters
    ----------
    grant_bps, lower_bps, upper_bps : shape (n_pools,), bit/s; as after one stage of ``allocate``,
        ``lower`` being what the stage before left and ``upper`` what this stage may give.
    tolerance_bps :   1 allows for whole bits.
    """
    grant, parent = np.asarray(grant_bps, np.int64)[1:], tree.parent[1:]
    lower, upper, weight = lower_bps[1:], upper_bps[1:], tree.weight[1:]
    if (grant < lower).any() or (grant > upper).any():
        return False
    richest, poorest = np.zeros(len(tree)), np.full(len(tree), np.inf)
    risen, may_rise = grant > lower, grant < upper
    np.maximum.at(richest, parent[risen], ((grant - tolerance_bps) / weight)[risen])
    np.minimum.at(poorest, parent[may_rise], ((grant + tolerance_bps) / weight)[may_rise])
    return bool((richest <= poorest * (1 + 1e-12)).all())


def cuts_below_use(
    tree: PoolTree, grant_bps: Bits, use_bps: Rates, capacity_bps: float = np.inf
) -> npt.NDArray[np.bool_]:
    """Which pools a forecast has cut below what they use now; shape (n_pools,).

    Real scarcity may cut too, and then fairness decides by how much. So the
    measure is what a pool would hold were present use the only claim: whoever
    holds less than that has lost it to a mere forecast. Never true of
    ``allocate`` with present use as its first row of claims.

    Parameters
    ----------
    use_bps : shape (n_leaves,)   Present use of ``tree.leaves``, >= 0, no NaN.

    Raises
    ------
    ValueError : as ``allocate``.
    """
    by_use_alone = allocate(tree, np.asarray(use_bps, np.float64)[np.newaxis], capacity_bps=capacity_bps)
    cut: npt.NDArray[np.bool_] = np.asarray(grant_bps) < by_use_alone.stages_bps[1]
    return cut


def _children_total(tree: PoolTree, values_bps: Bits) -> Bits:
    total = np.zeros(len(tree), np.int64)
    np.add.at(total, tree.parent[1:], values_bps[1:])
    return total
