"""The forecaster in the loop: the ladder, bad input, calibration as it goes, restarts."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forecasting.baselines import auto_bandwidth
from forecasting.burstiness import BURSTY, STEADY, VARYING
from forecasting.contest import Contestant
from forecasting.forecast import Rung
from forecasting.forecaster import Forecaster
from forecasting.history import Floats
from forecasting.models import ModelFailed
from forecasting.scoring import coverage
from forecasting.training import TrainedModel
from tests.forecasting.traffic import QUICK, STEP_S, history_of, recurring

NO_PLAN = np.full(30, np.nan)


def test_the_ladder_is_walked_per_series(forecaster: Forecaster) -> None:
    """History: model. Few samples: archetype. Old samples: auto-bandwidth. None: plan, or peers' shape."""
    demand = recurring(120, 30)
    demand[:-3, 0] = np.nan  # new, three samples
    demand[-20:, 1] = np.nan  # silent for 100 s, measured before
    demand[:, 2:4] = np.nan  # never measured ...
    plan = NO_PLAN.copy()
    plan[3] = 7e6  # ... but planned for
    forecast = forecaster.forecast(history_of(demand), plan)
    assert forecast.rung[:4].tolist() == [
        Rung.ARCHETYPE,
        Rung.AUTO_BANDWIDTH,
        Rung.ARCHETYPE,
        Rung.LAST_PLAN,
    ]
    assert (forecast.rung[4:] == Rung.MODEL).all()
    assert (forecast.demand_bps[1] == auto_bandwidth(demand[:, 1:2], STEP_S)).all()
    assert (forecast.demand_bps[3] == 7e6).all()
    assert forecaster.last_error is None


def test_before_there_is_a_model_the_next_rungs_speak() -> None:
    """Without a model: auto-bandwidth while nobody has history, archetypes from then on."""
    forecaster = Forecaster(QUICK)
    young = forecaster.forecast(history_of(recurring(4, 30)), NO_PLAN)
    older = forecaster.forecast(history_of(recurring(40, 30)), NO_PLAN)
    assert set(young.rung) == {Rung.AUTO_BANDWIDTH}
    assert set(older.rung) == {Rung.ARCHETYPE}


def test_a_forecast_says_what_kind_of_traffic_each_series_is(forecaster: Forecaster) -> None:
    """By the window it saw; varying where there is too little to say."""
    demand = recurring(120, 30)
    demand[:, 0] = 5e6
    demand[:, 1] = np.where(np.arange(120) % 2, 9e6, 1e6)
    demand[:-2, 2] = np.nan
    kind = forecaster.forecast(history_of(demand), NO_PLAN).kind
    assert kind is not None
    assert kind[:3].tolist() == [STEADY, BURSTY, VARYING]


def test_archetypes_are_kept_for_a_while() -> None:
    """They are learnt anew after ten steps, or when the clock steps back, not each tick."""
    forecaster = Forecaster(QUICK)
    forecaster.forecast(history_of(recurring(40, 30), end_time=1000.0), NO_PLAN)
    first = forecaster._archetypes
    forecaster.forecast(history_of(recurring(40, 30), end_time=1005.0), NO_PLAN)
    assert forecaster._archetypes is first
    forecaster.forecast(history_of(recurring(40, 30), end_time=1050.0), NO_PLAN)
    assert forecaster._archetypes is not first


def test_nothing_after_the_cutoff_matters(forecaster: Forecaster) -> None:
    """Change everything after the cutoff and the forecast stays as it was."""
    demand = recurring(150, 30)
    changed = demand.copy()
    changed[100:] = np.random.default_rng(1).lognormal(20, 4, changed[100:].shape)
    one = forecaster.forecast(history_of(demand).until(100), NO_PLAN)
    other = forecaster.forecast(history_of(changed).until(100), NO_PLAN)
    assert np.array_equal(one.demand_bps, other.demand_bps)


