"""Plans by REST: the one that stands, those before it, and what is different between two."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from northbound import answers, problems, views
from northbound.answers import Answer, Direction
from northbound.encoded import UNCHANGED, EncodedAnswers, answer
from northbound.pages import MAX_LIMIT, Limit, Offset, Page, page_of
from planner.plan import Plan
from planner.plan_changes import MeterChange, Meters, meter_changes
from planner.snapshot import Operations

Version = Annotated[int | None, Query(ge=0, le=2**53)]


class PastPlan(Answer):
    """A plan that was published."""

    version: int
    time: float = Field(description="when it was decided, epoch seconds")
    mode: str
    layout_version: int
    switches: int
    meters: int


class PlanHistory(Page):
    """The published plan, and those that are kept to go back to; newest first."""

    plans: list[PastPlan]


class ChangedMeter(Answer):
    """A meter that differs. Null before: it is new; null after: it is gone."""

    dpid: str
    meter_id: int
    pool: str | None
    direction: Direction | None
    before_kbps: int | None
    after_kbps: int | None
    before_burst_kbit: int | None
    after_burst_kbit: int | None


class PlanDiff(Page):
    """The meters that differ between two plans, the largest change first."""

    before: PastPlan
    after: PastPlan
    changes: list[ChangedMeter]


def plan_router(operations: Operations) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["plans"], responses=problems.documented(421, 422))
    encoded = EncodedAnswers()

    @router.get("/plan", response_model=answers.PlanAnswer, responses=UNCHANGED)
    async def show_plan(request: Request, limit: Limit = MAX_LIMIT, offset: Offset = 0) -> Response:
        """The meters that each switch shall hold, by dpid; a page is so many switches."""
        encode = partial(views.plan, offset=offset, limit=limit)
        return answer(request, await encoded.get(operations.snapshot, (limit, offset), encode))

    @router.get("/plan/history", response_model=PlanHistory)
    def list_plans(limit: Limit = 100, offset: Offset = 0) -> dict[str, Any]:
        """Plans that were published, newest first; any two can be compared."""
        return page_of("plans", [_past(plan) for plan in operations.policy.plans()], limit, offset)

    @router.get("/plan/diff", response_model=PlanDiff, responses=problems.documented(404))
    def compare_plans(
        before: Annotated[
            Version, Query(alias="from", description="a plan's version; absent: the one before `to`")
        ] = None,
        after: Annotated[Version, Query(alias="to", description="absent: the published plan")] = None,
        limit: Limit = 1000,
        offset: Offset = 0,
    ) -> dict[str, Any]:
        """The meters that differ between two plans."""
        old, new = operations.policy.two_plans(before, after)
        changes = meter_changes(Meters(old.meters, old.layouts), Meters(new.meters, new.layouts))
        page = page_of("changes", [changed_meter(one) for one in changes], limit, offset)
        return {"before": _past(old), "after": _past(new), **page}

    return router


def changed_meter(change: MeterChange) -> dict[str, Any]:
    """The change as answers have it."""
    direction = None if change.direction is None else views.DIRECTION_NAMES[change.direction]
    return asdict(change) | {"dpid": f"{change.dpid:016x}", "direction": direction}


def _past(plan: Plan) -> dict[str, Any]:
    names = ("version", "time", "mode", "layout_version")
    return {
        **{name: getattr(plan, name) for name in names},
        "switches": len(plan.meters),
        "meters": sum(map(len, plan.meters.values())),
    }
