"""Alarms by REST: what came that the forecast did not foresee, since whenever the client asked last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from fastapi.params import Depends
from pydantic import Field

from northbound import problems, views
from northbound.answers import Answer, Direction, LevelName
from planner.alarm_views import Alarm as AlarmValue
from planner.snapshot import Operations

MAX_ALARMS = 10_000
AlarmId = Annotated[int, Path(alias="alarmID", ge=1, le=2**53, description="an alarm's id")]


class Evidence(Answer):
    """Why it is an alarm. Bit/s of frames; numbers of peers for fan_out, shares for coverage."""

    realised: float | None = Field(description="what came")
    low: float | None = Field(description="the forecast of before it began: its lowest quantile")
    middle: float | None = Field(description="... its median; for fan_out the usual number")
    high: float | None = Field(description="... its highest quantile; for fan_out a high number")
    p_value: float | None = Field(description="chance of so much or more at the step that gave it away")
    e_value: float | None = Field(description="evidence of a slow drift when it was noticed")
    budget: float | None = Field(description="p_value was below this, or e_value above its inverse")
    steps: int = Field(description="steps that it had lasted")
    series: int = Field(description="pools surprised together; 1: this one")


class Alarm(Answer):
    """One alarm as it stands."""

    id: int
    sequence: int = Field(description="of its last change; grows with every change of any alarm")
    pool: str
    level: LevelName
    direction: Direction
    kind: Literal["spike", "shift", "silence", "fan_out", "coverage"]
    side: Literal["above", "below"] = Field(description="of the forecast; for coverage of its aim")
    severity: Literal["minor", "major", "critical"]
    since: float = Field(description="epoch seconds at which the first surprising step ended")
    updated: float = Field(description="epoch seconds of its last change")
    closed: float | None = Field(description="epoch seconds; null: open")
    acknowledged: float | None = Field(description="epoch seconds; null: by nobody")
    reason: str = Field(description="why it closed; empty while open")
    times: int = Field(description="how often it was opened")
    text: str = Field(description="what to tell an operator")
    evidence: Evidence


class Alarms(Answer):
    """A page of the stream, oldest change first."""

    sequence: int = Field(description="since of the next question")
    complete: bool = Field(description="false: changes between were forgotten")
    open: int = Field(description="open alarms in all")
    unacknowledged: int = Field(description="of these, not acknowledged")
    held_back: int = Field(description="not told since the start: their pool had many within the hour")
    alarms: list[Alarm]


def alarms_router(operations: Operations, bearer: Depends, now: Callable[[], float]) -> APIRouter:
    """The routes; writes carry ``bearer``."""
    router = APIRouter(prefix="/alarms", tags=["alarms"], responses=problems.documented(421))

    # Not async: the loop may hold the stream for a moment.
    @router.get("", response_model=Alarms, responses=problems.documented(422))
    def list_alarms(
        since: Annotated[int, Query(ge=0, le=2**53, description="only changes after this sequence")] = 0,
        only_open: Annotated[
            bool | None, Query(alias="open", description="true: only open ones; false: only closed ones")
        ] = None,
        pool: Annotated[
            str | None, Query(max_length=1024, description="a path: the pool and what is below it")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_ALARMS, description="alarms on a page")] = 1000,
    ) -> Response:
        """What the forecast did not foresee, with its evidence."""
        page = operations.alarms.view(since, only_open=only_open, pool=pool, limit=limit)
        report = {**vars(page), "alarms": [asdict(alarm) for alarm in page.alarms]}
        return _answer(report)

    @router.post(
        "/{alarmID}/acknowledge",
        response_model=Alarm,
        dependencies=[bearer],
        responses=problems.documented(401, 404, 408, 413, 422),
    )
    def acknowledge_alarm(alarm_id: AlarmId) -> Response:
        """Note that somebody has seen it; again changes nothing."""
        alarm: AlarmValue = operations.alarms.acknowledge(alarm_id, now())
        return _answer(asdict(alarm))

    return router


def _answer(report: dict[str, Any]) -> Response:
    return Response(views.encode(views.plain(report)), media_type="application/json")
