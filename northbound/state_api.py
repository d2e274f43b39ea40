"""How the planner is, by REST: its health, the switches, and what it was worth so far."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from northbound import answers, problems, views
from northbound.encoded import UNCHANGED, EncodedAnswers, answer
from northbound.pages import MAX_LIMIT, Limit, Offset, page_of
from planner.snapshot import Operations


def state_router(
    operations: Operations, stale_after_s: float, now: Callable[[], float], version: str
) -> APIRouter:
    """The routes; ``version`` is Tidegate's own."""
    router = APIRouter(tags=["state"], responses=problems.documented(421))
    encoded = EncodedAnswers()

    @router.get(
        "/health",
        response_model=answers.Health,
        responses={503: {"model": answers.Health, "description": "The planner's loop stands still."}},
    )
    async def show_health() -> Response:
        """Whether plans are being made: 200, and 503 once no tick came for too long.

        A degraded planner still plans, on fallbacks; restarting it would not help, so it is no 503.
        """
        report = views.health(operations.snapshot, now(), stale_after_s, version)
        return JSONResponse(report, status_code=503 if report["status"] == "stalled" else 200)

    @router.get("/switches", response_model=answers.Switches, responses=UNCHANGED | problems.documented(422))
    async def list_switches(request: Request, limit: Limit = MAX_LIMIT, offset: Offset = 0) -> Response:
        """The switches as last reported."""
        encode = partial(views.switches, offset=offset, limit=limit)
        return answer(request, await encoded.get(operations.snapshot, (limit, offset), encode))

    # Not async: it waits for the loop to end its tick.
    @router.get("/summary", response_model=answers.Summary, responses=problems.documented(422))
    def show_summary(limit: Limit = MAX_LIMIT, offset: Offset = 0) -> Response:
        """Offered, forecast, grant and measured of each pool; and what simpler schemes would have given."""
        report = operations.summary()
        report |= page_of("pools", report["pools"], limit, offset)
        return Response(views.encode(views.plain(report)), media_type="application/json")

    return router
