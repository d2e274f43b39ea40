"""Weighted max-min fairness among siblings.

A common water level rises; a sibling's share is ``level * weight``, held
between its own lower and upper bound. Two forms: ``weighted_max_min`` in real
numbers for one capacity, by sorting, and ``fill_siblings`` in whole bits per
second with lower bounds, by searching the level, for the trees.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from allocation.compiled import FULL_BPS, Bits, Codes, Indices, Rates, compiled, summing

#: Newton's search ends in under ten steps on ordinary trees. Past the first number every
#: second step halves the bracket instead, and the second number is out of reach then.
_NEWTON_STEPS: Final = 16
_MOST_STEPS: Final = 400
#: From this number of siblings on, copying their bounds side by side pays.
_MANY: Final = 8


def weighted_max_min(demand_bps: Rates, weight: Rates, capacity_bps: float) -> Rates:
    """Share one capacity so that no claim can gain without a poorer one losing.

    A claim is poorer when it holds less per unit of weight.

    Parameters
    ----------
    demand_bps : shape (n_claims,)   Most each claim can use, >= 0, finite.
    weight : shape (n_claims,)       Only ratios matter, > 0, finite.
    capacity_bps :                   What there is to share, >= 0.

    Returns
    -------
    shape (n_claims,), bit/s, each at most its demand; they sum to
    min(capacity_bps, demand_bps.sum()), up to rounding.

    Raises
    ------
    ValueError : if a bound above is broken.

    Source
    ------
    Progressive filling: D. Bertsekas and R. Gallager, "Data Networks", 2nd ed., section 6.5.2.
    """
    demand = np.asarray(demand_bps, np.float64)
    weight = np.asarray(weight, np.float64)
    if demand.ndim != 1 or demand.shape != weight.shape:
        raise ValueError(f"demand_bps and weight must be one row each, got {demand.shape} and {weight.shape}")
    if not (np.isfinite(demand) & (demand >= 0)).all():
        raise ValueError("demand_bps must be >= 0 and finite")
    if not (np.isfinite(weight) & (weight > 0)).all():
        raise ValueError("weight must be > 0 and finite")
    if not capacity_bps >= 0:
        raise ValueError(f"capacity_bps must be >= 0, got {capacity_bps}")
    if capacity_bps >= demand.sum():
        return demand.copy()
    return np.minimum(demand, _water_level(demand, weight, float(capacity_bps)) * weight)


def _water_level(demand: Rates, weight: Rates, capacity: float) -> float:
    """The level at which claims of more than ``capacity`` in total use it up."""
    order = np.argsort(demand / weight, kind="stable")
    demand, weight = demand[order], weight[order]
    met_before = np.concatenate(([0.0], np.cumsum(demand)[:-1]))
    # Summed from the far end: a difference of prefix sums would lose small weights beside large ones.
    weight_from = np.cumsum(weight[::-1])[::-1]
    level = (capacity - met_before) / weight_from
    stops = level * weight <= demand
    # Within one rounding step of the total no claim may seem to stop the level; then the last one does.
    at = int(stops.argmax()) if stops.any() else len(stops) - 1
    return max(float(level[at]), 0.0)


@compiled
def fill_siblings(
    budget: int, members: Indices, lower: Bits, upper: Bits, weight: Rates, grant: Bits
) -> None:
    """Write into ``grant`` the weighted max-min shares of one set of siblings, in whole bit/s.

    Each share is within 1 bit/s of ``min(max(level * weight, lower), upper)`` for
    one common level (found to 0.01 bit/s + 1e-12 of the budget), and within ``lower`` and ``upper`` exactly. Together they are
    ``budget``, or all of ``upper`` where that is less. The odd bits that rounding
    leaves go to the first members that may take one.

    Parameters
    ----------
    budget :                                      What there is to share, >= the lower bounds together.
    members : shape (n_siblings,)                 Indices into the arrays that follow.
    lower, upper, weight, grant : shape (n_pools,)
    """
    if len(members) >= _MANY:
        level = _quick_level(budget, members, lower, upper, weight)
        if level == np.inf:
            for i in members:
                grant[i] = upper[i]
            return
        if level >= 0 and _round_down(budget, level, members, lower, upper, weight, grant):
            return
    if _fill_if_plain(budget, members, lower, upper, grant):
        return
    level = _search_level(budget, members, lower, upper, weight)
    _round_down(budget, level, members, lower, upper, weight, grant)


@compiled
def _round_down(
    budget: int,
    level: float,
    members: Indices,
    lower: Bits,
    upper: Bits,
    weight: Rates,
    grant: Bits,
) -> bool:
    """Write the shares at a level in whole bits; whether they come out as the budget."""
    spare = budget
    for i in members:
        # Compared as floats first: an integer could not hold what a high level gives a heavy weight.
        share = int(min(level * weight[i], float(upper[i])))
        grant[i] = max(lower[i], share)
        spare -= grant[i]
    if spare < 0:
        return False
    for i in members:
        if spare == 0:
            break
        at_level = level * weight[i]
        if lower[i] <= at_level < upper[i]:
            grant[i] += 1
            spare -= 1
    return spare == 0


@compiled
def fill_classes(
    budget: int,
    members: Indices,
    priority: Codes,
    lower: Bits,
    upper: Bits,
    weight: Rates,
    grant: Bits,
) -> None:
    """``fill_siblings`` one class of priority after the other; ``members`` stand by falling class.

    A class gets all it can use but for the lower bounds of those after it.
    """
    later = 0
    for i in members:
        later += lower[i]
    start = 0
    for k in range(1, len(members) + 1):
        if k < len(members) and priority[members[k]] == priority[members[start]]:
            continue
        peers = members[start:k]
        for i in peers:
            later -= lower[i]
        fill_siblings(budget - later, peers, lower, upper, weight, grant)
        for i in peers:
            budget -= grant[i]
        start = k


@compiled
def _fill_if_plain(budget: int, members: Indices, lower: Bits, upper: Bits, grant: Bits) -> bool:
    """Whether no level is needed: everyone gets all it can use, or just what it has."""
    least, most = 0, 0
    for i in members:
        least += lower[i]
        most = min(most + upper[i], FULL_BPS)
    if budget >= most:
        for i in members:
            grant[i] = upper[i]
        return True
    if budget <= least:
        for i in members:
            grant[i] = lower[i]
        return True
    return False


@compiled
def _quick_level(budget: int, members: Indices, lower: Bits, upper: Bits, weight: Rates) -> float:
    """The level by plain Newton steps, infinity where everyone gets all it can use, -1 where it does not settle.

    The bounds are copied side by side and the loops are free of branches, so that they compile to
    vector instructions: several times the speed of ``_search_level``, which never fails.
    """
    n = len(members)
    low, high, slope = np.empty(n), np.empty(n), np.empty(n)
    for k in range(n):
        low[k], high[k], slope[k] = lower[members[k]], upper[members[k]], weight[members[k]]
    least, most, total_weight = _sums(low, high, slope)
    # Whole numbers up to 2**53 add up exactly in floats; what is above is above every budget.
    if budget >= most:
        return float(np.inf)
    if budget <= least:
        return 0.0 if least == budget else -1.0
    level = budget / total_weight
    for _ in range(_NEWTON_STEPS):
        total, steep = _at_level(level, low, high, slope)
        if abs(budget - total) <= 0.01 + 1e-12 * budget:
            return level
        if steep <= 0:
            break
        level += (budget - total) / steep
        if level < 0:
            break
    return -1.0


@summing
def _sums(low: Rates, high: Rates, weight: Rates) -> tuple[float, float, float]:
    least, most, total = 0.0, 0.0, 0.0
    for k in range(len(low)):
        least += low[k]
        most += high[k]
        total += weight[k]
    return least, most, total


@summing
def _at_level(level: float, low: Rates, high: Rates, weight: Rates) -> tuple[float, float]:
    """What everyone has at a level, summed, and how fast that rises."""
    total, slope = 0.0, 0.0
    for k in range(len(low)):
        at_level = level * weight[k]
        share = min(max(at_level, low[k]), high[k])
        total += share
        slope += weight[k] if share == at_level else 0.0
    return total, slope


@compiled
def _search_level(budget: int, members: Indices, lower: Bits, upper: Bits, weight: Rates) -> float:
    """A level whose shares, rounded down, leave no more odd bits than there are takers.

    That alone would do for exact sums, but many small shares round down alike
    over a wide range of levels; so the unrounded total must be right as well.

    Newton's method on the total as a function of the level, which is made of
    straight pieces. Lower bounds make it neither convex nor concave, hence the
    bracket: a step that leaves it, or a flat piece, is replaced by halving.
    """
    low, high, total_weight = np.inf, 0.0, 0.0
    for i in members:
        low = min(low, lower[i] / weight[i])
        high = max(high, upper[i] / weight[i])
        total_weight += weight[i]
    # One rounding step outwards, for what the divisions may have rounded inwards.
    low, high = low * (1 - 1e-15), high * (1 + 1e-15)
    level = min(max(budget / total_weight, low), high)
    for step in range(_MOST_STEPS):
        # ``total`` decides, in whole bits; ``exact`` steers.
        total, takers, exact, slope = 0, 0, 0.0, 0.0
        for i in members:
            at_level = level * weight[i]
            if at_level >= upper[i]:
                total = min(total + upper[i], FULL_BPS)
                exact += upper[i]
            elif at_level < lower[i]:
                total = min(total + lower[i], FULL_BPS)
                exact += lower[i]
            else:
                total = min(total + int(at_level), FULL_BPS)
                exact += at_level
                slope += weight[i]
                takers += 1
        fits = total <= budget <= total + takers
        if fits and abs(budget - exact) <= 0.01 + 1e-12 * budget:
            return level
        if total <= budget and exact <= budget:
            low = level
        else:
            high = level
        following = level + (budget - exact) / slope if slope > 0 else high
        halve = step > _NEWTON_STEPS and step % 2 == 0
        if halve or not low < following < high:
            # By ratio where possible: levels of different orders of magnitude are the hard case.
            following = np.sqrt(low) * np.sqrt(high) if low > 0 else high / 2
            if not low < following < high:
                following = low + (high - low) / 2
        if not low < following < high:
            break  # low and high are neighbouring numbers
        level = following
    return low
