"""Archetypes: found by behaviour, named by rule, kept over re-learning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.archetype_names import RULES, names
from forecasting.baselines import persistence_quantiles
from forecasting.behaviour import BEHAVIOUR, behaviour
from forecasting.forecaster import Forecaster
from forecasting.history import History
from forecasting.models import ModelFailed
from forecasting.population import MIN_CLUSTERED, Population, UnknownArchetype, _held, learn_population
from forecasting.scoring import pinball_loss
from forecasting.settings import ForecastSettings

SETTINGS = ForecastSettings(step_s=60.0, horizons_s=(60.0, 600.0), quantiles=(0.1, 0.5, 0.9), train_steps=240)
N_KIND = 40


def demand(seed: int = 0, n_steps: int = 240) -> np.ndarray:
    """Streamers at 8 Mbit/s, gamers around 1 Mbit/s in bursts, devices that hardly ever speak: 40 of each."""
    rng = np.random.default_rng(seed)
    shape = (n_steps, N_KIND)
    streamer = 8e6 * rng.lognormal(0, 0.05, shape)
    gamer = 2e5 * rng.lognormal(0, 0.5, shape) + (rng.random(shape) < 0.2) * rng.exponential(5e6, shape)
    device = 1e3 + (rng.random(shape) < 0.02) * rng.exponential(1e6, shape)
    return np.concatenate([streamer, gamer, device], axis=1).astype(np.float32)


def history(rates: np.ndarray, end_time: float = 1e9, series_id: np.ndarray | None = None) -> History:
    blank = np.zeros(rates.shape, np.bool_)
    ids = np.arange(rates.shape[1]) if series_id is None else series_id
    return History(rates, blank, SETTINGS.step_s, end_time, series_id=ids)


@pytest.fixture(scope="module")
def population() -> Population:
    return learn_population(history(demand()), SETTINGS)


def by_name(population: Population) -> dict[str, int]:
    return {view.name: view.id for view in population.views()}


def test_kinds_are_found_and_named(population: Population) -> None:
    """Three kinds of forty users are three archetypes of forty, each with its own name."""
    found = {view.name: view.members for view in population.views()}
    assert found == {"heavy streamer": N_KIND, "bursty gamer": N_KIND, "idle device": N_KIND}
    series, probability = population.members(by_name(population)["bursty gamer"])
    np.testing.assert_array_equal(series, np.arange(N_KIND, 2 * N_KIND))
    assert (probability > 0.9).all()


def test_probabilities_sum_to_one(population: Population) -> None:
    """Each member belongs to the archetypes of its level with certainty in all."""
    np.testing.assert_allclose(population.probability.sum(axis=1), 1, rtol=1e-5)


def test_same_input_same_population(population: Population) -> None:
    """Learning is seeded: the same history gives the same bytes."""
    assert learn_population(history(demand()), SETTINGS).to_bytes() == population.to_bytes()


def test_ids_and_names_outlive_relearning(population: Population) -> None:
    """Other traffic of the same users, and other columns: the archetypes keep ids and given names."""
    wanted = by_name(population)
    named = population.named(wanted["idle device"], "printers")
    order = np.random.default_rng(1).permutation(3 * N_KIND)
    again = learn_population(history(demand(7)[:, order], series_id=order), SETTINGS, named)
    assert {view.rule_name: view.id for view in again.views()} == wanted
    assert by_name(again)["printers"] == wanted["idle device"]
    np.testing.assert_array_equal(again.member_of, population.member_of)


def test_a_user_moves_when_it_has_changed(population: Population) -> None:
    """A device that becomes a streamer is one after re-learning; the others stay."""
    changed = demand(3)
    changed[:, -1] = changed[:, 0]
    again = learn_population(history(changed), SETTINGS, population)
    moved = np.flatnonzero(again.member_of != population.member_of)
    np.testing.assert_array_equal(moved, [3 * N_KIND - 1])
    assert again.member_of[-1] == by_name(population)["heavy streamer"]


def test_a_near_tie_moves_nobody(population: Population) -> None:
    """A series between two archetypes stays where it was, wherever that is."""
    rates = demand(5)
    rates[:, 0] = np.sqrt(rates[:, 0] * rates[:, N_KIND])
    found = learn_population(history(rates), SETTINGS, population)
    for row in range(len(found.id)):
        tied = np.zeros(found.probability.shape)
        tied[0] = 1 / len(found.id)
        before = replace(population, member_of=np.full_like(population.member_of, found.id[row]))
        assert _held(tied, found.series_id, found.id, before)[0] == row


def test_a_new_kind_gets_a_new_id(population: Population) -> None:
    """An id is never given twice: not to what replaces an archetype that is gone."""
    rng = np.random.default_rng(2)
    rates = demand()
    rates[:, 2 * N_KIND :] = 5e7 * (rng.random((240, N_KIND)) < 0.5) * rng.lognormal(0, 0.1, (240, N_KIND))
    again = learn_population(history(rates), SETTINGS, population)
    assert by_name(population)["idle device"] not in again.id
    assert max(again.id) >= population.next_id


def test_few_series_are_one_archetype() -> None:
    """Below a population's size nothing is told apart, and with two series nothing is said at all."""
    few = demand()[:, ::3]
    assert few.shape[1] < MIN_CLUSTERED
    assert len(learn_population(history(few), SETTINGS).id) == 1
    assert len(learn_population(history(few[:, :2]), SETTINGS).id) == 0
    assert len(learn_population(history(np.empty((0, 0), np.float32)), SETTINGS).id) == 0


