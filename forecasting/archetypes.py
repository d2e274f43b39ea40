"""A forecast for those about whom little is known: as others of their kind did.

An archetype keeps what its members did after a stretch of a few samples, as
equally likely outcomes in units of that stretch, apart by how much the stretch
carried: ten times a megabit is rare, ten times a kilobit is not. A newcomer belongs to each
archetype of its level with a probability, the archetypes' shares at first and
its own behaviour more and more, and is forecast by the mixture of their
outcomes. Without known archetypes a level is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.burstiness import QUIET_SHARE
from forecasting.history import Bools, Floats, Ints

Doubles = npt.NDArray[np.float64]

#: Numbers of own samples told apart; a newcomer takes the largest it can fill.
SAMPLES: Final = (0, 1, 2, 4, 8, 16)
#: A series without a sample in as many rows is no newcomer but silent.
FRESH_STEPS: Final = 8
#: Weight of a sample against the one after it, where a stretch is averaged.
DECAY: Final = 0.7
#: Fewer peers than this are not a population.
MIN_PEERS: Final = 3
#: Peers looked at per archetype, and stretches of all of them: enough for a q98 near each rate.
MAX_PEERS: Final = 256
MAX_STRETCHES: Final = 4096
#: Rates by which stretches are told apart, at even quantiles of all stretches of a level; each
#: is served by the stretches nearest to it, this share of all and no fewer than this.
RATES: Final = 12
_NEAR_SHARE: Final = 1.5 / RATES
_LEAST_NEAR: Final = 96
#: Equally likely outcomes kept of each distribution.
DRAWS: Final = 64
#: Share of the level's median demand added to the unit: idle stretches would make
#: ratios infinite otherwise.
EASE: Final = 0.05
#: A probability of membership is rounded to this many parts, so that the few mixtures
#: that differ are each made once.
PARTS: Final = 4
#: Early features hang together; counted in full each would make membership too sure.
TEMPER: Final = 0.5
#: What ``early`` looks at, and the least deviation that is believed of each.
EARLY: Final = ("log_mean", "change", "peakiness", "idle_share")
_LEAST_DEVIATION: Final = np.array([0.2, 0.1, 0.1, 0.1])
#: Residuals beyond as many units do not decide between last value and mean.
_RESIDUAL_BOUND: Final = 5.0
_CHUNK_MIXTURES: Final = 128


@dataclass(frozen=True)
class Early:
    """What can be said of series with a few samples."""

    #: shape (n,), samples in the latest ``SAMPLES[-1]`` rows.
    count: Ints
    #: shape (n,), bit/s; 0 without a sample.
    last_bps: Floats
    mean_bps: Floats
    #: shape (n, len(EARLY))
    feature: Doubles


@dataclass(frozen=True)
class Archetypes:
    """A archetypes in L levels; levels with too few peers have none."""

    #: shape (K,)
    quantile: Doubles
    #: shape (A,), rising.
    level: Ints
    #: shape (A,), sums to 1 in each level.
    prior: Doubles
    #: shape (A, len(SAMPLES), RATES, H, DRAWS), rising; units of the stretch, or bit/s in the row of 0 samples.
    outcome: Floats
    #: shape (L, len(SAMPLES), RATES, H): weight of the last value in the origin of outcomes; the mean
    #: has the rest.
    pull: Doubles
    #: shape (L,), bit/s.
    ease_bps: Doubles
    #: shape (L, RATES), bit/s, rising.
    rate_bps: Doubles
    #: shape (A, len(SAMPLES), len(EARLY)): mean and deviation of the members' early features.
    early_mean: Doubles
    early_deviation: Doubles

    @property
    def empty(self) -> bool:
        """Whether no level has an archetype."""
        return len(self.level) == 0

    def forecast(self, demand_bps: Floats, level: Ints) -> Floats:
        """Quantiles of shape (n, H, K), bit/s; NaN for levels without an archetype.

        demand_bps : shape (T, n), what the newcomers have; NaN where nothing.
        """
        result = np.full((len(level), self.outcome.shape[3], len(self.quantile)), np.nan, np.float32)
        seen = early(demand_bps)
        bucket = _bucket(seen.count)
        for one in np.intersect1d(level, self.level):
            at = np.flatnonzero(level == one)
            rows = np.flatnonzero(self.level == one)
            mean, last = seen.mean_bps[at, None], seen.last_bps[at, None]
            samples = bucket[at]
            rate = np.where(samples > 0, _nearest(self.rate_bps[one], mean[:, 0]), 0)
            parts = _rounded(self._membership(rows, samples, seen.feature[at]))
            shape, which = np.unique(np.column_stack([samples, rate, parts]), axis=0, return_inverse=True)
            table = self._mixtures(rows, shape[:, 0], shape[:, 1], shape[:, 2:])[which.reshape(-1)]
            own = (samples > 0)[:, None]
            pull = self.pull[one, samples, rate]
            origin = np.where(own, pull * last + (1 - pull) * mean, 0)
            unit = np.where(own, mean + self.ease_bps[one], 1.0)
            result[at] = np.maximum(origin[:, :, None] + unit[:, :, None] * table, 0)
        return result

    def membership(self, demand_bps: Floats, level: Ints) -> Doubles:
        """Probability of each archetype, shape (n, A); rows of unknown levels are 0."""
        result = np.zeros((len(level), len(self.level)))
        seen = early(demand_bps)
        bucket = _bucket(seen.count)
        for one in np.intersect1d(level, self.level):
            at = np.flatnonzero(level == one)
            rows = np.flatnonzero(self.level == one)
            result[np.ix_(at, rows)] = self._membership(rows, bucket[at], seen.feature[at])
        return result

    def _membership(self, rows: Ints, bucket: Ints, feature: Doubles) -> Doubles:
        mean = self.early_mean[rows][:, bucket].transpose(1, 0, 2)
        deviation = self.early_deviation[rows][:, bucket].transpose(1, 0, 2)
        return posterior(self.prior[rows], feature, mean, deviation, TEMPER)

    def _mixtures(self, rows: Ints, bucket: Ints, rate: Ints, parts: Ints) -> Floats:
        """Quantiles of mixtures, shape (n, H, K), in the outcomes' units; parts has shape (n, a)."""
        n_horizons = self.outcome.shape[3]
        result = np.empty((len(bucket), n_horizons, len(self.quantile)), np.float32)
        for start in range(0, len(bucket), _CHUNK_MIXTURES):
            part = slice(start, start + _CHUNK_MIXTURES)
            outcome = self.outcome[rows][:, bucket[part], rate[part]].transpose(1, 2, 0, 3)
            weight = np.repeat(parts[part] / (PARTS * DRAWS), DRAWS, axis=1)
            flat = outcome.reshape(len(outcome), n_horizons, -1)
            result[part] = _weighted_quantiles(flat, weight, self.quantile)
        return result


