"""What announced events do to demand: learnt from events of the same kind, and never taken for certain.

A forecast that was made before an event knows nothing of it; one that was made
in the middle of it has seen the new level already. So an event acts on a
forecast by its *phase*: where its start or end lies between what the forecast
knew and what it speaks of. What each kind of event did in each phase is kept as
the logarithm of demand over the median of the forecast that ignored the event.

One event is one observation, however long: its minutes rise and fall together.
The event's own figure is the mean over its steps of the median over its series.
With ``n`` past events of mean ``x`` and a prior worth ``PRIOR_EVENTS`` events::

    mean     = (PRIOR_EVENTS * m0 + n * x) / (PRIOR_EVENTS + n)
    between  = (SPREAD_EVENTS * s0^2 + scatter around mean) / (SPREAD_EVENTS + n)
    variance = between * (1 + 1 / (PRIOR_EVENTS + n)) + within

``m0`` is what was announced, or 0; ``s0`` the phase's ``PRIOR_SPREAD``; ``within`` how
much more the series of past events scattered than their forecasts had expected.
This is the usual conjugate shrinkage of a normal mean and variance (Gelman and
others, Bayesian Data Analysis, 3rd edition, section 3.3) with the t taken for a normal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forecasting.event import MAX_TEXT, MAX_UPLIFT, MIN_UPLIFT, Event
from forecasting.forecast import Doubles, Floats

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Phases = npt.NDArray[np.int8]

#: What was announced counts as much as this many events that were seen.
PRIOR_EVENTS: Final = 1.0
#: The spread taken before any was seen counts as much as that of so many events.
SPREAD_EVENTS: Final = 2.0
#: Where several events meet, together they move a forecast by no more than this, in logarithms.
MAX_SHIFT: Final = math.log(100.0)
MAX_SIGMA: Final = 2.0
#: Below this, demand and forecast are both idle, and their ratio says nothing.
IDLE_BPS: Final = 10_000.0
#: Logarithms over a smaller median would not fit single precision.
_IDLE_MEDIAN_BPS: Final = np.float32(1)
#: Series moved at once: they stay in the CPU's cache.
_CHUNK_ROWS: Final = 2048
#: With fewer series their scatter cannot be told from chance.
_SCATTER_SERIES: Final = 4
#: Of a normal distribution: from its middle half to its standard deviation.
_IQR: Final = 1.349
MAX_KINDS: Final = 256
NO_PHASE: Final = -1
#: A pool above an event's scope is concerned when so much of its users is in the scope.
SHARE_ABOVE: Final = 0.5


class Phase(IntEnum):
    """Where an event's edges lie between what a forecast knew and what it speaks of."""

    #: It begins in between.
    ONSET = 0
    #: It was on already, and still is.
    DURING = 1
    #: It ends in between.
    AFTER = 2


#: By phase: the factor on the announced logarithm, since demand falls back when an event ends.
_DIRECTION: Final = (1.0, 0.0, -1.0)
#: By phase: how much events of one kind are taken to differ before any was seen, in logarithms. A
#: forecast made during an event has seen its level, so little is left to be unsure of.
PRIOR_SPREAD: Final = (0.35, 0.1, 0.35)


def phases(events: Sequence[Event], known: float, spoken_of: npt.ArrayLike) -> Phases:
    """The phase of each event for what was known until one instant and is said of others.

    known :                          Epoch seconds: the middle of the last step that was seen.
    spoken_of : shape (H,)           Epoch seconds: the middles of the steps that are forecast.

    Returns
    -------
    shape (E, H): a ``Phase``, or ``NO_PHASE``.
    """
    start = np.array([event.start for event in events], np.float64)[:, None]
    end = np.array([event.end for event in events], np.float64)[:, None]
    target = np.asarray(spoken_of, np.float64)[None, :]
    before = (start <= known) & (known < end)
    then = (start <= target) & (target < end)
    result = np.full(then.shape, NO_PHASE, np.int8)
    result[then & ~before] = Phase.ONSET
    result[then & before] = Phase.DURING
    result[~then & before] = Phase.AFTER
    return result


#: Of a user's pool in the tree: below the root, a region and a group.
_USER_DEPTH: Final = 3


