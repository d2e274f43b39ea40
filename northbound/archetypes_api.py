"""Archetypes over REST: what kinds of users there are, who belongs to them, and what they are called."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.params import Depends
from pydantic import Field

from forecasting.population import MAX_NAME, ArchetypeView
from northbound import problems, views
from northbound.answers import Answer, LevelName
from planner.config_block import Block
from planner.snapshot import Operations

MAX_MEMBERS = 10_000
ArchetypeId = Annotated[int, Path(alias="archetypeID", ge=0, le=2**62, description="an archetype's id")]


class Archetype(Answer):
    """One kind of user, in one direction."""

    id: int = Field(description="stays with it when archetypes are learnt anew")
    name: str = Field(description="the operator's, or the rule's")
    rule_name: str = Field(description="what the rule calls it")
    level: LevelName
    direction: Literal["up", "down"]
    share: float = Field(description="of the level's pools, 0 to 1")
    members: int = Field(description="pools that belong to it, of those that training looked at")
    centre: dict[str, float | None] = Field(
        description="figures of its middle member; relative_rate is in units of the level's median"
    )


class Archetypes(Answer):
    """All archetypes; none before they were first learnt."""

    archetypes: list[Archetype]


class Member(Answer):
    """A pool of an archetype."""

    pool: str
    probability: float | None = Field(description="that it belongs to this archetype, 0 to 1")


class ArchetypeDetail(Archetype):
    """One archetype with its members, the surest first."""

    pools: list[Member]


class ArchetypeName(Block):
    """What an archetype shall be called."""

    name: str | None = Field(
        max_length=MAX_NAME, description="null or nothing: as the rule says", examples=["night backups"]
    )


def archetypes_router(operations: Operations, bearer: Depends) -> APIRouter:
    """The routes; writes carry ``bearer``."""
    router = APIRouter(tags=["archetypes"], responses=problems.documented(421))

    @router.get("/archetypes", response_model=Archetypes)
    def list_archetypes() -> dict[str, Any]:
        """The kinds of users that were found, level by level."""
        return {"archetypes": [_row(view) for view in operations.archetypes.views()]}

    @router.get(
        "/archetypes/{archetypeID}", response_model=ArchetypeDetail, responses=problems.documented(404, 422)
    )
    def show_archetype(
        archetype_id: ArchetypeId,
        limit: Annotated[int, Query(ge=1, le=MAX_MEMBERS, description="members listed")] = 100,
    ) -> dict[str, Any]:
        """One archetype and who belongs to it."""
        members = operations.archetypes.members(archetype_id)
        view = next(one for one in operations.archetypes.views() if one.id == archetype_id)
        pools = [{"pool": one.pool, "probability": one.probability} for one in members[:limit]]
        return {**_row(view), "pools": views.plain(pools)}

    @router.put(
        "/archetypes/{archetypeID}/name",
        response_model=Archetype,
        dependencies=[bearer],
        responses=problems.documented(400, 401, 404, 408, 409, 413, 421, 422),
    )
    def name_archetype(archetype_id: ArchetypeId, body: ArchetypeName) -> dict[str, Any]:
        """Call an archetype as you like. The name outlives re-learning and restart."""
        return _row(operations.archetypes.rename(archetype_id, body.name))

    return router


def _row(view: ArchetypeView) -> dict[str, Any]:
    row: dict[str, Any] = views.plain(
        {
            "id": view.id,
            "name": view.name,
            "rule_name": view.rule_name,
            # The forecaster's levels tell directions apart.
            "level": views.LEVEL_NAMES[view.level // 2],
            "direction": views.DIRECTION_NAMES[view.level % 2],
            "share": view.share,
            "members": view.members,
            "centre": view.centre,
        }
    )
    return row
