"""Groups by REST: what was found, operators' own, pins and forbidden pairs, and what happened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.params import Depends
from pydantic import Field

from northbound import answers, problems, views
from northbound.answers import Answer
from northbound.bodies import GroupBandwidth, GroupCreation, GroupMembers, UserPair
from northbound.encoded import UNCHANGED, EncodedAnswers, answer
from northbound.pages import MAX_LIMIT, Limit, Offset
from northbound.preconditions import IfMatch, Preconditions, tag_of_entity
from northbound.security.audience import REHEARSAL
from planner.snapshot import Operations, UnknownGroup
from topology.group_log import LoggedEvent

GroupId = Annotated[str, Path(alias="groupID", min_length=1, max_length=128, description="a group's id")]
UserId = Annotated[str, Path(alias="user", min_length=1, max_length=64, description="a user's id")]
_WRITE = problems.documented(400, 401, 408, 409, 412, 413, 421, 422)


class GroupEvent(Answer):
    """Something that happened to a group."""

    id: int = Field(description="grows with every event of any group")
    time: float = Field(description="epoch seconds")
    kind: str = Field(description="forming, active, dissolving, dissolved, joined, left, split, merged, ...")
    group: str
    members: list[str] = Field(description="whom it concerns; a hundred at most")
    size: int = Field(description="how many it concerns")
    reason: str
    other: str | None = Field(description="the group split from, or merged into")


class GroupEvents(Answer):
    """What happened to a group, oldest first."""

    events: list[GroupEvent]


class ForbiddenPairs(Answer):
    """Users that are in no discovered group together."""

    pairs: list[list[str]]


class Discovery(Answer):
    """What operators pinned and forbade, and how much discovery may still change."""

    pins: dict[str, str] = Field(description="discovered group by user")
    forbidden_pairs: list[list[str]]
    churn_left: int = Field(description="memberships that may still change within the hour")
    waiting: int = Field(description="members found elsewhere, too briefly so far or beyond that budget")


def groups_router(operations: Operations, bearer: Depends, preconditions: Preconditions) -> APIRouter:
    """The routes; writes carry ``bearer``."""
    tags = _Tags(operations)
    router = APIRouter()
    reads, writes = (
        APIRouter(tags=["state"], responses=problems.documented(421)),
        APIRouter(tags=["writes"], dependencies=[bearer], responses=_WRITE),
    )
    # What has a name of its own comes before what is named by an id.
    _add_wishes(reads, writes, operations)
    _add_reads(reads, operations, tags)
    _add_own(writes, operations, preconditions, tags)
    _add_pins(writes, operations)
    router.include_router(reads)
    router.include_router(writes)
    return router


def _add_reads(router: APIRouter, operations: Operations, tags: _Tags) -> None:
    encoded = EncodedAnswers()

    @router.get("/groups", response_model=answers.Groups, responses=UNCHANGED | problems.documented(422))
    async def list_groups(request: Request, limit: Limit = MAX_LIMIT, offset: Offset = 0) -> Response:
        """The resource groups and the shared services."""
        encode = partial(views.groups, offset=offset, limit=limit)
        return answer(request, await encoded.get(operations.snapshot, (limit, offset), encode))

    @router.get("/groups/{groupID}", response_model=answers.Group, responses=problems.documented(404, 422))
    def show_group(group_id: GroupId, response: Response) -> dict[str, Any]:
        """One group: members, state, since when and why."""
        row = _row(operations, group_id)
        tag = tags.of(group_id, row)
        if tag is not None:
            response.headers["ETag"] = tag
        return row

    @router.get(
        "/groups/{groupID}/events", response_model=GroupEvents, responses=problems.documented(404, 422)
    )
    def list_group_events(
        group_id: GroupId,
        since: Annotated[int, Query(ge=0, le=2**53, description="events after the one with this id")] = 0,
    ) -> dict[str, Any]:
        """What happened to a group and when: states, members, splits and merges. Also of groups that are gone."""
        return {"events": [_event(event) for event in operations.grouping.events(group_id, since)]}


def _add_own(router: APIRouter, operations: Operations, preconditions: Preconditions, tags: _Tags) -> None:
    @router.post("/groups/create", status_code=201, response_model=answers.Written)
    def create_group(body: GroupCreation, response: Response) -> dict[str, Any]:
        """Make a group of your own. Its members leave the groups that were found for them."""
        policy = body.policy()
        operations.create_group(body.id, body.members, policy)
        response.headers["Location"] = f"/metrics/group/{body.id}"
        return _written(body.id, policy, list(body.members))

    @router.put(
        "/groups/{groupID}/bandwidth", response_model=answers.Written, responses=problems.documented(404)
    )
    def set_bandwidth(group_id: GroupId, body: GroupBandwidth, if_match: IfMatch = None) -> dict[str, Any]:
        """Override a group's guarantee, ceiling or weight. It outlives re-clustering and restart."""
        policy = body.policy()
        with preconditions.holding(if_match, lambda: tags.of(group_id)), tags.writing(group_id):
            operations.set_group_bandwidth(group_id, policy)
        return _written(group_id, policy, None)

    @router.put(
        "/groups/{groupID}/members", response_model=answers.Written, responses=problems.documented(404)
    )
    def set_members(group_id: GroupId, body: GroupMembers, if_match: IfMatch = None) -> dict[str, Any]:
        """Replace the members of a group of your own."""
        with preconditions.holding(if_match, lambda: tags.of(group_id)), tags.writing(group_id):
            operations.grouping.set_members(group_id, body.members)
        return _written(group_id, {}, list(body.members))

    @router.delete("/groups/{groupID}", status_code=204, responses=problems.documented(404))
    def delete_group(group_id: GroupId, if_match: IfMatch = None) -> Response:
        """Take a group of your own away, with what it was allowed. Its members may be found elsewhere."""
        with preconditions.holding(if_match, lambda: tags.of(group_id)), tags.writing(group_id):
            operations.grouping.delete(group_id)
        return Response(status_code=204)


