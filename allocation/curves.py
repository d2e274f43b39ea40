"""Value curves: what rate a pool should have at each common level.

One mechanism for all sharing: a child's curve maps a level to a rate, and a
parent raises one level for all its children until its capacity is used. The
curve of a pool with children is the sum of theirs, so one level may rule a
whole tree. Curves are straight between knots and flat outside them.

Source: A. Kumar and others, "BwE: Flexible, Hierarchical Bandwidth Allocation
for WAN Distributed Computing", SIGCOMM 2015, where they are called bandwidth functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from allocation.compiled import MAX_RATE_BPS, Indices, Rates, compiled
from allocation.tree import PoolTree


@dataclass(frozen=True, eq=False)
class Curves:
    """One curve for each of ``PoolTree.leaves``, both arrays of shape (n_leaves, n_knots).

    Raises
    ------
    ValueError : if levels do not rise, if rates fall, are negative or NaN, or if shapes differ.
    """

    #: Rising along the knots; only their order and spacing mean something.
    level: Rates
    #: bit/s, >= 0, never falling along the knots.
    rate_bps: Rates

    def __post_init__(self) -> None:
        level, rate = np.asarray(self.level, np.float64), np.asarray(self.rate_bps, np.float64)
        if level.ndim != 2 or level.shape != rate.shape or level.shape[1] < 2:
            raise ValueError(
                f"level and rate_bps must both have shape (n_leaves, n_knots >= 2), got {level.shape} and {rate.shape}"
            )
        if not (np.isfinite(level).all() and (level[:, 1:] > level[:, :-1]).all()):
            raise ValueError("level must be finite and rise along the knots")
        # Rising from a value >= 0 leaves no room for NaN.
        if not ((rate[:, 0] >= 0).all() and (rate[:, 1:] >= rate[:, :-1]).all()):
            raise ValueError("rate_bps must be >= 0, not NaN, and not fall along the knots")
        object.__setattr__(self, "level", np.ascontiguousarray(level))
        object.__setattr__(self, "rate_bps", np.ascontiguousarray(np.minimum(rate, MAX_RATE_BPS)))

    def at(self, level: float | Rates) -> Rates:
        """The rate of each leaf at one common level, or each at its own; shape (n_leaves,), bit/s."""
        wanted = np.broadcast_to(np.asarray(level, np.float64), (len(self.level),))
        return _rates_at(self.level, self.rate_bps, np.ascontiguousarray(wanted))


@compiled
def _rates_at(level: Rates, rate: Rates, wanted: Rates) -> Rates:
    found = np.empty(len(wanted))
    for i in range(len(wanted)):
        found[i] = np.interp(wanted[i], level[i], rate[i])
    return found


def path_weight(tree: PoolTree) -> Rates:
    """Each leaf's weight times those of the pools above it, but for the root's; shape (n_leaves,)."""
    return _multiply_down(tree.parent, tree.weight)[tree.leaves]


@compiled
def _multiply_down(parent: Indices, weight: Rates) -> Rates:
    product = weight.copy()
    product[0] = 1.0
    for i in range(1, len(parent)):
        product[i] *= product[parent[i]]
    return product


def quantile_knots(quantile: Rates, demand_bps: Rates) -> tuple[Rates, Rates]:
    """A distribution of demand known at some quantiles, as its inverse, straight between knots.

    Demand falls nowhere below 0, so probability 0 stands at 0 bit/s. Beyond
    the highest quantile demand is taken to thin out as it does between the two
    highest (exponentially); the knot at probability 1 stands where a straight
    line leaves the same mean demand beyond the highest quantile.

    Parameters
    ----------
    quantile : shape (K,)             Rising, inside (0, 1), K >= 1.
    demand_bps : shape (n_leaves, K)  >= 0, not falling along K.

    Returns
    -------
    The probabilities, shape (K + 2,), from 0 to 1; and the rates, shape (n_leaves, K + 2).
    """
    quantile, demand = np.asarray(quantile, np.float64), np.asarray(demand_bps, np.float64)
    if quantile.ndim != 1 or not (np.diff(quantile, prepend=0.0, append=1.0) > 0).all():
        raise ValueError(f"quantile must rise inside (0, 1), got {quantile.tolist()}")
    if demand.ndim != 2 or demand.shape[1] != len(quantile):
        raise ValueError(f"demand_bps must have shape (n_leaves, {len(quantile)}), got {demand.shape}")
    probability = np.concatenate(([0.0], quantile, [1.0]))
    rate = np.empty((len(demand), len(probability)))
    rate[:, 0] = 0.0
    rate[:, 1:-1] = demand
    # Of an exponential tail the mean beyond a point is its scale; of a straight one half its length.
    below = probability[-3]
    scale = (rate[:, -2] - rate[:, -3]) / np.log((1 - below) / (1 - quantile[-1]))
    rate[:, -1] = rate[:, -2] + 2 * scale
    return probability, rate


def forecast_curves(tree: PoolTree, quantile: Rates, demand_bps: Rates) -> Curves:
    """Each leaf's curve is its own forecast: at one level all are equally likely to fall short.

    The level is minus the probability of falling short, times the leaf's
    ``path_weight``: twice the weight, half the probability. Maximising it
    minimises the expected unserved demand, each bit of it counted by weight,
    because the probability of falling short is what one more bit/s is worth.

    Parameters
    ----------
    quantile, demand_bps :   As in ``quantile_knots``; rows as ``tree.leaves``. In the planner
        ``Forecast.quantile`` and ``Forecast.peak_curve()``.
    """
    probability, rate = quantile_knots(quantile, demand_bps)
    _refuse_rates(tree, rate)
    weight = path_weight(tree)
    return Curves(-(1 - probability) * (weight / max(weight.max(initial=0.0), 1e-300))[:, np.newaxis], rate)


def linear_curves(tree: PoolTree, rate_bps: Rates) -> Curves:
    """Weighted max-min as a curve: ``path_weight * level``, up to each leaf's ``rate_bps``, shape (n_leaves,)."""
    most, weight = np.asarray(rate_bps, np.float64), path_weight(tree)
    knee = np.maximum(most / weight, np.finfo(np.float64).tiny)
    return Curves(np.stack([np.zeros_like(knee), knee], axis=1), np.stack([0 * most, most], axis=1))


