"""Rates that stay put while little would change, so that meters are not touched for nothing.

Only small *rises* are withheld. A fall always applies, because what one pool
loses another was promised: withholding it would break the parent's sum. So the
held rate is never above the wanted one, and is below it by less than the band.
"""

from __future__ import annotations

import numpy as np

from allocation.compiled import Bits, Indices, Rates, compiled
from allocation.tree import PoolTree


def hold(previous_bps: Rates, wanted_bps: Bits, fraction: float) -> Bits:
    """The wanted rates, but for rises too small to matter.

    Parameters
    ----------
    previous_bps : shape (n,)   Rates in force, bit/s; NaN for a pool that had none.
    wanted_bps : shape (n,)     Whole bit/s, >= 0.
    fraction :                  A rise by less than this part of the previous rate is withheld,
        0 to 1. Slow growth still gets through: it is compared with the rate in force, not with
        what was wanted last time.

    Returns
    -------
    shape (n,), whole bit/s, none above ``wanted_bps``.

    Raises
    ------
    ValueError : if a bound above is broken.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be 0 to 1, got {fraction}")
    previous = np.asarray(previous_bps, np.float64)
    wanted = np.asarray(wanted_bps, np.int64)
    if previous.shape != wanted.shape:
        raise ValueError(
            f"previous_bps and wanted_bps must be alike, got {previous.shape} and {wanted.shape}"
        )
    small_rise = (wanted > previous) & (wanted - previous < fraction * previous)
    held: Bits = np.where(small_rise, np.floor(np.where(small_rise, previous, 0.0)), wanted).astype(np.int64)
    return held


def hold_tree(tree: PoolTree, previous_bps: Rates, wanted_bps: Bits, fraction: float) -> Bits:
    """``hold`` for a whole tree's grants: children still fit their parent, guarantees still hold.

    A parent's small rise must not be withheld when its children use it: they
    may rise a lot where another of them has fallen. So a parent holds at least
    what its children hold together. All shape (n_pools,); otherwise as ``hold``.
    """
    wanted = np.asarray(wanted_bps, np.int64)
    held = np.maximum(hold(previous_bps, wanted, fraction), np.minimum(tree.reserved_bps, wanted))
    _make_room(tree.parent, held)
    return held


@compiled
def _make_room(parent: Indices, held: Bits) -> None:
    """Raise each pool to the sum of its children, bottom-up, in place."""
    below = np.zeros_like(held)
    for i in range(len(parent) - 1, 0, -1):
        held[i] = max(held[i], below[i])
        below[parent[i]] += held[i]
    held[0] = max(held[0], below[0])