def test_chunks_and_columns_change_nothing(forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A series has one forecast, whatever its column and however the work is cut up."""
    demand = recurring(100, 30)
    whole = forecaster.forecast(history_of(demand), NO_PLAN).demand_bps
    monkeypatch.setattr("forecasting.forecaster.CHUNK_SERIES", 7)
    turned = forecaster.forecast(history_of(demand[:, ::-1].copy()), NO_PLAN).demand_bps
    np.testing.assert_allclose(turned[::-1], whole, rtol=1e-5)


ABSURD = st.sampled_from([np.nan, np.inf, -np.inf, -5.0, 0.0, 1.0, 1e6, 1e12, 3e38])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    arrays(np.float32, st.tuples(st.integers(0, 20), st.integers(0, 5)), elements=ABSURD, fill=ABSURD),
    st.booleans(),
    ABSURD,
)
def test_any_input_gives_a_defined_forecast(
    forecaster: Forecaster, demand: np.ndarray, censored: bool, plan: float
) -> None:
    """Missing, infinite, negative or absurd samples: finite, rising quantiles all the same."""
    with np.errstate(all="raise", under="ignore"):
        history = history_of(demand, censored=np.full(demand.shape, censored))
        for one in (forecaster, Forecaster(QUICK)):
            one.observe(history)
            forecast = one.forecast(history, np.full(demand.shape[1], plan))
            assert forecast.demand_bps.shape == (demand.shape[1], 3, 7)
            assert (forecast.demand_bps <= QUICK.max_rate_bps * 1.001).all()


@pytest.mark.parametrize("value", [0.0, 1e6, 1e12])
def test_a_constant_series_is_forecast_near_itself(forecaster: Forecaster, value: float) -> None:
    """Constant zero stays near nothing; a constant rate lies within its own forecast's reach."""
    forecast = forecaster.forecast(history_of(np.full((64, 30), value, np.float32)), NO_PLAN)
    median = forecast.at(5.0, 0.5)
    assert (np.abs(median - value) <= 0.5 * value + 2e3).all()


def test_a_model_that_fails_is_stepped_over(forecaster: Forecaster) -> None:
    """The ladder goes down for all, the reason is kept, and a later success clears it."""

    class Broken:
        def predict(self, x: Floats) -> Floats:
            raise RuntimeError("out of memory")

    class Vague:
        def predict(self, x: Floats) -> Floats:
            made = np.ones((len(x), 7), np.float32)
            made[0] = np.nan
            return made

    history, working = history_of(recurring(64, 30)), forecaster._model
    forecaster._model = Broken()  # type: ignore[assignment]
    assert Rung.MODEL not in forecaster.forecast(history, NO_PLAN).rung
    assert "out of memory" in str(forecaster.last_error)
    forecaster._model = Vague()  # type: ignore[assignment]
    assert forecaster.forecast(history, NO_PLAN).rung[:2].tolist() == [Rung.ARCHETYPE, Rung.MODEL]
    assert "1 series" in str(forecaster.last_error)
    forecaster._model = working
    assert set(forecaster.forecast(history, NO_PLAN).rung) == {Rung.MODEL}
    assert forecaster.last_error is None


def test_a_broken_forecast_is_not_half_mended(forecaster: Forecaster) -> None:
    """Where a simpler contestant has some horizons, a series that the model broke on goes down whole."""

    class Vague:
        def predict(self, x: Floats) -> Floats:
            made = np.ones((len(x), 7), np.float32)
            made[0] = np.nan
            return made

    history = history_of(recurring(64, 30))
    forecaster._model = Vague()  # type: ignore[assignment]
    forecaster.forecast(history, NO_PLAN)
    forecaster.record.contest.champion[:, 0] = Contestant.PERSISTENCE
    made = forecaster.forecast(history, NO_PLAN)
    assert np.isfinite(made.demand_bps).all()
    assert made.rung[:2].tolist() == [Rung.ARCHETYPE, Rung.MODEL]


def test_callers_mistakes_are_told(forecaster: Forecaster) -> None:
    """A step or a shape that is not the settings' is a mistake, not bad input."""
    history = history_of(recurring(64, 30))
    with pytest.raises(ValueError, match="last_plan_bps must have shape"):
        forecaster.forecast(history, np.zeros(2))
    with pytest.raises(ValueError, match="step_s must be 5"):
        forecaster.forecast(replace(history, step_s=60.0), NO_PLAN)


def run(forecaster: Forecaster, demand: Floats, first: int, **columns: object) -> list[Floats]:
    """Observe and forecast at each step from ``first`` on; the forecasts."""
    made = []
    for end in range(first, len(demand) + 1):
        history = history_of(demand[:end], end_time=end * STEP_S, **columns)
        history = replace(history.tail(64))
        forecaster.observe(history)
        made.append(forecaster.forecast(history, np.full(demand.shape[1], np.nan)).demand_bps)
    return made


def test_coverage_recovers_after_the_traffic_changes(trained: TrainedModel) -> None:
    """Noise three times what the model knew: after 350 steps calibrated quantiles cover, raw ones do not."""
    rng = np.random.default_rng(4)
    demand = recurring(600, 30, seed=8) * rng.lognormal(0, 0.4, (600, 30)).astype(np.float32)
    error = {}
    for rate in (0.0, 0.1):
        forecaster = Forecaster(replace(QUICK, calibration_rate=rate))
        forecaster.install(trained)
        made = np.array(run(forecaster, demand, 100))[350:-1, :, 0]
        share = coverage(made, demand[450:600])
        error[rate] = float(np.abs(share - QUICK.quantiles).max())
    assert error[0.1] < 0.04
    assert error[0.1] < 0.5 * error[0.0]


def test_calibration_follows_series_by_id(forecaster: Forecaster, trained: TrainedModel) -> None:
    """Columns may move between forecast and truth: what is learnt is the same."""
    demand = recurring(110, 30, seed=6)
    other = Forecaster(QUICK)
    other.install(trained)
    for end in range(90, 111):
        history = history_of(demand[:end], end_time=end * STEP_S)
        turned = history.pick(np.random.default_rng(end).permutation(30))
        for one, seen in ((forecaster, history), (other, turned)):
            one.observe(seen)
            one.forecast(seen, NO_PLAN)
    assert forecaster.calibration_offset.any()
    np.testing.assert_allclose(forecaster.calibration_offset, other.calibration_offset, atol=0.02)


def test_censored_and_vanished_series_do_not_calibrate(forecaster: Forecaster) -> None:
    """A censored truth is no truth; a series that is gone has none."""
    demand = recurring(64, 30)
    forecaster.forecast(history_of(demand, end_time=1000.0), NO_PLAN)
    forecaster.observe(history_of(demand, end_time=1005.0, censored=np.ones((64, 30), np.bool_)))
    forecaster.forecast(history_of(demand, end_time=1005.0), NO_PLAN)
    forecaster.observe(history_of(demand, end_time=1010.0, series_id=np.arange(100, 130)))
    forecaster.observe(history_of(np.empty((5, 0), np.float32), end_time=1015.0))
    assert not forecaster.calibration_offset.any()


def test_a_clock_that_steps_back_drops_forecasts_from_the_future(forecaster: Forecaster) -> None:
    """Nothing is calibrated against times that have not come yet, and the loop goes on."""
    demand = recurring(64, 30)
    for end_time in (1000.0, 1005.0, 500.0, 500.0, 505.0):
        history = history_of(demand, end_time=end_time)
        forecaster.observe(history)
        forecaster.forecast(history, NO_PLAN)
    assert [issued.end_time for issued in forecaster.record._issued] == [500.0, 505.0]


def test_only_a_sample_of_series_is_followed(trained: TrainedModel) -> None:
    """Calibration keeps a bounded number of series per level, and drops what came due."""
    forecaster = Forecaster(replace(QUICK, calibration_series=10))
    forecaster.install(trained)
    run(forecaster, recurring(100, 30), 64, level=np.repeat([0, 1], 15))
    assert len(forecaster.record._issued[0].series_id) == 20
    assert len(forecaster.record._issued) <= 13


def test_a_restart_goes_on_where_it_was(forecaster: Forecaster) -> None:
    """Model and calibration survive as bytes; an empty forecaster's state is restored too."""
    demand = recurring(120, 30, seed=5)
    run(forecaster, demand, 90)
    again = Forecaster(QUICK)
    again.restore(forecaster.state())
    history = history_of(demand)
    assert np.array_equal(
        again.forecast(history, NO_PLAN).demand_bps, forecaster.forecast(history, NO_PLAN).demand_bps
    )
    assert again.trained == forecaster.trained
    empty = Forecaster(QUICK)
    empty.restore(Forecaster(QUICK).state())
    assert empty.trained is None


def test_a_state_that_does_not_fit_is_refused(forecaster: Forecaster) -> None:
    """Damaged bytes, other horizons or wild offsets raise, and nothing changes."""
    state = forecaster.state()
    other = Forecaster(replace(QUICK, horizons_s=(5.0,)))
    with pytest.raises(ModelFailed, match="other quantiles or horizons"):
        other.restore(state)
    with pytest.raises(ModelFailed, match="not a forecaster's state"):
        other.restore(b"garbage")
    with np.load(io.BytesIO(state)) as stored:
        parts = {name: stored[name] for name in stored.files}
    body = io.BytesIO()
    np.savez(body, **{**parts, "offsets": np.full((3, 1, 3, 7), np.nan)})
    with pytest.raises(ModelFailed, match="not finite"):
        Forecaster(QUICK).restore(body.getvalue())
    assert other.trained is None
