"""The reserve that a pool keeps for what its forecast did not foresee."""

from __future__ import annotations

import numpy as np

from allocation.compiled import Rates


def reserve_from_tail(
    median_bps: Rates,
    high_bps: Rates,
    capacity_bps: Rates,
    min_fraction: float = 0.02,
    max_fraction: float = 0.2,
) -> Rates:
    """How far a pool's demand may rise above its median, as a reserve at that pool.

    Take the quantiles from the pool's own forecast. Peaks of many users rarely
    coincide, so the tail of their sum is much shorter than the sum of their
    tails: that difference is capacity which need not be kept idle.

    Parameters
    ----------
    median_bps : shape (n_pools,)     The pool's own forecast, quantile 0.5.
    high_bps : shape (n_pools,)       The same forecast's high quantile, such as 0.95.
    capacity_bps : shape (n_pools,)   What the fractions are of, >= 0, finite; for pools without a
        ceiling see ``PoolTree.capacity_below``.
    min_fraction, max_fraction :      Least and most to reserve, 0 to 1.

    Returns
    -------
    shape (n_pools,), bit/s: ``high - median`` within the two bounds. The least
    where a quantile is NaN: without a forecast nothing is known to size it by,
    and the pool's claims do not rest on one either.

    Raises
    ------
    ValueError : if a bound above is broken.
    """
    capacity = np.asarray(capacity_bps, np.float64)
    if not 0 <= min_fraction <= max_fraction <= 1:
        raise ValueError(
            "fractions must be 0 <= min_fraction <= max_fraction <= 1, "
            f"got min_fraction {min_fraction} and max_fraction {max_fraction}"
        )
    if not (np.isfinite(capacity) & (capacity >= 0)).all():
        raise ValueError("capacity_bps must be >= 0 and finite")
    tail = np.asarray(high_bps, np.float64) - np.asarray(median_bps, np.float64)
    least = min_fraction * capacity
    reserve: Rates = np.clip(np.where(np.isnan(tail), least, tail), least, max_fraction * capacity)
    return reserve


def tail_bps(demand_bps: Rates, quantile: Rates, reach: Rates) -> Rates:
    """How far up each pool's forecast its reserve reaches, shape (n_pools,), bit/s.

    demand_bps : shape (n_pools, K), quantiles of each pool's own demand; quantile : shape (K,), rising.
    reach : shape (n_pools,), the probability to reach; between two quantiles the higher one counts, beyond the last
    the last.
    """
    at = np.minimum(np.searchsorted(quantile, np.asarray(reach) - 1e-9), len(quantile) - 1)
    tail: Rates = np.take_along_axis(demand_bps, at[:, np.newaxis], axis=1)[:, 0]
    return tail
