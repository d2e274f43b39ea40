"""Point forecasts that add up the tree: what children are expected to want is what their parent is.

Each level has its own forecast, and each knows something that the others do not. The coherent
figures nearest to all of them, each weighed by the inverse of its variance, are found by two passes over the tree:
upward every pool combines its own forecast with the sum of its children's, downward each pool's
figure is shared out by how unsure each child is. This is the weighted least squares of Wickramasuriya, Athanasopoulos
and Hyndman (Journal of the American Statistical Association 114, 2019) with a diagonal weight, exact and in linear time.

Medians only: quantiles of different series do not add up, so tails are never added.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.forecast import Forecast, Rung
from forecasting.history import Ints
from forecasting.quantiles import nearest

Doubles = npt.NDArray[np.float64]

#: Variance of a leaf that is not known, in units of the largest one that is.
_UNKNOWN: Final = 1e12
#: A forecast's deviation is at least this share of its median, and this much.
LEAST_SHARE: Final = 0.02
LEAST_BPS: Final = 1000.0
#: The quartiles say the deviation: they are there whatever the tails do.
QUARTILES: Final = (0.25, 0.75)
#: Rounds in which children that would go below 0 are set to 0 and their siblings share again.
_ROUNDS: Final = 30


def point_forecast(forecast: Forecast, parent: npt.ArrayLike) -> Doubles:
    """The medians of a forecast, made to add up; shape (S, H), bit/s.

    Variances come from the distance of the quartiles. Siblings are taken to err together, so that their
    sum is less sure than were they independent: that left upper levels better, as medians of skewed demands add up to too
    little. One figure for all quantiles is a guess, however narrow it looks: its deviation counts as large
    as the figure. A guess of 0 counts as not known.

    parent : shape (S,), row of the forecast that holds each pool; -1 at a root. Parents come first.
    """
    point, deviation = _point_and_deviation(forecast)
    above = np.asarray(parent, np.int64)
    _check_parent(above, len(point))
    return reconcile(point, deviation * _of_siblings(deviation, above), above)


def shared_out(total_bps: npt.ArrayLike, parts: Forecast, complete: bool) -> Doubles:
    """The medians of parts of one pool, made to add up to its figure; shape (n, H), bit/s, >= 0.

    The pool's figure stands; each part moves as far as it is unsure.

    total_bps : shape (H,), >= 0. complete : False where the parts are not all of it: what is left is somebody
    else's, and only parts that are together more than the total have to give.
    """
    point, deviation = _point_and_deviation(parts)
    total = np.asarray(total_bps, np.float64)
    rest = np.full((0 if complete else 1, len(total)), np.nan)
    # Next to nothing, beside which every part gives way.
    sure = np.full((1, len(total)), LEAST_BPS * 1e-9)
    figures = np.concatenate([total[None], point, rest])
    variance = np.concatenate([sure, deviation * np.nansum(deviation, axis=0), rest])
    parent = np.zeros(len(figures), np.int64)
    parent[0] = -1
    return reconcile(figures, variance, parent)[1 : 1 + len(point)]


def _point_and_deviation(forecast: Forecast) -> tuple[Doubles, Doubles]:
    """The medians and how far demand deviates from them, shapes (S, H); NaN: not known."""
    low, middle, high = (nearest(forecast.quantile, level) for level in (0.25, 0.5, 0.75))
    point = forecast.demand_bps[..., middle].astype(np.float64)
    deviation = np.zeros(point.shape)
    if low < high:
        normal = NormalDist()
        apart = normal.inv_cdf(forecast.quantile[high]) - normal.inv_cdf(forecast.quantile[low])
        deviation = (forecast.demand_bps[..., high] - forecast.demand_bps[..., low]) / np.float64(apart)
    deviation = np.maximum(deviation, np.maximum(LEAST_SHARE * point, LEAST_BPS))
    guess = forecast.rung > Rung.ARCHETYPE
    deviation[guess] = np.where(point[guess] > 0, point[guess], np.nan)
    return point, deviation


def _of_siblings(deviation: Doubles, parent: Ints) -> Doubles:
    """The sum of all siblings' deviations, shape (S, H); at a root its own."""
    child = parent >= 0
    known = np.nan_to_num(deviation[child])
    total = np.stack([np.bincount(parent[child], column, len(parent)) for column in known.T], axis=1)
    return np.where(child[:, None], total[parent], deviation)


