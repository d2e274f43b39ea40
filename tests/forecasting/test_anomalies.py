"""Alarms as often as the budget says, soon when something happens, and never a crash."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forecasting.anomalies import Detector
from forecasting.anomaly import TESTS, Anomaly, AnomalySettings, Change, Kind, Step, plain_step
from forecasting.tails import Tail, at_least, at_most

QUANTILE = np.array([0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98])
SETTINGS = AnomalySettings(learn_steps=50, normal_steps=40)
#: The quantiles of a unit exponential law, times 1 Mbit/s.
EXPONENTIAL = -np.log(1 - QUANTILE) * 1e6
MEAN = 10e6


def steady(rng: np.random.Generator, n: int) -> np.ndarray:
    """One step of ``n`` series around 10 Mbit/s."""
    return rng.normal(MEAN, 0.5e6, n)


class Follower:
    """Series, a forecaster that follows the last value as a real one does, and a detector behind it."""

    def __init__(self, n: int, settings: AnomalySettings = SETTINGS, **columns: np.ndarray) -> None:
        self.n, self.columns = n, columns
        self.detector = Detector(settings)
        self.rng = np.random.default_rng(0)
        self.now = 1e9
        self.centre = np.full(n, MEAN)
        self.width = np.array([-1.28, -0.67, 0, 0.67, 1.28, 1.64, 2.05]) * 0.5e6
        for _ in range(120):
            self.step(steady(self.rng, n))

    def step(self, realised: np.ndarray, **columns: np.ndarray) -> list[Anomaly]:
        """One more minute."""
        self.now += 60.0
        forecast = np.maximum(self.centre[:, None] + self.width, 0)
        made = plain_step(np.arange(self.n), realised, forecast, QUANTILE)
        step = replace(made, **{**self.columns, **columns})
        found = list(self.detector.step(self.now, step))
        known = np.isfinite(realised) & (np.abs(realised - self.centre) > 2e6)
        # A forecast follows a jump at once; noise does not move it.
        self.centre = np.where(known, realised, self.centre)
        return found

    def run(self, steps: int, change: dict[int, float], **columns: np.ndarray) -> list[tuple[int, Anomaly]]:
        """So many minutes with some series' rates replaced; gives (minute, anomaly)."""
        found = []
        for minute in range(steps):
            realised = steady(self.rng, self.n)
            for series, rate in change.items():
                realised[series] = rate
            found += [(minute, one) for one in self.step(realised, **columns)]
        return found


def opened(found: list[tuple[int, Anomaly]]) -> list[tuple[int, int, Kind, int]]:
    return [(m, a.series_id, a.kind, a.direction) for m, a in found if a.change is Change.OPENED]


@pytest.mark.parametrize("law", ["exponential", "heavy", "often zero"])
def test_false_alarms_are_as_many_as_the_budget_says(law: str) -> None:
    """Bursty series at rest: spikes match their part of the budget, and all tests together stay within it."""
    rng = np.random.default_rng(5)
    n, steps, a_day = 400, 1500, 1.2
    settings = AnomalySettings(false_alarms_per_day=a_day, learn_steps=50)
    quantiles = {
        "exponential": EXPONENTIAL,
        "heavy": 1e6 * ((1 - QUANTILE) ** (-1 / 3) - 1),
        "often zero": -np.log(np.minimum((1 - QUANTILE) / 0.4, 1.0)) * 3e6,
    }[law]
    detector, spikes, all_ = Detector(settings), 0, 0
    for minute in range(steps):
        u = rng.random(n)
        rate = {
            "exponential": -np.log(u) * 1e6,
            "heavy": 1e6 * (u ** (-1 / 3) - 1),
            "often zero": -np.log(np.minimum(u / 0.4, 1.0)) * 3e6,
        }[law]
        step = plain_step(np.arange(n), rate, np.tile(quantiles, (n, 1)), QUANTILE)
        for one in detector.step(60.0 * minute, step):
            all_ += one.change is Change.OPENED
            spikes += one.change is Change.OPENED and one.kind is Kind.SPIKE
    expected = settings.budget * n * (steps - 50)
    assert expected > 70
    # Three standard deviations of a count, and a tenth for the tail being learnt from the same samples.
    slack = 3 * np.sqrt(expected) + 0.1 * expected
    assert abs(spikes - expected) < slack
    assert all_ < TESTS * expected


