"""Unconstrained estimates: more than was offered, bounded, and never from the future."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forecasting.censoring import unconstrained

GROWTH, MAX_RAISE, HALFLIFE = 0.1, 2.0, 32.0


def plain_unconstrained(offered: list[float], pinned: list[bool]) -> list[float]:
    """The docstring of the module, one sample at a time."""
    peak, run, result = 0.0, 0, []
    for now, is_pinned in zip(offered, pinned, strict=True):
        peak *= 0.5 ** (1 / HALFLIFE)
        if isnan(now):
            result.append(now)
        elif is_pinned:
            run += 1
            raised = max((now + max(peak, now)) / 2, now * (1 + GROWTH) ** min(run, 64))
            result.append(min(raised, now * MAX_RAISE))
        else:
            run = 0
            peak = max(peak, now)
            result.append(now)
    return result


RATES = arrays(np.float32, (12, 2), elements=st.one_of(st.just(np.nan), st.floats(0, 1e9, width=32)))
FLAGS = arrays(np.bool_, (12, 2))


@given(RATES, FLAGS)
def test_estimate_is_the_plain_one(offered: np.ndarray, censored: np.ndarray) -> None:
    """The vectorised scan equals the same rule applied sample by sample."""
    expected = np.array([plain_unconstrained(list(offered[:, s]), list(censored[:, s])) for s in range(2)]).T
    np.testing.assert_allclose(unconstrained(offered, censored), expected, rtol=1e-4, atol=1e-30)


@given(RATES, FLAGS)
def test_estimate_is_at_least_the_offer_and_bounded(offered: np.ndarray, censored: np.ndarray) -> None:
    """A gap stays a gap, an uncensored sample stays itself, a censored one rises by at most the bound."""
    estimate = unconstrained(offered, censored)
    assert np.array_equal(np.isnan(estimate), np.isnan(offered))
    assert np.array_equal(estimate[~censored], offered[~censored], equal_nan=True)
    known = ~np.isnan(offered)
    assert (estimate[known] >= offered[known]).all()
    assert (estimate[known] <= offered[known] * np.float32(MAX_RAISE)).all()


@given(RATES, FLAGS, st.integers(1, 11))
def test_estimate_knows_nothing_of_later_rows(offered: np.ndarray, censored: np.ndarray, cut: int) -> None:
    """Cutting the future off changes no row before it."""
    whole = unconstrained(offered, censored)[:cut]
    assert np.array_equal(whole, unconstrained(offered[:cut], censored[:cut]), equal_nan=True)


def test_a_pinned_run_grows_and_a_recent_peak_pulls() -> None:
    """The longer demand is pinned, the more is assumed; a known peak says it at once."""
    pinned = np.full((4, 1), 100, np.float32)
    grown = unconstrained(pinned, np.ones((4, 1), np.bool_))[:, 0]
    assert (np.diff(grown) > 0).all()
    after_peak = np.array([[180], [100]], np.float32)
    assert unconstrained(after_peak, np.array([[False], [True]]))[1, 0] == pytest.approx(138, abs=1)


@pytest.mark.parametrize("knob", [{"growth": -1.0}, {"max_raise": 0.5}, {"peak_halflife_steps": 0.0}])
def test_broken_knobs_are_named(knob: dict[str, float]) -> None:
    """A bound that is broken is refused by name."""
    with pytest.raises(ValueError, match=next(iter(knob))):
        unconstrained(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.bool_), **knob)


def test_series_by_themselves_and_among_many_are_the_same() -> None:
    """Series are worked on in parts, densely or picked out: an estimate does not depend on its neighbours."""
    rng = np.random.default_rng(5)
    demand = rng.random((70, 9000)).astype(np.float32)
    demand[rng.random(demand.shape) < 0.1] = np.nan
    censored = rng.random(demand.shape) < 0.5
    # Few in the first part, most in the second, none in the last.
    censored[:, 10:4096] = False
    censored[:, 8192:] = False
    together = unconstrained(demand, censored)
    for series in (0, 9, 10, 4096, 8191, 8999):
        alone = unconstrained(demand[:, [series]], censored[:, [series]])
        np.testing.assert_array_equal(together[:, [series]], alone)
