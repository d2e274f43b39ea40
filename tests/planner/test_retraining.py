"""The feedback loop: who is promoted, who is watched and taken back, what operators order, what a restart keeps."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forecasting.forecaster import Forecaster
from forecasting.history import History
from forecasting.settings import ForecastSettings
from forecasting.training import TrainedModel, Verdict, train
from planner.config import Forecasting
from planner.model_versions import Outcome, What
from planner.retraining import MAX_MODEL_BYTES, TRIAL_S, Retraining
from planner.snapshot import NotThere, Refused
from telemetry.keys import create_key_file
from telemetry.store import Store
from tests.planner.networks import AtOnce

SETTINGS = ForecastSettings(
    step_s=5.0, horizons_s=(5.0, 15.0), window_steps=8, min_history_steps=4, train_steps=80, iterations=3
)
NOW = 1000.0


def history(steps: int = 80, end_time: float = NOW) -> History:
    rng = np.random.default_rng(0)
    wave = 5e6 + 4e6 * np.sin(np.arange(steps)[:, None] / 4 + np.arange(20))
    demand = (wave + rng.normal(0, 1e5, wave.shape)).astype(np.float32)
    return History(demand, np.zeros(demand.shape, bool), 5.0, end_time, np.zeros(20, int), np.arange(20))


@functools.cache
def a_model(end_time: float) -> TrainedModel:
    """A real one; by ``trained_until`` they are told apart."""
    return train(history(end_time=end_time), SETTINGS)


def verdict(promoted: bool = True) -> Verdict:
    return Verdict(promoted, 0.1, 0.2, 0.3, 99, "champion scores 0.2")


def learn(forecaster: Forecaster) -> np.ndarray:
    """Give the model's calibration something to keep; gives what it then holds."""
    calibration = forecaster.record.calibrations[0]
    calibration.offset = np.full((1, *calibration.offset.shape[1:]), 0.25)
    return forecaster.calibration_offset


class Watched(Forecaster):
    """A forecaster whose live score is what the test says."""

    score: tuple[float, float] | None = None

    def live_score(self) -> tuple[float, float] | None:
        return self.score


class Loop:
    """A feedback loop whose workers give what the test says."""

    def __init__(self, **config: Any) -> None:
        self.models = Retraining(Forecasting(**config), SETTINGS, AtOnce())
        self.forecaster = Watched(SETTINGS)
        self.models.forecaster = self.forecaster
        self.now = NOW
        self.outcome: tuple[TrainedModel, Verdict] | Exception = a_model(NOW), verdict()

    def train(self, monkeypatch: pytest.MonkeyPatch, trained: TrainedModel, promoted: bool = True) -> None:
        """Time passes, a training is done and taken in."""
        self.now += 900
        monkeypatch.setattr("planner.retraining.retrain", lambda *_: (trained, verdict(promoted)))
        self.models.train(self.now, history())
        self.models.collect(self.now)

    def review(self, after_s: float, score: tuple[float, float] | None) -> None:
        """So long later the forecaster scores so."""
        self.now += after_s
        self.forecaster.score = score
        self.models.review(self.now)

    @property
    def until(self) -> float | None:
        """What tells the model in use from the others."""
        trained = self.models.forecaster.trained
        return trained.trained_until if trained else None

    @property
    def champion(self) -> int | None:
        return self.models.versions.champion


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    """Two models were promoted, the second is in use and on trial."""
    loop = Loop()
    loop.train(monkeypatch, a_model(1000.0))
    loop.train(monkeypatch, a_model(2000.0))
    return loop


def test_winner_is_put_to_use_and_on_record(loop: Loop):
    """The record has number, scores and reason; forecasts made before are stale."""
    assert loop.champion == 2
    assert loop.until == a_model(2000.0).trained_until
    version = loop.models.version(2)
    assert (version.outcome, version.challenger_score, version.champion_score) == (Outcome.PROMOTED, 0.1, 0.2)
    assert version.trained_at == loop.now
    assert loop.models.generation == 2