def test_a_spike_is_told_at_once_and_ends() -> None:
    """One minute at three times the rate: an alarm in that minute, closed when the band holds again."""
    follower = Follower(20)
    (minute, spike), *more = follower.run(1, {3: 30e6})
    assert (minute, spike.series_id, spike.kind, spike.direction, more) == (0, 3, Kind.SPIKE, 1, [])
    evidence = spike.evidence
    assert (evidence.realised, evidence.middle, evidence.steps) == (30e6, MEAN, 1)
    assert evidence.p_value < evidence.budget
    follower.centre[3] = MEAN
    ((minute, end),) = follower.run(6, {})
    assert (minute, end.change, end.reason) == (2, Change.CLOSED, "back to normal")


def test_a_spike_that_stays_is_a_shift_and_then_normal() -> None:
    """A new level is a shift after five minutes, though the forecast follows it, and no alarm after forty."""
    found = Follower(20).run(60, {3: 30e6})
    told = [(minute, one.kind, one.change, one.reason) for minute, one in found]
    assert told == [
        (0, Kind.SPIKE, Change.OPENED, ""),
        (4, Kind.SHIFT, Change.CHANGED, ""),
        (39, Kind.SHIFT, Change.CLOSED, "new normal"),
    ]


def test_a_drop_that_stays_is_a_shift_down() -> None:
    """Half the rate for good is told when it has lasted; a dip of one minute is not."""
    follower = Follower(20)
    assert opened(follower.run(8, {3: 4e6})) == [(4, 3, Kind.SHIFT, -1)]
    follower = Follower(20)
    found = follower.run(1, {3: 4e6})
    follower.centre[3] = MEAN
    assert found + follower.run(8, {}) == []


def test_a_slow_drift_is_noticed() -> None:
    """Each sample is inside the band, yet always in its upper part: evidence adds up."""
    follower = Follower(20)
    found = follower.run(40, {3: MEAN + 1.4e6})
    told = opened(found)
    assert [(series, kind, sign) for _, series, kind, sign in told] == [(3, Kind.SHIFT, 1)]
    (first,) = [one for _, one in found if one.change is Change.OPENED]
    assert first.evidence.e_value > 1 / first.evidence.budget
    assert first.since <= follower.now


def test_silence_is_told_and_a_gap_is_not() -> None:
    """Zero is a measurement, missing is not."""
    told = opened(Follower(20).run(25, {3: 0.0}))
    assert [(series, kind, sign) for _, series, kind, sign in told] == [(3, Kind.SILENCE, -1)]
    assert told[0][0] == SETTINGS.silent_steps - 1
    assert Follower(20).run(25, {3: np.nan}) == []


def test_silence_is_told_sooner_where_it_never_happens() -> None:
    """A fleet that was never silent needs fewer silent steps than one that often is."""
    waits = []
    for share in (0.0, 0.01):
        follower = Follower(100)
        for _ in range(300):
            realised = steady(follower.rng, 100)
            realised[follower.rng.random(100) < share] = 0.0
            follower.step(realised)
            follower.centre[:] = MEAN
        told = [one for one in opened(follower.run(60, {3: 0.0})) if one[1] == 3]
        waits.append(told[0][0] if told else 60)
    assert waits[0] < waits[1]


def test_an_understated_sample_is_no_silence_and_no_drop() -> None:
    """A policed series delivers less than it wants: that says nothing of its demand."""
    censored = np.zeros(20, np.bool_)
    censored[3] = True
    assert Follower(20).run(30, {3: 0.0}, censored=censored) == []


