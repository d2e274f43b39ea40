"""Brings one switch to the plan: what differs from what was read back is sent, and read back again.

Nothing is remembered as done. Between two decisions stands the switch's own word.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, TypeVar

import numpy as np

from planner.config_enforcement import Enforcement
from planner.plan import UNMETERED
from ryu_apps.codec.body import StatsBody
from ryu_apps.codec.flow_stats import decode_flow_stats
from ryu_apps.codec.messages import MeterCommand
from ryu_apps.codec.meter_stats import decode_meter_configs
from ryu_apps.conversation import Conversation, SwitchSilentError
from ryu_apps.cookies import Kind
from ryu_apps.flows import FlowChanges, WireEntry, delete_by_cookie, flow_changes, wire_entry
from ryu_apps.framework import ofproto_v1_3, ofproto_v1_3_parser, take_xids
from ryu_apps.meters import MeterChanges, MeterRates, MeterSetting, meter_changes, settings_read, write_meters
from ryu_apps.pipeline import FlowEntry
from ryu_apps.quirks import Quirks, differences, learnt
from ryu_apps.refusals import read_refusal
from ryu_apps.rounding import Rounding
from ryu_apps.slots import Placement, Slots
from telemetry.samples import MeterSamples

LOG = logging.getLogger("tidegate.switch")
T = TypeVar("T")

_KEPT_WITHOUT_PLAN: Final = frozenset(
    {
        Kind.UPLOAD_USER,
        Kind.UPLOAD_GROUP,
        Kind.UPLOAD_REGION,
        Kind.DOWNLOAD_USER,
        Kind.DOWNLOAD_GROUP,
        Kind.DOWNLOAD_REGION,
        Kind.QUARANTINE,
    }
)
#: So many refusals in a round are told one by one.
_ERRORS_LOGGED: Final = 10
#: Instead of the id of a meter that the switch has no room for.
_NOWHERE: Final = 0xFFFF_FFFF
#: So many rounds an increase waits for a decrease that the switch does not make.
_PATIENCE: Final = 5


@dataclass(frozen=True)
class Wanted:
    """What a switch shall hold."""

    flows: Iterable[FlowEntry]
    #: By the plan's ids, which are also those in ``flows``.
    meters: MeterRates
    #: None while the planner has not spoken: meters, and entries that may use them, stay as they are.
    plan_version: int | None
    #: False while the picture of the network is incomplete after a start: nothing is taken away.
    complete: bool = True
    #: Meters whose excess is remarked, where the switch can, instead of dropped.
    remark: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Standing:
    """How a switch stands after it was compared with a plan."""

    plan_version: int | None
    #: Whether what was read back equals the plan. None: not compared with any.
    in_step: bool | None
    n_meters: int
    #: Meters that are not as the plan wants them, and entries that the switch did not take.
    meters_differ: int = 0
    entries_differ: int = 0
    #: Meters that the switch rounds within the tolerance.
    meters_rounded: int = 0
    #: Meters and entries that somebody else had changed or removed, since the connection began.
    repairs: int = 0


@dataclass
class Enforcer:
    """What one switch holds, and the way from there to a plan."""

    dpid: int
    talk: Conversation
    settings: Enforcement
    #: Told the meters whose rates are about to be changed.
    modifying: Callable[[Sequence[int]], None]
    quirks: Quirks = field(default_factory=Quirks)
    #: Cookies, and meters by their ids on the switch, as read back last; cookies also as sent since.
    held: set[int] = field(default_factory=set)
    meters: dict[int, MeterSetting] = field(default_factory=dict)
    #: Where the plan's meters are.
    placement: Placement = field(default_factory=Placement)
    #: Refusals since somebody set it to 0, and rounds that did not come to their end.
    errors: int = 0
    _refused: set[int] = field(default_factory=set)
    _lessons: set[int] = field(default_factory=set)
    _refused_entries: int = 0
    _full: bool = False
    _held_back: int = 0
    _repairs: int = 0
    #: What the switch held when it was left in step.
    _left: tuple[dict[int, MeterSetting], frozenset[int]] | None = None

    def __post_init__(self) -> None:
        self.rounding = Rounding(self.settings.tolerance, self.settings.readback_s)

    @property
    def slots(self) -> Slots:
        """Which ids the plan's meters may have here."""
        budget = self.quirks.budget
        return Slots(self.quirks.first_meter_id, 0 if self.quirks.modify else budget, budget)

    # What the switch says.

    def read_back(self) -> None:
        """Ask for every entry's cookie and every meter. Raises SwitchSilentError."""
        ofp, parser, dp = ofproto_v1_3, ofproto_v1_3_parser, self.talk.datapath
        bodies, configs = self.talk.ask(
            [
                parser.OFPFlowStatsRequest(dp, 0, ofp.OFPTT_ALL, ofp.OFPP_ANY, ofp.OFPG_ANY, 0, 0, None),
                parser.OFPMeterConfigStatsRequest(dp, 0, ofp.OFPM_ALL),
            ]
        )
        if bodies is None:
            # Refused is not empty: an empty table would be filled anew.
            raise SwitchSilentError("must answer for its flow entries, refused to")
        self.take(decode_flow_stats(bodies).cookie.tolist(), configs)

    def take(self, cookies: Iterable[int], configs: list[StatsBody] | None) -> None:
        """What was read: cookies of all entries, and meter configurations; None: refused, known as before."""
        self.held = {cookie for cookie in cookies if cookie >> 60}
        self._take_meters(configs)
        left, self._left = self._left, None
        if left is None:
            return
        meters, entries = left
        lost = sum(self.meters.get(meter) != setting for meter, setting in meters.items())
        gone = len(entries - self.held)
        if lost or gone:
            self._repairs += lost + gone
            LOG.warning("dp %016x %d meters and %d entries were changed by others", self.dpid, lost, gone)

    def _read_meters(self) -> None:
        request = ofproto_v1_3_parser.OFPMeterConfigStatsRequest(self.talk.datapath, 0, ofproto_v1_3.OFPM_ALL)
        (configs,) = self.talk.ask([request])
        self._take_meters(configs)

    def _take_meters(self, configs: list[StatsBody] | None) -> None:
        if configs is None:
            return
        read = settings_read(decode_meter_configs(configs))
        if not self.quirks.burst:
            read = {meter: self.quirks.as_read(setting) for meter, setting in read.items()}
        if self._full:
            # It holds what it can hold, whatever it said.
            self._full = False
            self._learn(replace(self.quirks, max_meters=min(self.quirks.max_meters, len(read))))
        owns = self.slots.owns
        self.meters = {meter: setting for meter, setting in read.items() if owns(meter)}

    def refused(self, message: Any) -> None:
        """The switch refused something: read it again before trying again."""
        refusal = read_refusal(message)
        self.errors += 1
        if self.errors <= _ERRORS_LOGGED:
            LOG.warning("dp %016x refused %s", self.dpid, refusal)
        if refusal.of_an_entry:
            self._refused_entries += 1
        if not refusal.of_a_meter:
            return
        self._refused.add(refusal.meter_id or UNMETERED)
        if refusal.code == ofproto_v1_3.OFPMMFC_OUT_OF_METERS:
            self._full = True
            return
        # All of a batch are refused for the same reason, which is one lesson.
        if refusal.code not in self._lessons:
            self._lessons.add(refusal.code)
            self._learn(learnt(self.quirks, refusal.code, refusal.command == MeterCommand.MODIFY))

    def _learn(self, quirks: Quirks) -> None:
        if quirks != self.quirks:
            LOG.warning("dp %016x learnt: %s", self.dpid, differences(self.quirks, quirks))
            self.quirks = quirks

    def of_the_plan(self, samples: MeterSamples) -> MeterSamples:
        """Samples of meters by the plan's ids, without those that no entry uses."""
        if self.quirks.first_meter_id == 1 and self.quirks.modify:
            return samples
        used = np.isin(samples.meter_id, list(self.placement.id_of.values()))
        columns = {column.name: getattr(samples, column.name)[used] for column in fields(samples)}
        columns["meter_id"] = self.slots.plan_ids(columns["meter_id"])
        return MeterSamples(**columns)

    # From there to the plan.

    def reconcile(self, wanted: Wanted) -> Standing:
        """Send what differs. Raises SwitchSilentError, after which the switch must be read again."""
        self._refused, self._lessons, self._refused_entries, self._left = set(), set(), 0, None
        goals = self._goals(wanted)
        placement = self.placement = self.slots.place(self.meters, goals, self._is_met)
        changes = self._meter_changes(wanted, placement)
        waiting = 0
        if self._decrease(changes, placement, wanted):
            self._increase(changes, placement)
            waiting = self._change_flows(wanted, placement)
            if changes.delete and not waiting:
                self._write(MeterCommand.DELETE, changes.delete, placement)
                self._read_meters()
        standing = self._standing(wanted, goals, waiting)
        if wanted.complete and (standing.in_step is False or self._refused_entries):
            self.errors += 1
        return standing

    def _goals(self, wanted: Wanted) -> dict[int, MeterSetting]:
        """The meters by the plan's ids, as this switch will read them back."""
        if wanted.plan_version is None or not self.quirks.kbps:
            return {}
        settable = self.quirks.settable
        remark = wanted.remark if self.quirks.remark else frozenset()
        return {
            meter: settable(self._remarking(rate, burst) if meter in remark else MeterSetting(rate, burst))
            for meter, (rate, burst) in wanted.meters.items()
        }

    def _remarking(self, rate: int, burst: int) -> MeterSetting:
        by, drop_at = self.settings.dscp_precedence, self.settings.drop_at
        if drop_at is None or self.quirks.max_bands < 2:
            return MeterSetting(rate, burst, by)
        return MeterSetting(rate, burst, by, int(rate * drop_at), int(burst * drop_at))

    def _is_met(self, wanted: MeterSetting, found: MeterSetting) -> bool:
        """Whether a meter is left as it is."""
        return self.rounding.is_close(wanted, found) or self.rounding.rests(wanted, found, time.monotonic())

    def _meter_changes(self, wanted: Wanted, placement: Placement) -> MeterChanges:
        if wanted.plan_version is None:
            return MeterChanges()
        changes = meter_changes(self.meters, placement.settings, self._is_met)
        return changes if wanted.complete else replace(changes, delete=())

    def _decrease(self, changes: MeterChanges, placement: Placement, wanted: Wanted) -> bool:
        """Lower what is to be lowered; whether the switch says it is, so that others may be raised."""
        added = tuple(meter for meter in placement.tighter if meter not in self.meters)
        lower = changes.lower + added
        self._write(MeterCommand.MODIFY, changes.lower, placement)
        self._write(MeterCommand.ADD, added, placement)
        if lower:
            self._read_meters()
            self._note(lower, placement)
        late = sum(self._exceeds(meter, placement.settings[meter]) for meter in lower)
        if not late:
            late = self._point_at(placement.tighter, placement, wanted)
        if not late:
            self._held_back = 0
        elif self._held_back < _PATIENCE:
            self._held_back += 1
            LOG.warning("dp %016x did not lower %d meters, none is raised before it does", self.dpid, late)
            return False
        return True

    def _point_at(self, tighter: tuple[int, ...], placement: Placement, wanted: Wanted) -> int:
        """Point entries at these meters, before any other; how many the switch refused."""
        if not tighter:
            return 0
        there = set(tighter) & self.meters.keys()
        entries = (self._on_switch(entry, placement) for entry in wanted.flows)
        wire = [wire_entry(entry) for entry in entries if entry.meter_id in there]
        self._send_entries([entry for entry in wire if entry.cookie not in self.held])
        return self._refused_entries

    def _exceeds(self, meter: int, setting: MeterSetting) -> bool:
        found = self.meters.get(meter)
        if found is None:
            return True
        return found.limit_kbps > setting.limit_kbps and not self._is_met(setting, found)

    def _increase(self, changes: MeterChanges, placement: Placement) -> None:
        early = set(placement.tighter)
        add = tuple(meter for meter in changes.add if meter not in early)
        self._write(MeterCommand.MODIFY, changes.raise_, placement)
        self._write(MeterCommand.ADD, add, placement)
        if changes.raise_ or add:
            # Read back, not remembered: the switch may have rounded, refused or forgotten.
            self._read_meters()
            self._note(changes.raise_ + add, placement)

    def _note(self, written: Iterable[int], placement: Placement) -> None:
        """What the switch made of meters that it did not refuse."""
        answers = (
            (placement.settings[meter], self.meters[meter])
            for meter in written
            if meter in self.meters and meter not in self._refused
        )
        n_rounded = self.rounding.note(answers, time.monotonic())
        if n_rounded:
            LOG.warning("dp %016x rounds %d rates in a way of its own", self.dpid, n_rounded)

    def _write(self, command: MeterCommand, meters: tuple[int, ...], placement: Placement) -> None:
        if not meters:
            return
        self._log_meters(command, meters, placement)
        if command is MeterCommand.MODIFY:
            self.modifying(meters)
        goals = placement.settings
        if command is not MeterCommand.DELETE:
            goals = {meter: self.quirks.settable(self.rounding.asked(goals[meter])) for meter in meters}
        for part in _batches(meters, self.settings.batch):
            xids = take_xids(self.talk.datapath, len(part))
            self.talk.confirm(write_meters(command, part, goals, xids, self.quirks.flags))

    def _log_meters(self, command: MeterCommand, meters: tuple[int, ...], placement: Placement) -> None:
        # One line a change while they are few enough to be read.
        if len(meters) > 50:
            LOG.info("dp %016x %s %d meters", self.dpid, command.name.lower(), len(meters))
            return
        for meter in meters:
            old, new = (
                held[meter].rate_kbps if meter in held else 0 for held in (self.meters, placement.settings)
            )
            LOG.info("dp %016x meter %d: %d -> %d kbit/s", self.dpid, meter, old, new)

    # Entries.

    def _on_switch(self, entry: FlowEntry, placement: Placement) -> FlowEntry:
        """The entry with its meter's id on this switch; without, where the switch has no meters at all."""
        if entry.meter_id == UNMETERED:
            return entry
        if not self.quirks.kbps:
            return replace(entry, meter_id=UNMETERED)
        meter = placement.id_of.get(entry.meter_id, _NOWHERE)
        return entry if meter == entry.meter_id else replace(entry, meter_id=meter)

    def _wire(self, wanted: Wanted, placement: Placement) -> tuple[dict[int, WireEntry], set[int]]:
        """Entries by cookie, and kinds and series of those that wait for a meter.

        While its meter is not there an entry's predecessor stays. Without one it goes
        unmetered: a stranger's packets would go to the controller one by one.
        """
        wire: dict[int, WireEntry] = {}
        waiting: set[int] = set()
        there = {cookie >> 32 for cookie in self.held}
        for planned in wanted.flows:
            entry = self._on_switch(planned, placement)
            known = wire_entry(entry)
            if entry.meter_id != UNMETERED and entry.meter_id not in self.meters:
                waiting.add(known.cookie >> 32)
                if known.cookie >> 32 in there and known.cookie not in self.held:
                    continue
                known = known if known.cookie in self.held else wire_entry(replace(entry, meter_id=UNMETERED))
            wire[known.cookie] = known
        return wire, waiting

    def _change_flows(self, wanted: Wanted, placement: Placement) -> int:
        """Bring the entries there; how many must wait for their meters."""
        wire, waiting = self._wire(wanted, placement)
        held = self.held
        if wanted.plan_version is None and any(cookie >> 60 in _KEPT_WITHOUT_PLAN for cookie in held):
            wire = {c: e for c, e in wire.items() if c >> 60 not in _KEPT_WITHOUT_PLAN}
            held = {c for c in held if c >> 60 not in _KEPT_WITHOUT_PLAN}
        changes = flow_changes(held, wire)
        delete = tuple(c for c in changes.delete if wanted.complete and c >> 32 not in waiting)
        changes = FlowChanges(changes.add, delete)
        if changes:
            LOG.info("dp %016x flows: %d added, %d removed", self.dpid, len(changes.add), len(delete))
        self._send_entries(changes.add)
        for part in _batches(delete, self.settings.batch):
            self.talk.tell([delete_by_cookie(cookie) for cookie in part])
        self.held -= set(delete)
        return len(waiting)

    def _send_entries(self, entries: Sequence[WireEntry]) -> None:
        for part in _batches(entries, self.settings.batch):
            self.talk.tell([entry.add for entry in part])
        self.held |= {entry.cookie for entry in entries}

    # How it stands.

    def _standing(self, wanted: Wanted, goals: dict[int, MeterSetting], waiting: int) -> Standing:
        if wanted.plan_version is None:
            return Standing(None, None, len(self.meters), repairs=self._repairs)
        placed = self.placement
        pairs = [(goal, self.meters.get(placed.id_of.get(meter, UNMETERED))) for meter, goal in goals.items()]
        equal = sum(goal == found for goal, found in pairs)
        close = sum(found is not None and self.rounding.is_close(goal, found) for goal, found in pairs)
        stray = len(self.meters.keys() - placed.settings.keys()) if wanted.complete else 0
        differ = len(wanted.meters) - close + stray
        entries = max(waiting, self._refused_entries)
        in_step = not differ and not entries
        if in_step:
            self._left = (self.meters, frozenset(c for c in self.held if c >> 60 != Kind.ACCOUNTING))
        return Standing(
            wanted.plan_version, in_step, len(self.meters), differ, entries, close - equal, self._repairs
        )


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))
