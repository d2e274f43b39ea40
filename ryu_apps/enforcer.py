"""Brings one switch to the plan: what differs from what was read back is sent, and read back again.

Nothing is remembered as done. Between two decisions stands the switch's own word.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final, TypeVar

import numpy as np

from planner.config_enforcement import Enforcement
from planner.plan import UNMETERED
from ryu_apps.codec.messages import MeterCommand
from ryu_apps.cookies import Kind
from ryu_apps.flows import FlowChanges, WireEntry, delete_by_cookie, flow_changes, wire_entry
from ryu_apps.framework import take_xids
from ryu_apps.installed import Installed
from ryu_apps.meters import MeterChanges, MeterRates, MeterSetting, meter_changes, write_meters
from ryu_apps.pipeline import FlowEntry
from ryu_apps.rounding import Rounding
from ryu_apps.slots import Placement
from telemetry.samples import MeterSamples

LOG = logging.getLogger("tidegate.switch")
T = TypeVar("T")

_KEPT_WITHOUT_PLAN: Final = frozenset(
    {
        Kind.UPLOAD_APPLICATION,
        Kind.DOWNLOAD_APPLICATION,
        Kind.UPLOAD_USER,
        Kind.UPLOAD_GROUP,
        Kind.UPLOAD_REGION,
        Kind.DOWNLOAD_USER,
        Kind.DOWNLOAD_GROUP,
        Kind.DOWNLOAD_REGION,
        Kind.QUARANTINE,
    }
)
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
    """The way from what one switch holds to a plan."""

    installed: Installed
    settings: Enforcement
    #: Told the meters whose rates are about to be changed.
    modifying: Callable[[Sequence[int]], None]
    #: Told that all that a plan lowers is lowered here; whether that is so on the other switches too.
    lowered: Callable[[int | None], bool] = lambda version: True
    #: Where the plan's meters are.
    placement: Placement = field(default_factory=Placement)
    #: Increases of the last round wait for other switches.
    is_waiting: bool = False
    _held_back: int = 0

    def __post_init__(self) -> None:
        self.rounding = Rounding(self.settings.tolerance, self.settings.readback_s)

    def of_the_plan(self, samples: MeterSamples) -> MeterSamples:
        """Samples of meters by the plan's ids, without those that no entry uses."""
        if self.installed.quirks.first_meter_id == 1 and self.installed.quirks.modify:
            return samples
        used = np.isin(samples.meter_id, list(self.placement.id_of.values()))
        columns = {column.name: getattr(samples, column.name)[used] for column in fields(samples)}
        columns["meter_id"] = self.installed.slots.plan_ids(columns["meter_id"])
        return MeterSamples(**columns)

    def reconcile(self, wanted: Wanted) -> Standing:
        """Send what differs. Raises SwitchSilentError, after which the switch must be read again."""
        self.installed.begin_round()
        goals = self._goals(wanted)
        placement = self.placement = self.installed.slots.place(self.installed.meters, goals, self._is_met)
        changes = self._meter_changes(wanted, placement)
        waiting = 0
        self.is_waiting = False
        if self._decrease(changes, placement, wanted):
            if not self.lowered(wanted.plan_version) and changes.raise_:
                # Whoever lowers last wakes the others.
                self.is_waiting = True
                changes = replace(changes, raise_=())
            self._increase(changes, placement)
            waiting = self._change_flows(wanted, placement)
            if changes.delete and not waiting:
                self._write(MeterCommand.DELETE, changes.delete, placement)
                self.installed.read_meters()
        standing = self._standing(wanted, goals, waiting)
        if self.is_waiting and not self.installed.refused_entries:
            return standing
        if wanted.complete and (standing.in_step is False or self.installed.refused_entries):
            self.installed.errors += 1
        return standing

    def _goals(self, wanted: Wanted) -> dict[int, MeterSetting]:
        """The meters by the plan's ids, as this switch will read them back."""
        if wanted.plan_version is None or not self.installed.quirks.kbps:
            return {}
        settable = self.installed.quirks.settable
        remark = wanted.remark if self.installed.quirks.remark else frozenset()
        return {
            meter: settable(self._remarking(rate, burst) if meter in remark else MeterSetting(rate, burst))
            for meter, (rate, burst) in wanted.meters.items()
        }

    def _remarking(self, rate: int, burst: int) -> MeterSetting:
        by, drop_at = self.settings.dscp_precedence, self.settings.drop_at
        if drop_at is None or self.installed.quirks.max_bands < 2:
            return MeterSetting(rate, burst, by)
        return MeterSetting(rate, burst, by, int(rate * drop_at), int(burst * drop_at))

    def _is_met(self, wanted: MeterSetting, found: MeterSetting) -> bool:
        """Whether a meter is left as it is."""
        return self.rounding.is_close(wanted, found) or self.rounding.rests(wanted, found, time.monotonic())

    def _meter_changes(self, wanted: Wanted, placement: Placement) -> MeterChanges:
        if wanted.plan_version is None:
            return MeterChanges()
        changes = meter_changes(self.installed.meters, placement.settings, self._is_met)
        return changes if wanted.complete else replace(changes, delete=())

    def _decrease(self, changes: MeterChanges, placement: Placement, wanted: Wanted) -> bool:
        """Lower what is to be lowered; whether the switch says it is, so that others may be raised."""
        added = tuple(meter for meter in placement.tighter if meter not in self.installed.meters)
        lower = changes.lower + added
        self._write(MeterCommand.MODIFY, changes.lower, placement)
        self._write(MeterCommand.ADD, added, placement)
        if lower:
            self.installed.read_meters()
            self._note(lower, placement)
        late = sum(self._exceeds(meter, placement.settings[meter]) for meter in lower)
        if not late:
            late = self._point_at(placement.tighter, placement, wanted)
        if not late:
            self._held_back = 0
        elif self._held_back < _PATIENCE:
            self._held_back += 1
            LOG.warning(
                "dp %016x did not lower %d meters, none is raised before it does", self.installed.dpid, late
            )
            return False
        return True

    def _point_at(self, tighter: tuple[int, ...], placement: Placement, wanted: Wanted) -> int:
        """Point entries at these meters, before any other; how many the switch refused."""
        if not tighter:
            return 0
        there = set(tighter) & self.installed.meters.keys()
        entries = (self._on_switch(entry, placement) for entry in wanted.flows)
        wire = [wire_entry(entry) for entry in entries if entry.meter_id in there]
        self._send_entries([entry for entry in wire if entry.cookie not in self.installed.held])
        return self.installed.refused_entries

    def _exceeds(self, meter: int, setting: MeterSetting) -> bool:
        found = self.installed.meters.get(meter)
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
            self.installed.read_meters()
            self._note(changes.raise_ + add, placement)

    def _note(self, written: Iterable[int], placement: Placement) -> None:
        """What the switch made of meters that it did not refuse."""
        answers = (
            (placement.settings[meter], self.installed.meters[meter])
            for meter in written
            if meter in self.installed.meters and meter not in self.installed.refused
        )
        n_rounded = self.rounding.note(answers, time.monotonic())
        if n_rounded:
            LOG.warning("dp %016x rounds %d rates in a way of its own", self.installed.dpid, n_rounded)

    def _write(self, command: MeterCommand, meters: tuple[int, ...], placement: Placement) -> None:
        if not meters:
            return
        self._log_meters(command, meters, placement)
        if command is MeterCommand.MODIFY:
            self.modifying(meters)
        goals = placement.settings
        if command is not MeterCommand.DELETE:
            goals = {
                meter: self.installed.quirks.settable(self.rounding.asked(goals[meter])) for meter in meters
            }
        for part in _batches(meters, self.settings.batch):
            xids = take_xids(self.installed.talk.datapath, len(part))
            self.installed.talk.confirm(write_meters(command, part, goals, xids, self.installed.quirks.flags))

    def _log_meters(self, command: MeterCommand, meters: tuple[int, ...], placement: Placement) -> None:
        # One line a change while they are few enough to be read.
        if len(meters) > 50:
            LOG.info("dp %016x %s %d meters", self.installed.dpid, command.name.lower(), len(meters))
            return
        for meter in meters:
            old, new = (
                held[meter].rate_kbps if meter in held else 0
                for held in (self.installed.meters, placement.settings)
            )
            LOG.info("dp %016x meter %d: %d -> %d kbit/s", self.installed.dpid, meter, old, new)

    # Entries.

    def _on_switch(self, entry: FlowEntry, placement: Placement) -> FlowEntry:
        """The entry with its meter's id on this switch; without, where the switch has no meters at all."""
        if entry.meter_id == UNMETERED:
            return entry
        if not self.installed.quirks.kbps:
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
        there = {cookie >> 32 for cookie in self.installed.held}
        for planned in wanted.flows:
            entry = self._on_switch(planned, placement)
            known = wire_entry(entry)
            if entry.meter_id != UNMETERED and entry.meter_id not in self.installed.meters:
                waiting.add(known.cookie >> 32)
                if known.cookie >> 32 in there and known.cookie not in self.installed.held:
                    continue
                known = (
                    known
                    if known.cookie in self.installed.held
                    else wire_entry(replace(entry, meter_id=UNMETERED))
                )
            wire[known.cookie] = known
        return wire, waiting

    def _change_flows(self, wanted: Wanted, placement: Placement) -> int:
        """Bring the entries there; how many must wait for their meters."""
        wire, waiting = self._wire(wanted, placement)
        held = self.installed.held
        if wanted.plan_version is None and any(cookie >> 60 in _KEPT_WITHOUT_PLAN for cookie in held):
            wire = {c: e for c, e in wire.items() if c >> 60 not in _KEPT_WITHOUT_PLAN}
            held = {c for c in held if c >> 60 not in _KEPT_WITHOUT_PLAN}
        changes = flow_changes(held, wire)
        delete = tuple(c for c in changes.delete if wanted.complete and c >> 32 not in waiting)
        changes = FlowChanges(changes.add, delete)
        if changes:
            LOG.info(
                "dp %016x flows: %d added, %d removed", self.installed.dpid, len(changes.add), len(delete)
            )
        self._send_entries(changes.add)
        for part in _batches(delete, self.settings.batch):
            self.installed.talk.tell([delete_by_cookie(cookie) for cookie in part])
        self.installed.held -= set(delete)
        return len(waiting)

    def _send_entries(self, entries: Sequence[WireEntry]) -> None:
        for part in _batches(entries, self.settings.batch):
            self.installed.talk.tell([entry.add for entry in part])
        self.installed.held |= {entry.cookie for entry in entries}

    # How it stands.

    def _standing(self, wanted: Wanted, goals: dict[int, MeterSetting], waiting: int) -> Standing:
        if wanted.plan_version is None:
            return Standing(None, None, len(self.installed.meters), repairs=self.installed.repairs)
        placed = self.placement
        pairs = [
            (goal, self.installed.meters.get(placed.id_of.get(meter, UNMETERED)))
            for meter, goal in goals.items()
        ]
        equal = sum(goal == found for goal, found in pairs)
        close = sum(found is not None and self.rounding.is_close(goal, found) for goal, found in pairs)
        stray = len(self.installed.meters.keys() - placed.settings.keys()) if wanted.complete else 0
        differ = len(wanted.meters) - close + stray
        entries = max(waiting, self.installed.refused_entries)
        in_step = not differ and not entries
        if in_step:
            self.installed.leave()
        return Standing(
            wanted.plan_version,
            in_step,
            len(self.installed.meters),
            differ,
            entries,
            close - equal,
            self.installed.repairs,
        )


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))