CEILING = np.full(20, 40e6)
USERS = np.ones(20, np.bool_)


@pytest.mark.parametrize(
    ("minutes", "rate", "alarms"), [(1, 38e6, 0), (2, 38e6, 0), (1, 25e6, 1), (4, 38e6, 1)]
)
def test_a_speed_test_is_no_alarm(minutes: int, rate: float, alarms: int) -> None:
    """Short and at the ceiling is a speed test; below it, or longer, is not. A user's alarm waits for that."""
    follower = Follower(20, ceiling_bps=CEILING, user=USERS)
    found = follower.run(minutes, {3: rate})
    follower.centre[3] = MEAN
    assert len(opened(found + follower.run(5, {}))) == alarms


def test_the_peak_within_a_step_gives_a_short_speed_test_away() -> None:
    """Twenty seconds at the ceiling are a third of it over the minute; the polls in between saw more."""
    peak = np.full(20, np.nan)
    peak[3] = 39e6
    for known, alarms in ((peak, 0), (np.full(20, np.nan), 1)):
        follower = Follower(20, ceiling_bps=CEILING, user=USERS)
        found = follower.run(1, {3: 20e6}, peak_bps=known)
        follower.centre[3] = MEAN
        assert len(opened(found + follower.run(5, {}))) == alarms


def test_a_scheduled_event_is_no_alarm() -> None:
    """What a known event explains is neither told nor learnt; an alarm that is open ends with it."""
    excused = np.zeros(20, np.bool_)
    excused[3] = True
    follower = Follower(20)
    assert follower.run(30, {3: 60e6}, excused=excused) == []
    follower = Follower(20)
    follower.run(2, {3: 30e6})
    ((_, end),) = follower.run(1, {3: 30e6}, excused=excused)
    assert end.reason == "excused by a known event"


def test_what_is_small_is_no_alarm() -> None:
    """However unlikely, a surprise below what is material is left alone."""
    assert opened(Follower(20, material_bps=np.full(20, 50e6)).run(10, {3: 30e6})) == []


def test_fan_out_is_told() -> None:
    """A host that talks to five usually and to two hundred now."""
    follower = Follower(20)
    for _ in range(100):
        follower.step(steady(follower.rng, 20), peers=follower.rng.poisson(5, 20).astype(float))
    peers = np.full(20, 5.0)
    peers[7] = 200.0
    (fan,) = follower.step(steady(follower.rng, 20), peers=peers)
    assert (fan.kind, fan.series_id, fan.evidence.realised) == (Kind.FAN_OUT, 7, 200.0)
    assert fan.evidence.middle < 10
    ends = [one for _ in range(4) for one in follower.step(steady(follower.rng, 20), peers=np.full(20, 5.0))]
    assert [one.change for one in ends] == [Change.CLOSED]


def tree(n: int) -> np.ndarray:
    """Parents of a root (0) and ``n`` - 1 children."""
    parent = np.zeros(n, np.int64)
    parent[0] = -1
    return parent


@pytest.mark.parametrize("rate", [30e6, 0.0])
def test_many_at_once_are_one_alarm(rate: float) -> None:
    """When most children of a pool are surprised together, the pool has one alarm that counts them."""
    follower = Follower(20, parent=tree(20))
    told = [
        one for _, one in follower.run(20, dict.fromkeys(range(1, 16), rate)) if one.change is Change.OPENED
    ]
    assert [(one.series_id, one.evidence.series) for one in told] == [(0, 15)]


def test_a_pool_is_silent_about_what_its_child_explains() -> None:
    """One user's spike is the group's spike too: the user's alarm says more."""
    follower = Follower(20, parent=tree(20))
    assert [series for _, series, _, _ in opened(follower.run(1, {0: 30e6, 3: 30e6}))] == [3]


