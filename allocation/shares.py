"""A pool's grant split over the switches that enforce it.

A pool that spans switches has one meter on each; only shares that fit into the
grant make the meters together hold the pool to it.
"""

from __future__ import annotations

import numpy as np

from allocation.compiled import Bits, Indices, Rates


def split(grant_bps: Bits, pool: Indices, demand_bps: Rates, equal_part: float = 0.05) -> Bits:
    """Each switch's share of its pool's grant, by forecast demand, exact to the bit/s.

    One entry for each (pool, switch) on which a pool has a meter, in any order.
    A part of the grant is shared equally, so that traffic on a switch where none
    was forecast meets a narrow meter and not a shut one: ``equal_part`` of the
    grant, or all that the demands leave over, if that is more. The rest is
    shared in proportion to demand.

    Parameters
    ----------
    grant_bps : shape (n_pools,)      Whole bit/s, >= 0.
    pool : shape (n_entries,)         Index of the entry's pool.
    demand_bps : shape (n_entries,)   Forecast demand of the pool on that switch, >= 0. NaN where
        there is no forecast: taken as the mean of the pool's other switches, since missing is
        not zero.
    equal_part :                      0 to 1.

    Returns
    -------
    shape (n_entries,), whole bit/s. The shares of a pool sum to its grant exactly.

    Raises
    ------
    ValueError : if a bound above is broken.
    """
    grant, pool = np.asarray(grant_bps, np.int64), np.asarray(pool, np.int32)
    demand = np.asarray(demand_bps, np.float64)
    _check(grant, pool, demand, equal_part)
    n_pools = len(grant)
    switches = np.bincount(pool, minlength=n_pools)
    demand = _fill_missing(pool, demand, n_pools)
    total = np.bincount(pool, demand, n_pools)
    equal = np.maximum(equal_part * grant, grant - total)
    # A pool without demand has its whole grant in the equal part: 0 of 1 is then asked for.
    per_demand = (grant - equal) / np.where(total > 0, total, 1.0)
    wanted = equal[pool] / switches[pool] + per_demand[pool] * demand
    return _whole_shares(grant, pool, wanted, switches)


def _check(grant: Bits, pool: Indices, demand: Rates, equal_part: float) -> None:
    if pool.ndim != 1 or pool.shape != demand.shape:
        raise ValueError(f"pool and demand_bps must be one row each, got {pool.shape} and {demand.shape}")
    if len(pool) and not (pool.min() >= 0 and pool.max() < len(grant)):
        raise ValueError(f"pool must be 0 to {len(grant) - 1}, got {pool.min()} to {pool.max()}")
    if not 0 <= equal_part <= 1:
        raise ValueError(f"equal_part must be 0 to 1, got {equal_part}")
    if (grant < 0).any():
        raise ValueError(f"grant_bps must be >= 0, got {grant.min()}")
    if (demand < 0).any() or np.isinf(demand).any():
        raise ValueError("demand_bps must be >= 0 and finite, or NaN where there is no forecast")


def _fill_missing(pool: Indices, demand: Rates, n_pools: int) -> Rates:
    known = ~np.isnan(demand)
    if known.all():
        return demand
    count = np.bincount(pool[known], minlength=n_pools)
    mean = np.bincount(pool[known], demand[known], n_pools) / np.maximum(count, 1)
    return np.where(known, demand, mean[pool])


def _whole_shares(grant: Bits, pool: Indices, wanted: Rates, switches: Bits) -> Bits:
    """``wanted`` rounded so that each pool's shares sum to its grant."""
    # A hair less than wanted, so that rounding inside ``wanted`` never adds up to more than the grant.
    share = np.floor(wanted * (1 - 2.0**-48)).astype(np.int64)
    given = np.zeros(len(grant), np.int64)
    np.add.at(given, pool, share)
    short = (grant - given)[pool]
    # The few bits short go round the pool's switches, the first ones taking the odd bits.
    order = np.argsort(pool, kind="stable")
    rank = np.empty(len(pool), np.int64)
    first = np.cumsum(switches) - switches
    rank[order] = np.arange(len(pool)) - first[pool[order]]
    each, odd = np.divmod(short, switches[pool])
    whole: Bits = share + each + (rank < odd)
    return whole
