"""Burstiness: bounded, blind to size, and right where the answer is known."""

from __future__ import annotations

from dataclasses import astuple, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forecasting.burstiness import BURSTY, CLASS_NAMES, IDLE, STEADY, VARYING, Burstiness, classes, measure

WINDOWS = arrays(
    np.float32,
    st.tuples(st.integers(0, 40), st.integers(0, 5)),
    elements=st.one_of(st.floats(1.0, 2.0**43, width=32), st.just(0.0), st.just(np.nan), st.just(np.inf)),
)


def noise(spread: float, n_steps: int = 64, n_series: int = 200, seed: int = 0) -> np.ndarray:
    """Shape (n_steps, n_series); each sample a megabit or so, apart from all others."""
    rng = np.random.default_rng(seed)
    return (1e6 * rng.lognormal(0, spread, (n_steps, n_series))).astype(np.float32)


@given(WINDOWS)
def test_every_series_has_a_class(demand: np.ndarray) -> None:
    """Whatever is in the window, gaps and infinities included, there is one class for each series."""
    found = classes(demand)
    assert found.dtype == np.uint8
    assert found.shape == (demand.shape[1],)
    assert (found < len(CLASS_NAMES)).all()


@given(WINDOWS, st.integers(-20, 20))
def test_size_does_not_matter(demand: np.ndarray, power: int) -> None:
    """A series at twice the rate is of the same class."""
    np.testing.assert_array_equal(classes(demand * np.float32(2.0**power)), classes(demand))


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        (np.zeros((64, 3)), IDLE),
        (np.where(np.arange(64) == 40, 1e7, 0)[:, None], IDLE),
        (np.full((64, 3), 5e6), STEADY),
        (1e6 * (2 + np.sin(np.arange(64) / 20))[:, None], STEADY),
        (noise(0.2), VARYING),
        (noise(1.5), BURSTY),
        (np.where(np.arange(64) % 4 == 0, 1e7, 1e4)[:, None], BURSTY),
        (np.full((2, 3), 5e6), VARYING),
        (np.full((64, 3), np.nan), VARYING),
        (np.empty((0, 3)), VARYING),
    ],
)
def test_known_kinds(demand: np.ndarray, expected: int) -> None:
    """Silence and a rare burst are idle, a slow swing is steady, and too few samples say nothing."""
    assert set(classes(demand.astype(np.float32)).tolist()) == {expected}


def test_gaps_do_not_change_the_class() -> None:
    """A series of which a fifth was lost is of the class it would have been."""
    rng = np.random.default_rng(1)
    for spread in (0.02, 0.2, 1.5):
        whole = noise(spread)
        lossy = np.where(rng.random(whole.shape) < 0.2, np.float32(np.nan), whole)
        np.testing.assert_array_equal(classes(lossy), classes(whole))


BOUNDS = {field.name: (-1 if field.name == "burstiness" else 0, 1) for field in fields(Burstiness)}


@given(WINDOWS)
def test_every_figure_keeps_its_bounds(demand: np.ndarray) -> None:
    """Whatever is in the window a figure lies within its bounds, or is unknown for want of samples."""
    found = measure(demand)
    few = np.count_nonzero(np.isfinite(demand), axis=0) < 3
    for name, (low, high) in BOUNDS.items():
        value = getattr(found, name)
        assert value.shape == (demand.shape[1],)
        assert (np.isnan(value) == few).all(), name
        assert ((value >= low) & (value <= high))[~few].all(), name


@given(WINDOWS, st.integers(-20, 20))
def test_no_figure_depends_on_size(demand: np.ndarray, power: int) -> None:
    """A series at twice the rate has the same figures."""
    for one, other in zip(
        astuple(measure(demand * np.float32(2.0**power))), astuple(measure(demand)), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)


@given(WINDOWS)
def test_series_do_not_mix(demand: np.ndarray) -> None:
    """The figures of a series are its own, whoever stands beside it."""
    together = np.array(astuple(measure(demand)))
    for column in range(demand.shape[1]):
        alone = np.array(astuple(measure(demand[:, [column]])))
        np.testing.assert_allclose(alone[:, 0], together[:, column], atol=1e-6)


def mean_of(demand: np.ndarray, name: str) -> float:
    """A figure, averaged over series that are alike."""
    return float(getattr(measure(demand.astype(np.float32)), name).mean())


def test_a_constant_holds_no_surprise() -> None:
    """A constant series, or silence, is at the lowest end of all figures but the idle share."""
    for value, idle in ((5e6, 0), (0, 1)):
        found = astuple(measure(np.full((64, 1), value, np.float32)))
        np.testing.assert_array_equal(np.array(found)[:, 0], [-1, 0, idle, 0, 0, 0, 0])


def test_alternation_is_variable_but_no_surprise() -> None:
    """Up, down, up, down: the last sample says all of the next, and one frequency carries it."""
    demand = np.where(np.arange(64) % 2 == 0, 1e6, 3e6)[:, None]
    assert mean_of(demand, "entropy") == 0
    assert mean_of(demand, "seasonality") == pytest.approx(1)
    assert mean_of(demand, "variance_short") > 0.3
    assert mean_of(demand, "variance_long") == pytest.approx(0)


def test_noise_is_all_surprise_and_a_walk_is_not() -> None:
    """Independent samples have entropy near 1, a random walk far less, whatever their spread."""
    for spread in (0.1, 1.5):
        assert mean_of(noise(spread), "entropy") > 0.97
    walk = np.exp(np.cumsum(np.log(noise(0.1) / 1e6), axis=0))
    assert mean_of(walk, "entropy") < 0.7


def test_heavier_tails_are_burstier() -> None:
    """Poisson, exponential, Pareto: burstier in this order, and exponential noise is the zero."""
    rng = np.random.default_rng(0)
    shape = (64, 500)
    rising = [rng.poisson(20, shape), rng.exponential(1, shape), rng.pareto(1.2, shape)]
    for name in ("burstiness", "peakiness", "variance_short"):
        values = [mean_of(demand, name) for demand in rising]
        assert values == sorted(values), name
    assert mean_of(rising[1], "burstiness") == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("n_steps", [3, 8, 64])
def test_a_single_burst_is_the_burstiest(n_steps: int) -> None:
    """All in one step is 1 with few samples as with many."""
    assert mean_of(np.eye(n_steps), "burstiness") == pytest.approx(1, abs=1e-5)


def test_a_swing_in_noise_shows_as_seasonality() -> None:
    """One frequency's share tells a wave from noise, and does not take a trend for one."""
    wave = noise(0.1) * (2 + np.sin(2 * np.pi * np.arange(64) / 8))[:, None]
    ramp = np.linspace(1, 4, 64)[:, None] * 1e6
    assert mean_of(wave, "seasonality") > 0.7
    assert mean_of(noise(0.5), "seasonality") < 0.2
    assert mean_of(ramp, "seasonality") < 0.2


def test_slow_and_fast_change_are_told_apart() -> None:
    """Fast noise is variance of the short scale; a slow swing is of the long one."""
    fast = noise(0.5)
    slow = 1e6 * (2 + np.sin(2 * np.pi * np.arange(64) / 64))[:, None]
    assert mean_of(fast, "variance_short") > 3 * mean_of(fast, "variance_long")
    assert mean_of(slow, "variance_long") > 3 * mean_of(slow, "variance_short")
