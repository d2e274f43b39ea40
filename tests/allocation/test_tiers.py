"""Tiers: what a forecast asks for, and the standby that a doubtful one has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocation.tiers import (
    Phase,
    StandbyCount,
    Standbys,
    Tier,
    TierRules,
    asked_share,
    kept_bps,
    step_standbys,
    tiers,
)

RULES = TierRules(standby_ttl_s=100.0)
NAN = float("nan")


class One:
    """One pool whose forecast is doubtful, stepped through time."""

    def __init__(self, forecast: float = 10e6, use: float = 2e6) -> None:
        self.standbys, self.count, self.now = Standbys.none(1), StandbyCount(), 1000.0
        self.forecast, self.use, self.tier = forecast, use, Tier.STANDBY

    def step(self, seconds: float = 5.0) -> Phase:
        self.now += seconds
        before = self.standbys
        self.standbys = step_standbys(
            before,
            np.array([self.tier], np.uint8),
            np.array([self.forecast]),
            np.array([self.use]),
            self.now,
            RULES,
        )
        self.count = self.count.counted(before, self.standbys)
        return Phase(self.standbys.phase[0])

    @property
    def asked(self) -> float:
        return float(asked_share(np.array([self.tier], np.uint8), self.standbys, RULES)[0])

    @property
    def kept(self) -> float:
        return float(kept_bps(self.standbys, np.array([self.use]))[0])


def test_tiers_begin_above_their_thresholds():
    """0.9 itself is not above 0.9; what has no confidence is not trusted."""
    confidence = np.array([1.0, 0.91, 0.9, 0.61, 0.6, 0.0, NAN])
    assert tiers(confidence, TierRules()).tolist() == [0, 0, 1, 1, 2, 2, 2]


def test_sure_forecast_is_asked_for_in_full_and_a_less_sure_one_in_part():
    """Three quarters in the middle tier, nothing below it."""
    tier = np.array([Tier.FULL, Tier.PARTIAL, Tier.STANDBY], np.uint8)
    assert asked_share(tier, Standbys.none(3), TierRules()).tolist() == [1.0, 0.75, 0.0]


def test_doubtful_forecast_waits_at_the_parent():
    """The parent keeps what the forecast lies above use, and the pool asks for none of it."""
    one = One()
    assert one.step() is Phase.WAITING
    assert (one.kept, one.asked) == (8e6, 0.0)
    one.use = 1e6
    one.step()
    assert one.kept == 9e6


def test_forecast_below_use_needs_no_standby():
    """What is used already is asked for anyway."""
    assert One(forecast=1e6, use=2e6).step() is Phase.NONE


def test_standby_is_active_in_the_step_in_which_use_rises():
    """A tenth of the way from the least use to the forecast is a rise."""
    one = One()
    one.step()
    one.use = 2.7e6
    assert one.step() is Phase.WAITING
    one.use = 2.9e6
    assert one.step() is Phase.ACTIVE
    assert (one.kept, one.asked) == (0.0, 1.0)


def test_rise_is_from_the_least_use_since():
    """A pool that fell silent first has as far to rise as its silence is deep."""
    one = One()
    one.step()
    one.use = 0.0
    one.step()
    one.use = 1.5e6
    assert one.step() is Phase.ACTIVE


def test_standby_ends_after_its_time():
    """A forecast that does not come true keeps nothing from others for ever."""
    one = One()
    one.step()
    assert one.step(99.0) is Phase.WAITING
    assert one.step(1.0) is Phase.EXPIRED
    assert (one.kept, one.asked) == (0.0, 0.0)
    assert [one.step(50.0) for _ in range(5)] == [Phase.EXPIRED] * 5
    assert one.count == StandbyCount(made=1, activated=0, expired=1)


@pytest.mark.parametrize(("forecast", "use"), [(11.1e6, 2e6), (10e6, 4e6)], ids=["forecast", "use"])
def test_expired_standby_is_made_again_for_something_new(forecast: float, use: float):
    """A higher forecast, or use that rises after all."""
    one = One()
    one.step()
    one.step(100.0)
    one.forecast, one.use = forecast, use
    assert one.step() is Phase.WAITING
    assert one.kept == forecast - use


def test_active_standby_lasts_while_it_is_used():
    """Its time begins anew with every step in which use is up, and runs out once it is not."""
    one = One()
    one.step()
    one.use = 5e6
    assert [one.step(60.0) for _ in range(5)] == [Phase.ACTIVE] * 5
    one.use = 2e6
    assert one.step(60.0) is Phase.ACTIVE
    assert one.step(60.0) is Phase.EXPIRED


def test_trusted_forecast_ends_a_standby_at_once():
    """The pool then asks for itself."""
    one = One()
    one.step()
    one.tier = Tier.FULL
    assert one.step() is Phase.NONE
    assert one.asked == 1.0


def test_unknown_use_neither_activates_nor_releases():
    """Missing is not zero: while polls are lost the parent keeps what it kept."""
    one = One()
    one.step()
    one.use = NAN
    assert one.step() is Phase.WAITING
    assert one.kept == 8e6
    one.use = 2e6
    assert one.step() is Phase.WAITING
    one.use = 3e6
    assert one.step() is Phase.ACTIVE


def test_clock_set_back_does_not_lengthen_a_standby():
    """A standby of the future is over."""
    one = One()
    one.step()
    assert one.step(-5000.0) is Phase.EXPIRED


def test_standbys_follow_their_pools_into_another_tree():
    """Rows move; a pool that is new has none."""
    one = One()
    one.step()
    moved = one.standbys.at_rows(np.array([-1, 0, -1]))
    assert moved.phase.tolist() == [Phase.NONE, Phase.WAITING, Phase.NONE]
    assert np.isnan(moved.forecast_bps[[0, 2]]).all()
    assert moved.forecast_bps[1] == 10e6
    assert Standbys.none(0).at_rows(np.array([-1, -1])).phase.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"partial_above": 0.95},
            "thresholds must be 0 <= partial_above <= full_above <= 1, got partial_above 0.95 and full_above 0.9",
        ),
        ({"partial_share": 0.0}, "partial_share must be > 0 and <= 1, got 0.0"),
        ({"rise_share": NAN}, "rise_share must be > 0 and <= 1, got nan"),
        ({"standby_ttl_s": 0.0}, "standby_ttl_s must be > 0, got 0.0"),
    ],
)
def test_impossible_rules_are_refused(values: dict[str, float], line: str):
    """The error names rule and value."""
    with pytest.raises(ValueError, match="must be") as refusal:
        TierRules(**values)
    assert str(refusal.value) == line


rates = st.lists(st.one_of(st.just(NAN), st.floats(0, 1e9)), min_size=3, max_size=3)


@given(
    st.lists(
        st.tuples(rates, rates, st.lists(st.integers(0, 2), min_size=3, max_size=3), st.floats(0, 200)),
        max_size=12,
    )
)
def test_no_standby_outlives_its_time_and_none_exceeds_its_forecast(
    story: list[tuple[list[float], list[float], list[int], float]],
):
    """Whatever happens: what is kept is at most the forecast, only for doubtful ones, and ends in time."""
    standbys, now = Standbys.none(3), 0.0
    for forecast, use, tier_codes, seconds in story:
        now += seconds
        tier = np.array(tier_codes, np.uint8)
        standbys = step_standbys(standbys, tier, np.array(forecast), np.array(use), now, RULES)
        kept = kept_bps(standbys, np.array(use))
        assert ((kept >= 0) & (kept <= np.nan_to_num(np.array(forecast)))).all()
        assert (kept[tier != Tier.STANDBY] == 0).all()
        live = np.isin(standbys.phase, [Phase.WAITING, Phase.ACTIVE])
        assert (now - standbys.since_s[live] <= RULES.standby_ttl_s).all()
        share = asked_share(tier, standbys, RULES)
        assert ((share == 0) | (kept == 0)).all()