def test_loser_is_kept_but_not_used(loop: Loop, monkeypatch: pytest.MonkeyPatch):
    """A challenger that lost changes nothing, and can be looked at."""
    loop.train(monkeypatch, a_model(3000.0), promoted=False)
    assert loop.champion == 2
    assert loop.models.version(3).outcome is Outcome.REJECTED
    assert loop.models.version(3).kept
    assert loop.models.generation == 2


def test_model_that_cannot_be_used_is_told_and_not_used(loop: Loop, monkeypatch: pytest.MonkeyPatch):
    """A damaged winner leaves the champion alone."""
    good = a_model(3000.0)
    damaged = TrainedModel(good.kind, b"nonsense", good.spec, good.quantiles, 3000.0, 1)
    loop.train(monkeypatch, damaged)
    assert loop.champion == 2
    assert "unusable" in loop.models.version(3).reason
    assert any("unusable model" in problem for problem in loop.models.problems)


def test_model_of_any_size_is_not_believed(loop: Loop, monkeypatch: pytest.MonkeyPatch):
    """What a worker sends back is bounded before it is stored."""
    good = a_model(3000.0)
    huge = TrainedModel(good.kind, bytes(MAX_MODEL_BYTES + 1), good.spec, good.quantiles, 3000.0, 1)
    loop.train(monkeypatch, huge)
    assert loop.champion == 2
    assert "bytes" in loop.models.version(3).reason


# The trial.


def test_worse_than_persistence_after_an_hour_is_reverted(loop: Loop):
    """The version before is in use again, and the record says why."""
    loop.review(TRIAL_S, (0.31, 0.30))
    assert loop.champion == 1
    assert loop.until == a_model(1000.0).trained_until
    assert loop.models.version(2).outcome is Outcome.REVERTED
    change = loop.models.versions.changes[-1]
    assert change.what is What.REVERTED
    assert change.reason == "live it scores 0.3100, persistence 0.3000; version 1 is in use again"


def test_a_little_worse_has_the_hour_to_settle(loop: Loop):
    """Calibration starts afresh: within the trial only what is plainly worse counts."""
    loop.review(60.0, (0.31, 0.30))
    assert loop.champion == 2
    loop.review(60.0, (0.40, 0.30))
    assert loop.champion == 1


def test_no_score_decides_nothing(loop: Loop):
    """Without enough samples the trial goes on, however long it takes."""
    loop.review(2 * TRIAL_S, None)
    loop.review(60.0, (math.nan, math.nan))
    assert loop.champion == 2
    loop.review(60.0, (0.31, 0.30))
    assert loop.champion == 1


def test_score_that_is_no_number_is_a_broken_model(loop: Loop):
    """NaN never passes for good."""
    loop.review(60.0, (math.nan, 0.3))
    assert loop.champion == 1


def test_proven_is_proven(loop: Loop):
    """After a good hour a bad one does not revert: the next challenger decides."""
    loop.review(TRIAL_S, (0.2, 0.3))
    loop.review(60.0, (0.9, 0.3))
    assert loop.champion == 2


def test_reverted_to_is_not_on_trial_again(loop: Loop):
    """One promotion is reverted once; models do not fall like dominoes."""
    loop.review(60.0, (0.9, 0.3))
    loop.review(60.0, (0.9, 0.3))
    assert loop.champion == 1


def test_first_model_has_nothing_to_give_way_to(monkeypatch: pytest.MonkeyPatch):
    """It stays in use, and after its trial operators are told, until it does better."""
    loop = Loop()
    loop.train(monkeypatch, a_model(1000.0))
    loop.review(60.0, (0.9, 0.3))
    assert not loop.models.problems
    loop.review(TRIAL_S, (0.9, 0.3))
    assert loop.champion == 1
    assert any("no earlier one to give way to" in problem for problem in loop.models.problems)
    loop.review(60.0, (0.2, 0.3))
    assert not loop.models.problems