def test_alarms_follow_their_series_when_columns_move() -> None:
    """Re-ordering columns changes nothing but their order."""

    def told(shuffle: bool) -> list[tuple[int, Kind, Change, float]]:
        rng, order = np.random.default_rng(3), np.random.default_rng(4)
        detector = Detector(SETTINGS)
        found: list[tuple[int, Kind, Change, float]] = []
        for minute in range(150):
            rate = rng.exponential(1e6, 10)
            rate[2] += 60e6 * (minute >= 120)
            column = order.permutation(10) if shuffle else np.arange(10)
            step = plain_step(column, rate[column], np.tile(EXPONENTIAL, (10, 1)), QUANTILE)
            found += [(a.series_id, a.kind, a.change, a.since) for a in detector.step(60.0 * minute, step)]
        return found

    assert told(shuffle=True) == told(shuffle=False) != []


def test_an_alarm_of_a_series_that_is_gone_is_closed() -> None:
    """Nothing stays open of what is no more."""
    follower = Follower(20)
    follower.run(1, {3: 30e6})
    keep = np.delete(np.arange(20), 3)
    step = plain_step(keep, steady(follower.rng, 19), np.full((19, 7), MEAN) + follower.width, QUANTILE)
    (end,) = follower.detector.step(follower.now + 60, step)
    assert (end.series_id, end.change, end.reason) == (3, Change.CLOSED, "the pool is gone")


def test_the_same_step_again_changes_nothing() -> None:
    """A duplicate is not evidence."""
    follower = Follower(20)
    spike = follower.run(1, {3: 30e6})
    follower.now -= 60.0
    assert spike
    assert follower.run(1, {3: 30e6}) == []


def test_a_clock_that_steps_back_or_a_gap_breaks_runs() -> None:
    """What has to be in a row is not, across an hour that is missing or comes twice."""
    for jump in (-3600.0, 3600.0):
        follower = Follower(20)
        follower.run(2, {3: 0.0})
        follower.now += jump
        assert opened(follower.run(1, {3: 0.0})) == []
        follower.centre[3] = MEAN
        assert opened(follower.run(3, {5: 40e6})) == [(0, 5, Kind.SPIKE, 1)]


def test_a_guess_is_no_forecast() -> None:
    """One figure for all quantiles has no band to be out of."""
    detector = Detector(SETTINGS)
    for minute in range(100):
        rate = np.full(3, 1e6 if minute < 90 else 9e9)
        assert (
            detector.step(60.0 * minute, plain_step(np.arange(3), rate, np.full((3, 7), 1e6), QUANTILE)) == ()
        )


ODD = st.sampled_from([0.0, 1.0, 1e6, 1e12, 1e300, -1.0, np.nan, np.inf, -np.inf])


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, (8, 3), elements=ODD),
    arrays(np.float64, (8, 3, 7), elements=ODD),
    st.lists(st.sampled_from([0.0, 60.0, -600.0, 1e9]), min_size=8, max_size=8),
)
def test_nothing_that_was_measured_raises(
    rates: np.ndarray, forecasts: np.ndarray, jumps: list[float]
) -> None:
    """All missing, zero, infinite, negative, huge, crossing quantiles, and a clock that jumps."""
    detector, now = Detector(replace(SETTINGS, learn_steps=1)), 0.0
    for rate, forecast, jump in zip(rates, forecasts, jumps, strict=True):
        now += jump
        step = plain_step([1, 2, 3], rate, forecast, QUANTILE)
        columns = dict.fromkeys(("material_bps", "ceiling_bps", "peak_bps", "peers"), rate)
        for one in detector.step(now, replace(step, parent=np.array([-1, 0, 0]), **columns)):
            assert one.evidence.steps >= 1
    assert detector.step(now + 60, plain_step([], [], np.empty((0, 7)), QUANTILE)) is not None


@pytest.mark.parametrize("rate", [0.0, np.nan])
def test_a_constant_or_missing_series_is_quiet(rate: float) -> None:
    """A series that is always zero, forecast as zero, or never measured raises nothing."""
    detector = Detector(SETTINGS)
    for minute in range(200):
        step = plain_step([1], [rate], np.zeros((1, 7)), QUANTILE)
        assert detector.step(60.0 * minute, step) == ()


