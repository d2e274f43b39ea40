"""One connected switch: asked, compared with what it shall hold, and brought there.

Each switch has one green thread that does everything in turn: poll, compare,
send, wait for the barrier, read back. Event handlers only hand replies over, so
nothing ever waits inside one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np

from planner.config import Config
from ryu_apps.accounting import PairNumbers
from ryu_apps.codec.body import StatsBody
from ryu_apps.codec.flow_stats import FlowStats, decode_flow_stats, decode_port_stats
from ryu_apps.codec.messages import MeterCommand
from ryu_apps.codec.meter_stats import decode_meter_configs, decode_meter_stats
from ryu_apps.conversation import Conversation, SwitchSilentError
from ryu_apps.cookies import KIND_MASK, Kind, unpack_cookies
from ryu_apps.flows import FlowChanges, delete_by_cookie, flow_changes, wire_entry
from ryu_apps.framework import (
    flow_entries,
    hub,
    ofproto_v1_3,
    ofproto_v1_3_parser,
    send_all,
    take_xids,
)
from ryu_apps.meters import MeterChanges, MeterRates, meter_changes, write_meters
from ryu_apps.pipeline import FlowEntry, Pipeline, TooFewTablesError
from ryu_apps.sampling import Reading, Sampler
from telemetry.samples import SampleBatch
from topology.learning import Sighting

LOG = logging.getLogger("tidegate.switch")

#: After errors a switch is read again so soon, and so often in a row.
_RETRY_S: Final = 0.3
_RETRIES: Final = 5
#: Open vSwitch makes a new meter behind the same id, with counters at zero and the old duration.
_CLEARS_ON_MODIFY: Final = "Open vSwitch"
_KEPT_WITHOUT_PLAN: Final = frozenset(
    {
        Kind.UPLOAD_USER,
        Kind.UPLOAD_GROUP,
        Kind.UPLOAD_REGION,
        Kind.DOWNLOAD_USER,
        Kind.DOWNLOAD_GROUP,
        Kind.DOWNLOAD_REGION,
    }
)
#: So many refusals in a round are told one by one.
_ERRORS_LOGGED: Final = 10


@dataclass(frozen=True)
class Wanted:
    """What a switch shall hold."""

    flows: Iterable[FlowEntry]
    meters: MeterRates
    #: None while the planner has not spoken: meters, and entries that may use them, stay as they are.
    plan_version: int | None
    #: False while the picture of the network is incomplete after a start: nothing is taken away.
    complete: bool = True


@dataclass(frozen=True)
class Facts:
    """What a switch says of itself."""

    n_tables: int
    max_meters: int
    description: str


@dataclass(frozen=True)
class Applied:
    """How a switch stands after it was compared with a plan."""

    dpid: int
    plan_version: int | None
    #: Whether the meters read back equal the plan. None: not read yet.
    in_step: bool | None
    n_meters: int
    lost_polls: int


class Surroundings(Protocol):
    """What a switch's thread needs of the rest of the process."""

    def wanted(self, dpid: int) -> Wanted | None:
        """What the switch shall hold now; None: leave it alone for now."""

    def host_of_series(self, dpid: int, series: int) -> tuple[str, int] | None:
        """MAC and port of the local host with this number in cookies."""

    def sampled(self, batch: SampleBatch, alive: list[Sighting]) -> None:
        """A poll was answered; the hosts seen sending in it are ``alive``."""

    def applied(self, applied: Applied) -> None:
        """The switch was compared with the plan, and brought there where it could be."""

    def recovered(self, dpid: int, hosts: list[Sighting], fresh: bool) -> None:
        """The switch was read for the first time: the hosts in its entries; fresh if it held none of ours."""


