"""One poll's answers become one batch of samples. Pure: no switch, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ryu_apps.accounting import PairNumbers
from ryu_apps.codec.flow_stats import FlowStats, PortStats
from ryu_apps.codec.meter_stats import MeterStats
from ryu_apps.collector import (
    CounterMemory,
    edge_samples,
    flow_counters,
    increase,
    made_at,
    meter_counters,
    meter_samples,
    port_counters,
    port_samples,
)
from ryu_apps.cookies import Cookies, Kind, unpack_cookies
from telemetry.samples import EdgeSamples, MeterSamples, PortSamples, SampleBatch


@dataclass(frozen=True)
class Reading:
    """What a switch answered in one poll; None where it refused to."""

    flows: FlowStats
    meters: MeterStats | None
    ports: PortStats | None
    #: Epoch seconds.
    asked_at: float
    time: float


@dataclass(frozen=True)
class Sampled:
    """What a reading says."""

    batch: SampleBatch
    #: Series of the hosts that sent something since the poll before.
    active_hosts: npt.NDArray[np.int64]
    n_pairs: int
    #: Cookies of accounting entries whose number belongs to another pair by now.
    stale: tuple[int, ...]


@dataclass
class Sampler:
    """Turns the readings of one switch into samples; it remembers the counters of the reading before."""

    dpid: int
    pairs: PairNumbers
    memory: CounterMemory = field(default_factory=CounterMemory)

    def sample(self, reading: Reading, limit_bps: Mapping[int, float], lost_polls: int) -> Sampled:
        """The samples of a reading, given the meters' rates and the polls lost before it."""
        cookies = unpack_cookies(reading.flows.cookie)
        is_pair = cookies.kind == Kind.ACCOUNTING
        theirs = self.pairs.are_theirs(cookies.series, made_at(reading.flows.duration_s, reading.time))
        endpoints, edges = self._edges(reading, cookies, np.flatnonzero(is_pair & theirs))
        batch = SampleBatch(
            dpid=self.dpid,
            time=reading.time,
            meters=self._meters(reading, limit_bps),
            edges=edges,
            ports=self._ports(reading),
            endpoints=endpoints,
            lost_polls=lost_polls,
        )
        return Sampled(
            batch,
            self._active_hosts(reading, cookies),
            n_pairs=int(np.count_nonzero(is_pair)),
            stale=tuple(reading.flows.cookie[is_pair & ~theirs].tolist()),
        )

    def _edges(
        self, reading: Reading, cookies: Cookies, rows: npt.NDArray[np.intp]
    ) -> tuple[tuple[str, ...], EdgeSamples]:
        now = flow_counters(reading.flows, rows, cookies.series[rows], reading.time)
        self.pairs.seen(cookies.series[rows], reading.time)
        edges = edge_samples(self.memory.pairs, now, self.pairs.columns(now.ids.astype(np.uint32)))
        self.memory.pairs = now
        return self.pairs.named(edges)

    def _meters(self, reading: Reading, limit_bps: Mapping[int, float]) -> MeterSamples:
        # What was refused is remembered from before: the next answer spans the longer interval.
        if reading.meters is None:
            return MeterSamples()
        now = meter_counters(reading.meters, reading.time)
        restarts = self.memory.restarts_before(reading.asked_at)
        samples = meter_samples(self.memory.meters, now, limit_bps, restarts)
        self.memory.meters = now
        return samples

    def _ports(self, reading: Reading) -> PortSamples:
        if reading.ports is None:
            return PortSamples()
        now = port_counters(reading.ports, reading.time)
        samples = port_samples(self.memory.ports, now)
        self.memory.ports = now
        return samples

    def _active_hosts(self, reading: Reading, cookies: Cookies) -> npt.NDArray[np.int64]:
        rows = np.flatnonzero(cookies.kind == Kind.UPLOAD_USER)
        now = flow_counters(reading.flows, rows, cookies.series[rows], reading.time)
        active = now.ids[increase(self.memory.hosts, now).amount[:, 0] > 0]
        self.memory.hosts = now
        return active
