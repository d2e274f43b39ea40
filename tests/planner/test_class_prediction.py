"""Application classes in the loop: series of their own, forecast beside the pools, told to who asks."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.context import CHANNELS, CONTEXT_STEPS
from forecasting.forecast import Rung
from forecasting.history import History
from planner import class_prediction
from planner.class_prediction import CLASS_LEVEL, ClassPrediction
from planner.snapshot import NotThere, PoolForecast
from tests.planner.classes import BACKUP, OTHER, WEB, Speaking
from tests.planner.networks import Never

ENTROPY, TOP, OWN, PEERS = range(len(CHANNELS))


@pytest.fixture
def speaking() -> Speaking:
    """Anna sends ben 3 Mbit/s of web and 1 of backup; carla sends ben 2 of something else."""
    speaking = Speaking(Never())
    speaking.sent = {("anna", "ben", WEB): 3e6, ("anna", "ben", BACKUP): 1e6, ("carla", "ben", OTHER): 2e6}
    speaking.tick(count=12)
    return speaking


def classes_of(speaking: Speaking) -> ClassPrediction:
    return speaking.planner.prediction.classes


def of(speaking: Speaking, user: str) -> dict[str | None, PoolForecast]:
    return {one.application: one for one in speaking.planner.pool_forecast(user, 0.0).applications}


def test_user_is_told_by_application(speaking: Speaking) -> None:
    """Those that carry traffic, in both directions, with what came of each."""
    found = of(speaking, "ben")
    assert list(found) == ["other", "web", "backup"]
    for name, rate in (("other", 2e6), ("web", 3e6), ("backup", 1e6)):
        up, down = found[name].issued
        known = down.demand_bps[~np.isnan(down.demand_bps)]
        np.testing.assert_allclose(known[1:], rate, rtol=1e-3)
        assert np.nanmax(up.demand_bps) == 0
    assert list(of(speaking, "anna")) == ["web", "backup"]
    assert of(speaking, "david") == {}
    assert speaking.planner.pool_forecast("global/west", 0.0).applications == ()


def test_points_add_up_to_the_users(speaking: Speaking) -> None:
    """At every horizon, in both directions; quantiles are each class's own."""
    for user in ("anna", "ben"):
        whole = speaking.planner.pool_forecast(user, 0.0)
        assert whole.point_bps is not None
        total = sum(one.point_bps for one in whole.applications if one.point_bps is not None)
        np.testing.assert_allclose(total, whole.point_bps, rtol=1e-6)


def test_one_application_by_name(speaking: Speaking) -> None:
    """As a pool's forecast, with what had been issued before; what is none is told with what there is."""
    found = speaking.planner.pool_forecast("anna", 0.0, "web")
    assert (found.path, found.application) == ("global/west/ungrouped/anna", "web")
    up = found.issued[0]
    both = ~np.isnan(up.demand_bps) & ~np.isnan(up.forecast_bps[:, 0, 1])
    assert both.any()
    for pool, application, line in (
        ("anna", "games", "application must be one of other, web, backup, got 'games'"),
        ("anna", "other", r"forecast of global/west/ungrouped/anna \(web, backup\), got 'other'"),
        ("global", "web", r"forecast of global \(none\), got 'web'"),
    ):
        with pytest.raises(NotThere, match=line):
            speaking.planner.pool_forecast(pool, 0.0, application)


def test_what_has_no_account_is_a_gap(speaking: Speaking) -> None:
    """A user sends and nobody accounts for it: its classes are unknown, and not idle."""
    speaking.deaf = True
    speaking.tick(count=3)
    window, share = classes_of(speaking).series.window(
        speaking.now, 2, 2 * classes_of(speaking).series.slots_of(0)
    )
    assert np.isnan(window.demand_bps).all()
    assert np.isnan(share).all()