def learn_archetypes(
    demand_bps: Floats,
    level: Ints,
    is_peer: Bools,
    horizon_steps: Ints,
    quantile: Doubles,
    rng: np.random.Generator,
    *,
    group: Ints | None = None,
) -> Archetypes:
    """Archetypes of each level, from the series that have history.

    Horizons that reach beyond the window use the longest that fits.

    Parameters
    ----------
    demand_bps : shape (T, S)   NaN is a gap.
    level : shape (S,)          >= 0.
    is_peer : shape (S,)        True for series with enough history to learn from.
    group : shape (S,)          Which archetype of its level a series belongs to, 0 .. ; one each if not given.
    """
    group = np.zeros(len(level), np.int64) if group is None else group
    n_levels = int(level.max(initial=-1)) + 1
    pull = np.ones((n_levels, len(SAMPLES), RATES, len(horizon_steps)))
    rate = np.zeros((n_levels, RATES))
    ease = np.ones(n_levels)
    of_level: list[int] = []
    prior: list[float] = []
    kinds: list[_Kind] = []
    for one in range(n_levels):
        peers = np.flatnonzero(is_peer & (level == one))
        if len(peers) < MIN_PEERS or demand_bps.shape[0] < 2 or np.isnan(demand_bps[:, peers]).all():
            continue
        ease[one] = max(EASE * float(np.nanmedian(demand_bps[:, _some(peers, rng)])), 1.0)
        present = np.unique(group[peers])
        members = [_some(peers[group[peers] == which], rng) for which in present]
        drawn = [_Stretches.of(demand_bps[:, some], horizon_steps) for some in members]
        rate[one] = _rates(drawn)
        near = [[_near(seen.mean_bps, rate[one]) for seen in part.seen] for part in drawn]
        pull[one] = _pull(drawn, near, ease[one])
        kinds += [_kind(*each, pull[one], ease[one]) for each in zip(drawn, near, strict=True)]
        prior += [float((group[peers] == which).mean()) for which in present]
        of_level += [one] * len(present)
    n, shape = len(kinds), (len(SAMPLES), RATES, len(horizon_steps), DRAWS)
    return Archetypes(
        quantile=np.asarray(quantile, np.float64),
        level=np.array(of_level, np.int64),
        prior=np.array(prior, np.float64),
        outcome=np.array([kind.outcome for kind in kinds], np.float32).reshape(n, *shape),
        pull=pull,
        ease_bps=ease,
        rate_bps=rate,
        early_mean=np.array([kind.mean for kind in kinds]).reshape(n, len(SAMPLES), len(EARLY)),
        early_deviation=np.array([kind.deviation for kind in kinds]).reshape(n, len(SAMPLES), len(EARLY)),
    )