class Places:
    """Which pools of a tree an event concerns.

    A scope entry is a path below the root (``west``, ``west/lab``: that pool and all
    below it), ``group:NAME`` (its parts in every region and their users) or ``user:NAME``.
    Pools above are concerned too where at least ``SHARE_ABOVE`` of their users are.

    Parameters
    ----------
    path : n strings               Names joined by ``/`` from the root down, parents first.
    parent : shape (n,)            Row of the pool above; -1 for the root.
    """

    def __init__(self, path: Sequence[str], parent: npt.ArrayLike) -> None:
        self.path = path
        self._parent = np.asarray(parent, np.int64)
        depth = np.array([one.count("/") for one in path], np.int64)
        #: From the users up, row numbers by depth.
        self._rising = [np.flatnonzero(depth == d) for d in range(int(depth.max(initial=0)), 0, -1)]
        self._row = {one.partition("/")[2]: row for row, one in enumerate(path)}
        self._named: dict[str, list[int]] = {}
        for row, one in enumerate(path):
            kind = {_USER_DEPTH - 1: "group", _USER_DEPTH: "user"}.get(int(depth[row]))
            if kind is not None:
                self._named.setdefault(f"{kind}:{one.rpartition('/')[2]}", []).append(row)
        self._leaf = np.ones(len(path), bool)
        self._leaf[self._parent[self._parent >= 0]] = False
        # A user counts once, however many application classes are below it.
        self._leaf = np.where(depth < _USER_DEPTH, self._leaf, depth == _USER_DEPTH)
        self._leaves = self._sum_up(self._leaf)
        self._known: dict[tuple[str, ...], Bools] = {}

    def covered(self, scope: tuple[str, ...]) -> Bools:
        """The pools that a scope concerns, shape (n,). Names that are not there concern nobody."""
        found = self._known.get(scope)
        if found is None:
            found = self._known[scope] = self._find(scope)
        return found

    def top_depth(self, scope: tuple[str, ...]) -> int | None:
        """Depth of the highest pool concerned, 0 for the root; None where there is none."""
        rows = np.flatnonzero(self.covered(scope))
        return self.path[int(rows[0])].count("/") if rows.size else None

    def _find(self, scope: tuple[str, ...]) -> Bools:
        found = np.zeros(len(self.path), bool)
        if not scope:
            found[:] = True
            return found
        for entry in scope:
            found[self._named.get(entry, [])] = True
            row = self._row.get(entry)
            if row is not None:
                found[row] = True
        for rows in reversed(self._rising):
            found[rows] |= found[self._parent[rows]]
        share = self._sum_up(found & self._leaf)
        return found | ((share >= SHARE_ABOVE * self._leaves) & (share > 0))

    def _sum_up(self, marked: Bools) -> Doubles:
        count = marked.astype(np.float64)
        for rows in self._rising:
            count += np.bincount(self._parent[rows], count[rows], len(count))
        return count


@dataclass(frozen=True)
class Effect:
    """What an event is taken to do: the logarithm of its factor on demand, as a normal."""

    mean: float
    variance: float
    #: Past events that it was learnt from; below whole numbers where events overlapped.
    n_events: float = 0.0

    def factor(self, quantile: float = 0.5) -> float:
        """A quantile of the factor on demand."""
        return math.exp(self.mean + NormalDist().inv_cdf(quantile) * math.sqrt(self.variance))


@dataclass
class _Evidence:
    """Past events of one kind in one phase at one level."""

    weight: float = 0.0
    mean: float = 0.0
    #: Sum of squared deviations from the mean.
    scatter: float = 0.0
    within: float = 0.0

    def add(self, value: float, within: float, weight: float) -> None:
        self.weight += weight
        step = value - self.mean
        self.mean += step * weight / self.weight
        self.scatter += weight * step * (value - self.mean)
        self.within += (within - self.within) * weight / self.weight

    def effect(self, prior_mean: float, prior_spread: float) -> Effect:
        n, total = self.weight, PRIOR_EVENTS + self.weight
        mean = (PRIOR_EVENTS * prior_mean + n * self.mean) / total
        # The last term: a prior mean that was wrong is itself a sign that events differ.
        scatter = self.scatter + PRIOR_EVENTS * n / total * (self.mean - prior_mean) ** 2
        between = (SPREAD_EVENTS * prior_spread**2 + scatter) / (SPREAD_EVENTS + n)
        return Effect(mean, between * (1 + 1 / total) + self.within, n)


