"""How unlikely a measurement was under its forecast, far beyond the outermost quantile.

Between quantiles the distribution is interpolated. Beyond them a tail is learnt: how
often each series passes the outermost quantile, how far, and what shape such
excesses have in all series of its level: a generalised Pareto law fitted by probability-weighted moments (Hosking and
Wallis, Technometrics 29, 1987). What a single series has not shown yet is borrowed from its level.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

#: Excesses that a level's shape is fitted to: the latest ones.
RING: Final = 4096
#: The shape's bounds: bounded tails are treated as exponential, and means must exist.
SHAPE_BOUNDS: Final = (0.0, 0.9)
#: Before anything was seen: the shape that bursty traffic tends to, counted as so many excesses.
PRIOR_SHAPE: Final = 0.2
PRIOR_EXCESSES: Final = 30.0
#: Samples, and excesses, for which a level's average counts in a series' own.
BORROWED_SAMPLES: Final = 200.0
BORROWED_EXCESSES: Final = 10.0
#: Mean excess in spreads before anything was seen: that of an exponential law whose spread
#: is the distance from the median to the 98 % quantile.
PRIOR_EXCESS: Final = 0.31
#: What is rarer than this share of the budget is learnt as if it were not. The budget itself
#: would be too near: cutting off what just passes makes a heavy tail look light (1.5 times the false alarms on Pareto 3).
DOUBTED: Final = 0.1
#: One excess counts for no more than this many spreads in its level's mean.
MOST_EXCESS: Final = 100.0


@dataclass
class Rows:
    """Columns with one entry a series, which follow their series when columns are re-ordered."""

    @classmethod
    def fresh(cls, n: int) -> Self:
        """Rows for ``n`` series of which nothing is known."""
        raise NotImplementedError

    def aligned(self, place: Ints) -> Self:
        """The rows at ``place``, shape (S,); fresh ones where it is -1."""
        rows = self.fresh(len(place))
        known = place >= 0
        for field in fields(self):
            getattr(rows, field.name)[known] = getattr(self, field.name)[place[known]]
        return rows


@dataclass
class _Own(Rows):
    """What each series has shown, fading."""

    samples: F64
    excesses: F64
    #: Sum of excesses in spreads.
    total: F64

    @classmethod
    def fresh(cls, n: int) -> _Own:
        return cls(np.zeros(n), np.zeros(n), np.zeros(n))


class _Level:
    """What all series of a level have shown: rate, mean and shape of their excesses."""

    def __init__(self, rate: float) -> None:
        self.samples, self.excesses = BORROWED_SAMPLES, BORROWED_SAMPLES * rate
        self.total = self.excesses * PRIOR_EXCESS
        self.scale, self.shape = 1.0 - PRIOR_SHAPE, PRIOR_SHAPE
        self._ring = np.empty(RING)
        self._seen = 0
        self._fitted = 0

    def learn(self, samples: float, excess: F64, ratio: F64, fade: float) -> None:
        self.samples = self.samples * fade + samples
        self.excesses = self.excesses * fade + len(excess)
        self.total = self.total * fade + float(np.minimum(excess, MOST_EXCESS).sum())
        ratio = ratio[-RING:]
        self._ring[(self._seen + np.arange(len(ratio))) % RING] = ratio
        self._seen += len(ratio)
        if self._seen - self._fitted >= max(8, min(self._seen, RING) // 16):
            self.scale, self.shape = _pareto(self._ring[: min(self._seen, RING)])
            self._fitted = self._seen


def _pareto(excess: F64) -> tuple[float, float]:
    """Scale and shape of a generalised Pareto law, the shape drawn to ``PRIOR_SHAPE`` where few are known."""
    ordered = np.sort(excess)
    n = len(ordered)
    mean = float(ordered.mean())
    exceeding = 1 - (np.arange(1, n + 1) - 0.35) / n
    weighted = float((exceeding * ordered).mean())
    if not 0 < 2 * weighted < mean:
        # Lighter than exponential throughout, or all alike.
        shape = SHAPE_BOUNDS[0]
    else:
        shape = float(np.clip(2 - mean / (mean - 2 * weighted), *SHAPE_BOUNDS))
    shape = (n * shape + PRIOR_EXCESSES * PRIOR_SHAPE) / (n + PRIOR_EXCESSES)
    return max(mean * (1 - shape), 1e-9), shape


class Tail:
    """The law of excesses over a threshold that is passed at about ``rate``, by series and level."""

    def __init__(self, rate: float, memory_steps: float) -> None:
        self._rate = rate
        self._fade = float(np.exp(-1 / memory_steps))
        self._own = _Own.fresh(0)
        self._levels: dict[int, _Level] = {}

    def align(self, place: Ints) -> None:
        """Follow the series to their new columns; see ``Rows.aligned``."""
        self._own = self._own.aligned(place)

    def probability(self, level: Ints, excess: F64) -> F64:
        """How probable so much or more was, shape (S,); NaN where ``excess`` is not > 0."""
        probability = np.full(len(excess), np.nan)
        at = np.flatnonzero(excess > 0)
        rate, unit, scale, shape = self._law(level, at)
        reach = np.log1p(shape * excess[at] / unit / scale)
        with np.errstate(divide="ignore", invalid="ignore"):
            exponent = np.where(shape > 1e-6, reach / shape, excess[at] / unit / scale)
        probability[at] = rate * np.exp(-np.minimum(exponent, 690.0))
        return probability

    def learn(self, level: Ints, excess: F64, known: Bools, budget: float) -> None:
        """Take in this step where it is ``known``; ``excess`` counts where it is > 0.

        An excess far rarer than ``budget`` counts as a smaller one, so that anomalies do not
        make their like look normal, and yet a law that is too tight widens.
        """
        at = np.flatnonzero(known & (excess > 0))
        rate, unit, scale, shape = self._law(level, at)
        thin = np.maximum(rate / (DOUBTED * budget), 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            most = np.where(shape > 1e-6, np.expm1(shape * np.log(thin)) / shape, np.log(thin))
        taken = np.minimum(excess[at], most * unit * scale)
        for one in np.unique(level[known]).tolist():
            mine = level[at] == one
            samples = float(np.count_nonzero(known & (level == one)))
            # A step of a thousand series must not fade a thousand times faster than one of a single series.
            self._level(one).learn(samples, taken[mine], (taken / unit)[mine], self._fade)
        own = self._own
        for column in (own.samples, own.excesses, own.total):
            column[known] *= self._fade
        own.samples[known] += 1
        own.excesses[at] += 1
        own.total[at] += taken

    def _level(self, level: int) -> _Level:
        return self._levels.setdefault(level, _Level(self._rate))

    def _law(self, level: Ints, at: Ints) -> tuple[F64, F64, F64, F64]:
        """Rate of excesses, each series' mean excess, and scale and shape in units of that; shape (n,)."""
        known, of = np.unique(level[at], return_inverse=True)
        levels = [self._level(one) for one in known.tolist()]

        def column(values: list[float]) -> F64:
            return np.asarray(values, np.float64)[of]

        rate = column([one.excesses / one.samples for one in levels])
        mean = column([max(one.total, 1e-9) / max(one.excesses, 1e-9) for one in levels])
        own = self._own
        rate = (own.excesses[at] + BORROWED_SAMPLES * rate) / (own.samples[at] + BORROWED_SAMPLES)
        unit = (own.total[at] + BORROWED_EXCESSES * mean) / (own.excesses[at] + BORROWED_EXCESSES)
        return rate, unit, column([one.scale for one in levels]), column([one.shape for one in levels])


