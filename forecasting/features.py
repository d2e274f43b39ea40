"""What the model sees: one row per series and horizon, in units of the series' recent level.

The same function serves training and forecasting, so the two cannot drift
apart. It is given a window and looks at nothing else; the last row is the
cutoff. A gap stays NaN, which the models know how to split on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.context import context_features
from forecasting.history import Bools, Floats, Ints
from forecasting.seasonal import DAY_S, SEASONS_S, WEEK_S

#: Lags in steps before the cutoff, 0 being the cutoff itself.
LAGS: Final = (0, 1, 2, 3, 5)
#: Windows in steps, nested, over which mean, max and spread are taken.
WINDOWS: Final = (4, 8, 16, 32)
#: Lags in steps of the changes whose mean size over the window is told. How they grow with the lag
#: says how much of a change stays: not at all for noise around a mean, all of it for a walk.
CHANGES: Final = (1, 3, 8)
#: Below this level, bit/s, a series is noise; it keeps idle series from dividing by zero.
LEVEL_FLOOR_BPS: Final = 1e3
#: What was a day or a week ago counts as at most this many times the present level.
MAX_RECALLED: Final = 100.0

SERIES_FEATURES: Final = (
    *(f"lag_{lag}" for lag in LAGS),
    *(f"{kind}_{window}" for window in WINDOWS for kind in ("mean", "max", "std")),
    "trend_8",
    "trend_32",
    "since_sample_steps",
    "present_share",
    "censored_share",
    "log_level",
    "period_strength",
    *(f"change_{lag}" for lag in CHANGES),
)
HORIZON_FEATURES: Final = (
    "horizon_steps",
    "one_period_ago",
    "periods_ago_mean",
    "day_sin",
    "day_cos",
    "week_sin",
    "week_cos",
    "day_ago",
    "day_ago_rise",
    "week_ago",
    "week_ago_rise",
)
NAMES: Final = SERIES_FEATURES + HORIZON_FEATURES


@dataclass(frozen=True)
class FeatureSpec:
    """What training decided about the features; forecasting must do the same."""

    step_s: float
    window_steps: int
    #: Periods of recurring traffic, in steps; each series takes the one that fits it best.
    periods: tuple[int, ...] = ()
    #: Only history longer than the cycle can teach the hour or the weekday:
    #: on less, they would be a clock that only runs forward.
    use_day: bool = False
    use_week: bool = False
    #: Which of ``context.CHANNELS`` the model was trained with. None of them: rows are as they were before
    #: there were any, so older models are served as ever.
    context: tuple[str, ...] = ()
    #: Steps of the scaled window itself that follow the features, for a model that reads sequences.
    sequence_steps: int = 0


@dataclass(frozen=True)
class FeatureRows:
    """The model's input for n windows and H horizons."""

    #: shape (n * H, columns); row ``i * H + h`` is window i at horizon h. Columns: ``NAMES``, two for
    #: each channel of context, then the sequence.
    x: Floats
    #: shape (n,), bit/s, > 0; what the target is measured in.
    scale_bps: Floats
    #: shape (n,), bit/s; where the target's zero lies.
    origin_bps: Floats
    #: shape (n,); samples that were present in the window.
    n_present: Ints
    #: shape (n,); steps since the latest sample, the window's length where there is none.
    since_sample: Ints

    def to_target(self, demand_bps: Floats) -> Floats:
        """Demand of shape (n, H) in the model's units."""
        return (demand_bps - self.origin_bps[:, None]) / self.scale_bps[:, None]

    def from_target(self, predicted: Floats) -> Floats:
        """The model's (n * H, K) quantiles as bit/s >= 0, shape (n, H, K)."""
        n = len(self.scale_bps)
        demand = predicted.reshape(n, -1, predicted.shape[1]) * self.scale_bps[:, None, None]
        demand += self.origin_bps[:, None, None]
        result: Floats = np.maximum(demand, 0, out=demand)
        return result


