"""Traffic shapes by REST: what the users of a range of addresses may have."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Response
from fastapi.params import Depends
from pydantic import Field, StringConstraints, field_validator, model_validator

from northbound import problems, views
from northbound.answers import Answer, BothRates
from northbound.pages import Limit, Offset, Page, page_of
from northbound.policies_api import Reason, moment_s
from northbound.preconditions import IfMatch, Preconditions, tag_of_entity
from planner.config import CapacityField, RatesField
from planner.config_block import Block
from planner.config_events import MomentField
from planner.config_fields import MAX_WEIGHT, MIN_WEIGHT, NAME_PATTERN, Positive
from planner.policies_file import Priority
from planner.shape_desk import ShapeView
from planner.shaping import AddressRange, TrafficShape
from planner.snapshot import NotThere, Operations

#: Shorter than other names: a group is called after a shape.
ShapeName = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=50)]
ShapeId = Annotated[ShapeName, Path(alias="shapeID", description="a traffic shape's id")]
#: Users listed of a shape.
MAX_USERS: Final = 1000
_RATES: Final = ("limit", "guarantee", "ceiling")
_WRITE: Final = problems.documented(400, 401, 404, 408, 409, 412, 413, 422)


class ShapeBody(Block):
    """What the users of a range may have; at least one of limit, guarantee, ceiling, weight, priority, DSCP."""

    id: ShapeName | None = Field(
        default=None, description="absent: one is made; of one that is there: replaced"
    )
    addresses: Annotated[str, Field(max_length=100)] = Field(
        description="a prefix, or first-last; IPv4 or IPv6",
        examples=["10.0.1.0/24", "2001:db8::1-2001:db8::ff"],
    )
    scope: Literal["each", "together"] = Field(
        default="each",
        description="each user by itself, or all of them together as a group of their own, which draws on one limit",
    )
    limit_mbps: CapacityField | None = Field(
        default=None,
        description="never more than this, Mbit/s, whatever else is allowed; one number: both directions",
    )
    guarantee_mbps: RatesField | None = Field(
        default=None, description="always available, in place of their own"
    )
    ceiling_mbps: CapacityField | None = Field(
        default=None, description="in place of their own; a boost may lift it, the limit holds"
    )
    weight: Annotated[Positive, Field(ge=MIN_WEIGHT, le=MAX_WEIGHT)] | None = Field(
        default=None, description="share of what is scarce; only ratios matter"
    )
    priority: Priority | None = Field(default=None, description="0 is served first, 4 is normal")
    dscp: Annotated[int, Field(ge=0, le=63, strict=True)] | None = Field(
        default=None,
        description="the class of that marking, where no priority is given; packets are not marked",
    )
    until: MomentField | None = Field(
        default=None, description="epoch seconds, or a time with its zone; absent: until it is removed"
    )
    reason: Reason = ""

    @field_validator("addresses")
    @classmethod
    def _readable(cls, text: str) -> str:
        AddressRange.parse(text)
        return text

    @model_validator(mode="after")
    def _sensible(self) -> ShapeBody:
        given = [getattr(self, f"{name}_mbps") for name in _RATES]
        if all(one is None for one in (*given, self.weight, self.priority, self.dscp)):
            raise ValueError(
                "must give at least one of limit_mbps, guarantee_mbps, ceiling_mbps, weight, priority, dscp"
            )
        for upper in (self.limit_mbps, self.ceiling_mbps):
            for direction in ("up", "down") if self.guarantee_mbps is not None and upper is not None else ():
                low, high = getattr(self.guarantee_mbps, direction), getattr(upper, direction)
                if low > high:
                    raise ValueError(
                        f"must have guarantee_mbps.{direction} <= its limit and ceiling {high:g}: {low:g} is more"
                    )
        return self

    def shape(self) -> TrafficShape:
        """The value that is meant. Raises Refused."""
        limit, guarantee, ceiling = self.limit_mbps, self.guarantee_mbps, self.ceiling_mbps
        return TrafficShape(
            self.id or "",
            AddressRange.parse(self.addresses),
            self.scope,
            limit.bps if limit else None,
            guarantee.bps if guarantee else None,
            ceiling.bps if ceiling else None,
            self.weight,
            self.priority,
            self.dscp,
            end=None if self.until is None else moment_s("until", self.until),
            reason=self.reason,
        )


class Shape(Answer):
    """A traffic shape, and whom it concerns now."""

    id: str
    first: str = Field(description="the first address of the range")
    last: str
    scope: Literal["each", "together"]
    limit_bps: BothRates | None
    guarantee_bps: BothRates | None
    ceiling_bps: BothRates | None
    weight: float | None
    priority: int | None
    dscp: int | None
    start: float = Field(description="epoch seconds")
    end: float | None = Field(description="epoch seconds; null: until it is removed")
    reason: str
    group: str | None = Field(description="the group that its users are together; null: each is by itself")
    n_users: int
    users: list[str] = Field(description="a thousand at most")


class Shapes(Page):
    """Traffic shapes, by id."""

    shapes: list[Shape]


def shaping_router(operations: Operations, bearer: Depends, preconditions: Preconditions) -> APIRouter:
    """The routes; writes carry ``bearer``."""
    router = APIRouter(tags=["shaping"], responses=problems.documented(421, 422))

    def tag(shape_id: str) -> str | None:
        try:
            return tag_of_entity(_shape(operations.shaping.show(shape_id)))
        except NotThere:
            return None

    # Reads are async: they wait neither for the loop nor for the disk.
    @router.get("/trafficShapes", response_model=Shapes)
    async def list_shapes(limit: Limit = 100, offset: Offset = 0) -> dict[str, Any]:
        """The traffic shapes in force, by id."""
        return page_of("shapes", [_shape(one) for one in operations.shaping.all()], limit, offset)

    @router.get("/trafficShapes/{shapeID}", response_model=Shape, responses=problems.documented(404))
    async def show_shape(shape_id: ShapeId, response: Response) -> dict[str, Any]:
        """One traffic shape, and its users now."""
        found = _shape(operations.shaping.show(shape_id))
        response.headers["ETag"] = tag_of_entity(found)
        return found

    @router.post(
        "/updateTrafficShape",
        response_model=Shape,
        status_code=201,
        dependencies=[bearer],
        responses=_WRITE
        | {200: {"model": Shape, "description": "It is in place of the one of the same id."}},
    )
    def update_traffic_shape(body: ShapeBody, response: Response, if_match: IfMatch = None) -> dict[str, Any]:
        """Say what the users of a range of addresses may have, now and later; kept over restarts."""
        with preconditions.holding(if_match, lambda: tag(body.id or "")):
            view, new = operations.shaping.put(body.shape())
        found = _shape(view)
        response.status_code = 201 if new else 200
        response.headers["ETag"] = tag_of_entity(found)
        response.headers["Location"] = f"/trafficShapes/{found['id']}"
        return found

    @router.delete("/trafficShapes/{shapeID}", status_code=204, dependencies=[bearer], responses=_WRITE)
    def delete_shape(shape_id: ShapeId, if_match: IfMatch = None) -> Response:
        """End a traffic shape now; its users have what they had without it."""
        with preconditions.holding(if_match, lambda: tag(shape_id)):
            operations.shaping.remove(shape_id)
        return Response(status_code=204)

    return router


def _shape(view: ShapeView) -> dict[str, Any]:
    raw = asdict(view.shape)
    addresses = raw.pop("addresses")
    for name in _RATES:
        pair = raw[f"{name}_bps"]
        raw[f"{name}_bps"] = (
            None if pair is None else dict(zip(views.DIRECTION_NAMES, views.whole_bps(pair), strict=True))
        )
    users = list(view.users[:MAX_USERS])
    return {**raw, **addresses, "group": view.shape.group, "n_users": len(view.users), "users": users}