@dataclass
class Switch:
    """One switch for as long as one connection lasts."""

    datapath: Any
    config: Config
    surroundings: Surroundings
    pairs: PairNumbers
    clock: Callable[[], float] = time.time
    facts: Facts = field(default_factory=lambda: Facts(254, 0, ""))
    pipeline: Pipeline = field(default_factory=Pipeline)
    #: Cookies and meters as read back last, and sent since.
    held: set[int] = field(default_factory=set)
    meters: dict[int, tuple[int, int]] = field(default_factory=dict)
    ready: bool = False
    alive: bool = True
    n_pairs: int = 0
    _wake: Any = field(default_factory=hub.Event)
    _errors: int = 0
    _retries: int = 0
    _lost: int = 0

    def __post_init__(self) -> None:
        self._talk = Conversation(self.datapath, self.config.polling.timeout_s)
        self._sampler = Sampler(self.dpid, self.pairs)

    @property
    def dpid(self) -> int:
        """The datapath id."""
        return int(self.datapath.id)

    # What event handlers call.

    def wake(self) -> None:
        """Something changed: compare soon."""
        self._wake.set()

    def on_stats(self, message: Any) -> None:
        """A multipart reply, or a part of one."""
        self._talk.on_stats(message)

    def on_reply(self, xid: int, value: Any) -> None:
        """An answer to a request."""
        self._talk.on_reply(xid, value)

    def on_error(self, message: Any) -> None:
        """The switch refused something: read it again before trying again."""
        self._errors += 1
        if self._errors <= _ERRORS_LOGGED:
            LOG.warning(
                "dp %016x refused a message: type %s code %s xid %s",
                self.dpid,
                message.type,
                message.code,
                message.xid,
            )
        self.on_reply(message.xid, None)

    # The green thread.

    def run(self) -> None:
        """Live until the connection ends; an error in one round is logged and the next round tried."""
        next_poll = 0.0
        while self.alive:
            try:
                if not self.ready:
                    self._get_to_know()
                now = time.monotonic()
                if now >= next_poll:
                    next_poll = now + self._interval_s()
                    self._poll()
                self._reconcile()
            except SwitchSilentError as error:
                LOG.warning("dp %016x %s", self.dpid, error)
            except Exception:
                LOG.exception("dp %016x round failed", self.dpid)
            if self._is_to_retry():
                next_poll = min(next_poll, time.monotonic() + _RETRY_S)
            pause = next_poll - time.monotonic()
            if not self.ready:
                pause = max(pause, _RETRY_S)
            self._wake.wait(timeout=max(pause, 0.01))
            self._wake.clear()

    def _interval_s(self) -> float:
        """Until the next poll; spread, so that switches do not all answer at once."""
        polling = self.config.polling
        return polling.interval_s * (1 + polling.jitter * (np.random.default_rng().random() - 0.5))

    def _is_to_retry(self) -> bool:
        """Whether this round met errors, and the rounds before it not too often."""
        errors, self._errors = self._errors, 0
        if not errors:
            self._retries = 0
            return False
        self._retries += 1
        return self._retries <= _RETRIES

    def _get_to_know(self) -> None:
        self.facts = self._ask_facts()
        try:
            self.pipeline = Pipeline.fitting(self.facts.n_tables)
        except TooFewTablesError as error:
            LOG.error("dp %016x is left alone: %s", self.dpid, error)
            self.alive = False
            return
        if self.pipeline.missing:
            names = ", ".join(stage.name.lower() for stage in self.pipeline.missing)
            LOG.warning("dp %016x has %d tables, does without: %s", self.dpid, self.facts.n_tables, names)
        # Counters begin here.
        stats = self._poll()
        hosts = self._hosts_in(stats)
        # Numbers of pairs belong to a process that is gone.
        self._talk.tell([delete_by_cookie(int(Kind.ACCOUNTING) << 60, KIND_MASK)])
        self.held = {cookie for cookie in self.held if cookie >> 60 != Kind.ACCOUNTING}
        self.n_pairs = 0
        self.ready = True
        LOG.info(
            "dp %016x is %s: %d tables, %d meters; holds %d entries, %d meters, %d hosts",
            self.dpid, self.facts.description, self.facts.n_tables, self.facts.max_meters,
            len(self.held), len(self.meters), len(hosts),
        )  # fmt: skip
        self.surroundings.recovered(self.dpid, hosts, fresh=not self.held)

    def _ask_facts(self) -> Facts:
        ofp, parser, dp = ofproto_v1_3, ofproto_v1_3_parser, self.datapath
        # Whole packets are not wanted at the controller.
        send_all(dp, [parser.OFPSetConfig(dp, ofp.OFPC_FRAG_NORMAL, 0xFFE5)])
        desc, features, tables = self._talk.ask(
            [
                parser.OFPDescStatsRequest(dp, 0),
                parser.OFPMeterFeaturesStatsRequest(dp, 0),
                parser.OFPFeaturesRequest(dp),
            ]
        )
        max_meters = features[0].max_meter if features else 0
        if self.config.openflow.max_meters is not None:
            max_meters = min(max_meters, self.config.openflow.max_meters)
        named = (desc[0].hw_desc, desc[0].sw_desc) if desc else ()
        return Facts(
            n_tables=tables.n_tables if tables is not None else 254,
            max_meters=max_meters,
            description=" ".join(part.decode(errors="replace") for part in named),
        )

    def _hosts_in(self, stats: FlowStats) -> list[Sighting]:
        """The hosts that an earlier process wrote entries for."""
        rows = np.flatnonzero(unpack_cookies(stats.cookie).kind == Kind.UPLOAD_USER)
        return [
            Sighting(entry.match["eth_src"], None, self.dpid, entry.match["in_port"])
            for entry in flow_entries(stats, rows)
            if "eth_src" in entry.match and "in_port" in entry.match
        ]

    def _poll(self) -> FlowStats:
        ofp, parser, dp = ofproto_v1_3, ofproto_v1_3_parser, self.datapath
        asked_at = self.clock()
        try:
            flows, meters, configs, ports = self._talk.ask(
                [
                    parser.OFPFlowStatsRequest(dp, 0, ofp.OFPTT_ALL, ofp.OFPP_ANY, ofp.OFPG_ANY, 0, 0, None),
                    parser.OFPMeterStatsRequest(dp, 0, ofp.OFPM_ALL),
                    parser.OFPMeterConfigStatsRequest(dp, 0, ofp.OFPM_ALL),
                    parser.OFPPortStatsRequest(dp, 0, ofp.OFPP_ANY),
                ]
            )
            if flows is None:
                # Refused is not empty: an empty table would be filled anew.
                raise SwitchSilentError("must answer for its flow entries, refused to")
        except SwitchSilentError:
            self._lost += 1
            raise
        reading = Reading(
            decode_flow_stats(flows),
            None if meters is None else decode_meter_stats(meters),
            None if ports is None else decode_port_stats(ports),
            asked_at,
            self.clock(),
        )
        self.held = {cookie for cookie in reading.flows.cookie.tolist() if cookie >> 60}
        self._take_meters(configs)
        self._sample(reading)
        return reading.flows

    def _sample(self, reading: Reading) -> None:
        limits = {meter: rate * 1e3 for meter, (rate, _) in self.meters.items()}
        sampled = self._sampler.sample(reading, limits, self._lost)
        self._lost = 0
        self.n_pairs = sampled.n_pairs
        located = (self.surroundings.host_of_series(self.dpid, int(s)) for s in sampled.active_hosts)
        sightings = [Sighting(mac, None, self.dpid, port) for mac, port in filter(None, located)]
        self.surroundings.sampled(sampled.batch, sightings)
        self._talk.post([delete_by_cookie(cookie) for cookie in sampled.stale])

    def _take_meters(self, bodies: list[StatsBody] | None) -> None:
        if bodies is None:
            return
        configs = decode_meter_configs(bodies)
        rows = zip(configs.meter_id.tolist(), configs.rate.tolist(), configs.burst.tolist(), strict=True)
        self.meters = {meter: (rate, burst) for meter, rate, burst in rows}

    def _reconcile(self) -> None:
        wanted = self.surroundings.wanted(self.dpid)
        if wanted is None or not self.ready:
            return
        flows, meters = self._flow_changes(wanted), self._meter_changes(wanted)
        self._change_meters(meters, wanted.meters)
        self._change_flows(flows)
        if meters.delete:
            self._log_meters("delete", meters.delete, wanted.meters)
            self._write(MeterCommand.DELETE, meters.delete, wanted.meters)
        if meters:
            # Read back, not remembered: the switch may have rounded, refused or forgotten.
            (configs,) = self._talk.ask(
                [ofproto_v1_3_parser.OFPMeterConfigStatsRequest(self.datapath, 0, ofproto_v1_3.OFPM_ALL)]
            )
            self._take_meters(configs)
        in_step = self.meters == dict(wanted.meters) if wanted.plan_version is not None else None
        if meters and not in_step and wanted.complete:
            self._errors += 1
        self.surroundings.applied(
            Applied(self.dpid, wanted.plan_version, in_step, len(self.meters), self._lost)
        )

    def _flow_changes(self, wanted: Wanted) -> FlowChanges:
        wire = {entry.cookie: entry for entry in map(wire_entry, wanted.flows)}
        held = self.held
        if wanted.plan_version is None and any(cookie >> 60 in _KEPT_WITHOUT_PLAN for cookie in held):
            wire = {c: e for c, e in wire.items() if c >> 60 not in _KEPT_WITHOUT_PLAN}
            held = {c for c in held if c >> 60 not in _KEPT_WITHOUT_PLAN}
        changes = flow_changes(held, wire)
        return changes if wanted.complete else FlowChanges(add=changes.add)

    def _meter_changes(self, wanted: Wanted) -> MeterChanges:
        if wanted.plan_version is None:
            return MeterChanges()
        changes = meter_changes(self.meters, wanted.meters)
        return changes if wanted.complete else replace(changes, delete=())

    def _change_meters(self, changes: MeterChanges, wanted: MeterRates) -> None:
        for command, meters in (
            (MeterCommand.MODIFY, changes.lower),
            (MeterCommand.MODIFY, changes.raise_),
            (MeterCommand.ADD, changes.add),
        ):
            if not meters:
                continue
            self._log_meters("modify" if command is MeterCommand.MODIFY else "add", meters, wanted)
            if command is MeterCommand.MODIFY and _CLEARS_ON_MODIFY in self.facts.description:
                self._sampler.memory.meters_modified(meters, self.clock())
            self._write(command, meters, wanted)

    def _log_meters(self, verb: str, meters: tuple[int, ...], wanted: MeterRates) -> None:
        # One line a change while they are few enough to be read.
        if len(meters) > 50:
            LOG.info("dp %016x %s %d meters", self.dpid, verb, len(meters))
            return
        for meter in meters:
            old, new = self.meters.get(meter, (0, 0))[0], wanted.get(meter, (0, 0))[0]
            LOG.info("dp %016x meter %d: %d -> %d kbit/s", self.dpid, meter, old, new)

    def _write(self, command: MeterCommand, meters: tuple[int, ...], wanted: MeterRates) -> None:
        self.datapath.send(write_meters(command, meters, wanted, take_xids(self.datapath, len(meters))))
        self._talk.barrier()

    def _change_flows(self, changes: FlowChanges) -> None:
        if not changes:
            return
        LOG.info("dp %016x flows: %d added, %d removed", self.dpid, len(changes.add), len(changes.delete))
        if changes.add:
            self._talk.tell([entry.add for entry in changes.add])
        if changes.delete:
            self._talk.tell([delete_by_cookie(cookie) for cookie in changes.delete])
        self.held |= {entry.cookie for entry in changes.add}
        self.held -= set(changes.delete)

    def add_pairs(self, entries: list[FlowEntry]) -> None:
        """Install accounting entries; called between rounds, waits for nothing."""
        self._talk.post([wire_entry(entry).add for entry in entries])
        self.n_pairs += len(entries)
