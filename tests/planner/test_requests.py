"""Requests: doubtful forecasts wait at the parent, and are the pool's in the tick in which use rises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from allocation.tiers import StandbyCount, Tier
from forecasting.forecast import Forecast, Rung
from planner.requests import StandbyReport
from tests.planner.networks import PLACES, Running, small


class Foreseen(Running):
    """A planner whose forecast the test makes up: rates by user, as narrow or wide as it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **tiers: Any) -> None:
        super().__init__(
            small(allocation={"dead_band": 0.05, "tiers": {"standby_ttl_s": 60, "band": 0.5, **tiers}})
        )
        self.foreseen: dict[str, float] = {}
        #: Quantile 0.98 as a multiple of the median.
        self.spread = 1.01
        make = self.planner.forecaster.forecast

        def forecast(*arguments: Any) -> Forecast:
            return self._made_up(make(*arguments))

        monkeypatch.setattr(self.planner.forecaster, "forecast", forecast)
        self.offered = dict.fromkeys(PLACES, 2e6)
        self.connect()
        self.tick(count=2)

    def _made_up(self, forecast: Forecast) -> Forecast:
        structure = self.planner.structure
        assert structure is not None
        demand, n = forecast.demand_bps.copy(), len(structure.path)
        rung = forecast.rung.copy()
        scale = self.spread ** ((forecast.quantile - 0.5) / 0.48)
        for user, rate in self.foreseen.items():
            row = structure.series.index(f"user/{user}")
            demand[[row, n + row]] = rate * scale
            rung[[row, n + row]] = Rung.MODEL
        return replace(forecast, demand_bps=demand, rung=rung)

    @property
    def report(self) -> StandbyReport:
        return self.planner.standby_report()

    def tier(self, user: str) -> Tier:
        """The tier of a user's upload."""
        decision = self.planner._decision
        assert decision is not None
        assert decision.asked is not None
        return Tier(decision.asked.tier[0, self.row(user)])


@pytest.mark.parametrize(("spread", "tier"), [(1.01, Tier.FULL), (9.0, Tier.STANDBY)])
def test_narrow_forecast_is_trusted_and_a_wide_one_is_not(
    monkeypatch: pytest.MonkeyPatch, spread: float, tier: Tier
):
    """Confidence is the forecast's own, at the band that the configuration names."""
    running = Foreseen(monkeypatch)
    running.foreseen, running.spread = {"anna": 10e6}, spread
    running.tick()
    assert running.tier("anna") is tier


def test_what_was_measured_is_asked_for_in_full(monkeypatch: pytest.MonkeyPatch):
    """Below the archetypes there is no forecast that could be doubted: what was used lately is repeated."""
    running = Foreseen(monkeypatch)
    running.tick(count=4)
    assert running.tier("ben") is Tier.FULL
    assert running.report.standbys == ()


def test_trusted_forecast_is_granted_before_a_doubtful_one(monkeypatch: pytest.MonkeyPatch):
    """When not both fit, the sure one is served, and the doubtful one keeps what it uses."""
    running = Foreseen(monkeypatch)
    running.offered = {"anna": 12e6, "ben": 6e6, "carla": 12e6, "david": 1e6, "emma": 1e6}
    running.tick(count=3)
    running.foreseen, running.spread = {"anna": 18e6}, 9.0
    running.tick()
    doubtful = min(running.grant("anna"))
    running.spread = 1.01
    running.tick()
    assert running.tier("anna") is Tier.FULL
    assert min(running.grant("anna")) > doubtful
    assert doubtful >= 12e6


def test_standby_has_an_owner_a_parent_and_an_end(monkeypatch: pytest.MonkeyPatch):
    """An operator can see for whom what is kept, where and until when."""
    running = Foreseen(monkeypatch)
    running.foreseen, running.spread = {"anna": 10e6}, 9.0
    running.tick()
    made = running.now
    up, _ = [one for one in running.report.standbys if one.owner.endswith("/anna")]
    assert (up.parent, up.direction, up.phase) == ("global/west/ungrouped", 0, "waiting")
    assert up.kept_bps == pytest.approx(8e6)
    assert up.until == made + 60


