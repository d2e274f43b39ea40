"""One connected switch: asked, compared with what it shall hold, and brought there.

Each switch has one green thread that does everything in turn: poll, compare,
send, wait for the barrier, read back. Event handlers only hand replies over, so
nothing ever waits inside one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np

from planner.config import Config
from ryu_apps.accounting import PairNumbers
from ryu_apps.codec.flow_stats import FlowStats, decode_flow_stats, decode_port_stats
from ryu_apps.codec.meter_stats import decode_meter_stats
from ryu_apps.conversation import Conversation, SwitchSilentError
from ryu_apps.cookies import KIND_MASK, Kind, unpack_cookies
from ryu_apps.enforcer import Enforcer, Standing, Wanted
from ryu_apps.flows import delete_by_cookie, wire_entry
from ryu_apps.framework import flow_entries, hub, ofproto_v1_3, ofproto_v1_3_parser, send_all
from ryu_apps.installed import Installed
from ryu_apps.meters import counting_drops
from ryu_apps.pipeline import FlowEntry, Pipeline, TooFewTablesError
from ryu_apps.quirks import MeterFeatures, quirks_of
from ryu_apps.sampling import Reading, Sampler
from telemetry.samples import SampleBatch
from topology.learning import Sighting

LOG = logging.getLogger("tidegate.switch")

#: A round that met errors is followed by another so soon; each further one waits twice as long, up to the most.
#: A barrier that was lost a moment ago (5 s) and two more tries are less than 10 s.
_RETRY_S: Final = 0.3
_RETRY_MOST_S: Final = 2.0


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
    standing: Standing
    #: Since when it differs from what was wanted, epoch seconds; None: it does not.
    differs_since: float | None
    lost_polls: int


class Surroundings(Protocol):
    """What a switch's thread needs of the rest of the process."""

    def wanted(self, dpid: int) -> Wanted | None:
        """What the switch shall hold now; None: leave it alone for now."""

    def host_of_series(self, dpid: int, series: int) -> tuple[str, int] | None:
        """MAC and port of the local host with this number in cookies."""

    def sampled(self, batch: SampleBatch, alive: list[Sighting]) -> None:
        """A poll was answered; the hosts seen sending in it are ``alive``."""

    def lowered(self, dpid: int, plan_version: int | None) -> bool:
        """All that this plan lowers is lowered on the switch; whether meters may be raised for it now."""

    def applied(self, applied: Applied) -> None:
        """The switch was compared with the plan, and brought there where it could be."""

    def facts_changed(self, dpid: int) -> None:
        """A switch turned out to be able to do less than it said."""

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
    ready: bool = False
    alive: bool = True
    n_pairs: int = 0
    _wake: Any = field(default_factory=hub.Event)
    _lost: int = 0
    #: The last round came not to its end: what the switch holds is to be read before anything is sent.
    _unsure: bool = False
    _retries: int = 0
    _read_at: float = 0.0
    _differs_since: float | None = None

    def __post_init__(self) -> None:
        self._talk = Conversation(self.datapath, self.config.polling.timeout_s)
        self._sampler = Sampler(self.dpid, self.pairs)
        self.installed = Installed(self.dpid, self._talk)
        self.enforcer = Enforcer(
            self.installed,
            self.config.enforcement,
            self._modifying,
            lambda version: self.surroundings.lowered(self.dpid, version),
        )

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
        """The switch refused something."""
        self.installed.on_error(message)
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
                elif self._unsure or now >= self._next_read():
                    self._read_back()
                self._reconcile()
            except SwitchSilentError as error:
                self._unsure = True
                LOG.warning("dp %016x %s", self.dpid, error)
            except Exception:
                self._unsure = True
                LOG.exception("dp %016x round failed", self.dpid)
            due = min(next_poll, self._next_read()) - time.monotonic()
            retry_in_s = self._retry_in_s()
            pause = due if retry_in_s == float("inf") else retry_in_s
            self._wake.wait(timeout=max(pause, 0.01))
            self._wake.clear()

    def _interval_s(self) -> float:
        """Until the next poll; spread, so that switches do not all answer at once."""
        polling = self.config.polling
        return polling.interval_s * (1 + polling.jitter * (np.random.default_rng().random() - 0.5))

    def _next_read(self) -> float:
        """When all must be read back, by the monotonic clock, however long it is to the next poll."""
        return self._read_at + self.config.enforcement.readback_s

    def _retry_in_s(self) -> float:
        """How long until the next try after a round with errors, spread; inf after one without."""
        errors, self.installed.errors = self.installed.errors, 0
        if not errors and not self._unsure and self.ready:
            self._retries = 0
            return float("inf")
        self._unsure = True
        wait_s = min(_RETRY_S * 2**self._retries, _RETRY_MOST_S)
        self._retries = min(self._retries + 1, 16)
        return float(wait_s * (1 - 0.25 * np.random.default_rng().random()))

    def _get_to_know(self) -> None:
        self._ask_facts()
        try:
            self.pipeline = Pipeline.fitting(self.facts.n_tables, self.config.tells_applications_apart)
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
        self.installed.held = {c for c in self.installed.held if c >> 60 != Kind.ACCOUNTING}
        self.n_pairs = 0
        self.ready = True
        LOG.info(
            "dp %016x is %s: %d tables, %d meters; holds %d entries, %d meters, %d hosts",
            self.dpid, self.facts.description, self.facts.n_tables, self.facts.max_meters,
            len(self.installed.held), len(self.installed.meters), len(hosts),
        )  # fmt: skip
        self._log_lacks()
        self.surroundings.recovered(self.dpid, hosts, fresh=not self.installed.held)

    def _log_lacks(self) -> None:
        quirks, settings = self.installed.quirks, self.config.enforcement
        if not quirks.kbps:
            LOG.error("dp %016x cannot meter bits per second: its users are not metered", self.dpid)
        elif settings.over_limit == "remark" and not quirks.remark:
            LOG.warning("dp %016x cannot remark: what exceeds a rate is dropped", self.dpid)
        elif settings.over_limit == "remark" and settings.drop_at and quirks.max_bands < 2:
            LOG.warning("dp %016x has one band a meter: what it remarks is never dropped", self.dpid)

    def _ask_facts(self) -> None:
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
        named = (desc[0].mfr_desc, desc[0].hw_desc, desc[0].sw_desc) if desc else ()
        description = " ".join(part.decode(errors="replace") for part in named)
        said = MeterFeatures()
        if features:
            f = features[0]
            said = MeterFeatures(f.max_meter, f.band_types, f.capabilities, f.max_bands)
        n_tables = tables.n_tables if tables is not None else 254
        quirks = quirks_of(self.dpid, description, n_tables, said, self.config.enforcement)
        if self.config.openflow.max_meters is not None:
            quirks = replace(quirks, max_meters=min(quirks.max_meters, self.config.openflow.max_meters))
        self.installed.quirks = quirks
        self.facts = Facts(quirks.max_tables, quirks.budget, description)

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
        self.installed.take(reading.flows.cookie.tolist(), configs)
        self._has_read()
        self._sample(reading)
        return reading.flows

    def _read_back(self) -> None:
        """Between polls, so that neither repair nor alarm waits for the next one."""
        self.installed.read_back()
        self._has_read()

    def _has_read(self) -> None:
        self._unsure, self._read_at = False, time.monotonic()

    def _sample(self, reading: Reading) -> None:
        meters = self.installed.meters
        if reading.meters is not None and self.config.enforcement.over_limit == "remark":
            reading = replace(reading, meters=counting_drops(reading.meters, meters))
        limits = {meter: setting.limit_kbps * 1e3 for meter, setting in meters.items()}
        sampled = self._sampler.sample(reading, limits, self._lost)
        self._lost = 0
        self.n_pairs = sampled.n_pairs
        located = (self.surroundings.host_of_series(self.dpid, int(s)) for s in sampled.active_hosts)
        sightings = [Sighting(mac, None, self.dpid, port) for mac, port in filter(None, located)]
        batch = replace(sampled.batch, meters=self.enforcer.of_the_plan(sampled.batch.meters))
        self.surroundings.sampled(batch, sightings)
        self._talk.post([delete_by_cookie(cookie) for cookie in sampled.stale])

    def _modifying(self, meters: Sequence[int]) -> None:
        if self.installed.quirks.clears_on_modify:
            self._sampler.memory.meters_modified(meters, self.clock())

    def _reconcile(self) -> None:
        wanted = self.surroundings.wanted(self.dpid)
        if wanted is None or not self.ready:
            return
        standing = self.enforcer.reconcile(wanted)
        if self.enforcer.is_waiting:
            return
        if standing.in_step is not False:
            self._differs_since = None
        elif self._differs_since is None:
            self._differs_since = self.clock()
        self.surroundings.applied(Applied(self.dpid, standing, self._differs_since, self._lost))
        budget = self.installed.quirks.budget
        if budget != self.facts.max_meters:
            self.facts = replace(self.facts, max_meters=budget)
            self.surroundings.facts_changed(self.dpid)

    def add_pairs(self, entries: list[FlowEntry]) -> None:
        """Install accounting entries; called between rounds, waits for nothing."""
        self._talk.post([wire_entry(entry).add for entry in entries])
        self.n_pairs += len(entries)
