"""The configuration's ``alarms`` block."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from planner.config_block import Block
from planner.config_fields import Fraction, NotNegative, Positive, number

Count = Annotated[int, BeforeValidator(number), Field(ge=1)]


class Alarms(Block):
    """When operators are told of what the forecast did not foresee."""

    enabled: bool = Field(default=True, description="false: nothing is watched")
    false_alarms_per_day: Positive = Field(
        default=0.001,
        le=10,
        description="how many alarms a pool may raise in a day, in each direction, though nothing is wrong",
    )
    least_share: Fraction = Field(
        default=0.05, description="smaller surprises, as a share of the pool's ceiling, are no alarms"
    )
    new_normal_s: Positive = Field(
        default=3600.0, description="what differs for so long is what is normal from then on"
    )
    event_margin_s: NotNegative = Field(
        default=600.0, description="so long before and after a scheduled event it explains whatever comes"
    )
    reopen_s: NotNegative = Field(
        default=900.0, description="the same again within so long is the same alarm, opened again"
    )
    per_pool_hour: Count = Field(
        default=6, description="new alarms of a pool within an hour; further ones are counted only"
    )
    keep: Count = Field(default=1000, description="alarms kept, the newest ones")
