"""What a switch can do with meters: as it says, as is known of its make, as the operator says.

Plans know nothing of this. A wanted meter is first written as the switch will read it
back, so that what is intended equals what is read, and nothing is repaired for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Final

from planner.config_enforcement import Enforcement, SwitchTraits
from ryu_apps.codec.messages import MAX_KBPS
from ryu_apps.framework import ofproto_v1_3 as ofp
from ryu_apps.meters import MeterSetting

#: The traits that bound or round what is set.
_OF_NUMBERS: Final = (
    "rate_step_kbps",
    "min_rate_kbps",
    "max_rate_kbps",
    "burst_step_kbit",
    "min_burst_kbit",
    "max_burst_kbit",
    "max_burst_s",
    "burst",
)


@dataclass(frozen=True)
class Quirks:
    """The traits of one switch. The defaults are those of a switch that can do everything."""

    rate_step_kbps: int = 1
    min_rate_kbps: int = 1
    max_rate_kbps: int = MAX_KBPS
    burst_step_kbit: int = 1
    min_burst_kbit: int = 0
    max_burst_kbit: int = MAX_KBPS
    #: A burst is at most so many seconds of its rate.
    max_burst_s: float = float("inf")
    #: False: meters count packets only, and a rate in bit/s cannot be set.
    kbps: bool = True
    #: False: the switch chooses bursts itself.
    burst: bool = True
    counters: bool = True
    modify: bool = True
    remark: bool = False
    max_bands: int = 1
    max_meters: int = 0
    #: Ids below are somebody else's.
    first_meter_id: int = 1
    max_tables: int = 254
    #: A modified meter's counters begin at zero, its duration goes on.
    clears_on_modify: bool = False

    @property
    def budget(self) -> int:
        """How many of a plan's meters there is room for."""
        own = max(0, self.max_meters - self.first_meter_id + 1)
        if not self.kbps:
            return 0
        # Where a meter cannot be modified another takes its place, and both are there for a moment.
        return own if self.modify else own // 2

    @property
    def flags(self) -> int:
        """The OFPMF_* bits of a meter."""
        return (
            int(ofp.OFPMF_KBPS)
            | (ofp.OFPMF_BURST if self.burst else 0)
            | (ofp.OFPMF_STATS if self.counters else 0)
        )

    def settable(self, wanted: MeterSetting) -> MeterSetting:
        """The setting as this switch will read it back.

        Rates are rounded down, so that children do not outgrow their parent; one
        below the least that the switch can do becomes that.
        """
        if self._takes_all:
            return wanted
        rate = self._rate(wanted.rate_kbps)
        burst = self._burst(wanted.burst_kbit, rate)
        if not wanted.precedence:
            return MeterSetting(rate, burst)
        drop = self._rate(wanted.drop_kbps) if wanted.drop_kbps else 0
        drop_burst = self._burst(wanted.drop_burst_kbit, drop) if drop else 0
        return MeterSetting(rate, burst, wanted.precedence, drop, drop_burst)

    @cached_property
    def _takes_all(self) -> bool:
        """Whether every rate and burst can be set: so it is with most, and plans have many meters."""
        plain = Quirks()
        return all(getattr(self, name) == getattr(plain, name) for name in _OF_NUMBERS)

    def _rate(self, rate: int) -> int:
        step = self.rate_step_kbps
        least = -(-self.min_rate_kbps // step) * step
        return max(min(rate, self.max_rate_kbps) // step * step, least)

    def _burst(self, burst: int, rate: int) -> int:
        if not self.burst:
            return 0
        step = self.burst_step_kbit
        most = min(self.max_burst_kbit, int(min(self.max_burst_s * rate + 1e-6, MAX_KBPS)))
        least = -(-self.min_burst_kbit // step) * step
        return max(min(burst, most) // step * step, least)

    def as_read(self, found: MeterSetting) -> MeterSetting:
        """What was read back, less what this switch chooses itself."""
        if self.burst:
            return found
        return found._replace(burst_kbit=0, drop_burst_kbit=0)


#: Traits that switches do not say themselves, by a pattern in their description.
#: Bursts of Centec and NoviFlow as OpenKilda's operators found them (open-kilda, Meter.java).
KNOWN_MAKES: Final[tuple[tuple[str, Mapping[str, Any]], ...]] = (
    ("Open vSwitch", {"clears_on_modify": True}),
    ("(?i)centec", {"min_burst_kbit": 1024, "max_burst_kbit": 32_000}),
    (r"NW\d+\.\d+", {"max_burst_s": 1.005}),
)


@dataclass(frozen=True)
class MeterFeatures:
    """What a switch answers when asked for the features of its meters (ofp_meter_features)."""

    max_meters: int = 0
    #: Bits by OFPMBT_*.
    band_types: int = 0
    #: OFPMF_* bits.
    capabilities: int = 0
    max_bands: int = 1


def quirks_of(
    dpid: int, description: str, n_tables: int, features: MeterFeatures, settings: Enforcement
) -> Quirks:
    """The traits of a switch; what the operator says of it comes last and wins."""
    said = _said(features) | {"max_tables": n_tables}
    for pattern, traits in KNOWN_MAKES:
        if re.search(pattern, description):
            said |= traits
    for configured in _configured(dpid, description, settings):
        said |= {name: value for name, value in configured if value is not None}
    return Quirks(**said)


def _said(features: MeterFeatures) -> dict[str, Any]:
    said: dict[str, Any] = {"max_meters": features.max_meters, "max_bands": max(1, features.max_bands)}
    said["remark"] = bool(features.band_types >> ofp.OFPMBT_DSCP_REMARK & 1)
    # A switch that states no unit at all states nothing.
    if features.capabilities & (ofp.OFPMF_KBPS | ofp.OFPMF_PKTPS):
        said["kbps"] = bool(features.capabilities & ofp.OFPMF_KBPS)
        said["burst"] = bool(features.capabilities & ofp.OFPMF_BURST)
        said["counters"] = bool(features.capabilities & ofp.OFPMF_STATS)
    return said


def _configured(dpid: int, description: str, settings: Enforcement) -> Iterator[SwitchTraits]:
    for pattern, traits in settings.makes.items():
        if re.search(pattern, description):
            yield traits
    if dpid in settings.switches:
        yield settings.switches[dpid]


#: What a switch that refuses a meter for this reason cannot do; the first that it was believed to do is given up.
_GIVEN_UP: Final[Mapping[int, tuple[str, ...]]] = {
    ofp.OFPMMFC_BAD_FLAGS: ("burst", "counters", "kbps"),
    ofp.OFPMMFC_BAD_BAND: ("remark",),
    ofp.OFPMMFC_OUT_OF_BANDS: ("remark",),
}


def learnt(quirks: Quirks, code: int, modifying: bool) -> Quirks:
    """The traits after a meter-mod was refused with this OFPMMFC_*; the same where that tells nothing new."""
    if code == ofp.OFPMMFC_BAD_COMMAND and modifying:
        return replace(quirks, modify=False)
    for trait in _GIVEN_UP.get(code, ()):
        if getattr(quirks, trait):
            return replace(quirks, **{trait: False})
    return quirks


def differences(before: Quirks, after: Quirks) -> str:
    """What of the traits changed, for the log."""
    return ", ".join(
        f"{field.name} {getattr(before, field.name)} -> {getattr(after, field.name)}"
        for field in fields(Quirks)
        if getattr(before, field.name) != getattr(after, field.name)
    )