def early(demand_bps: Floats) -> Early:
    """What the latest ``SAMPLES[-1]`` rows say of each series.

    demand_bps : shape (T, n); NaN is a gap.
    """
    recent = np.asarray(demand_bps[-SAMPLES[-1] :], np.float32)
    present = np.isfinite(recent)
    known = np.where(present, recent, np.float32(0))
    count = np.count_nonzero(present, axis=0)
    at_least_one = np.maximum(count, 1)
    weight = present * DECAY ** np.arange(len(recent) - 1, -1, -1.0)[:, None]
    mean = (weight * known).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-9)
    # The row of the latest sample; with none, any row: it holds a 0.
    latest = len(recent) - 1 - present[::-1].argmax(axis=0) if len(recent) else np.zeros(0, np.int64)
    last = known[latest, np.arange(known.shape[1])] if len(recent) else np.zeros(known.shape[1], np.float32)
    plain = known.sum(axis=0, dtype=np.float64) / at_least_one
    safe = np.where(plain > 0, plain, 1)
    pair = present[1:] & present[:-1]
    step = np.abs(np.diff(known, axis=0)) * pair
    change = step.sum(axis=0, dtype=np.float64) / np.maximum(np.count_nonzero(pair, axis=0), 1) / safe
    peak = known.max(axis=0, initial=0)
    peakiness = np.where(peak > 0, 1 - plain / np.where(peak > 0, peak, 1), 0)
    quiet = (present & (known <= np.float32(QUIET_SHARE) * plain)).sum(axis=0) / at_least_one
    # Below 1 kbit/s size says nothing. Roots and logarithms make what is left more nearly normal.
    feature = np.column_stack([np.log10(plain + 1e3), np.sqrt(change), peakiness, quiet])
    return Early(count, last, mean.astype(np.float32), feature)


def posterior(prior: Doubles, value: Doubles, mean: Doubles, deviation: Doubles, temper: float) -> Doubles:
    """Probability of each kind given independent normal features, shape (n, a).

    Parameters
    ----------
    prior : shape (a,)               Sums to 1.
    value : shape (n, f)
    mean, deviation : shape (n, a, f) or what broadcasts to it.
    temper :                         Power of the likelihood, in (0, 1]; below 1 it is less sure.
    """
    z = (value[:, None, :] - mean) / deviation
    log = np.log(np.maximum(prior, 1e-12)) - temper * (z**2 / 2 + np.log(deviation)).sum(axis=2)
    log -= log.max(axis=1, keepdims=True)
    weight = np.exp(log)
    result: Doubles = weight / weight.sum(axis=1, keepdims=True)
    return result


