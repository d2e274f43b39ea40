"""Bad input of every kind, through everything that takes history: a defined answer, or NotEnoughHistory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from forecasting.anomalies import Detector
from forecasting.anomaly import AnomalySettings, plain_step
from forecasting.forecaster import Forecaster
from forecasting.history import History
from forecasting.population import learn_population
from forecasting.seasonal import DAY_S, blocks_of, recalled
from forecasting.settings import ForecastSettings
from forecasting.training import NotEnoughHistory, TrainedModel, retrain, train
from telemetry.ring import SeriesRing
from tests.forecasting.traffic import QUICK, STEP_S, history_of, recurring

N_STEPS, N_SERIES = 120, 12
SMALL = replace(QUICK, train_rows=2000, iterations=5)
INF = float("inf")


def spoiled(change: Callable[[np.ndarray], None]) -> History:
    """Good traffic, changed in place."""
    demand = recurring(N_STEPS, N_SERIES)
    change(demand)
    return history_of(demand)


def everywhere(value: float) -> History:
    return spoiled(lambda demand: demand.fill(value))


def some(*values: float) -> History:
    """A tenth of the samples replaced by these values in turn."""

    def change(demand: np.ndarray) -> None:
        hit = np.random.default_rng(0).random(demand.shape) < 0.1
        demand[hit] = np.resize(values, int(hit.sum()))

    return spoiled(change)


def one_sample() -> History:
    demand = np.full((N_STEPS, N_SERIES), np.nan, np.float32)
    demand[-1] = 1e6
    return history_of(demand)


def through_the_ring() -> History:
    """Samples twice, in disorder and from a clock that steps back, as the ring makes steps of them."""
    demand, start = recurring(N_STEPS, N_SERIES), 1e9
    ring, series = SeriesRing(STEP_S, N_STEPS, N_SERIES), np.arange(N_SERIES)
    order = [row for first in range(0, N_STEPS, 4) for row in (first + 1, first, first, first + 3, first + 2)]
    for row in order:
        end = start + (row + 1) * STEP_S
        poll = (series, demand[row], np.full(N_SERIES, STEP_S), np.zeros(N_SERIES, np.bool_))
        ring.add(end, *poll, now=end - 3 * STEP_S if row % 7 == 0 else end)
    window = ring.window(start + N_STEPS * STEP_S, N_STEPS, series)
    return History(window.demand_bps, window.censored, STEP_S, window.end_time)


CASES = {
    "all missing": lambda: everywhere(np.nan),
    "constant zero": lambda: everywhere(0.0),
    "constant": lambda: everywhere(5e6),
    "one sample": one_sample,
    "no rows": lambda: history_of(np.empty((0, N_SERIES), np.float32)),
    "no series": lambda: history_of(np.empty((N_STEPS, 0), np.float32)),
    "duplicates, disorder and a clock that steps back": through_the_ring,
    "spikes": lambda: some(1e12),
    "NaN and infinities": lambda: some(np.nan, INF, -INF),
    "only infinities": lambda: everywhere(INF),
    "negative": lambda: some(-1.0, -1e12),
    "huge and tiny": lambda: some(3e38, 1e-38),
    "all of it": lambda: some(np.nan, INF, -INF, -5.0, 0.0, 1e12, 3e38),
    "everything censored": lambda: replace(some(1e12), censored=np.ones((N_STEPS, N_SERIES), np.bool_)),
    "before the epoch": lambda: replace(some(1e12), end_time=-1e6),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def history(request: pytest.FixtureRequest) -> Iterator[History]:
    """Each case, with arithmetic that goes wrong made an error."""
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        yield request.param()


def assert_defined(forecaster: Forecaster, history: History) -> np.ndarray:
    """Finite, >= 0 and rising, with and without a plan; gives the fans."""
    unknown = np.full(history.n_series, np.nan)
    forecaster.observe(history)
    for plan in (unknown, np.full(history.n_series, INF)):
        made = forecaster.forecast(history, plan).demand_bps
        assert np.isfinite(made).all()
        assert (made >= 0).all()
        assert (np.diff(made, axis=-1) >= 0).all()
    return made


def test_forecasts_are_defined(history: History, trained: TrainedModel) -> None:
    """With a model and without, step after step, also after the clock has stepped back."""
    with_model = Forecaster(QUICK)
    with_model.install(trained)
    for forecaster in (with_model, Forecaster(QUICK)):
        for later_s in (0, STEP_S, STEP_S, -3600, -3595, 86_400):
            assert_defined(forecaster, replace(history, end_time=history.end_time + later_s))
            assert np.isfinite(forecaster.calibration_offset).all()


def test_training_is_defined(history: History) -> None:
    """A model that forecasts the same bad series, or NotEnoughHistory."""
    try:
        made = train(history, SMALL)
        first, verdict = retrain(history, SMALL, made)
    except NotEnoughHistory:
        return
    assert np.isfinite([verdict.challenger_score, verdict.persistence_score]).all()
    for model in (made, first):
        forecaster = Forecaster(SMALL)
        forecaster.install(model)
        assert_defined(forecaster, history)
        assert forecaster.last_error is None


def test_archetypes_are_defined(history: History) -> None:
    """A population, be it empty, that forecasts newcomers among the same bad series."""
    forecaster = Forecaster(QUICK)
    forecaster.install_population(learn_population(history, QUICK))
    assert_defined(forecaster, history)
    assert_defined(forecaster, history.tail(2))


def test_alarms_are_defined(history: History) -> None:
    """The detector takes every step of it, in order and not, and what it says is of this moment."""
    detector = Detector(AnomalySettings(step_s=STEP_S, learn_steps=1))
    quantile = np.array([0.1, 0.5, 0.9])
    fan = np.tile(np.array([1e5, 1e6, 5e6]), (history.n_series, 1))
    for row in [*range(history.n_steps), 10, 10, 0, *range(history.n_steps)][: 2 * history.n_steps]:
        step = plain_step(history.series_id, history.demand_bps[row], fan, quantile)
        now = history.end_time + row * STEP_S
        for anomaly in detector.step(now, step):
            assert anomaly.since <= now
            assert anomaly.direction in {-1, 1}


@pytest.mark.parametrize("forecast", [np.nan, INF, -1.0, 0.0, 3e38])
def test_alarms_on_no_forecast_are_defined(forecast: float) -> None:
    """A fan that is none, or one figure for all quantiles, raises no alarm and no error."""
    detector = Detector(AnomalySettings(step_s=STEP_S, learn_steps=1))
    fan = np.full((N_SERIES, 3), forecast)
    for row, demand in enumerate(some(np.nan, INF, 1e12).demand_bps):
        step = plain_step(np.arange(N_SERIES), demand, fan, [0.1, 0.5, 0.9])
        assert not detector.step(1e9 + row * STEP_S, step)


def test_nothing_after_the_cutoff_matters_end_to_end() -> None:
    """Train, learn and forecast up to a cutoff, yesterday included: to the bit the same whatever follows it."""
    settings = ForecastSettings(
        step_s=900.0, horizons_s=(900.0, 3600.0), train_steps=300, train_rows=3000, iterations=10
    )
    rng, n_steps, cutoff = np.random.default_rng(5), 300, 259
    daily = 2 + np.sin(2 * np.pi * np.arange(n_steps)[:, None] * 900 / DAY_S + rng.uniform(0, 6, 8))
    demand = (1e6 * daily * rng.lognormal(0, 0.2, (n_steps, 8))).astype(np.float32)
    changed = demand.copy()
    changed[cutoff + 1 :] = rng.lognormal(20, 4, changed[cutoff + 1 :].shape)

    def issued(file: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        forecaster, made = Forecaster(settings), []
        blocks = blocks_of(file, 900.0, 1e9)
        whole = History(file, np.zeros(file.shape, np.bool_), 900.0, 1e9)
        for row in range(200, cutoff + 1):
            then = whole.until(row + 1)
            if row == 200:
                forecaster.install(train(then, settings))
            then = then.tail(forecaster.steps_wanted)
            ago = recalled(blocks, then.end_time, settings.horizon_steps, 900.0)
            then = replace(then, recalled_bps=ago)
            forecaster.observe(then)
            made.append(forecaster.forecast(then, np.full(8, np.nan)).demand_bps)
        return np.array(made), forecaster.calibration_offset, forecaster.record.contest.scores()

    (one, offset, losses), (other, other_offset, other_losses) = issued(demand), issued(changed)
    assert np.array_equal(one, other)
    assert np.array_equal(offset, other_offset)
    assert offset.any()
    assert np.array_equal(losses, other_losses, equal_nan=True)