def reconcile(point_bps: npt.ArrayLike, variance: npt.ArrayLike, parent: npt.ArrayLike) -> Doubles:
    """The figures nearest to these in which every parent is the sum of its children.

    Nearest is the sum of squared changes over variances. Children never go below 0: one that would is 0, and its
    siblings share their parent's figure again. Additivity holds whatever is given, to the rounding of a sum.

    Parameters
    ----------
    point_bps : shape (S, ...)    >= 0; NaN: not known.
    variance : same shape         > 0; NaN or infinite: its figure gives way to all that is known. A
                                  parent that is not known is what its children are; children that
                                  are not known share equally what is left of their parent, and are 0
                                  where nothing is.
    parent : shape (S,)           Row of the parent, before its children; -1 at a root. Any number of trees.

    Returns
    -------
    shape (S, ...), bit/s, >= 0.

    Raises
    ------
    ValueError : when shapes do not fit, a parent does not come first, or a bound is broken.
    """
    point, spread = np.asarray(point_bps, np.float64), np.asarray(variance, np.float64)
    above = np.asarray(parent, np.int64)
    _check(point, spread, above)
    # A series in a column: sums then run over adjacent memory.
    flat, unsure = (values.reshape(len(above), prod(point.shape[1:])).T.copy() for values in (point, spread))
    known = np.isfinite(flat) & np.isfinite(unsure)
    leaf = np.bincount(above[above >= 0], minlength=len(above)) == 0
    far = _UNKNOWN * unsure[known].max(initial=1.0)
    estimate = np.where(np.isfinite(flat), flat, 0.0)
    unsure = np.where(known, unsure, np.where(leaf, far, np.inf))
    families = _families(above)
    totals = [_upward(one, estimate, unsure) for one in reversed(families)][::-1]
    for family, (total, spread_below) in zip(families, totals, strict=True):
        _downward(family, estimate, unsure, total, spread_below)
    for family in reversed(families):
        # What rounding took is given back: the sum is the sum.
        estimate[:, family.parents] = family.sums(estimate[:, family.rows])
    return np.ascontiguousarray(estimate.T).reshape(point.shape)


@dataclass(frozen=True)
class _Families:
    """The pools of one depth, with their parents."""

    #: shape (n,)
    rows: Ints
    #: shape (m,): the parents, each once; and shape (n,): which of them each row belongs to.
    parents: Ints
    of: Ints

    def sums(self, values: Doubles) -> Doubles:
        """Sums over siblings, shape (H, m), of values of shape (H, n)."""
        return np.stack([np.bincount(self.of, row, len(self.parents)) for row in values])


def _families(parent: Ints) -> list[_Families]:
    """The depths of the tree below its roots, from the top."""
    found = []
    rows = np.flatnonzero(parent >= 0)
    inside = parent < 0
    place = np.empty(len(parent), np.int64)
    while rows.size:
        here = inside[parent[rows]]
        now, rows = rows[here], rows[~here]
        held = np.zeros(len(parent), np.bool_)
        held[parent[now]] = True
        parents = np.flatnonzero(held)
        place[parents] = np.arange(len(parents))
        found.append(_Families(now, parents, place[parent[now]]))
        inside = np.zeros(len(parent), np.bool_)
        inside[now] = True
    return found


def _upward(family: _Families, estimate: Doubles, unsure: Doubles) -> tuple[Doubles, Doubles]:
    """Combine the parents' own figures with their children's; gives the sums of the children's and of variances."""
    total = family.sums(estimate[:, family.rows])
    below = family.sums(unsure[:, family.rows])
    own = unsure[:, family.parents]
    # As a share of own / (own + below), written so that an infinite variance gives 1.
    gain = 1 / (1 + below / own)
    estimate[:, family.parents] += gain * (total - estimate[:, family.parents])
    unsure[:, family.parents] = gain * below
    return total, below


def _downward(family: _Families, estimate: Doubles, unsure: Doubles, total: Doubles, below: Doubles) -> None:
    """Share each parent's figure out to its children."""
    wanted = estimate[:, family.parents]
    made, moves = estimate[:, family.rows], unsure[:, family.rows]
    result = made + moves * ((wanted - total) / below)[:, family.of]
    for _ in range(_ROUNDS):
        # Projection on what is >= 0 and adds up (Michelot, 1986): who falls below 0 stays at 0.
        negative = result < 0
        if not negative.any():
            break
        made, moves = np.where(negative, 0.0, made), np.where(negative, 0.0, moves)
        left = family.sums(moves)
        step = (wanted - family.sums(made)) / np.where(left > 0, left, np.inf)
        result = made + moves * step[:, family.of]
    estimate[:, family.rows] = np.maximum(result, 0)


def _check(point: Doubles, variance: Doubles, parent: Ints) -> None:
    n = len(point)
    if variance.shape != point.shape:
        raise ValueError(f"variance must have shape {point.shape}, got {variance.shape}")
    _check_parent(parent, n)
    if (point < 0).any():
        raise ValueError(f"point_bps must be >= 0, got {np.nanmin(point):g}")
    if (variance <= 0).any():
        raise ValueError(f"variance must be > 0, got {np.nanmin(variance):g}")


def _check_parent(parent: Ints, n: int) -> None:
    if parent.shape != (n,):
        raise ValueError(f"parent must have shape ({n},), got {parent.shape}")
    late = (parent >= np.arange(n)) | (parent < -1)
    if late.any():
        row = int(late.argmax())
        raise ValueError(f"parent must be -1 or an earlier row, got {parent[row]} in row {row}")
