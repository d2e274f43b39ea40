"""One level raised for a whole tree of curves, until a capacity is used.

A pool's curve is the sum of its children's, held between its own two bounds.
Where neither binds the pool and its parent have the same level, so one search
at the root serves most trees whole; a pool whose bound binds searches its own
level below it. Pools are visited in preorder, where everything below a pool
is one contiguous range.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from allocation.compiled import FULL_BPS, Bits, Codes, Indices, Rates, compiled
from allocation.max_min import fill_classes

#: Past this number of steps every second one halves the bracket; and a bound out of reach.
_NEWTON_STEPS: Final = 12
_MOST_STEPS: Final = 300


@compiled
def share_by_level(
    children: Indices,
    first_child: Indices,
    parent: Indices,
    weight: Rates,
    priority: Codes,
    by_curve: npt.NDArray[np.bool_],
    level: Rates,
    rate: Rates,
    row_of: Indices,
    lower: Bits,
    upper: Bits,
    between: Bits,
    grant: Bits,
    reached: Rates,
) -> None:
    """Fill ``grant`` top-down from the root's entry, in whole bit/s.

    Children whose parent goes ``by_curve`` get what their curves say at one common level; others the
    weighted max-min shares, ``between`` first and then up to ``upper``.

    Parameters
    ----------
    by_curve : shape (n_pools,)                How each pool shares among its children.
    level, rate : shape (n_leaves, n_knots)    The leaves' ``Curves``.
    row_of : shape (n_pools,)                  Each leaf's row of them, -1 for other pools.
    lower, upper : shape (n_pools,)            Bounds; those of a pool must fit its children's.
    between : shape (n_rows, n_pools)          Bounds within the two, rising.
    grant : shape (n_pools,)                   Only the root's is read: at least its lower bound.
    reached : shape (n_pools,)                 Gets the level at which each pool was granted its share,
        NaN where none was sought: by max-min, and where all siblings are at a bound.
    """
    n = len(parent)
    place, end = _preorder(children, first_child, parent)
    pool_at = np.empty(n, np.int32)
    for pool in range(n):
        pool_at[place[pool]] = pool
    # Everything in order of visit, so that the search reads memory forwards.
    up, row = np.empty(n, np.int32), np.empty(n, np.int32)
    low, high = np.empty(n), np.empty(n)
    for at in range(n):
        pool = pool_at[at]
        up[at] = place[parent[pool]] if at > 0 else 0
        row[at] = row_of[pool]
        low[at], high[at] = lower[pool], upper[pool]
    value, total, slope = np.empty(n), np.zeros(n), np.zeros(n)
    segment = np.zeros(len(level), np.int32)
    # Whether the level sought above a pool holds within it, and which level that is.
    inherits, at_level = np.zeros(n, np.bool_), np.full(n, np.nan)
    reached[:] = np.nan
    stage = np.empty_like(grant)
    for at in range(n):
        pool = pool_at[at]
        if first_child[pool] == first_child[pool + 1]:
            continue
        members = children[first_child[pool] : first_child[pool + 1]]
        budget = grant[pool]
        if not by_curve[pool]:
            _fill_in_steps(budget, members, lower, between, upper, weight, priority, grant, stage)
            continue
        least, most = 0, 0
        for child in members:
            least += lower[child]
            most = min(most + upper[child], FULL_BPS)
        if budget >= most or budget <= least:
            for child in members:
                grant[child] = upper[child] if budget >= most else lower[child]
            continue
        if not inherits[at]:
            at_level[at] = _search(
                float(budget), at, end[at], up, row, low, high, level, rate, segment, value, total, slope
            )
        _round_shares(budget, members, place, value, lower, upper, grant)
        for child in members:
            reached[child] = at_level[at]
            where = place[child]
            # Compared exactly: a value that was not held at a bound is the sum itself.
            inherits[where] = value[where] == total[where] and row[where] < 0
            at_level[where] = at_level[at]


@compiled
def _preorder(children: Indices, first_child: Indices, parent: Indices) -> tuple[Indices, Indices]:
    """Each pool's place in preorder; and by place, where the range of what is below it ends."""
    n = len(parent)
    size = np.ones(n, np.int32)
    for pool in range(n - 1, 0, -1):
        size[parent[pool]] += size[pool]
    place, end = np.zeros(n, np.int32), np.zeros(n, np.int32)
    for pool in range(n):
        following = place[pool] + 1
        end[place[pool]] = place[pool] + size[pool]
        for k in range(first_child[pool], first_child[pool + 1]):
            child = children[k]
            place[child] = following
            following += size[child]
    return place, end