#: Per kind of traffic, the value of parts of its full rate: knots as (level, share of the rate). The
#: levels are common to all kinds: at 1 each has what it needs to work at all, at 2 it works well, at 3 it
#: has all it can use.
PRESETS: Final[Mapping[str, Sequence[tuple[float, float]]]] = MappingProxyType(
    {
        # A call needs most of its rate or it fails, and gains little by more.
        "conferencing": ((0.0, 0.0), (0.5, 0.6), (1.0, 0.9), (2.0, 1.0), (3.0, 1.0)),
        # Games send little and suffer at once when it is cut.
        "gaming": ((0.0, 0.0), (0.25, 0.8), (1.0, 1.0), (2.0, 1.0), (3.0, 1.0)),
        # Players step between renditions: a third of the rate is low resolution, then it gets better.
        "video": ((0.0, 0.0), (0.5, 0.1), (1.0, 0.35), (2.0, 0.8), (3.0, 1.0)),
        # Bulk waits: it takes what the others leave.
        "bulk": ((0.0, 0.0), (0.5, 0.02), (1.0, 0.05), (2.0, 0.3), (3.0, 1.0)),
    }
)


#: The level at which a preset has all it can use.
_ALL: Final = 3.0


def preset_demand(kind: str, quantile: Rates, most_bps: Rates) -> Rates:
    """Demand that kind of traffic is worth, as quantiles: in place of a forecast's in ``forecast_curves``.

    A preset's level runs from 0 to 3 as the probability runs from 0 to 1, so that it meets forecasts at one price:
    what a call must have is worth as much as what another is nearly sure to want.

    Parameters
    ----------
    kind : a key of ``PRESETS``.
    quantile : shape (K,).
    most_bps : shape (n,)    What each could use in full, such as the highest quantile of its forecast.

    Returns
    -------
    shape (n, K), never falling along K.

    Raises
    ------
    ValueError : if the kind is not known.
    """
    if kind not in PRESETS:
        raise ValueError(f"curve must be one of {', '.join(sorted(PRESETS))}, got {kind}")
    level, share = np.array(PRESETS[kind]).T
    worth: Rates = np.interp(_ALL * np.asarray(quantile), level, share)
    return np.asarray(most_bps)[:, np.newaxis] * worth


def _refuse_rates(tree: PoolTree, rate: Rates) -> None:
    good = (rate[:, 0] >= 0) & (rate[:, 1:] >= rate[:, :-1]).all(axis=1)
    if not good.all():
        i = int((~good).argmax())
        raise ValueError(
            f"{tree.names[tree.leaves[i]]}: demand_bps must be >= 0, not NaN, and not fall along the quantiles, "
            f"got {rate[i, 1:-1].tolist()}"
        )