def at_least(value: F64, forecast: F64, quantile: F64) -> F64:
    """P(X >= value) between the quantiles, shape (S,); its upper bound where the forecast has an atom.

    forecast : shape (S, K), rising along K. Beyond the highest quantile its own probability is given.
    """
    below = np.zeros(len(value), np.int64)
    for k in range(len(quantile)):
        below += value > forecast[:, k]
    reached: F64 = 1 - _between(value, forecast, quantile, below, 0.0)
    return reached


def at_most(value: F64, forecast: F64, quantile: F64) -> F64:
    """P(X <= value), as ``at_least``; below the lowest quantile its own probability is given."""
    reached = np.zeros(len(value), np.int64)
    for k in range(len(quantile)):
        reached += value >= forecast[:, k]
    most: F64 = np.maximum(_between(value, forecast, quantile, reached, 1.0), quantile[0])
    return most


def _between(value: F64, forecast: F64, quantile: F64, passed: Ints, beyond: float) -> F64:
    """The distribution function where ``passed`` quantiles lie below; ``beyond`` = 1 where it ends at 1."""
    n = len(quantile)
    row = np.arange(len(value))
    low, high = np.maximum(passed - 1, 0), np.minimum(passed, n - 1)
    left, right = forecast[row, low], forecast[row, high]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(right > left, (value - left) / (right - left), 0.0)
    inside: F64 = quantile[low] + np.clip(part, 0, 1) * (quantile[high] - quantile[low])
    inside = np.where(passed == 0, 0.0, inside)
    whole: F64 = np.where(passed == n, max(beyond, float(quantile[-1])), inside)
    return whole