def _add_pins(router: APIRouter, operations: Operations) -> None:
    @router.post(
        "/groups/{groupID}/pins/{user}", response_model=answers.Written, responses=problems.documented(404)
    )
    def pin_user(group_id: GroupId, user: UserId) -> dict[str, Any]:
        """Put a user into a discovered group, whatever is found of it. The group stays for as long."""
        operations.grouping.pin(group_id, user)
        return _written(group_id, {}, [user])

    @router.delete("/groups/{groupID}/pins/{user}", status_code=204, responses=problems.documented(404))
    def unpin_user(group_id: GroupId, user: UserId) -> Response:
        """Let discovery decide again where a user is."""
        operations.grouping.unpin(group_id, user)
        return Response(status_code=204)


def _add_wishes(reads: APIRouter, writes: APIRouter, operations: Operations) -> None:
    @reads.get("/groups/discovery", response_model=Discovery)
    def show_discovery() -> dict[str, Any]:
        """Pins and forbidden pairs, and how much discovery may still change."""
        standing = operations.grouping.standing()
        return {**vars(standing), "forbidden_pairs": [list(pair) for pair in standing.forbidden_pairs]}

    @reads.get("/groups/forbidden-pairs", response_model=ForbiddenPairs)
    def list_forbidden_pairs() -> dict[str, Any]:
        """The pairs of users that are in no discovered group together."""
        return {"pairs": [list(pair) for pair in operations.grouping.standing().forbidden_pairs]}

    @writes.post("/groups/forbidden-pairs", status_code=201, response_model=ForbiddenPairs)
    def forbid_pair(body: UserPair) -> dict[str, Any]:
        """Keep two users out of a common discovered group."""
        operations.grouping.forbid(*body.users)
        return {"pairs": [sorted(body.users)]}

    @writes.delete(
        "/groups/forbidden-pairs/{user}/{other}", status_code=204, responses=problems.documented(404)
    )
    def allow_pair(
        user: UserId,
        other: Annotated[str, Path(min_length=1, max_length=64, description="the other user's id")],
    ) -> Response:
        """Let two users meet again."""
        operations.grouping.allow(user, other)
        return Response(status_code=204)


class _Tags:
    """The tags of groups, but for those that were written since the newest snapshot: it shows them as they were."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        #: The number of the tick in whose snapshot a write is not yet to be seen, by group id.
        self._written: dict[str, int] = {}

    def of(self, group_id: str, row: dict[str, Any] | None = None) -> str | None:
        """The tag of a group as it is; None where that is not known before the next tick."""
        if self._written.get(group_id, -1) >= self._operations.snapshot.health.ticks:
            return None
        return tag_of_entity(row or _row(self._operations, group_id))

    @contextmanager
    def writing(self, group_id: str) -> Iterator[None]:
        """Write to a group inside this."""
        yield
        if REHEARSAL.get() is None:
            ticks = self._operations.snapshot.health.ticks
            self._written = {name: at for name, at in self._written.items() if at >= ticks} | {
                group_id: ticks
            }


def _row(operations: Operations, group_id: str) -> dict[str, Any]:
    snapshot = operations.snapshot
    group = next((group for group in snapshot.groups if group.id == group_id), None)
    if group is None:
        raise UnknownGroup(group_id)
    return views.group_row(snapshot.pools, group)


def _event(event: LoggedEvent) -> dict[str, Any]:
    row = {name: getattr(event, name) for name in ("id", "time", "kind", "size", "reason")}
    return {**row, "group": event.group_id, "members": list(event.members), "other": event.other or None}


def _written(group_id: str, policy: dict[str, Any], members: list[str] | None) -> dict[str, Any]:
    rates = ("guarantee_bps", "ceiling_bps")
    both = {
        name: dict(zip(views.DIRECTION_NAMES, policy[name], strict=True)) for name in rates if name in policy
    }
    return {"id": group_id, "members": members, "weight": policy.get("weight"), **both}
