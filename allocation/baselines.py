"""What the same traffic would get without foresight, through the same allocator.

Only the claims differ between methods, so only foresight is compared. A
reactive method, such as auto-bandwidth, is ``allocate`` with its own estimate
as the one row of claims; static caps have no claims at all.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from allocation.allocate import Allocation, allocate
from allocation.compiled import Bits, Rates
from allocation.tree import PoolTree


def static_equal(tree: PoolTree, capacity_bps: float = np.inf) -> Allocation:
    """Each pool's capacity shared equally among its children, whatever they ask for.

    Guarantees and ceilings still hold, weights do not: what a child's ceiling
    leaves is shared equally by the others. Raises as ``allocate`` does.
    """
    equal = replace(tree, weight=np.ones(len(tree)))
    return allocate(equal, np.empty((0, len(tree.leaves))), capacity_bps=capacity_bps)


def served(grant_bps: Bits, demand_bps: Rates) -> Rates:
    """The part of each demand that its grant lets through, bit/s; NaN where demand is.

    For leaves, whose grants together fit into every pool above them.
    Same shape as the arguments.
    """
    return np.minimum(np.asarray(grant_bps, np.float64), demand_bps)
