"""The planner fed from a recorded trace, in virtual time: no switches, no root, no waiting.

The loop, the forecaster and the allocator are those of a running planner. Only the network
is made up: users are spread over the regions' switches, and every switch does at
once what the plan says. A plan decided at t polices what is offered from t on.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from planner.config import Config
from planner.config_faults import ConfigError
from planner.loop import Planner
from planner.plan import UNMETERED, MeterTable, Plan, SwitchLayout
from planner.report import NetworkReport, SwitchFacts
from planner.trace import SAMPLE_TRACE, Trace, load_trace, over_ticks
from telemetry.samples import CENSORED, GAP, EdgeSamples, MeterSamples, SampleBatch
from topology.network import Host

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: As many meters as Open vSwitch has.
_MAX_METERS: Final = 262_144
_N_TABLES: Final = 254
#: Trainings take no virtual time but a second or two each of the reader's: at most so many, evenly spread.
_MOST_TRAININGS: Final = 16


def run(config: Config, trace: Path | None, progress: Callable[[float], None]) -> dict[str, Any]:
    """The summary of a planner that saw this trace; see ``Operations.summary``.

    ``trace`` is the sample one if None. ``progress`` is told the share that is done, 0 to 1.
    The same trace and configuration give the same summary. ``meters_equal_plan`` is None: there
    are no switches to read back. Models are trained at most sixteen times, however long the trace is.

    Raises
    ------
    TraceError : if the file is no trace.
    ConfigError : if it has users that the configuration does not know.
    OSError : if it cannot be read.
    """
    return feed(config, load_trace(SAMPLE_TRACE if trace is None else trace), progress).tally.report(None)


def feed(config: Config, trace: Trace, progress: Callable[[float], None] = lambda share: None) -> Planner:
    """A planner that has lived through the trace. Raises ConfigError as ``run`` does."""
    config = _for_replay(config, trace)
    network = MadeUpNetwork.of(config, trace.users)
    planner = Planner(config, AtOnce())
    tick_s = config.allocation.tick_s
    n_ticks = max(1, int((trace.time[-1] - trace.since) / tick_s + 1e-6))
    ends: F64 = trace.since + tick_s * np.arange(1, n_ticks + 1, dtype=np.float64)
    demand_bps = over_ticks(trace, trace.demand_bps, ends, tick_s)
    edge_bps = over_ticks(trace, trace.edge_bps, ends, tick_s)
    planner.report(network.report(trace.since))
    plan = planner.tick(trace.since)
    for row, now in enumerate(ends.tolist()):
        for batch in network.poll(now, tick_s, plan, demand_bps[row]):
            planner.ingest(batch)
        for batch in network.accounts(now, tick_s, trace, edge_bps[row]):
            planner.ingest(batch)
        plan = planner.tick(now)
        progress((row + 1) / n_ticks)
    return planner


def _for_replay(config: Config, trace: Trace) -> Config:
    span_s = float(trace.time[-1]) - trace.since
    every_s = max(config.forecasting.train_every_s, span_s / _MOST_TRAININGS)
    return config.model_copy(
        update={
            "allocation": config.allocation.model_copy(update={"compare": True}),
            "forecasting": config.forecasting.model_copy(update={"train_every_s": every_s}),
        }
    )


class AtOnce(Executor):
    """Does the work when it is submitted, in this process: virtual time does not go on meanwhile."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The finished work."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the caller asks the future
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class _Wires:
    """How one switch's users reach its meters."""

    #: shape (n_users,): columns of the demand.
    user: I64
    #: Indices of the meter table for class, user, group and region by direction, each shape (n_users,); the
    #: number of meters stands for none.
    meters: tuple[tuple[I64, ...], tuple[I64, ...]]


