"""External events over REST: what is announced, what such events did, and how the feeds are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.params import Depends
from pydantic import Field, StringConstraints

from forecasting.event import MAX_UPLIFT, MIN_UPLIFT
from northbound import problems, views
from northbound.answers import Answer, LevelName
from northbound.pages import Limit, Offset, Page, page_of
from northbound.rehearsing import asks_dry_run
from planner.config_events import MAX_SCOPES, SCOPE_PATTERN, Announcement
from planner.config_events import Kind as KindName
from planner.config_fields import NAME_PATTERN
from planner.events.imports import BadCalendar, CalendarImport
from planner.events.views import EventView, FeedView, ImportReport, KindView, UpliftView
from planner.snapshot import Operations

CALENDAR: Final = "text/calendar"
ImportName = Annotated[
    str,
    StringConstraints(pattern=NAME_PATTERN),
    Query(description="its events are NAME/UID@START; an earlier import of this name gives way"),
]
Scopes = Annotated[
    list[Annotated[str, StringConstraints(pattern=SCOPE_PATTERN)]],
    Query(max_length=MAX_SCOPES, description="pools concerned, each by itself; none: everybody"),
]
EventId = Annotated[str, Path(alias="eventID", min_length=1, max_length=200, description="an event's id")]


class Uplift(Answer):
    """The factor on demand that is expected when an event begins."""

    p10: float = Field(description="it is below this once in ten events")
    p50: float
    p90: float = Field(description="it is above this once in ten events")
    n_events: float = Field(description="past events that this was learnt from; 0: announced, or a guess")


class BothUplifts(Answer):
    """Up is towards the network."""

    up: Uplift
    down: Uplift


class Event(Answer):
    """Something that is announced."""

    id: str
    kind: str
    source: str = Field(description="name of its feed, or file, or rest")
    state: str = Field(description="active or upcoming")
    start: float
    end: float
    scope: list[str] = Field(description="empty: everybody")
    summary: str
    expected_uplift: float | None = Field(description="as announced")
    level: LevelName | None = Field(description="highest level concerned; null: the scope names nobody here")
    uplift: BothUplifts | None = Field(description="what is expected at that level")


class Kind(Answer):
    """What past events of a kind did at one level."""

    kind: str
    level: LevelName
    uplift: BothUplifts


class Feed(Answer):
    """One source of events."""

    name: str
    address: str = Field(description="without what may be secret in it")
    stale: bool = Field(description="its events may be out of date; they stay as they were")
    last_success: float | None
    error: str | None
    n_events: int
    n_skipped: int = Field(description="entries that could not be read")
    reasons: list[str] = Field(description="why, for the first of them")


class Events(Page):
    """What is on or ahead, by start and by the page; what was learnt, and where it comes from."""

    time: float
    events: list[Event]
    kinds: list[Kind]
    feeds: list[Feed]


class Announced(Answer):
    """An announcement that is stored."""

    id: str
    start: float
    end: float


class Imported(Answer):
    """What handing over a calendar changed; of a dry run, what it would change."""

    dry_run: bool
    name: str
    replaced: bool = Field(description="an earlier import had that name")
    until: float = Field(description="epoch seconds up to which the calendar was read, a year ahead")
    n_events: int
    n_new: int = Field(description="that the earlier import had not")
    n_changed: int
    n_removed: int = Field(description="that the earlier import had, and this one has not")
    n_outside: int = Field(description="occurrences left out: they are over, or later than `until`")
    events: list[Announced] = Field(description="the first ten, by start")


def events_router(operations: Operations, bearer: Depends, now: Callable[[], float]) -> APIRouter:
    """The routes about events; ``bearer`` is what writes carry."""
    router = APIRouter(tags=["events"])

    # None is async: the view walks the whole calendar, and writes wait for the disk.
    @router.get("/events", response_model=Events, responses=problems.documented(421, 422))
    def list_events(limit: Limit = 1000, offset: Offset = 0) -> Response:
        """Events that are on or ahead, by start; what past ones did; the state of every feed."""
        time = now()
        view = operations.events.view(time)
        page = page_of("events", view.events, limit, offset)
        answer = {
            "time": time,
            **page,
            "events": [_event(one, time) for one in page["events"]],
            "kinds": [_kind(one) for one in view.kinds],
            "feeds": [_feed(one) for one in view.feeds],
        }
        return Response(views.encode(views.plain(answer)), media_type="application/json")

    @router.post(
        "/events",
        status_code=201,
        response_model=Announced,
        dependencies=[bearer],
        responses=problems.documented(400, 401, 408, 409, 413, 421, 422),
    )
    def announce_event(body: Announcement) -> dict[str, Any]:
        """Announce an event. It outlives a restart, and is forgotten a day after its end."""
        event = operations.events.announce(body)
        return {"id": event.id, "start": event.start, "end": event.end}

    @router.post(
        "/events/import",
        status_code=201,
        response_model=Imported,
        dependencies=[bearer],
        responses=problems.documented(400, 401, 408, 409, 413, 415, 421, 422)
        | {200: {"model": Imported, "description": "It is in place of an earlier one; or a dry run."}},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {CALENDAR: {"schema": {"type": "string", "description": "iCalendar, RFC 5545"}}},
            }
        },
    )
    async def import_events(
        request: Request,
        response: Response,
        name: ImportName,
        kind: Annotated[
            KindName, Query(description="of entries without a category that is a name")
        ] = "event",
        scope: Scopes = [],  # noqa: B006 - FastAPI copies it
        expected_uplift: Annotated[
            float | None,
            Query(
                ge=MIN_UPLIFT,
                le=MAX_UPLIFT,
                description="factor on demand that is expected; absent: not known",
            ),
        ] = None,
    ) -> Any:
        """Announce a whole calendar: all of it is taken or nothing, in place of an earlier import of that name."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != CALENDAR:
            return problems.problem(415, f"Content-Type must be {CALENDAR}, got {media_type[:60]!r}")
        asked = CalendarImport(name, await request.body(), kind, tuple(scope), expected_uplift)
        dry_run = asks_dry_run(request.scope)
        try:
            report = await run_in_threadpool(operations.events.import_calendar, asked, dry_run=dry_run)
        except BadCalendar as error:
            faults = [str(fault) for fault in error.args]
            return problems.problem(422, faults[0], faults if len(faults) > 1 else None)
        response.status_code = 200 if dry_run or report.replaced else 201
        return _imported(report, dry_run)

    @router.delete(
        "/events/{eventID:path}",
        status_code=204,
        dependencies=[bearer],
        responses=problems.documented(401, 404, 409, 421, 422),
    )
    def withdraw_event(event_id: EventId) -> Response:
        """Take back an event that was announced here, or an import by its name; others are withdrawn at their source."""
        operations.events.withdraw(event_id)
        return Response(status_code=204)

    return router


def _imported(report: ImportReport, dry_run: bool) -> dict[str, Any]:
    first = [{"id": event.id, "start": event.start, "end": event.end} for event in report.events]
    return {**vars(report), "dry_run": dry_run, "events": first}


def _event(one: EventView, now: float) -> dict[str, Any]:
    event = one.event
    return {
        "id": event.id,
        "kind": event.kind,
        "source": event.source,
        "state": "active" if event.start <= now else "upcoming",
        "start": event.start,
        "end": event.end,
        "scope": list(event.scope),
        "summary": event.summary,
        "expected_uplift": event.expected_uplift,
        "level": None if one.level is None else views.LEVEL_NAMES[one.level],
        "uplift": _both(one.uplift) if one.uplift else None,
    }


def _kind(one: KindView) -> dict[str, Any]:
    return {"kind": one.kind, "level": views.LEVEL_NAMES[one.level], "uplift": _both(one.uplift)}


def _both(pair: Sequence[UpliftView]) -> dict[str, Any]:
    return {name: vars(one) for name, one in zip(views.DIRECTION_NAMES, pair, strict=True)}


def _feed(one: FeedView) -> dict[str, Any]:
    return {**vars(one), "reasons": list(one.reasons)}