def feature_rows(
    demand_bps: Floats,
    censored: Bools,
    end_time: npt.NDArray[np.float64] | float,
    horizon_steps: Ints,
    spec: FeatureSpec,
    recalled_bps: Floats | None = None,
    context: Floats | None = None,
) -> FeatureRows:
    """Features of n windows at H horizons.

    Parameters
    ----------
    demand_bps : shape (W, n)   Unconstrained demand; the last row is the cutoff. NaN is a gap.
    censored : shape (W, n)
    end_time : shape (n,) or one for all; epoch seconds of the cutoff.
    horizon_steps : shape (H,)  How many rows after the cutoff the target lies, >= 1.
    recalled_bps : shape (2, H + 1, n)
        Demand a day and a week before the cutoff and each target; see ``seasonal.recalled``.
    context : shape (len(CHANNELS), R, n)
        What is known beside demand in the R rows up to the cutoff; see ``context``.
    """
    demand_bps, censored = _fit_window(demand_bps, censored, spec.window_steps)
    n_steps, n = demand_bps.shape
    missing = np.isnan(demand_bps)
    present = ~missing
    filled = np.where(missing, np.float32(0), demand_bps)
    n_present = np.count_nonzero(present, axis=0)
    some = np.maximum(n_present, 1).astype(np.float32)
    mean_bps = filled.sum(axis=0) / some
    since = np.where(n_present > 0, np.argmax(present[::-1], axis=0), n_steps)
    latest = filled[n_steps - 1 - np.minimum(since, n_steps - 1), np.arange(n)]
    # The latest samples weigh more than the window: a level that has just
    # jumped is measured at its new height within a few steps.
    count_8 = np.count_nonzero(present[-8:], axis=0)
    mean_8 = np.where(count_8 > 0, filled[-8:].sum(axis=0) / np.maximum(count_8, 1), mean_bps)
    scale = np.maximum((mean_bps + mean_8) / 2, np.float32(LEVEL_FLOOR_BPS)).astype(np.float32)

    x = np.empty((len(NAMES) + 2 * len(spec.context), n, len(horizon_steps)), np.float32)
    scaled = filled / scale
    columns = _Columns(x)
    for lag in LAGS:
        columns.put(np.where(missing[-1 - lag], np.float32(np.nan), scaled[-1 - lag]))
    _put_windows(columns, scaled, missing)
    columns.put(_trend(scaled, missing, 8))
    columns.put(_trend(scaled, missing, 32))
    columns.put(since)
    columns.put(n_present / np.float32(n_steps))
    columns.put(np.count_nonzero(censored[-8:], axis=0) / np.float32(8))
    columns.put(np.log10(scale))
    centred = np.where(missing, np.float32(0), scaled - mean_bps / scale)
    period, strength = best_period(centred, spec.periods)
    columns.put(strength)
    for lag in CHANGES:
        columns.put(_mean_change(scaled, missing, lag))
    columns.put(horizon_steps.astype(np.float32))
    for ago in _periods_ago(scaled, missing, period, horizon_steps):
        columns.put(ago)
    for cycle in _clock(end_time, horizon_steps, spec):
        columns.put(cycle)
    for ago in _seasons_ago(recalled_bps, scale, len(horizon_steps)):
        columns.put(ago)
    # The model only learns how the future departs from the last value, so
    # steady traffic is right from the first tree on.
    origin = np.where(n_present > 0, latest, np.float32(0))
    if spec.context:
        x[len(NAMES) :] = context_features(context, spec.context, n)[:, :, None]
    rows = x.reshape(len(x), -1).T
    if spec.sequence_steps:
        window = np.where(missing, np.float32(np.nan), scaled)[-spec.sequence_steps :].T
        rows = np.concatenate([rows, np.repeat(window, len(horizon_steps), axis=0)], axis=1)
    return FeatureRows(
        x=rows,
        scale_bps=scale,
        origin_bps=np.asarray(origin, np.float32),
        n_present=n_present,
        since_sample=since,
    )


