"""The ``allocation.tiers`` block: how far forecasts are asked for."""

from __future__ import annotations

from pydantic import Field

from planner.config_block import Block
from planner.config_fields import Fraction, NotNegative, Positive


class Tiers(Block):
    """How far a forecast is asked for, by how sure it is."""

    enabled: bool = Field(default=True, description="false: every forecast is asked for in full")
    band: Positive = Field(
        default=1.0,
        description="confidence is the probability that demand stays within this share of the median",
    )
    floor_mbps: NotNegative = Field(default=0.1, description="the band is at least so wide to either side")
    full_above: Fraction = Field(default=0.9, description="a surer forecast is asked for in full")
    partial_above: Fraction = Field(default=0.6, description="a surer forecast is asked for in part")
    partial_share: Fraction = Field(default=0.75, gt=0, description="the part")
    standby_ttl_s: Positive = Field(
        default=300.0,
        description="the parent keeps what a less sure forecast foresees for so long; use that rises makes it "
        "the pool's within one tick",
    )