@dataclass
class _Running:
    """What has been seen so far of one event in one phase at one level."""

    steps: int = 0
    weight: float = 0.0
    mean: float = 0.0
    scatter: float = 0.0
    #: Sums over the steps: scatter over series, and what forecasts expected of it.
    across: float = 0.0
    expected: float = 0.0

    def add(self, value: float, weight: float, across: float, expected: float) -> None:
        self.steps += 1
        self.weight += weight
        step = value - self.mean
        self.mean += step * weight / self.weight
        self.scatter += weight * step * (value - self.mean)
        self.across += across
        self.expected += expected

    def fold(self, into: _Evidence) -> None:
        within = self.scatter / self.weight + (self.across - self.expected) / self.steps
        into.add(self.mean, max(within, 0.0), self.weight / self.steps)


@dataclass
class _Open:
    """An event that is under way, or whose last forecasts have not come due."""

    kind: str
    end: float
    parts: dict[tuple[int, int], _Running] = field(default_factory=dict)


@dataclass(frozen=True)
class Shift:
    """How events move the forecasts of some series."""

    #: shape (R,), rows of the forecast.
    rows: Ints
    #: shape (R, H), of the logarithm.
    mean: Doubles
    variance: Doubles
    #: shape (R, H): False where no event acts.
    acts: Bools