@dataclass(frozen=True)
class _Stretches:
    """Sampled stretches of one archetype's members, for each number of samples."""

    seen: list[Early]
    #: For each number of samples: shape (H, m), bit/s, what came; NaN where unknown.
    came: list[Floats]

    @classmethod
    def of(cls, demand: Floats, horizon_steps: Ints) -> _Stretches:
        n_steps, at_most = demand.shape[0], MAX_STRETCHES // demand.shape[1]
        seen, came = [], []
        for n_samples in SAMPLES:
            # A young window cannot hold both; the shorter stretch is still a fair sample.
            stretch = min(max(n_samples, 1), n_steps - 1)
            ahead = np.minimum(horizon_steps, n_steps - stretch)
            cutoffs = _spread_out(stretch - 1, n_steps - int(ahead.max()), at_most)
            before = demand[cutoffs - np.arange(stretch - 1, -1, -1)[:, None]].reshape(stretch, -1)
            after = demand[cutoffs + ahead[:, None]].reshape(len(ahead), -1)
            whole = np.isfinite(before).all(axis=0)
            seen.append(early(before[:, whole]))
            came.append(after[:, whole])
        return cls(seen, came)


@dataclass(frozen=True)
class _Kind:
    outcome: Floats
    mean: Doubles
    deviation: Doubles


#: For each rate, which stretches are nearest to it.
_Near = list[Ints]


def _kind(drawn: _Stretches, near: list[_Near], pull: Doubles, ease: float) -> _Kind:
    n_horizons = len(drawn.came[0])
    outcome = np.zeros((len(SAMPLES), RATES, n_horizons, DRAWS), np.float32)
    outcome[0] = _draws(drawn.came[0])
    mean = np.zeros((len(SAMPLES), len(EARLY)))
    deviation = np.ones((len(SAMPLES), len(EARLY)))
    for row in range(1, len(SAMPLES)):
        seen, came = drawn.seen[row], drawn.came[row]
        for at, some in enumerate(near[row]):
            average = seen.mean_bps[some]
            origin = average + pull[row, at][:, None] * (seen.last_bps[some] - average)
            outcome[row, at] = _draws((came[:, some] - origin) / (average + ease))
        if len(seen.count):
            mean[row] = seen.feature.mean(axis=0)
            deviation[row] = np.maximum(seen.feature.std(axis=0), _LEAST_DEVIATION)
    return _Kind(outcome, mean, deviation)


def _rates(drawn: list[_Stretches]) -> Doubles:
    mean = np.concatenate([seen.mean_bps for part in drawn for seen in part.seen[1:]])
    if len(mean) == 0:
        return np.zeros(RATES)
    rates: Doubles = np.quantile(mean.astype(np.float64), (np.arange(RATES) + 0.5) / RATES)
    return rates


def _nearest(rate_bps: Doubles, value_bps: Floats) -> Ints:
    """Index of the rate whose ratio to each value is nearest to 1."""
    log = np.log(rate_bps + 1)
    # Half-way between equal rates the first is as good as the last.
    return np.searchsorted((log[1:] + log[:-1]) / 2, np.log(np.asarray(value_bps, np.float64) + 1))


def _near(mean_bps: Floats, rate_bps: Doubles) -> _Near:
    order = np.argsort(mean_bps, kind="stable")
    n = len(order)
    wide = min(max(int(n * _NEAR_SHARE), _LEAST_NEAR), n)
    first = np.searchsorted(mean_bps[order], rate_bps) - wide // 2
    return [order[start : start + wide] for start in np.clip(first, 0, n - wide)]


