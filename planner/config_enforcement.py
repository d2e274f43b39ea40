"""The configuration's ``enforcement`` block: how switches are brought to the plan, and what they cannot do."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from planner.config_block import Block
from planner.config_fields import Dpid, Fraction, Positive, number

Count = Annotated[int, BeforeValidator(number), Field(ge=1)]
Kilobits = Annotated[int, BeforeValidator(number), Field(ge=0, lt=2**32)]


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"must be a regular expression ({error})") from None
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]


class SwitchTraits(Block):
    """What a switch can do, where it does not say so or says it wrongly. Absent: what it says."""

    rate_step_kbps: Count | None = Field(default=None, description="rates are multiples of this")
    min_rate_kbps: Count | None = Field(default=None, description="no meter below this rate")
    max_rate_kbps: Count | None = Field(default=None, description="no meter above this rate")
    burst_step_kbit: Count | None = Field(default=None, description="bursts are multiples of this")
    min_burst_kbit: Kilobits | None = Field(default=None, description="no burst below this")
    max_burst_kbit: Kilobits | None = Field(default=None, description="no burst above this")
    max_burst_s: Positive | None = Field(default=None, description="no burst of more seconds of its rate")
    kbps: bool | None = Field(default=None, description="false: meters count packets only, so none is set")
    burst: bool | None = Field(default=None, description="false: the switch chooses bursts itself")
    counters: bool | None = Field(default=None, description="false: meters do not count")
    modify: bool | None = Field(
        default=None, description="false: a meter is replaced by another, which halves how many there are"
    )
    remark: bool | None = Field(default=None, description="whether meters can raise the drop precedence")
    max_bands: Count | None = Field(default=None, description="bands of one meter")
    max_meters: Annotated[int, BeforeValidator(number), Field(ge=0)] | None = Field(
        default=None, description="meters; 0: none is set"
    )
    first_meter_id: Count | None = Field(default=None, description="ids below are somebody else's")
    max_tables: Count | None = Field(default=None, description="tables that may be used")


class Enforcement(Block):
    """How the switches' meters and entries are kept equal to the plan."""

    readback_s: Positive = Field(
        default=30.0, le=30, description="every meter and entry is read back so often, also between polls"
    )
    alarm_after_s: Positive = Field(
        default=30.0, description="a switch that differs from the plan for longer is a problem in /health"
    )
    hold_lost_s: Positive = Field(
        default=3600.0,
        description="a switch whose control channel is lost keeps its shares of pools for so long at most: others are "
        "not given them",
    )
    batch: Annotated[Count, Field(le=10_000)] = Field(
        default=500, description="changes sent before the switch must say that it has made them"
    )
    tolerance: Fraction = Field(
        default=0.01, description="a switch that rounds rates in a way of its own may be off by this share"
    )
    over_limit: Literal["drop", "remark"] = Field(
        default="drop",
        description="remark: what users send above their rate gets a higher drop precedence (DSCP) instead",
    )
    dscp_precedence: Annotated[Count, Field(le=3)] = Field(
        default=1, description="with remark: raised by so many levels"
    )
    drop_at: Annotated[Positive, Field(ge=1)] | None = Field(
        default=None,
        description="with remark: what is above this multiple of the rate is dropped, where meters have two "
        "bands; absent: nothing is",
    )
    switches: dict[Dpid, SwitchTraits] = Field(default_factory=dict, description="by datapath id")
    makes: dict[Pattern, SwitchTraits] = Field(
        default_factory=dict, description="by a pattern found in the switch's description"
    )