def test_model_that_breaks_gives_way_at_once(loop: Loop):
    """The same step is forecast by the version before."""

    class Broken:
        def predict(self, x: Any) -> Any:
            raise MemoryError("out of memory")

    loop.forecaster._model = Broken()  # type: ignore[assignment]
    loop.forecaster.forecast(history(), np.full(20, np.nan))
    assert loop.models.gave_way(loop.now)
    assert loop.champion == 1
    assert not loop.models.gave_way(loop.now)
    forecast = loop.forecaster.forecast(history(), np.full(20, np.nan))
    assert set(forecast.rung) == {0}


def test_fallback_that_does_not_load_is_passed_over(loop: Loop, monkeypatch: pytest.MonkeyPatch):
    """The next older one is taken."""
    loop.train(monkeypatch, a_model(3000.0))
    loop.models.versions.keep_body(2, b"damaged")
    loop.review(60.0, (0.9, 0.3))
    assert loop.champion == 1
    assert not loop.models.version(2).kept


# What operators order.


def test_rollback_holds(loop: Loop, monkeypatch: pytest.MonkeyPatch):
    """An earlier version is in use and no winner replaces it until it is released."""
    loop.models.roll_back(1, loop.now)
    assert loop.until == a_model(1000.0).trained_until
    loop.train(monkeypatch, a_model(3000.0))
    assert loop.champion == 1
    assert "version 1 is held" in loop.models.version(3).reason
    loop.models.release(loop.now)
    loop.train(monkeypatch, a_model(4000.0))
    assert loop.champion == 4


def test_hold_ends_by_itself_if_configured(monkeypatch: pytest.MonkeyPatch):
    """With forecasting.rollback_hold_s nobody needs to remember the release."""
    loop = Loop(rollback_hold_s=1000)
    loop.train(monkeypatch, a_model(1000.0))
    loop.train(monkeypatch, a_model(2000.0))
    loop.models.roll_back(1, loop.now)
    loop.train(monkeypatch, a_model(3000.0))
    assert loop.champion == 1
    loop.train(monkeypatch, a_model(4000.0))
    assert loop.champion == 4


def test_held_version_is_not_taken_back(loop: Loop):
    """What an operator chose is the operator's, also when it does badly."""
    loop.models.roll_back(1, loop.now)
    loop.review(60.0, (0.9, 0.3))
    assert loop.champion == 1


def test_rolling_back_to_the_one_in_use_holds_it(loop: Loop):
    """Nothing is loaded anew: calibration goes on."""
    loop.models.roll_back(2, loop.now)
    assert loop.models.generation == 2
    assert loop.models.versions.held(loop.now)


@pytest.mark.parametrize("version", [0, 3, 99])
def test_unknown_version_is_told(loop: Loop, version: int):
    """Only versions on record can be gone back to."""
    with pytest.raises(NotThere, match=f"version must be one of the models on record, got {version}"):
        loop.models.roll_back(version, loop.now)


@pytest.mark.parametrize(("body", "line"), [(b"", "whose model is kept, got 1"), (b"x", "fit the configuration, got 1")])  # fmt: skip
def test_version_that_cannot_be_used_is_refused(loop: Loop, body: bytes, line: str):
    """A dropped or damaged model changes nothing."""
    loop.models.versions.keep_body(1, body)
    with pytest.raises(Refused, match=line):
        loop.models.roll_back(1, loop.now)
    assert loop.champion == 2
    assert loop.until == a_model(2000.0).trained_until


def test_release_of_nothing_changes_nothing(loop: Loop):
    """Whoever releases twice has what was wanted, and the record one line."""
    before = loop.models.versions.changes
    loop.models.release(loop.now)
    assert loop.models.versions.changes == before


def test_calibration_returns_with_its_model(loop: Loop):
    """What a version had learnt is put by when it is replaced, and is there when it comes back."""
    learnt = learn(loop.forecaster)
    loop.models.roll_back(1, loop.now)
    assert not loop.forecaster.calibration_offset.any()
    loop.models.roll_back(2, loop.now)
    np.testing.assert_array_equal(loop.forecaster.calibration_offset, learnt)


