"""Operations over a real planner that lives through a recorded trace: what pages show is what it decided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.alarms import AlarmStream
from planner.config import Config, load
from planner.dry_run import Rehearsal
from planner.group_desk import GroupDesk
from planner.loop import Planner
from planner.policy_desk import PolicyDesk
from planner.rates import RateHistory
from planner.replay import AtOnce, MadeUpNetwork
from planner.report import AppliedReport
from planner.snapshot import ForecastQuality, PoolForecast, Snapshot
from planner.trace import SAMPLE_TRACE, load_trace, over_ticks
from telemetry.samples import GAP, SampleBatch
from tests.northbound.doubles import FakeArchetypes, FakeEvents

#: Of the trace's first half hour, enough for forecasts and a first model.
TICKS = 300


class Replayed:
    """``Operations`` of a planner fed from the sample trace. ``go_on`` lets it live another tick."""

    def __init__(self, config: Config, ticks: int = TICKS) -> None:
        self.config = config
        trace = load_trace(SAMPLE_TRACE)
        self.planner = Planner(config, AtOnce())
        # Else plans grow stale while a test looks at them.
        self.planner.clock = lambda: self.now
        self._tick_s = config.allocation.tick_s
        self._trace = trace
        self._network = MadeUpNetwork.of(config, trace.users)
        count = int((trace.time[-1] - trace.since) / self._tick_s + 1e-6)
        self._ends = trace.since + self._tick_s * np.arange(1, count + 1, dtype=np.float64)
        self._demand = over_ticks(trace, trace.demand_bps, self._ends, self._tick_s)
        self._edges = over_ticks(trace, trace.edge_bps, self._ends, self._tick_s)
        self._at = 0
        #: Users whose meters cannot be read: nothing is measured of them.
        self.unknown: set[str] = set()
        #: Users who send nothing.
        self.silent: set[str] = set()
        self.planner.report(self._network.report(trace.since))
        self._plan = self.planner.tick(trace.since)
        self.events = FakeEvents()
        self.archetypes = FakeArchetypes()
        self.told: list[str] = []
        self.policy = PolicyDesk(self.planner, self.told.append, lambda: self.now)
        self.grouping = GroupDesk(self.planner, self.told.append, lambda: self.now)
        for _ in range(ticks):
            self.go_on()

    def rehearse(self) -> Rehearsal:
        """A copy that a write may be made to."""
        return Rehearsal(self.planner, self.now)

    @classmethod
    def of_demo(cls, ticks: int = TICKS) -> Replayed:
        """With the example configuration."""
        config = load(Path(__file__).parents[2] / "config" / "demo.yaml")
        # A training takes no virtual time, but seconds of the test's.
        rare = config.forecasting.model_copy(update={"train_every_s": 900.0})
        return cls(config.model_copy(update={"forecasting": rare}), ticks)

    @property
    def now(self) -> float:
        """The planner's own time."""
        return self.snapshot.time

    def go_on(self) -> None:
        """One tick; after the trace's end it begins again."""
        row = self._at % len(self._ends)
        now = self.now + self._tick_s if self._at else float(self._ends[0])
        demand = self._demand[row].copy()
        demand[:, [self._trace.users.index(user) for user in self.silent]] = 0.0
        for batch in self._network.poll(now, self._tick_s, self._plan, demand):
            self.planner.ingest(self._with_gaps(batch))
        for batch in self._network.accounts(now, self._tick_s, self._trace, self._edges[row]):
            self.planner.ingest(batch)
        for dpid, meters in self._plan.meters.items():
            self.planner.applied(AppliedReport("replay", dpid, self._plan.version, True, len(meters), 0))
        self._plan = self.planner.tick(now)
        self._at += 1

    def _with_gaps(self, batch: SampleBatch) -> SampleBatch:
        """The meters of unknown users could not be read; those above them could."""
        owners = self._plan.layouts[batch.dpid].owners
        lost = [owner.meter_id for owner in owners if owner.pool.rpartition("/")[2] in self.unknown]
        gap = np.isin(batch.meters.meter_id, lost)
        offered = np.where(gap, np.nan, batch.meters.offered_bps)
        dropped = np.where(gap, np.nan, batch.meters.dropped_bps)
        flags = np.where(gap, GAP, batch.meters.flags).astype(np.uint8)
        meters = replace(batch.meters, offered_bps=offered, dropped_bps=dropped, flags=flags)
        return replace(batch, meters=meters)

    @property
    def snapshot(self) -> Snapshot:
        return self.planner.snapshot

    @property
    def alarms(self) -> AlarmStream:
        return self.planner.alarm_watch.stream

    def models(self) -> dict[str, Any]:
        return self.planner.prediction.models.versions.report(self.now)

    def forecast_quality(self) -> ForecastQuality:
        return self.planner.prediction.quality()

    def pool_forecast(self, pool: str, since: float, *more: Any) -> PoolForecast:
        return self.planner.pool_forecast(pool, since, *more)

    def rate_history(self, *asked: Any) -> RateHistory:
        return self.planner.rate_history(*asked)

    def summary(self) -> dict[str, Any]:
        return self.planner.tally.report(None)