class _Columns:
    """Fills the features one after the other, in the order of ``NAMES``."""

    def __init__(self, x: Floats) -> None:
        self._x = x
        self._next = 0

    def put(self, values: npt.NDArray[np.generic]) -> None:
        """One feature: shape (n,), (H,) after the series features, or (n, H)."""
        per_series = values.ndim == 1 and self._next < len(SERIES_FEATURES)
        self._x[self._next] = values[:, None] if per_series else values
        self._next += 1


def _fit_window(demand: Floats, censored: Bools, n_steps: int) -> tuple[Floats, Bools]:
    """Exactly ``n_steps`` rows: the latest ones, or gaps before the first."""
    short = n_steps - demand.shape[0]
    if short <= 0:
        return demand[-n_steps:], censored[-n_steps:]
    shape = (short, demand.shape[1])
    gap = np.full(shape, np.nan, np.float32)
    return np.concatenate([gap, demand]), np.concatenate([np.zeros(shape, np.bool_), censored])


def _put_windows(columns: _Columns, scaled: Floats, missing: Bools) -> None:
    """Mean, max and spread over nested windows.

    Each window adds only the rows that the one before did not have.
    """
    n_steps, n = scaled.shape
    total, square = np.zeros(n, np.float32), np.zeros(n, np.float32)
    largest, count = np.zeros(n, np.float32), np.zeros(n, np.float32)
    stop = n_steps
    for window in WINDOWS:
        start = max(n_steps - window, 0)
        block = scaled[start:stop]
        if stop > start:
            total += block.sum(axis=0)
            square += np.einsum("ts,ts->s", block, block)
            largest = np.maximum(largest, block.max(axis=0))
            count += (stop - start) - np.count_nonzero(missing[start:stop], axis=0)
        stop = start
        empty = count == 0
        some = np.where(empty, np.float32(np.nan), count)
        mean = total / some
        columns.put(mean)
        columns.put(np.where(empty, np.float32(np.nan), largest))
        columns.put(np.sqrt(np.maximum(square / some - mean * mean, 0)))


def _mean_change(scaled: Floats, missing: Bools, lag: int) -> Floats:
    """Mean size of the change over so many steps, shape (n,); NaN where none is known."""
    known = ~(missing[lag:] | missing[:-lag])
    change = np.where(known, np.abs(scaled[lag:] - scaled[:-lag]), np.float32(0))
    count = np.count_nonzero(known, axis=0)
    return np.asarray(change.sum(axis=0) / np.where(count > 0, count, np.nan), np.float32)


def _trend(scaled: Floats, missing: Bools, window: int) -> Floats:
    """Mean of the newer half of a window less that of the older half."""
    half = min(window, scaled.shape[0]) // 2
    halves = []
    for start, stop in ((-half, None), (-2 * half, -half)):
        count = half - np.count_nonzero(missing[start:stop], axis=0)
        some = np.where(count > 0, count, np.nan).astype(np.float32)
        halves.append(scaled[start:stop].sum(axis=0) / some)
    return np.asarray(halves[0] - halves[1], np.float32)


def best_period(centred: Floats, periods: tuple[int, ...]) -> tuple[Ints, Floats]:
    """The period that fits each series best and its autocorrelation there.

    centred : shape (W, n), mean 0 over what is present, 0 in gaps.
    Gives two arrays of shape (n,); period 0 where none was offered.
    """
    n_steps, n = centred.shape
    period = np.zeros(n, np.int64)
    strength = np.full(n, np.nan, np.float32)
    power = np.einsum("ts,ts->s", centred, centred)
    power = np.where(power > 0, power, np.float32(np.nan))
    for candidate in periods:
        if not 0 < candidate < n_steps:
            continue
        product = np.einsum("ts,ts->s", centred[candidate:], centred[:-candidate])
        correlation = product / power * np.float32(n_steps / (n_steps - candidate))
        better = (period == 0) | (correlation > strength)
        period = np.where(better, candidate, period)
        strength = np.where(better, correlation, strength)
    return period, strength