def test_a_newcomer_is_forecast_as_its_kind(population: Population) -> None:
    """Two steady samples make a narrow forecast, two that leap a wide one; with none it is in between."""
    own = np.array([[8e6, 2e5, np.nan], [8.2e6, 4e6, np.nan]], np.float32)
    level = np.zeros(3, np.int64)
    forecast = population.archetypes.forecast(own, level)
    assert forecast.shape == (3, 2, 3)
    assert (np.diff(forecast, axis=2) >= 0).all()
    assert (forecast[0, :, 2] < 1.3 * forecast[0, :, 0]).all()
    assert (forecast[1, :, 2] > 3 * forecast[1, :, 0]).all()
    probability = population.archetypes.membership(own, level)
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    np.testing.assert_allclose(probability[2], population.archetypes.prior, atol=1e-9)


def test_membership_grows_surer_with_samples(population: Population) -> None:
    """Nothing known is the shares of the archetypes; each sample makes the right one likelier."""
    gamer = list(population.id).index(by_name(population)["bursty gamer"])
    own = demand(9)[:16, N_KIND : 2 * N_KIND]
    level = np.zeros(N_KIND, np.int64)
    sure = []
    for n in (0, 1, 4, 16):
        seen = np.full_like(own, np.nan)
        seen[len(own) - n :] = own[len(own) - n :]
        sure.append(population.archetypes.membership(seen, level)[:, gamer].mean())
    assert sure == sorted(sure)
    assert sure[0] == pytest.approx(1 / 3)
    assert sure[-1] > 0.8


def test_newcomers_beat_persistence(population: Population) -> None:
    """Users who were not learnt from, after ten samples: a lower pinball loss than last value's."""
    quantile = np.array(SETTINGS.quantiles)
    past, new = demand(), demand(11)
    own, came = new[:10], new[[10, 19]].T
    residual = (past[[10, 19]] - past[9]).T / past[:10].mean(axis=0)[:, None]
    naive = persistence_quantiles(own[-1], own.mean(axis=0), residual, quantile)
    made = population.archetypes.forecast(own, np.zeros(3 * N_KIND, np.int64))
    assert pinball_loss(made, came, quantile).mean() < 0.9 * pinball_loss(naive, came, quantile).mean()


def test_state_comes_back(population: Population) -> None:
    """What was written is read, to the bit, with the operator's names."""
    named = population.named(int(population.id[0]), "café")
    again = Population.from_bytes(named.to_bytes(), SETTINGS)
    assert again.to_bytes() == named.to_bytes()
    assert again.names == {int(population.id[0]): "café"}
    own = demand(1)[:6]
    level = np.zeros(3 * N_KIND, np.int64)
    np.testing.assert_array_equal(
        again.archetypes.forecast(own, level), population.archetypes.forecast(own, level)
    )


