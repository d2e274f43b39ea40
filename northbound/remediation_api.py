"""Remediation, isolations and webhooks by REST: what is done, why, whether it helped, and who was told."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from fastapi.params import Depends
from pydantic import Field

from northbound import problems, views
from northbound.answers import Answer, Direction
from planner.remediation.steps import Step, step_to_dict
from planner.remediation.views import IsolationView
from planner.snapshot import NotThere, Operations

MAX_STEPS = 10_000
_JSON = "application/json"

StepId = Annotated[int, Path(alias="stepID", ge=1, le=2**53, description="a step's id")]
UserName = Annotated[str, Path(alias="user", min_length=1, max_length=128, description="a user's id")]
LetterId = Annotated[str, Path(alias="letterID", min_length=1, max_length=64, description="a message's id")]
Mode = Literal["off", "observe", "act"]
StandingName = Literal["tried", "helped", "ended", "undone", "proposed", "raised"]


class Trouble(Answer):
    """A place that is or was congested."""

    place: str = Field(description="a pool's path, or port DPID/NUMBER")
    direction: Direction = Field(description="of a port: up is into the switch")
    kind: str = Field(description="what tells of it: port_utilisation, port_drops, meter_drops, unmet_demand")
    value: float | None
    ticks_over: int = Field(description="ticks in a row at or above the threshold")
    ticks_well: int = Field(description="ticks in a row below that of being well")
    climbed: int = Field(description="rungs that were tried since it began")


class RateLimits(Answer):
    """The most that a user may have, bit/s; null: no limit in that direction."""

    up: float | None
    down: float | None


class StepAnswer(Answer):
    """One step: what was done, why, and whether it helped."""

    id: int
    rung: Literal["reallocate", "recompose", "scale", "isolate"]
    standing: StandingName = Field(
        description="tried, helped: in force; ended: helped, time over; undone: taken back; "
        "proposed: not done; raised: a scaling event"
    )
    helped: bool | None = Field(description="null: not known, or nothing was done")
    place: str
    direction: Direction
    kind: str = Field(description="the signal, or the alarm's kind")
    text: str = Field(description="what was done")
    why: str = Field(description="why, with figures")
    before: float | None = Field(description="the signal when it was done")
    after: float | None = Field(description="the signal when it was judged; null: not judged")
    evidence: dict[str, float | None]
    limits: dict[str, RateLimits] = Field(description="users held, and at what")
    lifted: list[str] = Field(description="pools whose ceiling was raised")
    apart: list[str] = Field(description="users taken out of their group")
    dropped: list[str] = Field(description="users all of whose packets are dropped")
    time: float = Field(description="epoch seconds at which it was done")
    changed: float = Field(description="epoch seconds of its last change")
    reason: str = Field(description="why it stands so; empty at first")


class Remediation(Answer):
    """How remediation stands."""

    congestion_mode: Mode
    isolation_mode: Mode
    acting: bool = Field(description="false: nothing is done while the plan is frozen or not live")
    troubles: list[Trouble]
    in_force: int = Field(description="steps whose changes hold now")
    steps: list[StepAnswer] = Field(description="the newest ones, oldest first")


class Isolation(Answer):
    """A user that is cut off."""

    user: str
    remaining_s: float = Field(description="until it ends by itself")
    step: StepAnswer


class Isolations(Answer):
    """Who is cut off."""

    isolations: list[Isolation]


class WebhookAnswer(Answer):
    """One webhook as it stands."""

    number: int = Field(description="its place in the configuration's list")
    address: str = Field(description="without what may be secret in it")
    events: list[str] = Field(description="what it is told; none: everything")
    waiting: int
    delivered: int
    failed: int = Field(description="tries that failed, since the start")
    dead: int = Field(description="messages put aside")
    last_success: float | None
    error: str = Field(description="what went wrong last; empty after a success")


class WebhooksAnswer(Answer):
    """All webhooks of the configuration."""

    webhooks: list[WebhookAnswer]


class DeadLetterAnswer(Answer):
    """A message that could not be delivered."""

    id: str
    webhook: int
    address: str
    event: str
    time: float = Field(description="epoch seconds at which it happened")
    given_up: float = Field(description="epoch seconds")
    attempts: int
    error: str


class DeadLetters(Answer):
    """What was given up, oldest first."""

    dead_letters: list[DeadLetterAnswer]


def remediation_router(operations: Operations, bearer: Depends) -> APIRouter:
    """The routes; writes carry ``bearer``. None is async: the loop may hold the record for a moment."""
    router = APIRouter(tags=["remediation"], responses=problems.documented(421))

    @router.get("/remediation", response_model=Remediation, responses=problems.documented(422))
    def show_remediation(
        limit: Annotated[int, Query(ge=1, le=MAX_STEPS, description="steps, the newest ones")] = 100,
    ) -> Response:
        """Places that are congested, steps in force, and the record of what was done and whether it helped."""
        view = operations.remediation.view()
        troubles = [{**vars(one), "direction": views.DIRECTION_NAMES[one.direction]} for one in view.troubles]
        return _answer(
            {
                **vars(view),
                "troubles": troubles,
                "in_force": sum(step.in_force for step in view.steps),
                "steps": [step_answer(step) for step in view.steps[-limit:]],
            }
        )

    @router.post(
        "/remediation/{stepID}/undo",
        response_model=StepAnswer,
        dependencies=[bearer],
        responses=problems.documented(401, 404, 408, 409, 413, 422),
    )
    def undo_step(step_id: StepId) -> Response:
        """Take back a step that is in force."""
        return _answer(step_answer(operations.remediation.undo(step_id)))

    @router.get("/isolations", response_model=Isolations)
    def list_isolations() -> Response:
        """Who is cut off, why, and for how long."""
        return _answer({"isolations": [_isolation(one) for one in operations.remediation.isolations()]})

    @router.get("/isolations/{user}", response_model=Isolation, responses=problems.documented(404, 422))
    def show_isolation(user: UserName) -> Response:
        """One of them."""
        for one in operations.remediation.isolations():
            if one.user == user:
                return _answer(_isolation(one))
        raise NotThere(f"user must be one that is isolated, got {user!r}")

    @router.delete(
        "/isolations/{user}",
        status_code=204,
        dependencies=[bearer],
        responses=problems.documented(401, 404, 408, 413, 422),
    )
    def lift_isolation(user: UserName) -> Response:
        """End an isolation. The user is left alone for as long as one lasts."""
        operations.remediation.lift(user)
        return Response(status_code=204)

    return router


def webhooks_router(operations: Operations, bearer: Depends) -> APIRouter:
    """The routes about webhooks; writes carry ``bearer``."""
    router = APIRouter(prefix="/webhooks", tags=["webhooks"], responses=problems.documented(421))

    @router.get("", response_model=WebhooksAnswer)
    def list_webhooks() -> Response:
        """Who is told of what, and how deliveries go."""
        return _answer({"webhooks": [vars(one) for one in operations.webhooks.view()]})

    @router.get("/dead-letters", response_model=DeadLetters)
    def list_dead_letters() -> Response:
        """Messages that could not be delivered."""
        return _answer({"dead_letters": [vars(one) for one in operations.webhooks.dead_letters()]})

    @router.post(
        "/dead-letters/{letterID}/retry",
        status_code=202,
        response_class=Response,
        response_model=None,
        dependencies=[bearer],
        responses=problems.documented(401, 404, 408, 413, 422),
    )
    def retry_dead_letter(letter_id: LetterId) -> Response:
        """Try one again, from the first attempt."""
        operations.webhooks.retry(letter_id)
        return Response(status_code=202)

    return router


def step_answer(step: Step) -> dict[str, Any]:
    """A step as it is answered."""
    raw = step_to_dict(step)
    measures = raw.pop("measures")
    for name in ("number", "sequence"):
        del raw[name]
    limits = {
        user: dict(zip(views.DIRECTION_NAMES, pair, strict=True)) for user, pair in measures["limits"].items()
    }
    return {
        **raw,
        "direction": views.DIRECTION_NAMES[step.direction],
        "helped": step.helped,
        "limits": limits,
        "lifted": sorted(measures["lifts"]),
        "apart": list(measures["apart"]),
        "dropped": list(measures["dropped"]),
    }


def _isolation(one: IsolationView) -> dict[str, Any]:
    return {"user": one.user, "remaining_s": one.remaining_s, "step": step_answer(one.step)}


def _answer(report: dict[str, Any]) -> Response:
    return Response(views.encode(views.plain(report)), media_type=_JSON)