def _pull(drawn: list[_Stretches], near: list[list[_Near]], ease: float) -> Doubles:
    """How far, of the way from mean to last value, outcomes lie on average: least squares, 0 .. 1."""
    result = np.ones((len(SAMPLES), RATES, len(drawn[0].came[0])))
    for row in range(1, len(SAMPLES)):
        for rate in range(RATES):
            product, square = 0.0, 0.0
            for one, near_one in zip(drawn, near, strict=True):
                some = near_one[row][rate]
                seen, came = one.seen[row], one.came[row][:, some]
                unit = seen.mean_bps[some] + np.float32(ease)
                x = _bounded((seen.last_bps[some] - seen.mean_bps[some]) / unit)
                y = _bounded((came - seen.mean_bps[some]) / unit)
                known = np.isfinite(y)
                product = product + np.where(known, x * y, 0).sum(axis=1)
                square = square + (known * x**2).sum(axis=1)
            result[row, rate] = np.where(
                square > 0, np.clip(product / np.where(square > 0, square, 1), 0, 1), 1
            )
    return result


def _bounded(value: Floats) -> Floats:
    return np.clip(value, -_RESIDUAL_BOUND, _RESIDUAL_BOUND)


def _draws(value: Floats) -> Floats:
    """``DRAWS`` evenly spaced quantiles of each row, NaN skipped; 0 where a row has nothing."""
    ordered = np.sort(value, axis=1)
    known = np.count_nonzero(~np.isnan(ordered), axis=1)
    if ordered.shape[1] == 0:
        return np.zeros((len(value), DRAWS), np.float32)
    place = (np.arange(DRAWS) + 0.5) / DRAWS * known[:, None] - 0.5
    place = np.clip(place, 0, np.maximum(known - 1, 0)[:, None])
    low = np.floor(place).astype(np.intp)
    high = np.minimum(low + 1, np.maximum(known - 1, 0)[:, None])
    share = (place - low).astype(np.float32)
    found = np.take_along_axis(ordered, low, 1) * (1 - share) + np.take_along_axis(ordered, high, 1) * share
    return np.where(known[:, None] > 0, found, np.float32(0))


def _weighted_quantiles(value: Floats, weight: Doubles, quantile: Doubles) -> Floats:
    """Quantiles along the last axis: value (n, H, m), weight (n, m) summing to 1; shape (n, H, K)."""
    held = np.count_nonzero(weight > 0, axis=1)[:, None]
    # What has no weight goes to the end, where no quantile lies.
    value = np.where(weight[:, None] > 0, value, np.float32(np.inf))
    order = np.argsort(value, axis=2)
    ordered = np.take_along_axis(value, order, 2)
    each = np.take_along_axis(np.broadcast_to(weight[:, None], value.shape), order, 2)
    # Each outcome stands at the middle of its own weight; between two of them it is a straight line.
    middle = np.cumsum(each, axis=2) - each / 2
    result = np.empty((*value.shape[:2], len(quantile)), np.float32)
    for k, q in enumerate(quantile):
        below = np.count_nonzero(middle <= q, axis=2)
        pair = np.stack([np.maximum(below - 1, 0), np.minimum(below, held - 1)], axis=2)
        x0, x1 = np.moveaxis(np.take_along_axis(middle, pair, 2), 2, 0)
        y0, y1 = np.moveaxis(np.take_along_axis(ordered, pair, 2), 2, 0)
        share = np.clip((q - x0) / np.maximum(x1 - x0, 1e-12), 0, 1)
        result[..., k] = y0 + (y1 - y0) * share
    return result


def _rounded(probability: Doubles) -> Ints:
    """Whole parts of ``PARTS`` that sum to it in each row, by largest remainder."""
    exact = probability * PARTS
    parts = np.floor(exact).astype(np.int64)
    missing = PARTS - parts.sum(axis=1)
    rank = np.argsort(np.argsort(-(exact - parts), axis=1, kind="stable"), axis=1)
    rounded: Ints = parts + (rank < missing[:, None])
    return rounded


def _bucket(count: Ints) -> Ints:
    return np.searchsorted(SAMPLES, count, side="right") - 1


def _some(peers: Ints, rng: np.random.Generator) -> Ints:
    return peers if len(peers) <= MAX_PEERS else rng.choice(peers, MAX_PEERS, replace=False)


def _spread_out(first: int, stop: int, at_most: int) -> Ints:
    """At most so many rows in [first, stop), evenly spaced, the latest among them."""
    stride = max((stop - first) // at_most, 1)
    return np.arange(stop - 1, first - 1, -stride, dtype=np.int64)[:at_most]
