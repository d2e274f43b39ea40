"""Training and the contest: blind to what it must not see, honest about who won."""

from __future__ import annotations

import math
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from forecasting.baselines import last_value, persistence_quantiles
from forecasting.features import NAMES, FeatureSpec
from forecasting.forecaster import Forecaster
from forecasting.history import Floats, History
from forecasting.models import ModelFailed
from forecasting.scoring import pinball_loss
from forecasting.seasonal import Blocks
from forecasting.training import (
    NotEnoughHistory,
    TrainedModel,
    challenge,
    choose_series,
    draw,
    retrain,
    sample_series,
    train,
)
from tests.forecasting.test_models import KINDS
from tests.forecasting.traffic import QUICK, history_of, recurring


def test_training_is_blind_to_the_held_out_steps() -> None:
    """Changing everything in the latest tenth changes neither the model nor its features."""
    demand = recurring(100, 12)
    changed = demand.copy()
    changed[90:] = np.random.default_rng(9).lognormal(20, 3, changed[90:].shape)
    one, other = train(history_of(demand), QUICK), train(history_of(changed), QUICK)
    assert one.spec == other.spec
    x = np.random.default_rng(0).random((50, len(NAMES)), dtype=np.float32)
    assert np.array_equal(one.load(QUICK).predict(x), other.load(QUICK).predict(x))
    assert one.trained_until == 1e9 - 10 * 5


def test_the_same_seed_gives_the_same_model() -> None:
    """Training twice on the same history predicts the same."""
    history = history_of(recurring(80, 8))
    one, other = (train(history, QUICK).load(QUICK) for _ in range(2))
    x = np.random.default_rng(0).random((20, len(NAMES)), dtype=np.float32)
    assert np.array_equal(one.predict(x), other.predict(x))


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_beats_last_value_with_empirical_residuals(kind: str) -> None:
    """Rolled over steps it has not seen, on recurring traffic, its pinball loss is 20 % lower or better.

    The baseline is not a straw man: the last value plus the quantiles, per
    horizon, of what last value missed by in the training steps.
    """
    settings = replace(QUICK, model=kind)
    demand = recurring(160, 25, seed=3)
    quantile, ahead = np.asarray(settings.quantiles), settings.horizon_steps
    cut = 120
    forecaster = Forecaster(settings)
    forecaster.install(train(history_of(demand[:cut], end_time=cut * 5.0), settings))
    level = demand[:cut].mean(axis=0)
    past = np.arange(20, cut - ahead[-1])
    residual = np.stack([(demand[past + h] - demand[past]) / level for h in ahead], axis=-1)
    model_loss, naive_loss = [], []
    for end in range(cut, 160 - int(ahead[-1]), 3):
        history = history_of(demand[:end], end_time=end * 5.0)
        forecaster.observe(history)
        forecast = forecaster.forecast(history, np.zeros(25)).demand_bps
        last = last_value(demand[:end])
        naive = persistence_quantiles(last, level, residual.reshape(-1, len(ahead)), quantile)
        came = demand[end - 1 + ahead].T
        model_loss.append((pinball_loss(forecast, came, quantile) / level[:, None]).mean())
        naive_loss.append((pinball_loss(naive, came, quantile) / level[:, None]).mean())
    assert np.mean(model_loss) < 0.8 * np.mean(naive_loss)


@pytest.mark.parametrize("shape", [(5, 10), (12, 1), (200, 0)])
def test_too_little_history_says_so(shape: tuple[int, int]) -> None:
    """Few steps, few rows or no series at all raise NotEnoughHistory, never a poor model."""
    with pytest.raises(NotEnoughHistory, match="must"):
        train(history_of(recurring(*shape)), QUICK)


def test_only_gaps_are_too_little_history() -> None:
    """A history of gaps is no history."""
    with pytest.raises(NotEnoughHistory):
        train(history_of(np.full((100, 10), np.nan, np.float32)), QUICK)


