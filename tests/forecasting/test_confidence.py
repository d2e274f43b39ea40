"""Confidence: a probability, exact where the quantiles are, and borne out by what comes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forecasting.confidence import confidence, probability_below
from forecasting.forecast import Forecast, Rung

QUANTILE = np.array([0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98])
#: Rates with many ties: atoms, at zero and elsewhere, are the edges worth trying.
RATES = st.one_of(st.sampled_from([0.0, 1.0, 1e6]), st.floats(0, 1e9, width=32))
FANS = arrays(np.float32, (4, 2, 7), elements=RATES).map(lambda fan: np.sort(fan, axis=-1))
BANDS = st.floats(0, 10)


def test_one_fan_by_hand() -> None:
    """Even between quantiles, atoms whole, tails of the laws that fit their distance from the median."""
    fan = np.array([[[10, 20, 30, 30, 30, 50, 60]]], np.float32)

    def upto(demand: float) -> float:
        return float(probability_below(fan, QUANTILE, demand)[0, 0])

    assert upto(-1) == 0
    # From the median's 0.5 down to 0.1 in 20: ln 5 scales.
    assert upto(0) == pytest.approx(0.1 / 5**0.5)
    assert upto(5) == pytest.approx(0.1 / 5**0.25)
    assert upto(15) == pytest.approx(0.175)
    assert upto(29.999999) == pytest.approx(0.5, abs=1e-6)
    assert upto(30) == pytest.approx(0.9)
    assert upto(55) == pytest.approx(0.965)
    # From the median's 0.5 to 0.02 in 30: ln 25 scales.
    assert upto(90) == pytest.approx(1 - 0.02 / 25)
    # 30 +- 15: from 15, where 0.175 lies below, to 45, where 0.9 + 3/4 of 0.05 does.
    assert confidence(fan, QUANTILE, 0.5)[0, 0] == pytest.approx(0.9375 - 0.175)
    # The band holds both its ends: with none, that is the atom.
    assert confidence(fan, QUANTILE, 0.0)[0, 0] == pytest.approx(0.4)


@given(FANS, BANDS, BANDS, st.floats(0, 1e7))
def test_confidence_is_a_probability_that_rises_with_the_band(
    fan: np.ndarray, one: float, other: float, floor_bps: float
) -> None:
    """Within 0 .. 1, and a wider band or a higher floor is never less likely to hold."""
    narrow, wide = (confidence(fan, QUANTILE, band, floor_bps) for band in sorted((one, other)))
    assert ((narrow >= 0) & (wide <= 1)).all()
    assert (narrow <= wide).all()
    assert (wide <= confidence(fan, QUANTILE, max(one, other), 2 * floor_bps)).all()


@given(FANS)
def test_a_band_without_end_holds_everything(fan: np.ndarray) -> None:
    """Any series is within a floor far beyond its tail."""
    np.testing.assert_allclose(confidence(fan, QUANTILE, 0.0, 1e15), 1, atol=1e-12)


@given(arrays(np.float32, (4, 2, 7), elements=st.floats(1, 1e9, width=32), unique=True))
def test_it_is_exact_at_the_quantiles(fan: np.ndarray) -> None:
    """At or below a forecast quantile lies its own probability."""
    fan = np.sort(fan, axis=-1)
    for k, level in enumerate(QUANTILE):
        np.testing.assert_allclose(probability_below(fan, QUANTILE, fan[..., k]), level, atol=1e-12)


@given(FANS, st.floats(0, 2e9), st.floats(0, 2e9))
def test_probability_rises_with_demand(fan: np.ndarray, one: float, other: float) -> None:
    """A distribution function does not fall, and nothing lies below no demand."""
    low, high = (probability_below(fan, QUANTILE, demand) for demand in sorted((one, other)))
    assert (low <= high).all()
    assert ((low >= 0) & (high <= 1 + 1e-12)).all()
    assert not probability_below(fan, QUANTILE, -1.0).any()


@given(FANS, BANDS, st.integers(-8, 8))
def test_size_does_not_matter(fan: np.ndarray, band: float, power: int) -> None:
    """Without a floor a series at twice the rate is as certain."""
    larger = (fan * 2.0**power).astype(np.float32)
    # A power of two changes no digit, but for rates so small that 32 bits cannot hold the product.
    assume((larger.astype(np.float64) / 2.0**power == fan).all())
    np.testing.assert_allclose(confidence(larger, QUANTILE, band), confidence(fan, QUANTILE, band), atol=1e-9)


def test_certain_and_idle_series_are_certain() -> None:
    """All quantiles equal, at zero or elsewhere, are an atom: any band holds what lies in it."""
    fan = np.array([[[0.0] * 7], [[5e6] * 7]], np.float32)
    assert confidence(fan, QUANTILE, 0.2)[:, 0].tolist() == [1, 1]
    assert confidence(fan, QUANTILE, 0.0)[:, 0].tolist() == [1, 1]


@pytest.mark.parametrize("quantile", [[0.5], [0.9], [0.1, 0.5], [0.2, 0.9]])
def test_few_quantiles_are_enough(quantile: list[float]) -> None:
    """Where none lies beyond the median, its own size is the scale of that tail."""
    levels = np.array(quantile)
    fan = np.linspace(1e6, 2e6, len(levels), dtype=np.float32)[None, None]
    beyond = [float(probability_below(fan, levels, demand)[0, 0]) for demand in (-1, 0, 1e6, 2e6, 4e6, 1e9)]
    assert beyond == sorted(set(beyond))
    assert beyond[-1] == pytest.approx(1)
    assert 0 < confidence(fan, levels, 0.3)[0, 0] < 1


@pytest.mark.parametrize(
    ("band", "floor_bps", "rule"),
    [(-0.1, 0, "band must be >= 0"), (np.nan, 0, "band"), (np.inf, 0, "band"), (0.1, -1, "floor_bps")],
)
def test_a_band_that_is_none_is_refused(band: float, floor_bps: float, rule: str) -> None:
    """A negative or infinite width is a caller's mistake."""
    with pytest.raises(ValueError, match=rule):
        confidence(np.ones((1, 1, 7), np.float32), QUANTILE, band, floor_bps)


