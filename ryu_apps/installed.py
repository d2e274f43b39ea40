"""What one switch holds, as it said last, and what it turned out to be able to do."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from planner.plan import UNMETERED
from ryu_apps.codec.body import StatsBody
from ryu_apps.codec.flow_stats import decode_flow_stats
from ryu_apps.codec.messages import MeterCommand
from ryu_apps.codec.meter_stats import decode_meter_configs
from ryu_apps.conversation import Conversation, SwitchSilentError
from ryu_apps.cookies import Kind
from ryu_apps.framework import ofproto_v1_3, ofproto_v1_3_parser
from ryu_apps.meters import MeterSetting, settings_read
from ryu_apps.quirks import Quirks, differences, learnt
from ryu_apps.refusals import read_refusal
from ryu_apps.slots import Slots

LOG = logging.getLogger("tidegate.switch")

#: So many refusals in a round are told one by one.
_ERRORS_LOGGED: Final = 10


@dataclass
class Installed:
    """The entries and meters of one switch, for as long as one connection lasts."""

    dpid: int
    talk: Conversation
    quirks: Quirks = field(default_factory=Quirks)
    #: Cookies, and meters by their ids on the switch, as read back last; cookies also as sent since.
    held: set[int] = field(default_factory=set)
    meters: dict[int, MeterSetting] = field(default_factory=dict)
    #: Refusals, and rounds that did not come to their end, since somebody set it to 0.
    errors: int = 0
    #: Meters that others changed or removed, and entries.
    repairs: int = 0
    #: Ids of meters refused in this round, and how many entries.
    refused: set[int] = field(default_factory=set)
    refused_entries: int = 0
    _lessons: set[int] = field(default_factory=set)
    _full: bool = False
    #: What the switch held when it was left in step.
    _left: tuple[dict[int, MeterSetting], frozenset[int]] | None = None

    @property
    def slots(self) -> Slots:
        """Which ids the plan's meters may have here."""
        budget = self.quirks.budget
        return Slots(self.quirks.first_meter_id, 0 if self.quirks.modify else budget, budget)

    def begin_round(self) -> None:
        """What is refused and changed from now on is this round's doing."""
        self.refused, self._lessons, self.refused_entries, self._left = set(), set(), 0, None

    def leave(self) -> None:
        """The switch is in step: what differs at the next reading, others have changed."""
        self._left = (self.meters, frozenset(c for c in self.held if c >> 60 != Kind.ACCOUNTING))

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
            self.repairs += lost + gone
            LOG.warning("dp %016x %d meters and %d entries were changed by others", self.dpid, lost, gone)

    def read_meters(self) -> None:
        """Ask for every meter. Raises SwitchSilentError."""
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

    def on_error(self, message: Any) -> None:
        """The switch refused something: read it again before trying again."""
        refusal = read_refusal(message)
        self.errors += 1
        if self.errors <= _ERRORS_LOGGED:
            LOG.warning("dp %016x refused %s", self.dpid, refusal)
        if refusal.of_an_entry:
            self.refused_entries += 1
        if not refusal.of_a_meter:
            return
        self.refused.add(refusal.meter_id or UNMETERED)
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