def test_training_runs_in_a_spawned_worker() -> None:
    """History in, model and verdict out, through pickle and another process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        model, verdict = pool.submit(retrain, history_of(recurring(60, 40)), QUICK, None).result(timeout=60)
    assert verdict.promoted
    assert pickle.loads(pickle.dumps(model)) == model
    Forecaster(QUICK).install(model)


def test_training_rows_are_bounded() -> None:
    """More history than the bound makes no more rows than the bound."""
    settings = replace(QUICK, train_rows=600)
    assert train(history_of(recurring(150, 50)), settings).n_rows <= 600


def test_a_sample_keeps_every_level() -> None:
    """Thinning out 300 users leaves the two regions in."""
    level = np.array([0] * 300 + [1] * 2)
    history = history_of(recurring(20, 302), level=level)
    sample = sample_series(history, QUICK, at_most=40)
    assert np.bincount(sample.level).tolist() == [20, 2]
    assert len(set(sample.series_id.tolist())) == 22
    assert sample_series(history, QUICK, at_most=500).n_series == 302


def test_the_better_model_wins_and_the_worse_does_not() -> None:
    """A model fitted to the traffic replaces one fitted to noise; never the other way round."""
    rng = np.random.default_rng(5)
    history = history_of(recurring(150, 25))
    noise = history_of(rng.lognormal(14, 2, (150, 25)).astype(np.float32))
    good, poor = train(history, QUICK), train(noise, replace(QUICK, iterations=5))
    up, down = challenge(poor, good, history, QUICK), challenge(good, poor, history, QUICK)
    assert up.promoted
    assert not down.promoted
    assert up.challenger_score == pytest.approx(down.champion_score)
    assert up.n_rows > 0
    assert "champion scores" in up.reason


def test_equal_models_change_nothing() -> None:
    """A challenger that only ties is not promoted."""
    history = history_of(recurring(100, 20))
    model = train(history, QUICK)
    assert not challenge(model, model, history, QUICK).promoted


def test_the_first_model_must_hold_its_own_against_last_value() -> None:
    """Without a champion, a model of noise is turned down where last value is far better."""
    rng = np.random.default_rng(5)
    noise = history_of(rng.lognormal(14, 2, (100, 20)).astype(np.float32))
    walk = np.exp(np.cumsum(rng.normal(0, 0.01, (100, 20)), axis=0) + 14).astype(np.float32)
    poor = train(noise, QUICK)
    verdict = challenge(None, poor, history_of(walk), QUICK)
    assert not verdict.promoted
    assert math.isnan(verdict.champion_score)
    assert verdict.challenger_score > verdict.persistence_score


def test_a_damaged_champion_is_replaced() -> None:
    """A champion that cannot be read loses, and the verdict says why."""
    history = history_of(recurring(100, 20))
    good = train(history, QUICK)
    verdict = challenge(replace(good, body=b"damaged"), good, history, QUICK)
    assert verdict.promoted
    assert "unusable" in verdict.reason


def test_no_contest_without_unseen_steps() -> None:
    """Where both have seen everything there is nothing to judge by."""
    history = history_of(recurring(100, 20))
    model = train(history, QUICK)
    with pytest.raises(NotEnoughHistory):
        challenge(None, replace(model, trained_until=history.end_time), history, QUICK)
    gaps = history.demand_bps.copy()
    gaps[80:] = np.nan
    with pytest.raises(NotEnoughHistory, match="got 0"):
        challenge(None, model, history_of(gaps), QUICK)


@pytest.mark.parametrize(
    "other", [{"model": "hist_gradient_boosting"}, {"quantiles": (0.5,)}, {"step_s": 1.0}]
)
def test_a_model_for_other_settings_is_not_loaded(trained: TrainedModel, other: dict[str, object]) -> None:
    """Kind, quantiles and step must be those that the model was trained for."""
    with pytest.raises(ModelFailed, match=next(iter(other))):
        trained.load(replace(QUICK, **other))  # type: ignore[arg-type]


def test_chosen_series_are_a_sample() -> None:
    """To choose before copying is to get what thinning out the whole would have kept."""
    level = np.array([0] * 300 + [1] * 2)
    history = history_of(recurring(20, 302), level=level)
    chosen = choose_series(level, 40, QUICK.seed)
    assert history.series_id[chosen].tolist() == sample_series(history, QUICK, at_most=40).series_id.tolist()
    assert choose_series(level, 302).tolist() == list(range(302))


def test_training_reads_the_blocks_that_serving_reads() -> None:
    """Rows of hours know yesterday from the blocks kept beside them, as the forecast in the loop does."""
    demand = recurring(200, 6)
    end, step_s = 1_000_000_000.0, QUICK.step_s
    first = int(end // 900) - 200
    blocks = Blocks(np.full((200, 6), 7e6, np.float32), first, 900.0)
    history = History(demand, np.zeros(demand.shape, bool), step_s, end)
    spec = FeatureSpec(step_s, QUICK.window_steps, (), False, False)

    def drawn(history: History) -> Floats:
        return draw(history, demand, QUICK, spec, 50, np.random.default_rng(0)).rows.x

    without, given = drawn(history), drawn(replace(history, blocks=blocks))
    assert np.isnan(without).sum() > np.isnan(given).sum()
    # What came after a cutoff is not looked at, so cutting the rows need not cut the blocks.
    changed = blocks.mean_bps.copy()
    changed[-90:] = 1e9
    again = drawn(replace(history, blocks=replace(blocks, mean_bps=changed)))
    assert np.array_equal(given, again, equal_nan=True)


def test_history_keeps_blocks_with_their_series() -> None:
    """Picking series picks their blocks; cutting rows keeps them; other shapes are refused."""
    demand = np.ones((20, 3), np.float32)
    blocks = Blocks(np.arange(6, dtype=np.float32).reshape(2, 3), 5, 900.0)
    history = History(demand, np.zeros(demand.shape, bool), 60.0, 1e9, blocks=blocks)
    picked = history.until(10).tail(5).pick(np.array([2, 0]))
    assert picked.blocks is not None
    assert picked.blocks.mean_bps.tolist() == [[2, 0], [5, 3]]
    with pytest.raises(ValueError, match="blocks must have 2 series, got 3"):
        History(demand[:, :2], np.zeros((20, 2), bool), 60.0, 1e9, blocks=blocks)