@dataclass
class MadeUpNetwork:
    """Switches that police as the plan says, and users spread evenly over them."""

    users: tuple[str, ...]
    hosts: tuple[Host, ...]
    dpids: tuple[int, ...]
    _wired_for: int = -1
    _wires: dict[int, _Wires] | None = None

    @classmethod
    def of(cls, config: Config, users: tuple[str, ...]) -> MadeUpNetwork:
        """Each user with one device, neighbours in the configuration at the same switch.

        Raises
        ------
        ConfigError : for each user that the configuration does not know.
        """
        unknown = [name for name in users if name not in config.users]
        if unknown:
            raise ConfigError([f"users.{name} must be given, the trace has this user" for name in unknown])
        dpids = tuple(dpid for region in config.regions.values() for dpid in region.dpids)
        present = set(users)
        order = {name: place for place, name in enumerate(name for name in config.users if name in present)}
        taken = {mac for user in config.users.values() for mac in user.macs}
        spare = (mac for mac in map(_local_mac, range(1 << 32)) if mac not in taken)
        hosts = []
        for name in users:
            user, place = config.users[name], order[name]
            mac = user.macs[0] if user.macs else next(spare)
            dpid = dpids[place * len(dpids) // len(users)]
            hosts.append(Host(mac, frozenset(user.addresses), dpid, place + 1, 0.0))
        return cls(users, tuple(hosts), dpids)

    def report(self, now: float) -> NetworkReport:
        """What a speaker would say of this network."""
        facts = SwitchFacts(_N_TABLES, _MAX_METERS, "made up for a replay")
        hosts = {h.mac: Host(h.mac, h.addresses, h.dpid, h.port_no, now) for h in self.hosts}
        return NetworkReport("replay", 1, dict.fromkeys(self.dpids, facts), hosts=hosts)

    def poll(self, now: float, interval_s: float, plan: Plan, demand_bps: F64) -> list[SampleBatch]:
        """What each switch's meters counted while they held this plan.

        ``demand_bps`` has shape (2, n_users). As in the pipeline, what passes a user's meter is
        offered to its group's, and what passes that to its region's.
        """
        if plan.layout_version != self._wired_for:
            column = {name: number for number, name in enumerate(self.users)}
            self._wires = {
                dpid: _wires(layout, plan.meters[dpid], column)
                for dpid, layout in plan.layouts.items()
                if dpid in plan.meters
            }
            self._wired_for = plan.layout_version
        batches = []
        for dpid, wires in (self._wires or {}).items():
            meters = _police(wires, plan.meters[dpid], demand_bps, interval_s)
            batches.append(SampleBatch(dpid, now, meters))
        return batches

    def accounts(self, now: float, interval_s: float, trace: Trace, edge_bps: F64) -> list[SampleBatch]:
        """Who sent to whom, as the senders' switches count it."""
        at = np.array([host.dpid for host in self.hosts], np.uint64)[trace.edge_src]
        macs = tuple(host.mac for host in self.hosts)
        batches = []
        for dpid in self.dpids:
            mine = np.flatnonzero((at == dpid) & ~np.isnan(edge_bps))
            if not len(mine):
                continue
            edges = EdgeSamples(
                trace.edge_src[mine].astype(np.uint32),
                trace.edge_dst[mine].astype(np.uint32),
                np.zeros(len(mine), np.uint32),
                np.full(len(mine), interval_s),
                edge_bps[mine],
            )
            batches.append(SampleBatch(dpid, now, edges=edges, endpoints=macs))
        return batches


def _local_mac(number: int) -> str:
    """A locally administered address."""
    return "02:74" + "".join(f":{number >> shift & 255:02x}" for shift in (24, 16, 8, 0))


def _wires(layout: SwitchLayout, table: MeterTable, column: dict[str, int]) -> _Wires:
    place = {int(meter_id): row for row, meter_id in enumerate(table.meter_id)}
    none = len(table)
    bindings = [binding for binding in layout.bindings if binding.user in column]

    # A trace tells no classes: all of a user's traffic is of the first, which is all the rest.
    rest = {b.mac: b.applications[0][1:] for b in bindings if b.applications}

    def stages(d: int) -> tuple[I64, ...]:
        first = [rest.get(b.mac, (UNMETERED, UNMETERED))[d] for b in bindings]
        ids = [
            (one, b.user_meter[d], b.group_meter[d], layout.region_meter[d])
            for one, b in zip(first, bindings, strict=True)
        ]
        rows = np.array([[place.get(i, none) for i in row] for row in ids], np.int64).reshape(-1, 4)
        return tuple(rows.T)

    return _Wires(np.array([column[b.user] for b in bindings], np.int64), (stages(0), stages(1)))


def _police(wires: _Wires, table: MeterTable, demand_bps: F64, interval_s: float) -> MeterSamples:
    """One switch's meters after an interval; a meter that a missing user goes through has a gap."""
    n = len(table)
    # Past the last meter stands the one that is none: it lets everything pass.
    rate = np.append(table.rate_kbps * 1e3, np.inf)
    offered, dropped = np.zeros(n), np.zeros(n)
    for d, stages in enumerate(wires.meters):
        flow = demand_bps[d, wires.user]
        for stage in stages:
            load = np.bincount(stage, flow, n + 1)
            # A policer drops from all alike.
            passed = np.minimum(1.0, rate / np.where(load > 0, load, 1.0))
            offered += load[:n]
            dropped += (load * (1 - passed))[:n]
            flow = flow * passed[stage]
    gap = np.isnan(offered)
    flags = np.where(gap, GAP, np.where(dropped > 0, CENSORED, 0)).astype(np.uint8)
    return MeterSamples(table.meter_id, np.full(n, interval_s), offered, dropped, flags)