def test_a_huge_spike_is_one_alarm_and_spoils_nothing() -> None:
    """1e12 is told, and the next ordinary spike too: what was anomalous is not learnt as it stands."""
    follower = Follower(20)
    assert len(opened(follower.run(1, {3: 1e12}))) == 1
    follower.centre[3] = MEAN
    follower.run(10, {})
    assert opened(follower.run(1, {3: 40e6})) == [(0, 3, Kind.SPIKE, 1)]


@given(
    arrays(np.float64, (5, 7), elements=st.floats(0, 1e9)), arrays(np.float64, 5, elements=st.floats(0, 1e9))
)
def test_probabilities_of_both_sides_cover_everything(forecast: np.ndarray, value: np.ndarray) -> None:
    """P(X >= x) + P(X <= x) is at least 1: an atom of the forecast counts on both sides."""
    forecast = np.sort(forecast, axis=1)
    up, down = at_least(value, forecast, QUANTILE), at_most(value, forecast, QUANTILE)
    assert ((up >= 0) & (up <= 1) & (down >= 0) & (down <= 1)).all()
    assert (up + down >= 1 - 1e-9).all()


def test_a_learnt_tail_is_the_true_one() -> None:
    """Pareto excesses: one in ten thousand is passed by one in ten thousand."""
    rng = np.random.default_rng(2)
    tail = Tail(0.02, 1e5)
    level = np.zeros(500, np.int64)
    tail.align(np.full(500, -1))
    for _ in range(400):
        u = rng.random(500)
        excess = np.where(u < 0.02, (u / 0.02) ** -0.25 - 1, 0.0)
        tail.learn(level, excess, np.ones(500, np.bool_), 1e-5)
    at = (1e-4 / 0.02) ** -0.25 - 1
    estimated = tail.probability(level, np.full(500, at))
    assert np.median(estimated) == pytest.approx(1e-4, rel=0.3)


@pytest.mark.parametrize(
    ("field", "value"),
    [("step_s", 0.0), ("false_alarms_per_day", 0.0), ("normal_steps", 3), ("wide_share", 0.0)],
)
def test_settings_name_the_rule_that_is_broken(field: str, value: float) -> None:
    """A wrong value is refused with the field's name."""
    with pytest.raises(ValueError, match=field):
        AnomalySettings(**{field: value})  # type: ignore[arg-type]


def test_shapes_that_do_not_fit_are_refused() -> None:
    """A caller's mistake is an error, not a guess."""
    with pytest.raises(ValueError, match="forecast_bps"):
        plain_step([1, 2], [0.0, 0.0], np.zeros((1, 7)), QUANTILE)
    with pytest.raises(ValueError, match="series_id"):
        plain_step([1, 1], [0.0, 0.0], np.zeros((2, 7)), QUANTILE)
    step = plain_step([1], [0.0], np.zeros((1, 7)), QUANTILE)
    with pytest.raises(ValueError, match="peers"):
        Step(**{**vars(step), "peers": np.zeros(2)})


def test_nothing_known_is_no_forecast_of_nothing() -> None:
    """After a gap the ladder may end at zero: what comes back then is no spike. An idle series' first burst is."""
    for before, alarms in ((5e6, 0), (0.0, 1)):
        detector = Detector(SETTINGS)
        found: list[Anomaly] = []
        rng = np.random.default_rng(0)
        for minute in range(120):
            band = np.zeros(7) if minute >= 100 or before == 0 else before + np.linspace(-1e6, 1e6, 7)
            rate = rng.normal(before, 1e5) if before else 0.0
            rate = 8e6 if minute == 110 else np.nan if 100 <= minute < 110 and before else rate
            found += detector.step(60.0 * minute, plain_step([1], [rate], band[None], QUANTILE))
            if minute == 110:
                break
        assert len(found) == alarms
