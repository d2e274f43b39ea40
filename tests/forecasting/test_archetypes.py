"""Archetypes: a newcomer is forecast as its peers behave."""

from __future__ import annotations

import numpy as np

from forecasting.archetypes import Archetypes, learn_archetypes

QUANTILE = np.array([0.1, 0.5, 0.9])
AHEAD = np.array([1, 10])


def peers(n_steps: int = 60, n: int = 300) -> np.ndarray:
    """Level 0: steady near 1 Mbit/s; level 1: the same mean, half the steps idle."""
    rng = np.random.default_rng(0)
    steady = rng.normal(1e6, 1e4, (n_steps, n))
    bursty = rng.choice([0.0, 2e6], (n_steps, n))
    return np.concatenate([steady, bursty], axis=1).astype(np.float32)


LEVEL = np.repeat([0, 1], 300)


def learn(demand: np.ndarray, level: np.ndarray = LEVEL) -> Archetypes:
    known = np.ones(demand.shape[1], np.bool_)
    return learn_archetypes(demand, level, known, AHEAD, QUANTILE, np.random.default_rng(1))


def test_a_newcomer_gets_its_levels_shape_at_its_own_size() -> None:
    """Two samples at 8 Mbit/s: narrow around 8 among steady peers, wide among bursty ones."""
    made = learn(peers())
    own = np.full((2, 2), 8e6, np.float32)
    forecast = made.forecast(own, np.array([0, 1]))
    assert forecast.shape == (2, 2, 3)
    np.testing.assert_allclose(forecast[0, :, 1], 8e6, rtol=0.02)
    assert (forecast[0, :, 2] / forecast[0, :, 0] < 1.1).all()
    assert (forecast[1, :, 0] < 1e6).all()
    assert (forecast[1, :, 2] > 8e6).all()


def test_without_any_sample_the_level_itself_is_the_forecast() -> None:
    """Nothing known of the newcomer: the plain distribution of the others."""
    nothing = np.full((5, 1), np.nan, np.float32)
    forecast = learn(peers()).forecast(nothing, np.array([0]))
    np.testing.assert_allclose(forecast[0, :, 1], 1e6, rtol=0.02)


def test_no_population_no_archetype() -> None:
    """Two peers, one row, gaps only, or a level never seen: NaN, so the next rung answers."""
    own = np.full((2, 1), 8e6, np.float32)
    few = learn(peers()[:, :2], level=np.zeros(2, np.int64))
    young = learn(peers(n_steps=1, n=5), level=np.zeros(10, np.int64))
    gaps = learn(np.full((20, 10), np.nan, np.float32), level=np.zeros(10, np.int64))
    none = learn(np.empty((20, 0), np.float32), level=np.empty(0, np.int64))
    for made in (few, young, gaps, none):
        assert np.isnan(made.forecast(own, np.array([0]))).all()
    assert np.isnan(learn(peers()).forecast(own, np.array([7]))).all()


def test_a_young_window_uses_the_longest_horizon_it_holds() -> None:
    """Four rows cannot show ten steps ahead; what they show stands in."""
    forecast = learn(peers(n_steps=4)).forecast(np.full((2, 1), 8e6, np.float32), np.array([0]))
    assert np.isfinite(forecast).all()