def test_parent_keeps_a_standby_from_the_leftover_of_others(monkeypatch: pytest.MonkeyPatch):
    """What is kept is not handed to the siblings."""
    running = Foreseen(monkeypatch)
    running.offered = {"anna": 1e6, "ben": 11e6, "carla": 11e6, "david": 1e6, "emma": 1e6}
    running.tick(count=3)
    free = sum(running.grant(user)[0] for user in ("ben", "carla"))
    running.foreseen, running.spread = {"anna": 18e6}, 9.0
    running.tick()
    pools = running.planner.snapshot.pools
    parent = pools.parent[running.row("anna")]
    members = np.flatnonzero(pools.parent == parent)
    spare = pools.grant_bps[0, parent] - pools.grant_bps[0, members].sum()
    assert spare > 0
    assert sum(running.grant(user)[0] for user in ("ben", "carla")) <= free


def test_standby_is_granted_in_the_tick_in_which_use_rises(monkeypatch: pytest.MonkeyPatch):
    """The owner's grant is its whole forecast one tick after it starts, and that is counted."""
    running = Foreseen(monkeypatch)
    running.offered = {"anna": 1e6, "ben": 10e6, "carla": 10e6, "david": 1e6, "emma": 1e6}
    running.foreseen, running.spread = {"anna": 14e6}, 3.0
    running.tick(count=2)
    before = running.report.counts
    running.offered["anna"] = 4e6
    running.tick()
    assert min(running.grant("anna")) >= 14e6 * 0.95
    assert running.report.counts.activated == before.activated + 2
    assert {one.phase for one in running.report.standbys if one.owner.endswith("/anna")} == {"active"}


def test_standby_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch):
    """Nobody used it: it is given back, and counted."""
    running = Foreseen(monkeypatch)
    running.foreseen, running.spread = {"anna": 10e6}, 9.0
    running.tick()
    assert any(one.owner.endswith("/anna") for one in running.report.standbys)
    running.tick(count=12)
    assert not any(one.owner.endswith("/anna") for one in running.report.standbys)
    assert running.report.counts.expired >= 2


def test_standbys_follow_their_owner_to_another_place(monkeypatch: pytest.MonkeyPatch):
    """A new structure does not make them anew: their time goes on."""
    running = Foreseen(monkeypatch)
    running.foreseen, running.spread = {"anna": 10e6}, 9.0
    running.tick()
    until = {one.until for one in running.report.standbys if one.owner.endswith("/anna")}
    running.connect(places=PLACES | {"anna": 0x21}, version=2)
    running.tick()
    moved = [one for one in running.report.standbys if one.owner.endswith("/anna")]
    assert {one.parent for one in moved} == {"global/east/ungrouped"}
    assert {one.until for one in moved} == until


def test_silent_user_is_granted_what_is_forecast(monkeypatch: pytest.MonkeyPatch):
    """Where polls are lost use is unknown: the forecast speaks alone, sure or not."""
    running = Foreseen(monkeypatch)
    running.offered = {"anna": 8e6, "ben": 14e6, "carla": 10e6, "david": 1e6, "emma": 1e6}
    running.foreseen, running.spread = {"carla": 10e6}, 9.0
    running.tick(count=3)
    running.silent = {0x12}
    running.tick(count=4)
    assert min(running.grant("carla")) >= 9e6


def test_tiers_can_be_switched_off(monkeypatch: pytest.MonkeyPatch):
    """Then every forecast is asked for in full, and nothing is kept."""
    running = Foreseen(monkeypatch, enabled=False)
    running.foreseen, running.spread = {"anna": 10e6}, 9.0
    running.tick()
    assert running.report == StandbyReport(counts=StandbyCount())
    assert min(running.grant("anna")) >= 10e6
