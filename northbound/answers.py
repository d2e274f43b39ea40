"""What clients get, as OpenAPI documents it. Null always means: not known, or none."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Direction = Literal["up", "down"]
LevelName = Literal["global", "region", "group", "user", "application"]


class Answer(BaseModel):
    """An object of an answer: no other keys than these."""

    model_config = ConfigDict(extra="forbid")


class Health(Answer):
    """Whether plans are being made."""

    status: Literal["starting", "ok", "degraded", "stalled"]
    last_tick: float | None = Field(description="epoch seconds of the newest plan; null before the first")
    tick_ms: float | None = Field(description="how long the last tick took")
    ticks: int = Field(description="ticks since start")
    steps_ms: dict[str, float | None] = Field(description="how long each step of the last tick took")
    problems: list[str] = Field(description="what failed, since when, and what stands instead")
    version: str = Field(description="of Tidegate")


class BothRates(Answer):
    """Bit/s of frames; up is towards the network."""

    up: int | None
    down: int | None


class PoolDirection(Answer):
    """One pool in one direction, bit/s of frames."""

    offered_bps: int | None = Field(description="what hosts sent, before any meter dropped")
    delivered_bps: int | None = Field(description="what passed the meters")
    p50_bps: int | None = Field(description="forecast demand: half of all outcomes are below")
    p90_bps: int | None = Field(description="forecast demand: nine of ten outcomes are below")
    grant_bps: int | None = Field(description="what the plan gives")
    guarantee_bps: int | None
    ceiling_bps: int | None = Field(description="null: none of its own")
    rung: str | None = Field(description="which rung of the ladder made the forecast")
    bound: str | None = Field(description="why the grant is no larger")


class Pool(Answer):
    """One pool of the tree."""

    path: str
    level: LevelName
    weight: float | None
    up: PoolDirection
    down: PoolDirection


class GlobalMetrics(Answer):
    """One page of pools, parents first."""

    time: float
    total: int = Field(description="pools on all pages")
    offset: int
    limit: int
    pools: list[Pool]


class Group(Answer):
    """A resource group."""

    id: str
    source: str = Field(description="configured (file), operator (REST) or discovered")
    kind: str = Field(
        description="application (they talk to one another), role (they do the same), operator, rest"
    )
    state: str = Field(description="forming, active or dissolving")
    members: list[str] = Field(description="user ids")
    since: float | None = Field(description="epoch seconds")
    reason: str = Field(description="why it exists")
    guarantee_bps: BothRates | None = Field(description="the operator's own; null: the default holds")
    ceiling_bps: BothRates | None = Field(description="the operator's own; null: the default holds")
    weight: float | None
    pools: list[str] = Field(description="paths of its pools: one part for each region")


class Groups(Answer):
    """A page of the groups."""

    time: float
    total: int = Field(description="groups on all pages")
    offset: int
    limit: int
    shared_services: list[str] = Field(description="endpoints that talk to nearly everyone")
    groups: list[Group]


class GroupNow(Answer):
    """A group's parts together in one direction, bit/s; null where a part is not known."""

    offered_bps: int | None
    delivered_bps: int | None
    grant_bps: int | None


class GroupCurrent(Answer):
    """A group's parts together."""

    up: GroupNow
    down: GroupNow


class Series(Answer):
    """Bit/s at the history's times; null is a gap."""

    up: list[int | None]
    down: list[int | None]


class Meter(Answer):
    """One meter; it polices (drops), it does not shape."""

    meter_id: int
    rate_kbps: int
    burst_kbit: int
    pool: str | None
    direction: Direction | None


class PlannedSwitch(Answer):
    """One switch's part of the plan."""

    in_step: bool | None = Field(description="whether the meters read back equal its plan; null: never read")
    plan_version: int | None = Field(description="the plan that the switch was last brought to")
    meters: list[Meter]


class PlanAnswer(Answer):
    """The newest plan, by dpid in 16 hexadecimal digits."""

    version: int
    time: float
    mode: str = Field(description="live, or shadow: made and shown, not enforced")
    layout_version: int
    total: int = Field(description="switches on all pages")
    offset: int
    limit: int
    switches: dict[str, PlannedSwitch]


class Switch(Answer):
    """One switch as last reported."""

    dpid: str
    connected: bool
    region: str | None
    last_seen: float | None
    plan_version: int | None
    in_step: bool | None
    n_meters: int
    lost_polls: int


class Switches(Answer):
    """A page of the switches that were ever seen."""

    time: float
    total: int = Field(description="switches on all pages")
    offset: int
    limit: int
    switches: list[Switch]


class Summary(BaseModel):
    """Offered, forecast, granted and measured; and what simpler schemes would have given."""

    total: int = Field(description="rows of `pools` on all pages: two a pool")
    offset: int
    limit: int
    window: dict[str, Any]
    pools: list[dict[str, Any]]
    totals: dict[str, Any]
    meters_equal_plan: bool | None


class Written(Answer):
    """A write that is stored, and what it said. The next plan follows it; GET /groups/{groupID} then shows the whole."""

    id: str
    members: list[str] | None = Field(default=None, description="null where the write was not about them")
    guarantee_bps: BothRates | None = Field(default=None, description="null: left as it is")
    ceiling_bps: BothRates | None = Field(default=None, description="null: left as it is")
    weight: float | None = Field(default=None, description="null: left as it is")
