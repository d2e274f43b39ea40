"""The contest: who is clearly better speaks, who breaks is replaced, and noise decides nothing."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.contest import CONTESTANTS, KEPT_CHANGES, LEAST_STEPS, Contest, Contestant
from forecasting.forecaster import Forecaster
from forecasting.models import ModelFailed
from tests.forecasting.traffic import history_of, recurring

MODEL, PERSISTENCE, RECENT = CONTESTANTS
#: Evidence fades while it is gathered, so that it takes a few steps more.
SOON = int(1.25 * LEAST_STEPS)


def feed(
    contest: Contest, loss: tuple[float, float, float], steps: int, *, noise: float = 0.2, seed: int = 0
) -> int | None:
    """Steps of one segment at one horizon with these mean losses; the step at which the champion changed."""
    rng = np.random.default_rng(seed)
    changed = None
    for step in range(steps):
        drawn = np.array(loss) * rng.lognormal(0, noise, (8, 3))
        contest.update(0, drawn, np.zeros(8, np.int64))
        if contest.review(float(step)) and changed is None:
            changed = step + 1
    return changed


def test_a_broken_model_loses_and_wins_back() -> None:
    """Ten times the loss costs the segment as soon as there is evidence enough; once well again it returns."""
    contest = Contest(1)
    assert feed(contest, (1, 1.2, 1.5), 200) is None
    lost = feed(contest, (10, 1.2, 1.5), SOON)
    assert lost is not None
    assert lost <= 20
    assert contest.champion[0, 0] == PERSISTENCE
    won = feed(contest, (1, 1.2, 1.5), 1200)
    assert won is not None
    assert contest.champion[0, 0] == MODEL
    change = contest.changes[0]
    assert (change.before, change.after) == (MODEL, PERSISTENCE)
    assert change.after_loss < change.before_loss


def test_a_model_that_was_never_good_loses_soon() -> None:
    """From nothing it takes the least evidence and no more, and the best of the others takes over."""
    contest = Contest(1)
    lost = feed(contest, (3, 1.5, 1), SOON)
    assert lost is not None
    assert lost >= LEAST_STEPS
    assert contest.champion[0, 0] == RECENT


def test_noise_changes_nothing() -> None:
    """Equal contestants, 60 segments, 5,000 steps: a champion changes less than once in ten thousand steps."""
    rng = np.random.default_rng(1)
    contest, segments = Contest(1), np.arange(60)
    changes = 0
    for step in range(5000):
        contest.update(0, rng.lognormal(0, 0.5, (60, 3)), segments)
        changes += len(contest.review(float(step)))
    assert changes / (60 * 5000) < 1e-4


def test_a_little_better_is_not_enough() -> None:
    """One per cent is within the margin, however sure it is."""
    assert feed(Contest(1), (1.0, 0.99, 1.0), 2000, noise=0.001) is None


def test_segments_and_horizons_are_apart() -> None:
    """What is lost in one segment at one horizon is lost nowhere else."""
    contest = Contest(2)
    for step in range(SOON):
        loss = np.array([[1.0, 2, 2], [3, 1, 2]]) + 0.01 * (step % 3)
        contest.update(1, loss, np.array([0, 1]))
        contest.update(0, loss[[0, 0]], np.array([0, 1]))
        contest.review(float(step))
    assert contest.champions(np.array([0, 1, 2])).tolist() == [[0, 0], [0, 1], [0, 0]]


def test_series_of_one_step_are_one_observation() -> None:
    """A thousand series that err together for twenty steps are twenty pieces of evidence, not enough."""
    contest = Contest(1)
    for step in range(20):
        contest.update(0, np.tile([9.0, 1, 1], (1000, 1)), np.zeros(1000, np.int64))
        assert not contest.review(float(step))


def test_what_is_not_known_is_no_evidence() -> None:
    """Losses with NaN are skipped, and without any nothing is reviewed or scored."""
    contest = Contest(1)
    assert contest.review(0.0) == ()
    contest.update(0, np.full((4, 3), np.nan), np.zeros(4, np.int64))
    assert contest.scores().size == 0
    contest.update(0, np.array([[1.0, 2, 3], [np.nan, 9, 9]]), np.array([1, 1]))
    scores = contest.scores()
    assert scores[1, 0].tolist() == [1, 2, 3]
    assert np.isnan(scores[0]).all()


def test_a_new_model_starts_anew() -> None:
    """It takes over everywhere, and what its predecessor lost does not count against it."""
    contest = Contest(1)
    feed(contest, (5, 1, 1.5), SOON)
    contest.fresh_model()
    assert not contest.champion.any()
    assert np.isnan(contest.scores()).all()
    assert contest.live_score() is None
    assert feed(contest, (1, 1.2, 1.5), 200) is None


def test_the_live_score_is_that_of_model_and_persistence() -> None:
    """Mean losses over all that has evidence; None before."""
    contest = Contest(1)
    feed(contest, (1, 2, 3), 20, noise=0)
    assert contest.live_score() is None
    feed(contest, (1, 2, 3), 20, noise=0)
    assert contest.live_score() == pytest.approx((1, 2))


def test_champions_are_restored() -> None:
    """After a restart each segment goes on with whom it had."""
    contest, other = Contest(1), Contest(1)
    feed(contest, (5, 1, 1.5), SOON)
    other.restore_champions(contest.champion)
    assert other.champions(np.array([0])).tolist() == [[PERSISTENCE]]


@pytest.mark.parametrize(
    ("champion", "rule"),
    [
        (np.zeros((2, 3), np.uint8), r"champion must have shape \(G, 1\), got \(2, 3\)"),
        (np.zeros(2, np.uint8), "champion must have shape"),
        (np.full((2, 1), 3, np.uint8), "champion must be < 3, got 3"),
    ],
)
def test_champions_that_do_not_fit_are_refused(champion: np.ndarray, rule: str) -> None:
    """Nothing changes when a stored contest is not this one's."""
    contest = Contest(1)
    with pytest.raises(ValueError, match=rule):
        contest.restore_champions(champion)
    assert contest.champion.shape == (0, 1)