def apply(demand_bps: Floats, quantile: Doubles, shift: Shift | None, max_rate_bps: float = 1e13) -> Floats:
    """The forecast with its events: moved by their mean, and wider by their uncertainty.

    With ``d`` the logarithm of a quantile over the median and ``z`` the normal's quantile of
    the same level, ``d`` becomes ``+-sqrt(d^2 + z^2 variance)``: two independent normal causes.
    A series whose median is below 1 bit/s is moved and not widened.

    Parameters
    ----------
    demand_bps : shape (S, H, K)   Finite, >= 0, not falling along K; left as it is.
    quantile : shape (K,)          Rising, inside (0, 1).

    Returns
    -------
    shape (S, H, K), finite, >= 0, not falling along K; bit for bit as before where no event acts.
    """
    if shift is None or not shift.rows.size:
        return demand_bps
    result = demand_bps.copy()
    for start in range(0, len(shift.rows), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        rows, acts = shift.rows[part], shift.acts[part]
        before = demand_bps[rows]
        moved = _moved(before, quantile, shift.mean[part], shift.variance[part], max_rate_bps)
        result[rows] = np.where(acts[..., None], moved, before)
    return result


def _moved(
    before: Floats, quantile: Doubles, mean: Doubles, variance: Doubles, max_rate_bps: float
) -> Floats:
    """All of (n, H, K) moved and widened; single precision is plenty and several times faster."""
    middle = int(np.argmin(np.abs(quantile - 0.5)))
    mean = np.clip(mean, -MAX_SHIFT, MAX_SHIFT).astype(np.float32)
    variance = np.minimum(variance, MAX_SIGMA**2).astype(np.float32)
    median = before[..., middle]
    idle = median < _IDLE_MEDIAN_BPS
    scale, unit = np.exp(mean), np.where(idle, np.float32(1), median)
    moved = np.empty_like(before)
    for k, level in enumerate(quantile):
        z = NormalDist().inv_cdf(float(level))
        sign = np.float32(np.sign(k - middle) or np.sign(z))
        # A quantile of 0 is infinitely far from its median, in logarithms, and stays 0.
        with np.errstate(divide="ignore", invalid="ignore"):
            away = np.log(before[..., k] / unit)
            wide = unit * np.exp(mean + sign * np.sqrt(away * away + np.float32(z * z) * variance))
        moved[..., k] = np.where(idle, before[..., k] * scale, wide)
        if k:
            np.maximum(moved[..., k], moved[..., k - 1], out=moved[..., k])
    return np.minimum(moved, np.float32(max_rate_bps), out=moved)


def log_sigma(demand_bps: Floats, quantile: Doubles) -> Doubles:
    """How uncertain forecasts are of themselves, in logarithms, shape (...) for (..., K).

    From the quantiles nearest to one standard deviation on both sides.
    """
    low, high = (int(np.argmin(np.abs(quantile - level))) for level in (0.16, 0.84))
    if low == high:
        return np.zeros(demand_bps.shape[:-1])
    normal = NormalDist()
    distance = normal.inv_cdf(float(quantile[high])) - normal.inv_cdf(float(quantile[low]))
    ratio = (demand_bps[..., high] + IDLE_BPS) / (demand_bps[..., low] + IDLE_BPS)
    sigma: Doubles = np.log(ratio.astype(np.float64)) / distance
    return sigma


class UpliftLearner:
    """What each kind of event did to each level of the tree, and what it is expected to do."""

    def __init__(self) -> None:
        self._evidence: dict[tuple[str, int, int], _Evidence] = {}
        self._open: dict[str, _Open] = {}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of which at least one event was seen to its end."""
        return tuple(sorted({kind for kind, _, _ in tuple(self._evidence)}))

    def levels(self, kind: str, phase: Phase = Phase.ONSET) -> tuple[int, ...]:
        """The levels at which such events were seen."""
        return tuple(sorted(lv for k, p, lv in tuple(self._evidence) if (k, p) == (kind, phase)))

    def effect(
        self, kind: str, level: int, phase: Phase = Phase.ONSET, expected_uplift: float | None = None
    ) -> Effect:
        """What an event of this kind is expected to do to series of this level."""
        announced = 0.0 if expected_uplift is None else math.log(expected_uplift)
        evidence = self._evidence.get((kind, phase, level), _Evidence())
        return evidence.effect(_DIRECTION[phase] * announced, PRIOR_SPREAD[phase])

    def shift(self, events: Sequence[Event], cover: Bools, phase: Phases, level: Ints) -> Shift | None:
        """How events move forecasts; None if none of them acts.

        Where several events act on a series their means and their variances add: they are
        taken to multiply demand independently.

        Parameters
        ----------
        cover : shape (E, S)           Whether the event concerns the series.
        phase : shape (E, H)           As ``phases`` gives it.
        level : shape (S,)
        """
        act = (phase != NO_PHASE).any(axis=1)
        rows = np.flatnonzero(cover[act].any(axis=0))
        if not rows.size:
            return None
        shape = (len(rows), phase.shape[1])
        mean, variance, acts = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
        of, levels = level[rows], np.unique(level[rows])
        for number in np.flatnonzero(act):
            event, concerned = events[int(number)], cover[number, rows]
            for one in levels:
                at = np.flatnonzero(concerned & (of == one))
                for stage in Phase:
                    horizons = np.flatnonzero(phase[number] == stage)
                    if not at.size or not horizons.size:
                        continue
                    effect = self.effect(event.kind, int(one), stage, event.expected_uplift)
                    cells = np.ix_(at, horizons)
                    mean[cells] += effect.mean
                    variance[cells] += effect.variance
                    acts[cells] = True
        return Shift(rows, mean, variance, acts)

    def observe(
        self,
        events: Sequence[Event],
        cover: Bools,
        phase: Phases,
        realised_bps: npt.ArrayLike,
        median_bps: npt.ArrayLike,
        sigma: npt.ArrayLike,
        level: Ints,
    ) -> None:
        """Learn from forecasts without events that have come due, all for one instant.

        Where several events act on a series, each is credited with what the others do not
        explain, and weighs as much as its share of the uncertainty.

        Parameters
        ----------
        cover : shape (E, S)
        phase : shape (E,)             Of that instant.
        realised_bps : shape (S,)      NaN where nothing was measured or the sample was censored.
        median_bps : shape (S,)        The forecast's median, as if there were no events.
        sigma : shape (S,)             ``log_sigma`` of that forecast.
        level : shape (S,)
        """
        came, made, expected = (np.asarray(a, np.float64) for a in (realised_bps, median_bps, sigma))
        with np.errstate(invalid="ignore"):
            telling = np.isfinite(came) & np.isfinite(made) & (np.maximum(came, made) > IDLE_BPS)
            ratio = np.log((np.maximum(came, 0) + IDLE_BPS) / (np.maximum(made, 0) + IDLE_BPS))
        ratio = np.clip(ratio, math.log(MIN_UPLIFT), math.log(MAX_UPLIFT))
        acting = [int(number) for number in np.flatnonzero(phase != NO_PHASE)]
        for one in np.unique(level[telling]) if acting else ():
            rows = np.flatnonzero(telling & (level == one))
            effects = {
                number: self.effect(
                    events[number].kind, int(one), Phase(phase[number]), events[number].expected_uplift
                )
                for number in acting
            }
            total_mean = sum(cover[number, rows] * effect.mean for number, effect in effects.items())
            total_variance = sum(cover[number, rows] * effect.variance for number, effect in effects.items())
            for number, effect in effects.items():
                mine = cover[number, rows]
                if not mine.any():
                    continue
                value = (ratio[rows] - total_mean + effect.mean)[mine]
                weight = float(np.mean(effect.variance / np.asarray(total_variance)[mine]))
                across, usual = 0.0, float(np.median(expected[rows][mine] ** 2))
                if value.size >= _SCATTER_SERIES:
                    low, high = np.quantile(value, (0.25, 0.75))
                    across = float((high - low) / _IQR) ** 2
                else:
                    # Few series scatter from step to step, and their median by that much less.
                    usual /= value.size
                event = events[number]
                opened = self._open.setdefault(event.id, _Open(event.kind, event.end))
                opened.end = event.end
                running = opened.parts.setdefault((int(phase[number]), int(one)), _Running())
                running.add(float(np.median(value)), weight, across, usual)

    def close(self, now: float, after_s: float) -> None:
        """Take the events that ended ``after_s`` ago or earlier for observations: one each."""
        for name in [name for name, opened in self._open.items() if opened.end + after_s < now]:
            opened = self._open.pop(name)
            for (phase, level), running in opened.parts.items():
                running.fold(self._evidence.setdefault((opened.kind, phase, level), _Evidence()))
        kinds = self.kinds
        if len(kinds) > MAX_KINDS:
            self._forget(len(kinds) - MAX_KINDS)

    def _forget(self, n_kinds: int) -> None:
        """Drop the kinds that were seen least: tags are free, and memory is not."""
        seen: dict[str, float] = {}
        for (kind, _, _), evidence in self._evidence.items():
            seen[kind] = max(seen.get(kind, 0.0), evidence.weight)
        dropped = set(sorted(seen, key=lambda kind: (seen[kind], kind))[:n_kinds])
        self._evidence = {key: value for key, value in self._evidence.items() if key[0] not in dropped}

    def state(self) -> dict[str, Any]:
        """What was learnt, as JSON has it, for ``restore`` after a restart."""
        return {
            "evidence": [[*key, asdict(evidence)] for key, evidence in self._evidence.items()],
            "open": [
                [name, opened.kind, opened.end, [[*key, asdict(part)] for key, part in opened.parts.items()]]
                for name, opened in self._open.items()
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what ``state`` described. Raises ValueError; nothing changes then."""
        try:
            evidence = {
                (_text(kind), _phase(phase), _level(level)): _Evidence(**_figures(values))
                for kind, phase, level, values in state["evidence"]
            }
            opened = {
                _text(name): _Open(
                    _text(kind),
                    float(end),
                    {
                        (_phase(phase), _level(level)): _Running(**_figures(values))
                        for phase, level, values in parts
                    },
                )
                for name, kind, end, parts in state["open"]
            }
            if any(
                part.steps < 1 or part.weight <= 0 for one in opened.values() for part in one.parts.values()
            ):
                raise ValueError("an open event must have been seen")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"events' state is malformed: {error!r}") from None
        self._evidence, self._open = evidence, opened


def _text(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        raise ValueError(f"must be text of 1 to {MAX_TEXT} characters, got {value!r}")
    return value


def _phase(value: int) -> int:
    return int(Phase(value))


def _level(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"level must be >= 0, got {value!r}")
    return value


def _figures(values: Mapping[str, float]) -> dict[str, Any]:
    """Numbers of one record: finite, and only the mean may be negative."""
    for name, value in values.items():
        least, most = (-MAX_SHIFT, MAX_SHIFT) if name == "mean" else (0.0, 1e9)
        if isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"{name} must be a number from {least:g} to {most:g}, got {value!r}")
    return dict(values)
