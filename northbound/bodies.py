"""What clients may send: the bodies of the two writes. Rates are Mbit/s, as in the file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator, model_validator

from planner.config import CapacityField, RatesField
from planner.config_block import Block
from planner.config_fields import NAME_PATTERN, UNGROUPED, Address, Mac, Positive

MAX_MEMBERS = 100_000
MAX_BINDINGS = 64
#: Names of routes below /groups, which no group can have.
RESERVED = ("create", "discovery", "forbidden-pairs")
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class GroupPolicy(Block):
    """What a group may have. What is absent or null stays as it is."""

    guarantee_mbps: RatesField | None = Field(
        default=None, description="always available, Mbit/s; a number means both directions"
    )
    ceiling_mbps: CapacityField | None = Field(
        default=None, description="never more than this, Mbit/s, > 0; a number means both directions"
    )
    weight: Positive | None = Field(default=None, description="share of what is scarce; only ratios matter")

    @model_validator(mode="after")
    def _ordered(self) -> GroupPolicy:
        if self.guarantee_mbps is None or self.ceiling_mbps is None:
            return self
        for direction in ("up", "down"):
            low, high = getattr(self.guarantee_mbps, direction), getattr(self.ceiling_mbps, direction)
            if low > high:
                raise ValueError(
                    f"must have guarantee_mbps.{direction} <= its ceiling {high:g}: {low:g} is more"
                )
        return self

    def policy(self) -> dict[str, Any]:
        """What was given, as the planner takes it: bit/s, up and down."""
        rates = {"guarantee_bps": self.guarantee_mbps, "ceiling_bps": self.ceiling_mbps}
        given: dict[str, Any] = {name: rate.bps for name, rate in rates.items() if rate is not None}
        if self.weight is not None:
            given["weight"] = self.weight
        return given


class GroupCreation(GroupPolicy):
    """A resource group of the operator's own; it wins over discovered ones."""

    id: Name = Field(description="letters, digits and . _ @ - (63 at most)", examples=["studio"])
    members: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_MEMBERS)] = Field(
        description="user ids", examples=[["anna", "ben"]]
    )

    @model_validator(mode="after")
    def _usable(self) -> GroupCreation:
        if self.id == UNGROUPED:
            raise ValueError("must have another id: it is the name of the pool of users without a group")
        if self.id in RESERVED:
            raise ValueError(f"must have another id: {self.id} is a name of the API's own")
        return self

    @field_validator("members")
    @classmethod
    def _once(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        return _each_once(members)


class GroupMembers(Block):
    """All members of a group of the operator's own."""

    members: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_MEMBERS)] = Field(
        description="user ids", examples=[["anna", "ben"]]
    )

    @field_validator("members")
    @classmethod
    def _once(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        return _each_once(members)


class UserPair(Block):
    """Two users."""

    users: Annotated[tuple[Name, Name], Field(description="user ids", examples=[["anna", "ben"]])]


class UserBindings(Block):
    """What tells a user's devices; at least one MAC or address."""

    macs: Annotated[tuple[Mac, ...], Field(max_length=MAX_BINDINGS)] = Field(default=(), description="MACs")
    addresses: Annotated[tuple[Address, ...], Field(max_length=MAX_BINDINGS)] = Field(
        default=(), description="IPv4 and IPv6 addresses"
    )
    ttl_s: Positive | None = Field(default=None, description="seconds from now; null: until taken back")


def _each_once(members: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(members)) < len(members):
        raise ValueError("must name each member once")
    return members


class GroupBandwidth(GroupPolicy):
    """What changes: at least one of the three."""

    @model_validator(mode="after")
    def _some(self) -> GroupBandwidth:
        if not self.policy():
            raise ValueError("must hold at least one of guarantee_mbps, ceiling_mbps, weight")
        return self