@given(st.binary(max_size=60))
def test_damaged_bytes_are_refused(body: bytes) -> None:
    """Whatever the store gives back, it is a population or ModelFailed."""
    with pytest.raises(ModelFailed):
        Population.from_bytes(body, SETTINGS)


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: replace(p, id=p.id * 0),
        lambda p: replace(p, next_id=0),
        lambda p: replace(p, deviation=-p.deviation),
        lambda p: replace(p, probability=p.probability[:3]),
        lambda p: replace(p, archetypes=replace(p.archetypes, outcome=p.archetypes.outcome * np.nan)),
        lambda p: replace(p, archetypes=replace(p.archetypes, level=p.archetypes.level + 5)),
    ],
)
def test_a_wrong_population_is_refused(population: Population, damage) -> None:
    """Shapes, bounds and ids are checked before anything is believed."""
    with pytest.raises(ModelFailed):
        Population.from_bytes(damage(population).to_bytes(), SETTINGS)


def test_another_forecasters_population_is_refused(population: Population) -> None:
    """Other quantiles or horizons cannot be used, neither stored nor learnt."""
    other = replace(SETTINGS, quantiles=(0.2, 0.5))
    with pytest.raises(ModelFailed, match="must have shape"):
        Population.from_bytes(population.to_bytes(), other)
    with pytest.raises(ModelFailed, match="other quantiles"):
        Forecaster(other).install_population(population)


def test_the_forecaster_serves_newcomers_from_it(population: Population) -> None:
    """Once installed it answers for who is new; a level that it does not know gets its own pooled curve."""
    forecaster = Forecaster(SETTINGS)
    forecaster.install_population(population)
    rates = np.concatenate([demand(4)[:64], demand(5)[:64]], axis=1)
    rates[:-2, 0] = np.nan
    level = np.repeat([0, 1], 3 * N_KIND)
    blank = np.zeros(rates.shape, np.bool_)
    made = forecaster.forecast(History(rates, blank, 60.0, 1e9, level=level), np.full(len(level), np.nan))
    np.testing.assert_array_equal(
        made.demand_bps[0], population.archetypes.forecast(rates[:, :1], level[:1])[0]
    )
    assert np.isfinite(made.demand_bps).all()


def test_names_given_meanwhile_are_kept(population: Population) -> None:
    """A worker learns for minutes; what the operator named in that time is not lost."""
    forecaster = Forecaster(SETTINGS)
    forecaster.install_population(population)
    one = int(population.id[0])
    forecaster.population = population.named(one, "mine")
    forecaster.install_population(learn_population(history(demand(8)), SETTINGS, population))
    assert "mine" in by_name(forecaster.population)


def test_names_are_checked(population: Population) -> None:
    """A name is short and can be printed; nothing gives the rule's name back."""
    one = int(population.id[0])
    assert "x" in by_name(population.named(one, "  x "))
    assert by_name(population.named(one, "x").named(one, None)) == by_name(population)
    for bad in ("a" * 64, "tab\tbed"):
        with pytest.raises(ValueError, match="printable"):
            population.named(one, bad)
    with pytest.raises(UnknownArchetype):
        population.named(999, "x")


def test_alike_archetypes_of_a_level_are_numbered() -> None:
    """Two steady workers of one level are told apart; those of another level start afresh."""
    nan = float("nan")
    centre = {
        "idle_share": 0.0, "relative_rate": 1.0, "variance_short": 0.0, "night": nan, "work": nan, "evening": nan,
    }  # fmt: skip
    assert names([centre, centre, centre], [0, 0, 1]) == ["steady worker", "steady worker 2", "steady worker"]
    assert RULES[-1].holds({})


def test_parts_of_the_day_come_with_a_whole_day() -> None:
    """Demand between 0 and 6 is the night's, in local time; with less than a day nothing is said."""
    steps = np.arange(2 * 96)
    nightly = np.where(steps % 96 < 24, 1e6, 0.0)[:, None].astype(np.float32)
    at = BEHAVIOUR.index("night")
    assert behaviour(nightly, 900.0, 86_400.0 * 2)[0, at] == pytest.approx(1)
    assert behaviour(nightly, 900.0, 86_400.0 * 2, utc_offset_s=43_200.0)[0, at] == pytest.approx(0)
    assert np.isnan(behaviour(nightly[:90], 900.0, 86_400.0 * 2)[0, at])
    assert behaviour(nightly * 0, 900.0, 86_400.0 * 2)[0, at] == pytest.approx(0.25)