def _periods_ago(scaled: Floats, missing: Bools, period: Ints, horizon_steps: Ints) -> tuple[Floats, Floats]:
    """The target's own phase one period ago, and the mean of two; shapes (n, H)."""
    n_steps, n = scaled.shape
    one = np.full((n, len(horizon_steps)), np.nan, np.float32)
    if not period.any():
        return one, one
    every = np.arange(n)
    two = one.copy()
    stride = np.maximum(period, 1)
    for column, ahead in enumerate(horizon_steps):
        back = -(-int(ahead) // stride) * stride
        values = []
        for row in (n_steps - 1 + int(ahead) - back, n_steps - 1 + int(ahead) - back - stride):
            inside = np.maximum(row, 0)
            known = (row >= 0) & (period > 0) & ~missing[inside, every]
            values.append(np.where(known, scaled[inside, every], np.float32(np.nan)))
        one[:, column] = values[0]
        two[:, column] = np.where(np.isnan(values[1]), values[0], (values[0] + values[1]) / 2)
    return one, two


def _seasons_ago(recalled_bps: Floats | None, scale_bps: Floats, n_horizons: int) -> list[Floats]:
    """Demand a day and a week before the target, and how it had risen by then; shapes (n, H)."""
    if recalled_bps is None:
        return [np.full((len(scale_bps), n_horizons), np.nan, np.float32)] * (2 * len(SEASONS_S))
    result = []
    for season in recalled_bps:
        # An idle day before a busy one says "far less", however far; so the ratio is bounded.
        then = np.minimum(season / scale_bps, np.float32(MAX_RECALLED))
        result += [then[1:].T, (then[1:] - then[0]).T]
    return result


def _clock(end_time: npt.NDArray[np.float64] | float, horizon_steps: Ints, spec: FeatureSpec) -> list[Floats]:
    """Hour and weekday of the target as points on circles; NaN where not used."""
    ends = np.atleast_1d(np.asarray(end_time, np.float64))
    target = ends[:, None] + horizon_steps[None] * spec.step_s
    result = []
    for cycle_s, used in ((DAY_S, spec.use_day), (WEEK_S, spec.use_week)):
        angle = 2 * math.pi * np.mod(target, cycle_s) / cycle_s
        for wave in (np.sin, np.cos):
            values = wave(angle).astype(np.float32)
            result.append(values if used else np.full_like(values, np.nan))
    return result


def recurring_periods(demand_bps: Floats, window_steps: int, at_most: int = 3) -> tuple[int, ...]:
    """Periods, in steps, that many series share; the most common first.

    Each series votes for the highest local peak of its autocorrelation, if
    that is clearly there (> 0.3). A period must fit the window twice.

    demand_bps : shape (T, n), NaN is a gap.
    """
    n_steps, n = demand_bps.shape
    longest = min(window_steps, n_steps) // 2
    if longest < 3 or n == 0:
        return ()
    missing = np.isnan(demand_bps)
    count = np.maximum(np.count_nonzero(~missing, axis=0), 1)
    filled = np.where(missing, 0, demand_bps).astype(np.float64)
    centred = np.where(missing, 0, filled - filled.sum(axis=0) / count)
    spectrum = np.fft.rfft(centred, n=2 * n_steps, axis=0)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[: longest + 2]
    power = correlation[0]
    overlap = n_steps / (n_steps - np.arange(longest + 2))[:, None]
    correlation = np.where(power > 0, correlation / np.where(power > 0, power, 1), 0) * overlap
    inner = correlation[1:-1]
    local = (inner > correlation[:-2]) & (inner >= correlation[2:]) & (inner > 0.3)
    local[0] = False  # one step is a lag that the model has anyway
    choice = np.where(local, inner, -1).argmax(axis=0) + 1
    votes = np.bincount(choice[local.any(axis=0)], minlength=longest + 1)
    ranked = np.argsort(-votes, kind="stable")[:at_most]
    return tuple(int(period) for period in ranked if votes[period] >= max(1, 0.02 * n))