def test_what_is_stated_comes_true() -> None:
    """Among forecasts with a confidence near c, demand stayed in the band in a share c of the cases.

    Log-normal demand whose true quantiles are known. Even probability between quantiles costs 2 % or so: the
    middle of a real distribution is denser, so what is stated is a little low.
    """
    rng = np.random.default_rng(0)
    n, normal = 40_000, np.array([-1.2816, -0.6745, 0, 0.6745, 1.2816, 1.6449, 2.0537])
    sigma, median = rng.uniform(0.05, 0.8, n), rng.lognormal(14, 1, n)
    fan = (median[:, None] * np.exp(sigma[:, None] * normal)).astype(np.float32)[:, None]
    came = median * np.exp(sigma * rng.standard_normal(n))
    for band in (0.1, 0.3):
        stated = confidence(fan, QUANTILE, band)[:, 0]
        kept = np.abs(came - median) <= band * median
        for low in np.arange(0.1, 1, 0.1):
            alike = (stated >= low) & (stated < low + 0.1)
            if alike.sum() > 500:
                assert kept[alike].mean() == pytest.approx(stated[alike].mean(), abs=0.05)
        assert kept.mean() == pytest.approx(stated.mean(), abs=0.02)


def test_a_forecast_says_its_confidence() -> None:
    """By series and horizon, the least of them ahead; a rung that only guesses has none."""
    fan = np.array([[1, 2, 3], [0, 2, 8]], np.float32)
    made = Forecast(
        np.array([0.1, 0.5, 0.9]),
        np.array([60.0, 120.0]),
        np.stack([fan, fan, np.full((2, 3), 5, np.float32)]),
        np.array([Rung.MODEL, Rung.ARCHETYPE, Rung.AUTO_BANDWIDTH], np.uint8),
    )
    stated = made.confidence(0.5)
    np.testing.assert_allclose(stated[:2, 0], 0.8)
    assert np.isnan(stated[2]).all()
    assert (made.confidence_ahead(0.5)[:2] == stated[:2, 1]).all()
    assert np.isnan(made.confidence_ahead(0.5)[2])