def test_the_record_of_changes_is_bounded() -> None:
    """A segment that changes for ever fills no memory."""
    assert Contest(1).changes.maxlen == KEPT_CHANGES


NO_PLAN = np.full(30, np.nan)


def put(forecaster: Forecaster, champion: Contestant) -> None:
    """Make one contestant champion everywhere at the second horizon."""
    champions = np.zeros((8, 3), np.uint8)
    champions[:, 1] = champion
    forecaster.record.contest.restore_champions(champions)


@pytest.mark.parametrize("champion", [PERSISTENCE, RECENT])
def test_the_champion_speaks(forecaster: Forecaster, champion: Contestant) -> None:
    """Its forecast is given where it is champion, the model's elsewhere, and the forecast says whose it is."""
    history = history_of(recurring(64, 30))
    before = forecaster.forecast(history, NO_PLAN)
    put(forecaster, champion)
    after = forecaster.forecast(history, NO_PLAN)
    assert after.champion is not None
    assert (after.champion == [MODEL, champion, MODEL]).all()
    assert np.array_equal(after.demand_bps[:, ::2], before.demand_bps[:, ::2])
    median = after.at(30.0, 0.5)
    if champion == RECENT:
        np.testing.assert_allclose(median, np.median(history.demand_bps, axis=0), rtol=1e-5)
    else:
        # Six steps ahead of the last value on a wave of twelve: off by what the wave usually does in six.
        assert np.abs(median - history.demand_bps[-1]).max() < 2 * history.demand_bps.max()
        assert not np.array_equal(median, before.at(30.0, 0.5))


def test_champions_outlive_a_restart(forecaster: Forecaster) -> None:
    """Who spoke before speaks again, and what was learnt of them is kept; damaged champions are refused."""
    put(forecaster, RECENT)
    history = history_of(recurring(64, 30))
    given = forecaster.forecast(history, NO_PLAN)
    other = Forecaster(forecaster.settings)
    other.restore(forecaster.state())
    again = other.forecast(history, NO_PLAN)
    assert np.array_equal(again.demand_bps, given.demand_bps)
    forecaster.record.contest.champion[:] = 9
    with pytest.raises(ModelFailed, match="state holds no champions: champion must be < 3, got 9"):
        other.restore(forecaster.state())
    assert np.array_equal(other.forecast(history, NO_PLAN).demand_bps, given.demand_bps)


def test_the_forecaster_tells_its_score_and_coverage(forecaster: Forecaster) -> None:
    """After enough steps: the model's loss beside persistence's, and coverage by level and horizon."""
    demand = recurring(140, 30, seed=3)
    assert forecaster.live_score() is None
    for end in range(64, 141):
        history = history_of(demand[:end], end_time=1e6 + 5 * end)
        forecaster.observe(history)
        forecaster.forecast(history, NO_PLAN)
    score = forecaster.live_score()
    assert score is not None
    model, persistence = score
    assert 0 < model < persistence
    assert [row.horizon_s for row in forecaster.coverage()] == [5, 30, 60]