def test_forecast_at_the_end_of_a_request_is_of_the_newest_step(
    speaking: Speaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is not in a tick's slice is forecast when asked for."""
    monkeypatch.setattr(class_prediction, "SLICE", 1)
    speaking.tick(count=2)
    made_at = classes_of(speaking)._made_at
    assert (made_at != speaking.now).sum() > 1
    whole = speaking.planner.pool_forecast("ben", 0.0)
    assert {one.end_time for one in whole.applications} == {whole.end_time}


def test_slices_go_round(speaking: Speaking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose forecast is oldest come first, so nobody waits for ever."""
    monkeypatch.setattr(class_prediction, "SLICE", 2)
    classes = classes_of(speaking)
    n = len(classes.series.slots)
    speaking.tick(count=-(-n // 2))
    oldest = classes._made_at[classes.series.slots].min()
    assert speaking.now - oldest < 5.0 * n


def test_quiet_ticks_make_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the ends of steps there is time: all are of the newest step before the next ends."""
    monkeypatch.setattr(class_prediction, "SLICE", 1)
    speaking = Speaking(Never(), forecasting={"step_s": 10, "horizons_s": [10], "min_history_steps": 8})
    speaking.sent = {("anna", "ben", WEB): 3e6, ("anna", "ben", BACKUP): 1e6}
    speaking.tick(count=9)
    classes = classes_of(speaking)
    ends = [set(classes._made_at[classes.series.slots].tolist())]
    speaking.tick()
    ends.append(set(classes._made_at[classes.series.slots].tolist()))
    assert sorted(map(len, ends)) == [1, 2]


def test_trouble_with_classes_is_not_the_pools(speaking: Speaking, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told as a problem; plans go on."""

    def broken(*_: object) -> None:
        raise RuntimeError("lost the thread")

    monkeypatch.setattr(classes_of(speaking).series, "add", broken)
    before = speaking.planner.snapshot.plan.version
    speaking.tick()
    assert any("lost the thread" in line for line in speaking.planner.prediction.problems)
    assert speaking.planner.snapshot.plan.version >= before
    assert speaking.planner.prediction.standing is not None
    assert speaking.planner.prediction.standing.forecast.end_time == speaking.now


def test_column_is_given_to_the_next_without_its_past(speaking: Speaking) -> None:
    """A class that fell silent is told no more; nothing of it is shown as another's."""
    del speaking.sent["anna", "ben", BACKUP]
    window = speaking.config.forecasting.window_steps
    speaking.tick(count=window + 1)
    assert list(of(speaking, "anna")) == ["web"]
    speaking.sent["emma", "david", BACKUP] = 5e6
    speaking.tick(count=2)
    down = of(speaking, "david")["backup"].issued[1]
    known = down.demand_bps[~np.isnan(down.demand_bps)]
    np.testing.assert_allclose(known, 5e6, rtol=1e-3)
    assert len(known) == 2


# What a training sees.


def test_sample_holds_classes_and_context(speaking: Speaking) -> None:
    """Beside the pools, at levels of their own; users' context, and each class's share."""
    prediction = speaking.planner.prediction
    structure = speaking.planner.structure
    assert structure is not None
    pools = prediction.history.sample(structure, speaking.planner._columns, speaking.now, 100)
    both = prediction.classes.with_classes(pools, speaking.now)
    classes = both.level >= CLASS_LEVEL
    assert classes.sum() > 0
    assert np.array_equal(both.demand_bps[:, ~classes], pools.demand_bps, equal_nan=True)
    assert both.context is not None
    assert both.blocks is not None
    assert both.blocks.mean_bps.shape[1] == both.n_series
    latest = both.context[:, -1]
    assert np.isfinite(latest[OWN, classes]).any()
    assert np.isnan(latest[OWN, ~classes]).all()
    users = np.flatnonzero(both.level == 6)
    anna = users[structure.users.index("anna")]
    np.testing.assert_allclose(latest[[TOP, PEERS], anna], [0.75, 1.0], atol=0.01)
    # Regions and groups have none.
    assert np.isnan(latest[:, (both.level < 6)]).all()


def test_model_learns_from_context_and_serves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once enough of it was seen, the forecast of pools and of classes gets the context of now."""
    # One training, after fifty steps.
    speaking = Speaking(
        forecasting={"step_s": 5, "horizons_s": [5, 15], "min_history_steps": 25, "train_every_s": 3600}
    )
    rng = np.random.default_rng(0)
    for _ in range(70):
        for pair in (("anna", "ben", WEB), ("anna", "carla", BACKUP), ("david", "emma", OTHER)):
            speaking.sent[pair] = 3e6 * rng.lognormal(0, 0.5)
        speaking.tick()
    prediction = speaking.planner.prediction
    trained = prediction.forecaster.trained
    assert trained is not None
    assert trained.spec.context == CHANNELS
    assert prediction.classes.forecaster.trained is trained
    seen: list[History] = []
    forecaster = prediction.classes.forecaster
    whole = forecaster.forecast

    def noted(history: History, last_plan_bps: np.ndarray) -> object:
        seen.append(history)
        return whole(history, last_plan_bps)

    monkeypatch.setattr(forecaster, "forecast", noted)
    speaking.tick()
    assert not prediction.problems
    (history,) = seen
    assert history.context is not None
    assert history.context.shape[1] == CONTEXT_STEPS
    assert np.isfinite(history.context[OWN, -1]).any()
    found = of(speaking, "anna")
    assert {one.rung[0] for one in found.values()} == {Rung.MODEL}
    levels = {one.level for one in prediction.quality().coverage}
    assert {CLASS_LEVEL, CLASS_LEVEL + 1} <= levels
    assert found["web"].coverage is not None