@compiled
def _fill_in_steps(
    budget: int,
    members: Indices,
    lower: Bits,
    between: Bits,
    upper: Bits,
    weight: Rates,
    priority: Codes,
    grant: Bits,
    stage: Bits,
) -> None:
    for child in members:
        stage[child] = lower[child]
    for step in range(len(between) + 1):
        most = between[step] if step < len(between) else upper
        fill_classes(budget, members, priority, stage, most, weight, grant)
        for child in members:
            stage[child] = grant[child]


@compiled
def _evaluate(
    common: float,
    start: int,
    end: int,
    up: Indices,
    row: Indices,
    low: Rates,
    high: Rates,
    level: Rates,
    rate: Rates,
    segment: Indices,
    value: Rates,
    total: Rates,
    slope: Rates,
) -> None:
    """What every pool in a range has at one level, into ``value``; sums into ``total`` and ``slope``."""
    last = level.shape[1] - 1
    for at in range(start, end):
        total[at] = 0.0
        slope[at] = 0.0
    for at in range(end - 1, start, -1):
        i = row[at]
        if i < 0:
            share, steep = total[at], slope[at]
        else:
            k = segment[i]
            while k > 0 and level[i, k] > common:
                k -= 1
            while k < last - 1 and level[i, k + 1] <= common:
                k += 1
            segment[i] = k
            left, width = common - level[i, k], level[i, k + 1] - level[i, k]
            if left <= 0:
                share, steep = rate[i, k], 0.0
            elif left >= width:
                share, steep = rate[i, k + 1], 0.0
            else:
                steep = (rate[i, k + 1] - rate[i, k]) / width
                share = rate[i, k] + left * steep
        if share < low[at]:
            share, steep = low[at], 0.0
        elif share > high[at]:
            share, steep = high[at], 0.0
        value[at] = share
        total[up[at]] += share
        slope[up[at]] += steep


@compiled
def _search(
    budget: float,
    start: int,
    end: int,
    up: Indices,
    row: Indices,
    low: Rates,
    high: Rates,
    level: Rates,
    rate: Rates,
    segment: Indices,
    value: Rates,
    total: Rates,
    slope: Rates,
) -> float:
    """The level at which what lies below a pool sums to its budget; leaves ``value`` as it is there.

    The total rises with the level but is neither convex nor concave, so Newton's steps are guarded by a
    bracket; a step that leaves it becomes one along the chord, or a halving.
    """
    lowest, highest = np.inf, -np.inf
    for at in range(start, end):
        if row[at] >= 0:
            lowest = min(lowest, level[row[at], 0])
            highest = max(highest, level[row[at], level.shape[1] - 1])
    tolerance = 0.01 + 1e-12 * budget
    under, over = np.nan, np.nan
    common = lowest + (highest - lowest) * 0.5
    for step in range(_MOST_STEPS):
        _evaluate(common, start, end, up, row, low, high, level, rate, segment, value, total, slope)
        missing = budget - total[start]
        if abs(missing) <= tolerance:
            return common
        if missing > 0:
            lowest, under = common, missing
        else:
            highest, over = common, missing
        following = np.nan
        if slope[start] > 0:
            following = common + missing / slope[start]
        if not lowest < following < highest and under > 0 and over < 0:
            following = lowest + (highest - lowest) * (under / (under - over))
        halve = step >= _NEWTON_STEPS and step % 2 == 0
        if halve or not lowest < following < highest:
            following = lowest + (highest - lowest) / 2
        if not lowest < following < highest:
            # Neighbouring numbers; what is missing lies in a step of some curve, and rounding hands it out.
            break
        common = following
    _evaluate(lowest, start, end, up, row, low, high, level, rate, segment, value, total, slope)
    return lowest


@compiled
def _round_shares(
    budget: int, members: Indices, place: Indices, value: Rates, lower: Bits, upper: Bits, grant: Bits
) -> None:
    """Whole shares that sum to the budget; the odd bits go to the first that may take them."""
    spare = budget
    for child in members:
        share = int(value[place[child]])
        grant[child] = min(max(share, lower[child]), upper[child])
        spare -= grant[child]
    # Once round nearly always; what a steep curve leaves is handed out in larger pieces.
    piece = 1
    while spare != 0:
        before = spare
        for child in members:
            if spare > 0:
                more = min(piece, spare, upper[child] - grant[child])
            else:
                more = -min(piece, -spare, grant[child] - lower[child])
            grant[child] += more
            spare -= more
            if spare == 0:
                break
        if spare == before:
            break
        piece *= 2
