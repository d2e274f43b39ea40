"""Tidegate's OpenFlow process: start it with ``ryu-manager ryu_apps/bandwidth.py``.

It speaks OpenFlow 1.3 and decides nothing. The configuration is the file that the
environment variable TIDEGATE_CONFIG names, ``config/demo.yaml`` without it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from planner.config import Config, load
from planner.config_faults import ConfigError
from planner.plan import MeterTable, Plan
from planner.report import AppliedReport, SwitchFacts, encode_applied, encode_network
from planner.secret import read_or_make
from ryu_apps.accounting import PairNumbers
from ryu_apps.discovery import probe, read_probe
from ryu_apps.enforcer import Wanted
from ryu_apps.fabric import Fabric
from ryu_apps.framework import (
    DEAD_DISPATCHER,
    MAIN_DISPATCHER,
    RyuApp,
    hub,
    listen_on_loopback,
    ofp_event,
    ofproto_v1_3,
    ofproto_v1_3_parser,
    send_all,
    set_ev_cls,
)
from ryu_apps.link import NETWORK_PATH, PlannerLink
from ryu_apps.order import BOUND_S, DecreasesFirst
from ryu_apps.pipeline import Stage, pair_entry, switch_flows
from ryu_apps.punted import read_punted
from ryu_apps.switch import Applied, Switch
from telemetry.samples import SampleBatch, encode_batch
from topology.learning import HostChange, Sighting
from topology.network import Port

LOG = logging.getLogger("tidegate")

#: Sightings, settled ports and new pairs are worked off this often.
_HOUSEKEEPING_S: Final = 0.1
_EXPIRY_S: Final = 5.0
#: After a start, switches that hold entries of an earlier process are left alone until the
#: picture is complete, at most this long.
_WARM_UP_S: Final = 20.0
_INFORMED_S: Final = 1.0


class Bandwidth(RyuApp):
    """Wires switches, the picture of the network, and the planner together."""

    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]  # noqa: RUF012 (Ryu reads it so)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        listen_on_loopback()
        self.config_path = Path(os.environ.get("TIDEGATE_CONFIG", "config/demo.yaml"))
        self.config = _load_or_exit(self.config_path)
        self.fabric = Fabric.of(self.config)
        self.pairs = PairNumbers()
        self.switches: dict[int, Switch] = {}
        self.plan: Plan | None = None
        # Three plans in which the planner may say that it knows who is away.
        self.order = DecreasesFirst(bound_s=max(BOUND_S, 3 * self.config.allocation.tick_s))
        self.speaker = f"{os.uname().nodename}-{secrets.token_hex(4)}"
        self.inherited: set[int] = set()
        self._started = time.monotonic()
        self._sightings: dict[tuple[str, str | None, int, int], Sighting] = {}
        self._new_pairs: dict[int, set[tuple[str, str, int]]] = {}
        self._told_version = -1
        self._recovered_at = 0.0
        self._applied: dict[int, Applied] = {}
        # Derived from the secret of the seam, so that processes sharing a planner know each other's links.
        self._probe_key = hashlib.sha256(
            read_or_make(self.config.planner.secret_file).encode() + b" lldp"
        ).digest()
        self.link = PlannerLink(
            self.config, self.config_path, self.speaker, self._on_plan, self._on_known_network
        )
        # Ryu ends by an exception out of a signal; the child has to go with it.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    def start(self) -> Any:
        """Called by Ryu when all applications are made."""
        thread = super().start()
        self.link.start()
        for loop in (self._housekeeping, self._probing):
            hub.spawn(self._forever, loop)
        return thread

    def close(self) -> None:
        """Called by Ryu when it ends."""
        self.link.stop()

    def _forever(self, loop: Any) -> None:
        while True:
            try:
                loop()
            except Exception:
                LOG.exception("%s failed, starting it again", loop.__name__)
                hub.sleep(1.0)

    # What switches say.

    @set_ev_cls(ofp_event.EventOFPStateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])
    def _on_state(self, event: Any) -> None:
        datapath = event.datapath
        if event.state == MAIN_DISPATCHER:
            self._forget_connection(self.switches.get(datapath.id))
            connected = Switch(datapath, self.config, self, self.pairs)
            self.switches[datapath.id] = connected
            self.order.connected(datapath.id)
            LOG.info("dp %016x connected from %s", datapath.id, datapath.address)
            hub.spawn(connected.run)
            return
        switch = self.switches.get(datapath.id) if datapath.id is not None else None
        if switch is not None and switch.datapath is datapath:
            LOG.warning("dp %016x connection lost; it keeps its entries and meters", datapath.id)
            self._forget_connection(self.switches.pop(datapath.id))
            self.fabric.switch_down(datapath.id)

    def _forget_connection(self, switch: Switch | None) -> None:
        if switch is not None:
            switch.alive = False
            switch.wake()

    @set_ev_cls(
        [
            ofp_event.EventOFPFlowStatsReply,
            ofp_event.EventOFPMeterStatsReply,
            ofp_event.EventOFPMeterConfigStatsReply,
            ofp_event.EventOFPPortStatsReply,
            ofp_event.EventOFPDescStatsReply,
            ofp_event.EventOFPMeterFeaturesStatsReply,
        ],
        MAIN_DISPATCHER,
    )
    def _on_stats(self, event: Any) -> None:
        if switch := self._switch(event):
            switch.on_stats(event.msg)

    @set_ev_cls([ofp_event.EventOFPBarrierReply, ofp_event.EventOFPSwitchFeatures], MAIN_DISPATCHER)
    def _on_reply(self, event: Any) -> None:
        if switch := self._switch(event):
            switch.on_reply(event.msg.xid, event.msg)

    @set_ev_cls(ofp_event.EventOFPErrorMsg, MAIN_DISPATCHER)
    def _on_error(self, event: Any) -> None:
        if switch := self._switch(event):
            switch.on_error(event.msg)

    @set_ev_cls(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    def _on_port(self, event: Any) -> None:
        message = event.msg
        dpid = message.datapath.id
        if self._switch(event) is None or message.desc.port_no > ofproto_v1_3.OFPP_MAX:
            return
        if message.reason == ofproto_v1_3.OFPPR_DELETE:
            LOG.warning("dp %016x port %d removed", dpid, message.desc.port_no)
            self.fabric.port_gone(dpid, message.desc.port_no)
        else:
            port = _port(dpid, message.desc)
            before = self.fabric.ports.get((dpid, port.port_no))
            if before is None or before.up != port.up:
                LOG.info(
                    "dp %016x port %d (%s) %s", dpid, port.port_no, port.name, "up" if port.up else "down"
                )
            self.fabric.port(port, time.time(), afresh=message.reason == ofproto_v1_3.OFPPR_ADD)
        self._wake_all()

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def _on_packet(self, event: Any) -> None:
        message = event.msg
        switch = self._switch(event)
        if switch is None:
            return
        dpid, port_no = switch.dpid, message.match["in_port"]
        source = read_probe(message.data, self._probe_key)
        if source is not None:
            if self.fabric.heard(source, (dpid, port_no), time.time()):
                LOG.info("link %016x:%d -> %016x:%d", *source, dpid, port_no)
                self._wake_all()
            return
        punted = read_punted(message.data)
        discovery = self.fabric.discovery
        edge = discovery.is_edge(dpid, port_no)
        if punted is None or not (edge or discovery.is_pending(dpid, port_no)):
            return
        key = (punted.src, punted.address, dpid, port_no)
        self._sightings.setdefault(key, Sighting(*key))
        if not edge:
            return
        accounting = Stage.ACCOUNTING in switch.pipeline
        if accounting and message.table_id == switch.pipeline.table(Stage.ACCOUNTING):
            app = message.match.get("metadata", 0) >> 32 & 0xFFFF
            self._new_pairs.setdefault(dpid, set()).add((punted.src, punted.dst, app))

    def _switch(self, event: Any) -> Switch | None:
        """The switch that a message is of, unless its connection has been replaced."""
        switch = self.switches.get(event.msg.datapath.id)
        return switch if switch is not None and switch.datapath is event.msg.datapath else None

    # What the planner says.

    def _on_plan(self, plan: Plan) -> None:
        if self.plan is not None and plan.is_delayed(self.plan):
            LOG.warning("plan %d came after plan %d: not followed", plan.version, self.plan.version)
            return
        if plan.mode not in ("live", "canary"):
            # Shadow: made and shown. What is enforced stays.
            self.plan = self.plan or Plan(plan.version, plan.time)
            return
        self.plan = plan
        self.order.begin(plan.version, plan.layouts, plan.away, time.monotonic())
        self._wake_all()

    def _on_known_network(self, version: int) -> None:
        self._told_version = version

    # Surroundings of the switches' threads.

    def wanted(self, dpid: int) -> Wanted | None:
        """What the switch shall hold now; None: leave it alone for now."""
        switch = self.switches.get(dpid)
        if switch is None or (dpid in self.inherited and not self._warm()):
            return None
        self.inherited.discard(dpid)
        room = switch.n_pairs < self.config.openflow.max_accounting_entries
        view = self.fabric.view(dpid, switch.pipeline, self.plan, report_pairs=room)
        # A planner that has just started may not know of this switch: that is no wish to clear it.
        if self.plan is None or dpid not in self.plan.layouts:
            return Wanted(switch_flows(view), {}, None)
        rates = self.plan.meters.get(dpid, MeterTable()).rates()
        remark: frozenset[int] = frozenset()
        if self.config.enforcement.over_limit == "remark":
            # Users' and their classes' only: groups and regions keep their rates by dropping.
            remark = frozenset(
                m
                for b in self.plan.layouts[dpid].bindings
                for m in (*b.user_meter, *(m for _, *both in b.applications for m in both))
            )
        return Wanted(switch_flows(view), rates, self.plan.version, remark=remark)

    def _warm(self) -> bool:
        """Whether the picture is complete enough to correct what an earlier process left."""
        if time.monotonic() - self._started > _WARM_UP_S:
            return True
        expected = {dpid for region in self.config.regions.values() for dpid in region.dpids}
        settled = all(self.fabric.discovery.settled(dpid) for dpid in self.fabric.connected)
        # A plan made before the hosts in the switches' entries were told would take their meters away.
        informed = self.plan is not None and self.plan.time > self._recovered_at + _INFORMED_S
        return informed and expected <= self.fabric.connected and settled

    def lowered(self, dpid: int, plan_version: int | None) -> bool:
        """Whether meters may be raised for this plan, now that this switch has lowered what it lowers."""
        if self.order.lowered(dpid, plan_version):
            self._wake_waiting()
        return self.order.may_raise(plan_version)

    def host_of_series(self, dpid: int, series: int) -> tuple[str, int] | None:
        """MAC and port of the local host with this number in cookies."""
        return self.fabric.host_of_series(dpid, series)

    def sampled(self, batch: SampleBatch, alive: list[Sighting]) -> None:
        """A poll was answered."""
        self.link.send("/v1/samples", encode_batch(batch))
        for sighting in alive:
            self._sightings.setdefault((sighting.mac, None, sighting.dpid, sighting.port_no), sighting)

    def applied(self, applied: Applied) -> None:
        """Tell the planner how a switch stands, when that changed."""
        if self._applied.get(applied.dpid) == applied:
            return
        self._applied[applied.dpid] = applied
        stands = applied.standing
        report = AppliedReport(
            speaker=self.speaker,
            dpid=applied.dpid,
            plan_version=stands.plan_version,
            in_step=stands.in_step,
            n_meters=stands.n_meters,
            lost_polls=applied.lost_polls,
            meters_differ=stands.meters_differ,
            entries_differ=stands.entries_differ,
            meters_rounded=stands.meters_rounded,
            repairs=stands.repairs,
            differs_since=applied.differs_since,
        )
        self.link.send("/v1/applied", encode_applied(report))

    def facts_changed(self, dpid: int) -> None:
        """A switch can do less than it said: the planner has to make do with that."""
        self.fabric.switch_facts(dpid, self._facts(dpid))
        self._tell_network()

    def _facts(self, dpid: int) -> SwitchFacts:
        facts = self.switches[dpid].facts
        return SwitchFacts(facts.n_tables, facts.max_meters, facts.description)

    def recovered(self, dpid: int, hosts: list[Sighting], fresh: bool) -> None:
        """A switch was read for the first time on this connection."""
        switch = self.switches[dpid]
        now = time.time()
        self.fabric.switch_up(dpid, self._facts(dpid), now)
        for desc in switch.datapath.ports.values():
            if desc.port_no <= ofproto_v1_3.OFPP_MAX:
                self.fabric.port(_port(dpid, desc), now, afresh=fresh)
        if not fresh and time.monotonic() - self._started < _WARM_UP_S:
            self.inherited.add(dpid)
        self._log_changes(self.fabric.seen(hosts, now, proven=True))
        self._recovered_at = now
        self._tell_network()
        self._wake_all()

    # Loops of this process.

    def _housekeeping(self) -> None:
        next_expiry = 0.0
        while True:
            hub.sleep(_HOUSEKEEPING_S)
            now, before = time.time(), self.fabric.version
            self._mind_order(time.monotonic())
            self._take_sightings(now)
            if time.monotonic() >= next_expiry:
                next_expiry = time.monotonic() + _EXPIRY_S
                self._log_changes(self.fabric.expire(now))
                # By then every entry of a silent pair has gone, and polls have shown it.
                idle, interval = self.config.openflow.accounting_idle_s, self.config.polling.interval_s
                self.pairs.recycle(now - 2 * max(idle, 2 * interval))
            self.fabric.settle(now)
            self._install_pairs()
            if self.fabric.version != before:
                self._wake_all()
            if self.fabric.version != self._told_version:
                self._tell_network()

    def _mind_order(self, now: float) -> None:
        """Tell the planner who is late with decreases, and go on without those of whom it says nothing for long."""
        # What an earlier process left is left alone until the picture is complete.
        for dpid in self.order.late(now) - self.inherited:
            LOG.warning(
                "dp %016x has not lowered its meters in time: others wait for a plan without it", dpid
            )
            self._applied.pop(dpid, None)
            behind = AppliedReport(self.speaker, dpid, None, None, 0, 0, behind=True)
            self.link.send("/v1/applied", encode_applied(behind))
        if given_up := self.order.give_up(now):
            LOG.warning("%d switches did not lower their meters, others raise theirs", len(given_up))
            self._wake_waiting()

    def _take_sightings(self, now: float) -> None:
        # A port that flapped is pending again: a host's answer from the moment before must not be
        # lost, it may not say its address again for long.
        is_pending = self.fabric.discovery.is_pending
        early = {key: s for key, s in self._sightings.items() if is_pending(s.dpid, s.port_no)}
        ripe = [sighting for key, sighting in self._sightings.items() if key not in early]
        self._sightings = early
        if ripe:
            self._log_changes(self.fabric.seen(ripe, now))

    def _install_pairs(self) -> None:
        new_pairs, self._new_pairs = self._new_pairs, {}
        idle = self.config.openflow.accounting_idle_s
        for dpid, pairs in new_pairs.items():
            switch = self.switches.get(dpid)
            if switch is None or not switch.ready:
                continue
            room = self.config.openflow.max_accounting_entries - switch.n_pairs
            if room <= 0:
                LOG.warning("dp %016x accounting table full, new pairs are not told apart", dpid)
                switch.wake()
            now = time.time()
            entries = [
                pair_entry(switch.pipeline, *pair, self.pairs.number(*pair, now), idle)
                for pair in sorted(pairs)[: max(0, room)]
            ]
            if entries:
                switch.add_pairs(entries)

    def _probing(self) -> None:
        while True:
            for switch in list(self.switches.values()):
                self._probe(switch)
                # Forty probes take some milliseconds; others may have something to do in between.
                hub.sleep(0)
            hub.sleep(self.config.openflow.lldp_interval_s)

    def _probe(self, switch: Switch) -> None:
        parser, dp = ofproto_v1_3_parser, switch.datapath
        messages = [
            parser.OFPPacketOut(
                datapath=dp,
                buffer_id=ofproto_v1_3.OFP_NO_BUFFER,
                in_port=ofproto_v1_3.OFPP_CONTROLLER,
                actions=[parser.OFPActionOutput(port_no)],
                data=probe(dp.id, port_no, bytes.fromhex(desc.hw_addr.replace(":", "")), self._probe_key),
            )
            for port_no, desc in list(dp.ports.items())
            if port_no <= ofproto_v1_3.OFPP_MAX
        ]
        send_all(dp, messages)

    # Small change.

    def _tell_network(self) -> None:
        self._told_version = self.fabric.version
        self.link.send(NETWORK_PATH, encode_network(self.fabric.report(self.speaker)))

    def _wake_waiting(self) -> None:
        for switch in self.switches.values():
            if switch.enforcer.is_waiting:
                switch.wake()

    def _wake_all(self) -> None:
        for switch in self.switches.values():
            switch.wake()

    def _log_changes(self, changes: Iterable[HostChange]) -> None:
        for change in changes:
            LOG.info("host %s %s: %s", change.mac, ", ".join(change.kinds), change.reason)


def _port(dpid: int, desc: Any) -> Port:
    down = desc.config & ofproto_v1_3.OFPPC_PORT_DOWN or desc.state & ofproto_v1_3.OFPPS_LINK_DOWN
    # Kilobits by the specification; 0 where the port does not say.
    speed_bps = float(desc.curr_speed) * 1e3
    name = desc.name.decode(errors="replace") if isinstance(desc.name, bytes) else str(desc.name)
    return Port(dpid, desc.port_no, name, speed_bps, not down)


def _load_or_exit(path: Path) -> Config:
    try:
        return load(path)
    except ConfigError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)  # noqa: T201 (before any log is set up)
        # Not sys.exit: Ryu would catch SystemExit's traceback and go on to report it.
        sys.stderr.flush()
        os._exit(2)
