"""What came that the forecast says should not have: spikes, shifts, silences, fan-out.

Every threshold follows from one figure, how many false alarms a series may raise
in a day. Each of the six tests gets an equal part of it:

- up, down: a single sample rarer than the budget, by the tail that ``forecasting.tails`` learns;
- drift up, drift down: an e-detector. Each sample multiplies the evidence by a bet that gains
  nothing on average while the forecast holds, and evidence never falls below 1. It reaches c in no less
  than c steps on average whatever the distribution (Shin, Ramdas and Rinaldo, New England
  Journal of Statistics in Data Science 2, 2023), so c is the budget's inverse;
- silence: so many silent steps in a row as are rarer than the budget, by how often series of the level
  fall silent and how often they stay so;
- fan-out: talking to more peers than ever, by the tail learnt over all series.

A forecast follows a new level within a step or two, so what begins is judged by the forecast of the
step before and from then on held against that one forecast, frozen: a spike that stays is a shift.
Pure: state in, anomalies out, ``now`` is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.anomaly import Anomaly, AnomalySettings, Change, Evidence, Kind, Step
from forecasting.fan_out import FanOut
from forecasting.quantiles import nearest
from forecasting.tails import F64, Bools, Ints, Rows, Tail, at_least, at_most

Small = npt.NDArray[np.int8]
Counts = npt.NDArray[np.int32]

#: No single sample multiplies the evidence of a drift by more than this: one sample is no drift.
MOST_BET: Final = 16.0
#: The bet is ``BET_POWER * p ** (BET_POWER - 1)``, which integrates to 1 over p.
BET_POWER: Final = 0.5
#: A spread is at least this share of the median.
LEAST_SPREAD: Final = 0.02
#: No single rate beyond this is taken at its word.
MAX_RATE_BPS: Final = 1e15
#: Below this share of its forecast's lowest quantile a series is silent ...
SILENT_SHARE: Final = 0.02
#: ... and that quantile has to be this much, as a share of what is material.
SILENT_LEAST: Final = 0.2
#: Silence over: this share of the lowest quantile is reached again.
AWAKE_SHARE: Final = 0.2
#: Samples for which a level's rate of falling silent counts in a series' own: a day of minutes.
BORROWED_SILENCES: Final = 1440.0
#: A pool's surprise is its children's when they make up this share of it.
EXPLAINED_SHARE: Final = 0.7
#: A child surprised so many steps ago still counts as surprised now.
TOGETHER_STEPS: Final = 2
#: Severity by the surprise in units of what is material.
MAJOR_AT, CRITICAL_AT = 5.0, 10.0


_KINDS: Final = (None, Kind.SPIKE, Kind.SHIFT, Kind.SILENCE)
_NONE, _SPIKE, _SHIFT, _SILENCE = range(4)


@dataclass
class _Watch(Rows):
    """What is known of each series between steps."""

    #: Samples judged so far, and the latest rate, NaN before the first.
    judged: Counts
    last: F64
    #: Evidence of a drift, its mean bet in the past, and the forecast and time it counts from. Axis 1: up, down.
    drift: F64
    mean_bet: F64
    drift_from: F64
    drift_since: F64
    #: Silent steps so far, the forecast when silence began, and when; own trials and onsets.
    quiet: Counts
    quiet_from: F64
    quiet_since: F64
    quiet_trials: F64
    quiet_onsets: F64
    #: The episode: kind, direction, known steps since it began, of these out of the band, and in it at the end.
    kind: Small
    direction: Small
    age: Counts
    out: Counts
    back: Counts
    began: F64
    band: F64
    p_value: F64
    e_value: F64
    #: Told to others; not to be told, since another's alarm speaks for it; reached the ceiling.
    told: Bools
    absorbed: Bools
    near: Bools
    #: Series surprised together, for pools; 0: not a surprise of a pool.
    wide: Counts

    @classmethod
    def fresh(cls, n: int) -> _Watch:
        def ints() -> Counts:
            return np.zeros(n, np.int32)

        def floats(value: float, *width: int) -> F64:
            return np.full((n, *width), value)

        def no() -> Bools:
            return np.zeros(n, np.bool_)

        return cls(
            judged=ints(),
            last=floats(np.nan),
            drift=floats(1.0, 2),
            mean_bet=floats(1.0, 2),
            drift_from=floats(np.nan, 2, 3),
            drift_since=floats(np.nan, 2),
            quiet=ints(),
            quiet_from=floats(np.nan, 3),
            quiet_since=floats(np.nan),
            quiet_trials=floats(0.0),
            quiet_onsets=floats(0.0),
            kind=np.zeros(n, np.int8),
            direction=np.zeros(n, np.int8),
            age=ints(),
            out=ints(),
            back=ints(),
            began=floats(np.nan),
            band=floats(np.nan, 3),
            p_value=floats(np.nan),
            e_value=floats(np.nan),
            told=no(),
            absorbed=no(),
            near=no(),
            wide=ints(),
        )


@dataclass
class _Silences:
    """How often series of a level fall silent, and how often a silent one stays so; fading counts."""

    #: Before anything was seen: a series falls silent once in ten thousand steps, and half of them stay so.
    trials: float = 10_000.0
    onsets: float = 1.0
    held: float = 4.0
    stayed: float = 2.0


@dataclass(frozen=True)
class _Judged:
    """One step as probabilities, shape (S,) each."""

    #: The rate, NaN where it may not be judged.
    rate: F64
    #: The same, also NaN where it understates demand.
    whole: F64
    #: shape (S, 3): lowest, middle and highest quantile.
    band: F64
    #: Excess beyond the outermost quantiles in spreads; 0 inside.
    above: F64
    below: F64
    p_up: F64
    p_down: F64
    material: F64


class Detector:
    """Watches many series, step by step. Give it every step once, in order; gaps are fine."""

    def __init__(self, settings: AnomalySettings) -> None:
        self.settings = settings
        self._ids: Ints = np.empty(0, np.int64)
        self._watch = _Watch.fresh(0)
        self._above = Tail(0.02, settings.memory_steps)
        self._below = Tail(0.1, settings.memory_steps)
        self._fan_out = FanOut(settings)
        self._silences: dict[int, _Silences] = {}
        self._last = -np.inf

    def step(self, now: float, step: Step) -> tuple[Anomaly, ...]:
        """What changed with this step, which ended at ``now``.

        The same step again is ignored. After a clock that stepped back, or a gap of steps, runs and evidence
        start afresh; what was learnt and what is open stays.
        """
        if abs(now - self._last) < self.settings.step_s / 2:
            return ()
        found = self._align(step.series_id)
        if not 0 < now - self._last < 1.5 * self.settings.step_s:
            self._interrupt()
        self._last = now
        judged = self._judge(step)
        self._learn(step, judged)
        found += self._progress(now, step, judged)
        fresh = self._begin(now, step, judged)
        silenced, fallen = self._silent(now, step, judged)
        found += [self._anomaly(step, i, Change.CHANGED) for i in fallen.tolist()]
        self._together(now, step, judged, fresh | silenced)
        found += self._tell(step, judged)
        found += self._fan_out.step(now, step)
        watch = self._watch
        watch.judged[~np.isnan(judged.rate)] += 1
        return tuple(found)

    # One step as probabilities.

    def _judge(self, step: Step) -> _Judged:
        with np.errstate(invalid="ignore"):
            rate = np.where(
                np.isfinite(step.realised_bps) & (step.realised_bps >= 0), step.realised_bps, np.nan
            )
            rate = np.fmin(rate, MAX_RATE_BPS, where=~np.isnan(rate), out=rate)
            forecast = np.asarray(step.forecast_bps, np.float64)
            rising = (np.diff(forecast, axis=1) >= 0).all(axis=1) & np.isfinite(forecast).all(axis=1)
            # One figure for every quantile is a guess and no distribution. That nothing comes is a forecast,
            # but only of a series of which nothing came before: of others it means that nothing was known.
            idle = (forecast[:, -1] == 0) & (self._watch.last == 0)
            spoken = rising & (forecast[:, 0] >= 0) & ((forecast[:, 0] < forecast[:, -1]) | idle)
            self._watch.last = np.where(np.isnan(rate), self._watch.last, rate)
            rate[~spoken | step.excused] = np.nan
            median = nearest(step.quantile)
            low, middle, high = forecast[:, 0], forecast[:, median], forecast[:, -1]
            material = np.where(step.material_bps > 0, step.material_bps, 0.0)
            least = np.maximum(np.maximum(LEAST_SPREAD * middle, material), 1.0)
            whole = np.where(step.censored, np.nan, rate)
            above = np.nan_to_num(np.maximum(rate - high, 0.0)) / np.maximum(high - middle, least)
            below = np.nan_to_num(np.maximum(low - whole, 0.0)) / np.maximum(middle - low, least)
            p_up = at_least(rate, forecast, step.quantile)
            p_down = at_most(rate, forecast, step.quantile)
        far = self._above.probability(step.level, np.nan_to_num(above))
        low_far = self._below.probability(step.level, np.nan_to_num(below))
        p_up = np.where(np.isnan(rate), np.nan, np.where(np.isnan(far), p_up, np.minimum(far, p_up)))
        p_down = np.where(
            np.isnan(rate), np.nan, np.where(np.isnan(low_far), p_down, np.minimum(low_far, p_down))
        )
        band = np.stack([low, middle, high], axis=1)
        return _Judged(rate, whole, band, np.nan_to_num(above), np.nan_to_num(below), p_up, p_down, material)

    def _learn(self, step: Step, judged: _Judged) -> None:
        """Tails learn from all that is judged, save from series that are in an alarm already."""
        calm = ~np.isnan(judged.rate) & (self._watch.kind == _NONE)
        budget = self.settings.budget
        self._above.learn(step.level, judged.above, calm, budget)
        self._below.learn(step.level, judged.below, calm & ~np.isnan(judged.whole), budget)

    # Episodes that are under way.

    def _progress(self, now: float, step: Step, judged: _Judged) -> list[Anomaly]:
        """Episodes get older, change their kind, or end."""
        w, s = self._watch, self.settings
        active = np.flatnonzero(w.kind != _NONE)
        if not len(active):
            return []
        # Raw: where the forecast says nothing now, the frozen one still does.
        rate = step.realised_bps[active]
        known = np.isfinite(rate) & (rate >= 0)
        up, band = w.direction[active] > 0, w.band[active]
        bound = np.where(w.kind[active] == _SILENCE, AWAKE_SHARE * band[:, 0], band[:, 0])
        with np.errstate(invalid="ignore"):
            outside = known & np.where(up, rate > band[:, 2], (rate < bound) & ~step.censored[active])
        w.age[active] += known
        w.out[active] += outside
        w.back[active] = np.where(known, np.where(outside, 0, w.back[active] + 1), w.back[active])
        w.near[active] |= _near(step, s.test_share)[active]
        found: list[Anomaly] = []
        stays = (w.kind[active] == _SPIKE) & (w.out[active] >= s.shift_steps) & (w.back[active] == 0)
        for i in active[stays].tolist():
            w.kind[i] = _SHIFT
            if w.told[i] and not w.absorbed[i]:
                found.append(self._anomaly(step, i, Change.CHANGED))
        ends = (
            ("excused by a known event", step.excused[active]),
            ("back to normal", w.back[active] >= s.close_steps),
            ("new normal", w.age[active] >= s.normal_steps),
            ("nothing was measured since", now - w.began[active] > 4 * s.normal_steps * s.step_s),
        )
        ended = np.zeros(len(active), np.bool_)
        for reason, which in ends:
            for i in active[which & ~ended].tolist():
                if w.told[i] and not w.absorbed[i]:
                    found.append(self._anomaly(step, i, Change.CLOSED, reason))
                self._end(i)
            ended |= which
        return found

    def _end(self, i: int) -> None:
        w = self._watch
        w.kind[i], w.told[i], w.absorbed[i], w.near[i], w.wide[i] = _NONE, False, False, False, 0
        w.drift[i] = 1.0
        w.quiet[i] = 0

    # Episodes that begin.

    def _begin(self, now: float, step: Step, judged: _Judged) -> Bools:
        """Start episodes where a test says so; True in their columns."""
        w, s = self._watch, self.settings
        ripe = w.judged >= s.learn_steps
        free = ripe & (w.kind == _NONE)
        middle = judged.band[:, 1]
        with np.errstate(invalid="ignore"):
            large = np.abs(judged.rate - middle) >= judged.material
            up = free & (judged.p_up < s.budget) & large
            down = free & (judged.p_down < s.budget) & large & ~np.isnan(judged.whole)
        started = np.zeros(len(free), np.bool_)
        for sign, which, p in ((1, up, judged.p_up), (-1, down, judged.p_down)):
            at = np.flatnonzero(which)
            self._start(at, _SPIKE, sign, now, judged.band[at], p[at], np.nan)
            started |= which
        for side, sign in enumerate((1, -1)):
            # A drift that this very step made an episode of counts once.
            drifted = self._drift(now, step, judged, side, sign) & ripe & (w.kind == _NONE)
            at = np.flatnonzero(drifted)
            self._start(
                at, _SHIFT, sign, w.drift_since[at, side], w.drift_from[at, side], np.nan, w.drift[at, side]
            )
            started |= drifted
        return started

    def _start(
        self,
        at: Ints,
        kind: int,
        direction: int,
        began: F64 | float,
        band: F64,
        p: F64 | float,
        e: F64 | float,
    ) -> None:
        w = self._watch
        w.kind[at], w.direction[at] = kind, direction
        w.age[at] = w.out[at] = 1
        w.back[at] = w.wide[at] = 0
        w.began[at], w.band[at], w.p_value[at], w.e_value[at] = began, band, p, e
        w.told[at] = w.absorbed[at] = w.near[at] = False

    def _drift(self, now: float, step: Step, judged: _Judged, side: int, sign: int) -> Bools:
        """Bet once more on a drift to one side; True where the evidence is enough."""
        w, s = self._watch, self.settings
        p = judged.p_up if side == 0 else judged.p_down
        known = ~np.isnan(judged.rate if side == 0 else judged.whole) & (w.kind == _NONE)
        bet = np.minimum(
            BET_POWER * np.maximum(np.nan_to_num(p, nan=1.0), 1e-12) ** (BET_POWER - 1), MOST_BET
        )
        mean = w.mean_bet[:, side]
        # A forecast that errs as a habit makes bets gain: what they gain on average is no evidence.
        fair = bet / np.maximum(mean, 1.0)
        again = known & (w.drift[:, side] <= 1.0)
        w.drift_from[again, side] = judged.band[again]
        w.drift_since[again, side] = now
        w.drift[known, side] = np.maximum(w.drift[known, side], 1.0) * fair[known]
        rate = 1.0 / np.minimum(w.judged[known] + BORROWED_SILENCES, s.memory_steps)
        w.mean_bet[known, side] += rate * (bet[known] - mean[known])
        start = w.drift_from[:, side]
        with np.errstate(invalid="ignore"):
            far = sign * (judged.rate - start[:, 1]) >= np.maximum(judged.material, 0)
            beyond = judged.rate > start[:, 2] if sign > 0 else judged.rate < start[:, 0]
        enough: Bools = known & (w.drift[:, side] >= 1.0 / s.budget) & far & beyond
        return enough

    def _silent(self, now: float, step: Step, judged: _Judged) -> tuple[Bools, Ints]:
        """Count silent steps. True where silence begins, and the columns of told shifts that became silence."""
        w, s = self._watch, self.settings
        ripe = w.judged >= s.learn_steps
        rate, low = judged.whole, judged.band[:, 0]
        raw = np.where(step.censored | step.excused | ~(step.realised_bps >= 0), np.nan, step.realised_bps)
        with np.errstate(invalid="ignore"):
            clear = low > np.maximum(SILENT_LEAST * judged.material, 1.0)
            running = w.quiet > 0
            # A run goes on against the forecast of its beginning: the forecasts after it know of the silence.
            stays = running & (raw <= SILENT_SHARE * w.quiet_from[:, 0])
            falls = ~running & clear & (rate <= SILENT_SHARE * low)
        trial = ~running & clear & ~np.isnan(rate)
        held = running & ~np.isnan(raw) & (w.kind != _SILENCE)
        w.quiet_trials[trial] += 1
        w.quiet_onsets[falls] += 1
        fade = np.exp(-1.0 / s.memory_steps)
        w.quiet_trials *= fade
        w.quiet_onsets *= fade
        onset, stay = np.ones(len(low)), np.ones(len(low))
        for level in np.unique(step.level).tolist():
            mine = step.level == level
            habit = self._silences.setdefault(level, _Silences())
            # The chances are of before this step, so that a mass silence does not excuse itself.
            onset[mine] = habit.onsets / habit.trials
            stay[mine] = habit.stayed / habit.held
            for name, count in (
                ("trials", trial),
                ("onsets", falls),
                ("held", held),
                ("stayed", held & stays),
            ):
                setattr(habit, name, getattr(habit, name) + float(np.count_nonzero(count & mine)))
            if habit.trials > s.memory_steps * max(int(np.count_nonzero(mine)), 1):
                habit.trials, habit.onsets = habit.trials / 2, habit.onsets / 2
            if habit.held > s.memory_steps:
                habit.held, habit.stayed = habit.held / 2, habit.stayed / 2
        w.quiet_from[falls] = judged.band[falls]
        w.quiet_since[falls] = now
        w.quiet = np.where(stays, w.quiet + 1, np.where(np.isnan(raw), w.quiet, 0)).astype(np.int32)
        w.quiet[falls] = 1
        own = (w.quiet_onsets - (w.quiet > 0) + BORROWED_SILENCES * onset) / (
            w.quiet_trials + BORROWED_SILENCES
        )
        p = np.maximum(own, 0) * stay ** np.maximum(w.quiet - 1, 0)
        silent = ripe & (w.quiet >= s.silent_steps) & (w.kind != _SILENCE)
        # A fall that was too rare by itself needs no further proof: if it stays at nothing it is silence.
        turned = silent & (w.kind != _NONE) & (w.direction < 0)
        w.kind[turned] = _SILENCE
        begins = silent & (w.kind == _NONE) & (p < s.budget)
        at = np.flatnonzero(begins)
        self._start(at, _SILENCE, -1, w.quiet_since[at], w.quiet_from[at], p[at], np.nan)
        w.age[at] = w.out[at] = w.quiet[at]
        return begins | (turned & ~w.told), np.flatnonzero(turned & w.told & ~w.absorbed)

    # Many at once.

    def _together(self, now: float, step: Step, judged: _Judged, fresh: Bools) -> None:
        """One alarm for a pool whose children are surprised together, and none for what a child explains."""
        w, parent = self._watch, step.parent
        if not fresh.any() or not (parent >= 0).any():
            return
        depth = _depth(parent)
        excess = np.nan_to_num(np.abs(step.realised_bps - w.band[:, 1]))
        levels = [np.flatnonzero(depth == one) for one in range(1, int(depth.max(initial=0)) + 1)]
        for sign in (1, -1):
            together = np.maximum(w.wide, 1)
            for child in reversed(levels):
                self._gather(now, step, judged, sign, child, excess, together)
            # From the top: whoever joins an alarm of any pool above needs none of their own.
            spoken = (w.wide > 0) & (w.direction == sign)
            for child in levels:
                spoken[child] |= spoken[parent[child]]
                young = child[spoken[parent[child]] & (w.direction[child] == sign) & ~w.told[child]]
                w.absorbed[young] = w.kind[young] != _NONE

    def _gather(
        self, now: float, step: Step, judged: _Judged, sign: int, child: Ints, excess: F64, together: Ints
    ) -> None:
        """One level: widen the pools above it, and leave out those that a child explains.

        child : columns of the level. excess : shape (S,), bit/s. together : shape (S,), series surprised
        at and below each column; brought up to date for the pools above.
        """
        w, s, above, n = self._watch, self.settings, step.parent[child], len(excess)
        known = np.isfinite(step.realised_bps[child])
        mine = (w.kind[child] != _NONE) & (w.direction[child] == sign)
        young = w.age[child] <= np.maximum(TOGETHER_STEPS, w.quiet[child])
        recent = mine & (young | ~w.told[child])
        have = np.bincount(above[known], minlength=n)
        surprised = np.bincount(above[recent], minlength=n)
        wide = (surprised >= s.wide_least) & (surprised >= s.wide_share * have)
        wide &= ~((w.wide > 0) & (w.direction == sign))
        series = np.bincount(above[recent], together[child][recent], minlength=n)
        inside = np.flatnonzero(recent & wide[above])
        inside = inside[np.argsort(above[inside], kind="stable")]
        for members in np.split(child[inside], np.flatnonzero(np.diff(above[inside])) + 1):
            if len(members):
                p = int(step.parent[members[0]])
                self._widen(p, members, sign, now, judged)
                w.wide[p] = together[p] = int(series[p])
        share = np.bincount(above[recent], excess[child][recent], minlength=n)
        explained = (w.kind != _NONE) & (w.direction == sign) & ~w.told & (w.wide == 0)
        explained &= (surprised > 0) & (share >= EXPLAINED_SHARE * excess)
        w.absorbed[explained] = True

    def _widen(self, p: int, members: Ints, sign: int, now: float, judged: _Judged) -> None:
        """Make the pool's own episode the one that speaks for its members."""
        w = self._watch
        kinds = np.bincount(w.kind[members], minlength=4)
        if w.kind[p] == _NONE or w.direction[p] != sign:
            at = np.array([p])
            self._start(
                at, int(kinds.argmax()), sign, float(w.began[members].min()), judged.band[at], np.nan, np.nan
            )
            if w.kind[p] == _SILENCE and w.quiet[p] > 0:
                w.band[p] = w.quiet_from[p]
        w.p_value[p] = np.fmin(w.p_value[p], np.nanmin(np.append(w.p_value[members], np.inf)))
        w.absorbed[p] = False

    # What is told.

    def _tell(self, step: Step, judged: _Judged) -> list[Anomaly]:
        """Open what has waited long enough; drop what turned out to be a speed test or a dip."""
        w, s = self._watch, self.settings
        waiting = np.flatnonzero((w.kind != _NONE) & ~w.told & ~w.absorbed)
        w.near[waiting] |= _near(step, s.test_share)[waiting]
        found = []
        for i in waiting.tolist():
            verdict = self._verdict(bool(step.user[i]), i)
            if verdict is True:
                w.told[i] = True
                found.append(self._anomaly(step, i, Change.OPENED))
            elif verdict is False:
                self._end(i)
        return found

    def _verdict(self, user: bool, i: int) -> bool | None:
        """Whether to tell of an episode; None: wait."""
        w, s = self._watch, self.settings
        returned = w.back[i] > 0
        if w.wide[i] or w.kind[i] != _SPIKE:
            return True
        if w.direction[i] < 0:
            # A dip of a step or two harms nobody; if it stays it becomes a shift.
            return False if returned else None
        if not user:
            return True
        if w.age[i] <= 1:
            # The next step tells a speed test from the rest.
            return None
        short = w.near[i] and w.out[i] <= s.test_steps
        if returned:
            return not short
        return None if short else True

    def _anomaly(self, step: Step, i: int, change: Change, reason: str = "") -> Anomaly:
        w = self._watch
        kind = _KINDS[w.kind[i]]
        assert kind is not None
        band = w.band[i]
        realised = float(step.realised_bps[i])
        evidence = Evidence(
            realised, float(band[0]), float(band[1]), float(band[2]), float(w.p_value[i]), float(w.e_value[i]),
            self.settings.budget, int(w.age[i]), max(int(w.wide[i]), 1),
        )  # fmt: skip
        size = abs(realised - band[1]) / step.material_bps[i] if step.material_bps[i] > 0 else 0.0
        severity = "critical" if size >= CRITICAL_AT else "major" if size >= MAJOR_AT else "minor"
        if w.wide[i]:
            severity = "critical"
        return Anomaly(
            int(step.series_id[i]),
            kind,
            change,
            int(w.direction[i]),
            float(w.began[i]),
            severity,
            reason,
            evidence,
        )

    # Columns and clocks.

    def _align(self, series_id: Ints) -> list[Anomaly]:
        """Follow the series to their columns; close what belongs to series that are gone."""
        if np.array_equal(series_id, self._ids):
            return []
        gone = np.flatnonzero(~np.isin(self._ids, series_id))
        found = [self._lost(i) for i in gone.tolist() if self._watch.told[i] and not self._watch.absorbed[i]]
        crowds = (self._fan_out.gone(i, int(self._ids[i])) for i in gone.tolist())
        found += [crowd for crowd in crowds if crowd is not None]
        place = np.full(len(series_id), -1, np.int64)
        if len(self._ids):
            order = np.argsort(self._ids)
            near = order[np.minimum(np.searchsorted(self._ids, series_id, sorter=order), len(order) - 1)]
            known = self._ids[near] == series_id
            place[known] = near[known]
        self._watch = self._watch.aligned(place)
        for part in (self._above, self._below, self._fan_out):
            part.align(place)
        self._ids = np.array(series_id, np.int64)
        return found

    def _lost(self, i: int) -> Anomaly:
        w = self._watch
        band = [float(value) for value in w.band[i]]
        nan = float("nan")
        evidence = Evidence(
            nan, band[0], band[1], band[2], float(w.p_value[i]), float(w.e_value[i]), self.settings.budget,
            int(w.age[i]), max(int(w.wide[i]), 1),
        )  # fmt: skip
        kind = _KINDS[w.kind[i]] or Kind.SPIKE
        return Anomaly(
            int(self._ids[i]), kind, Change.CLOSED, int(w.direction[i]), float(w.began[i]), "minor",
            "the pool is gone", evidence,
        )  # fmt: skip

    def _interrupt(self) -> None:
        """Steps are missing: nothing that has to be in a row is."""
        w = self._watch
        w.drift[:] = 1.0
        w.quiet[:] = 0
        unsaid = np.flatnonzero((w.kind != _NONE) & ~w.told & ~w.absorbed)
        for i in unsaid.tolist():
            self._end(i)


def _near(step: Step, share: float) -> Bools:
    """Where the highest rate known of the step is near the ceiling, shape (S,)."""
    with np.errstate(invalid="ignore"):
        highest = np.fmax(step.peak_bps, step.realised_bps)
        near: Bools = (highest >= share * step.ceiling_bps) & np.isfinite(step.ceiling_bps)
    return near


def _depth(parent: Ints) -> Ints:
    """How many pools are above each column, shape (S,); what is part of itself is at no depth beyond S."""
    depth = np.zeros(len(parent), np.int64)
    above = parent.copy()
    for _ in range(16):
        inside = above >= 0
        if not inside.any():
            break
        depth += inside
        above = np.where(inside, parent[np.maximum(above, 0)], -1)
    return depth
