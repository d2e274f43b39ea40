"""Application mix and peers as features: what they say, that nothing leaks, and that they are worth having."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from forecasting.context import CHANNELS, channels_known, context_features, feature_names, mix
from forecasting.features import NAMES, FeatureSpec, feature_rows
from forecasting.forecaster import Forecaster
from forecasting.history import Floats, History
from forecasting.models import ModelFailed
from forecasting.scoring import pinball_loss
from forecasting.training import TrainedModel, challenge, draw, train
from tests.forecasting.traffic import QUICK, history_of, recurring

NAN = float("nan")
PEERS = CHANNELS.index("peers")


def around(n_steps: int, n_series: int, seed: int = 0) -> Floats:
    """Anything, of every channel."""
    return np.random.default_rng(seed).random((len(CHANNELS), n_steps, n_series)).astype(np.float32)


# What is told.


def test_mix_is_zero_for_one_class_and_one_for_all_alike() -> None:
    """Whatever the classes are called and how much they carry; nothing is known of no traffic."""
    entropy, top = mix(np.array([[0.0, 5e6, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1e9, 1e9, 0, 0]]))
    np.testing.assert_allclose(entropy, [0, 1, NAN, 0.5], atol=1e-6)
    np.testing.assert_allclose(top, [1, 0.25, NAN, 0.5], atol=1e-6)
    assert mix(np.array([[3.0]]))[0] == 0


def test_order_of_classes_does_not_matter() -> None:
    """The number of a class is the configuration's, and no other network's."""
    traffic = np.random.default_rng(0).random((20, 5))
    for one, other in zip(mix(traffic), mix(traffic[:, ::-1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_features_are_latest_value_and_rise() -> None:
    """The latest that is known, and how far above the mean of the latest rows."""
    context = np.full((len(CHANNELS), 4, 2), NAN, np.float32)
    context[PEERS, :, 0] = [1, 2, 6, NAN]
    found = context_features(context, ("peers",), 2)
    np.testing.assert_allclose(found, [[6, NAN], [3, NAN]])
    assert feature_names(("peers",)) == ("peers", "peers_rise")


@pytest.mark.parametrize("context", [None, np.empty((len(CHANNELS), 0, 3), np.float32)])
def test_nothing_known_is_nan(context: Floats | None) -> None:
    """A model that knows channels is served without them."""
    assert np.isnan(context_features(context, CHANNELS, 3)).all()


def test_channel_that_is_hardly_known_is_not_learnt_from() -> None:
    """Known in a few cells only, it would tell when measuring began."""
    context = np.full((len(CHANNELS), 100, 3), NAN, np.float32)
    context[PEERS, -1] = 1
    assert channels_known(context) == ()
    context[PEERS, -30:] = 1
    assert channels_known(context) == ("peers",)
    assert channels_known(None) == channels_known(context[:, :0]) == ()


# Where it goes.


def test_rows_without_context_are_as_ever() -> None:
    """A spec without channels looks at no context: models of before get what they were trained on."""
    demand = recurring(40, 3)
    spec = FeatureSpec(step_s=5.0, window_steps=16)
    censored = np.zeros(demand.shape, np.bool_)
    without = feature_rows(demand, censored, 0.0, np.array([1, 6]), spec).x
    given = feature_rows(demand, censored, 0.0, np.array([1, 6]), spec, None, around(40, 3)).x
    assert np.array_equal(without, given, equal_nan=True)
    known = feature_rows(
        demand, censored, 0.0, np.array([1, 6]), replace(spec, context=("peers",)), None, around(40, 3)
    ).x
    assert known.shape[1] == len(NAMES) + 2
    assert np.array_equal(known[:, : len(NAMES)], without, equal_nan=True)


def test_history_cuts_its_context_with_its_rows() -> None:
    """The latest rows, the oldest, and some series: context stays beside its demand."""
    demand, context = recurring(20, 3), around(12, 3)
    history = history_of(demand, context=context)
    for cut, rows in (
        (history.tail(5), context[:, 7:]),
        (history.tail(15), context),
        (history.tail(0), context[:, 12:]),
        (history.until(18), context[:, :10]),
        (history.until(3), context[:, :0]),
        (history.pick(np.array([2, 0])), context[:, :, [2, 0]]),
    ):
        assert cut.context is not None
        assert np.array_equal(cut.context, rows)
    for wrong in (around(21, 3), around(5, 2), np.zeros(3, np.float32)):
        with pytest.raises(ValueError, match="context must have shape"):
            history_of(demand, context=wrong)


def test_context_before_it_was_kept_is_unknown() -> None:
    """Windows may begin before the rows that have any; those of long ago have none at all."""
    history = history_of(recurring(20, 2), context=around(4, 2))
    found = history.context_at(np.array([[15], [16], [19]]), np.array([1]))
    assert found is not None
    assert history.context is not None
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_array_equal(found[:, 1:, 0], history.context[:, [0, 3], 1])
    assert history.context_at(np.array([[3]]), np.array([0])) is None
    assert history_of(recurring(20, 2)).context_at(np.array([[3]]), np.array([0])) is None


def test_what_comes_after_the_cutoff_changes_nothing() -> None:
    """No leakage: context after a cutoff may be anything."""
    demand, context = recurring(120, 4), around(120, 4)
    history = history_of(demand, context=context)
    spec = FeatureSpec(5.0, QUICK.window_steps, context=CHANNELS)
    drawn = draw(history, demand, QUICK, spec, 10**6, np.random.default_rng(0)).rows.x
    changed = context.copy()
    changed[:, 60:] = 1e6
    again = draw(
        replace(history, context=changed), demand, QUICK, spec, 10**6, np.random.default_rng(0)
    ).rows.x
    # All windows, by cutoff and series: those whose cutoff lies before the change are the same.
    same = (60 - (QUICK.min_history_steps - 1)) * 4 * len(QUICK.horizons_s)
    assert np.array_equal(drawn[:same], again[:same], equal_nan=True)
    assert not np.array_equal(drawn[same:], again[same:], equal_nan=True)


# What it is worth.


def foretold(n_steps: int, n_series: int, seed: int = 0) -> History:
    """Demand that jumps or falls six steps after the number of peers does: others join before traffic comes."""
    rng = np.random.default_rng(seed)
    busy = np.repeat(rng.random((n_steps // 20 + 1, n_series)) < 0.5, 20, axis=0)[:n_steps]
    peers = np.where(busy, 40, 4) * rng.lognormal(0, 0.1, busy.shape)
    later = np.roll(busy, 6, axis=0)
    demand = np.where(later, 12e6, 2e6) * rng.lognormal(0, 0.1, busy.shape)
    context = np.full((len(CHANNELS), n_steps, n_series), NAN, np.float32)
    context[PEERS] = np.log2(1 + peers)
    return history_of(demand.astype(np.float32), context=context)


def test_peers_foretell_what_demand_alone_does_not() -> None:
    """Where peers come before traffic, the model that sees them loses a quarter less, and more."""
    history = foretold(400, 20)
    blind = replace(history, context=None)
    loss = {}
    for name, one in (("with", history), ("without", blind)):
        verdict = challenge(None, train(one, QUICK), one, QUICK)
        loss[name] = verdict.challenger_score
    assert loss["with"] < 0.75 * loss["without"]


def test_forecaster_serves_what_it_learnt_from() -> None:
    """The forecast in the loop sees the peers of now."""
    history = foretold(400, 20)
    trained = train(history, QUICK)
    assert trained.spec.context == ("peers",)
    forecaster = Forecaster(QUICK)
    forecaster.install(trained)
    ahead, quantile, no_plan = 6, np.asarray(QUICK.quantiles), np.full(20, NAN)
    losses = []
    for cutoff in range(365, 394):
        now = history.until(cutoff)
        came = history.demand_bps[cutoff - 1 + ahead, :, None]
        losses.append(
            [
                pinball_loss(forecaster.forecast(one, no_plan).demand_bps[:, [1]], came, quantile).mean()
                for one in (now, replace(now, context=None))
            ]
        )
    seen, blind = np.mean(losses, axis=0)
    assert seen < 0.75 * blind


# Saved models.


def test_state_keeps_the_channels() -> None:
    """After a restart the same features are made."""
    history = foretold(200, 10)
    forecaster, again = Forecaster(QUICK), Forecaster(QUICK)
    forecaster.install(train(history, QUICK))
    again.restore(forecaster.state())
    assert again.trained == forecaster.trained
    no_plan = np.full(10, NAN)
    one, other = (f.forecast(history, no_plan).demand_bps for f in (forecaster, again))
    assert np.array_equal(one, other)


def test_state_of_before_there_was_context_is_served(trained: TrainedModel) -> None:
    """A model saved by an earlier version has no word of channels, and needs none."""
    forecaster = Forecaster(QUICK)
    forecaster.install(trained)
    body = forecaster.state()
    meta = {name: value for name, value in asdict(trained).items() if name != "body"}
    del meta["spec"]["context"]
    restored = Forecaster(QUICK)
    restored.restore(_with_meta(body, meta))
    history = history_of(recurring(80, 5), context=around(80, 5))
    one, other = (f.forecast(history, np.full(5, NAN)).demand_bps for f in (forecaster, restored))
    assert np.array_equal(one, other)


def test_model_of_unknown_features_is_refused(trained: TrainedModel) -> None:
    """A model of a later version is told apart by what it wants to see."""
    later = replace(trained, spec=replace(trained.spec, context=("peers", "phase_of_the_moon")))
    with pytest.raises(ModelFailed, match="features phase_of_the_moon, which are not known here"):
        later.load(QUICK)


def _with_meta(body: bytes, meta: dict[str, object]) -> bytes:
    with np.load(io.BytesIO(body)) as stored:
        parts = {name: stored[name] for name in stored.files}
    parts["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    out = io.BytesIO()
    np.savez(out, **parts)
    return out.getvalue()