def test_contest_against_a_model_no_longer_in_use_does_not_count(loop: Loop, monkeypatch: pytest.MonkeyPatch):
    """The champion was changed while workers trained: the winner is on record and not in use."""
    loop.now += 900
    monkeypatch.setattr("planner.retraining.retrain", lambda *_: (a_model(3000.0), verdict()))
    loop.models.train(loop.now, history())
    loop.models.roll_back(1, loop.now)
    loop.models.release(loop.now)
    loop.models.collect(loop.now)
    assert loop.champion == 1
    assert "judged against version 2, not 1" in loop.models.version(3).reason


# Restarts.


def restarted(directory: Path, states: dict[str, bytes], **config: Any) -> Retraining:
    """A successor that reads the states from a store's file."""
    key = create_key_file(directory / "key")
    store = Store.open(directory / "store.duckdb", key)
    for name, body in states.items():
        store.put_state(name, body, 0.0)
    store.close()
    store = Store.open(directory / "store.duckdb", key)
    after = Retraining(Forecasting(**config), SETTINGS, AtOnce())
    after.restore(store.get_state("models"), store.get_state("forecaster"), 5000.0)
    store.close()
    return after


def test_a_restart_goes_on_with_model_versions_and_hold(loop: Loop, tmp_path: Path):
    """Champion, calibration, numbers, changes and the hold come back from the store's file."""
    loop.models.roll_back(1, loop.now)
    learnt = learn(loop.forecaster)
    states = {"models": loop.models.versions.to_bytes(), "forecaster": loop.forecaster.state()}
    after = restarted(tmp_path, states)
    assert after.versions.champion == 1
    assert after.forecaster.trained == a_model(1000.0)
    np.testing.assert_array_equal(after.forecaster.calibration_offset, learnt)
    assert after.versions.held(1e9)
    assert after.versions.changes == loop.models.versions.changes
    after.roll_back(2, 6000.0)
    assert after.forecaster.trained == a_model(2000.0)


def test_the_record_decides_which_model_is_in_use(loop: Loop, tmp_path: Path):
    """A kill between the two writes leaves an older forecaster: the record's champion is loaded."""
    older = loop.forecaster.state()
    loop.models.roll_back(1, loop.now)
    after = restarted(tmp_path, {"models": loop.models.versions.to_bytes(), "forecaster": older})
    assert after.forecaster.trained == a_model(1000.0)


def test_trial_goes_on_after_a_restart(loop: Loop, tmp_path: Path):
    """A planner that restarts within the hour still takes back what does badly."""
    after = restarted(
        tmp_path, {"models": loop.models.versions.to_bytes(), "forecaster": loop.forecaster.state()}
    )
    assert after.versions.promoted_at == loop.now


def test_model_of_other_settings_is_not_used_and_that_is_on_record(loop: Loop, tmp_path: Path):
    """After the quantiles were changed there is no model until the next training, which has the next number."""
    store = {"models": loop.models.versions.to_bytes(), "forecaster": loop.forecaster.state()}
    other = ForecastSettings(
        step_s=5.0, horizons_s=(5.0, 15.0), quantiles=(0.1, 0.5, 0.9), window_steps=8, min_history_steps=4,
        train_steps=80,
    )  # fmt: skip
    after = Retraining(Forecasting(), other, AtOnce())
    after.restore(store["models"], store["forecaster"], 5000.0)
    assert after.versions.champion is None
    assert after.forecaster.trained is None
    assert after.versions.changes[-1].what is What.UNUSABLE
    with pytest.raises(Refused):
        after.roll_back(1, 5000.0)


def test_model_without_a_record_is_put_on_record(loop: Loop, tmp_path: Path):
    """A store written before there was a record still gives its model."""
    after = restarted(tmp_path, {"forecaster": loop.forecaster.state()})
    assert after.versions.champion == 1
    assert after.forecaster.trained == a_model(2000.0)


@pytest.mark.parametrize(
    "states", [{}, {"models": b"nonsense"}, {"models": b"\x80", "forecaster": b"nonsense"}]
)
def test_states_that_cannot_be_read_do_not_stop_the_start(tmp_path: Path, states: dict[str, bytes]):
    """A planner that finds nothing usable starts without a model."""
    after = restarted(tmp_path, states)
    assert after.versions.champion is None
    assert after.forecaster.trained is None
