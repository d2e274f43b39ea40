"""The REST API. Reads take the newest snapshot and never lock the loop; every route needs a token."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Query, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline

from northbound import answers, problems, views
from northbound.alarms_api import alarms_router
from northbound.archetypes_api import archetypes_router
from northbound.audit_api import audit_router
from northbound.dashboard.pages import dashboard_router
from northbound.demand_api import demand_router
from northbound.encoded import EncodedAnswers
from northbound.events_api import events_router
from northbound.forecasts_api import forecasts_router
from northbound.groups_api import GroupId, groups_router
from northbound.guard import put_in_force
from northbound.models_api import models_router
from northbound.policies_api import policies_router
from northbound.prometheus_api import prometheus_router
from northbound.remediation_api import remediation_router, webhooks_router
from northbound.security.audience import narrowed
from northbound.security.desk import Security
from northbound.session_api import session_router
from northbound.stream_api import stream_router
from northbound.topology_api import topology_router
from planner.snapshot import Operations, Snapshot, UnknownGroup

MAX_PAGE = 10_000
HISTORY_S = 3600.0
_JSON = "application/json"
#: The check itself is in front: ``guard.Guard``; ``security.document`` tells OpenAPI of every route.
_BEARER = Depends(HTTPBearer(auto_error=False, description="the token of northbound.token_file"))
_READ = problems.documented(421)


def create_app(
    operations: Operations,
    token: str,
    *,
    stale_after_s: float = 30.0,
    now: Callable[[], float] = time.time,
    security: Security | None = None,
) -> FastAPI:
    """The API over one planner.

    Parameters
    ----------
    operations :      What the planner shows and accepts.
    token :           With which all may be done.
    stale_after_s :   With the last tick older than this, /health answers 503.
    now :             Epoch seconds.
    security :        Who else may ask, and how much; none: only who has the token.
    """
    security = security or Security.of_token(token, now)
    whole, operations = operations, narrowed(operations)
    app = FastAPIOffline(
        redoc_url=None,
        title="Tidegate",
        version=_version(),
        description=_DESCRIPTION,
        # Null: the page asks nobody on the internet whether the document is valid.
        swagger_ui_parameters={"validatorUrl": None},
    )
    problems.install(app)
    app.include_router(_snapshots(operations))
    app.include_router(_questions(operations, stale_after_s, now))
    app.include_router(groups_router(operations, _BEARER))
    app.include_router(topology_router(operations, _BEARER))
    app.include_router(forecasts_router(operations, now))
    app.include_router(demand_router(operations))
    app.include_router(models_router(operations, _BEARER))
    app.include_router(policies_router(operations, _BEARER))
    app.include_router(archetypes_router(operations, _BEARER))
    app.include_router(events_router(operations, _BEARER, now))
    app.include_router(alarms_router(operations, _BEARER, now))
    app.include_router(remediation_router(operations, _BEARER))
    app.include_router(webhooks_router(operations, _BEARER))
    app.include_router(prometheus_router(operations, stale_after_s, now))
    app.include_router(stream_router(operations))
    app.include_router(dashboard_router(operations, now, stale_after_s))
    app.include_router(session_router(security))
    app.include_router(audit_router(security.audit))
    put_in_force(app, security, whole)
    return app


_DESCRIPTION = (
    "Mbit/s in bodies; up is towards the network. Null means: not known, or none. "
    "Errors are RFC 9457 problem documents."
)


def _version() -> str:
    try:
        return version("tidegate")
    except PackageNotFoundError:
        return "0+uninstalled"


def _snapshots(operations: Operations) -> APIRouter:
    """The reads that many make: bytes, encoded once a snapshot."""
    router = APIRouter(tags=["state"], responses=_READ)
    encoded = EncodedAnswers()

    async def answer(key: object, encode: Callable[[Snapshot], bytes]) -> Response:
        return Response(await encoded.get(operations.snapshot, key, encode), media_type=_JSON)

    @router.get("/plan", response_model=answers.PlanAnswer)
    async def show_plan() -> Response:
        """The meters that each switch shall hold."""
        return await answer("plan", views.plan)

    @router.get("/switches", response_model=answers.Switches)
    async def list_switches() -> Response:
        """The switches as last reported."""
        return await answer("switches", views.switches)

    @router.get("/metrics/global", response_model=answers.GlobalMetrics, responses=problems.documented(422))
    async def global_metrics(
        level: Annotated[answers.LevelName | None, Query(description="only this level")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="pools on a page")] = 1000,
        offset: Annotated[int, Query(ge=0, le=10**9, description="pools before the page")] = 0,
    ) -> Response:
        """Every pool of the tree: offered, forecast, grant, and what bound it."""
        encode = partial(views.global_metrics, level=level, offset=offset, limit=limit)
        return await answer(("pools", level, offset, limit), encode)

    return router


def _questions(operations: Operations, stale_after_s: float, now: Callable[[], float]) -> APIRouter:
    """The reads whose answer is made for the one who asks."""
    router = APIRouter(tags=["state"], responses=_READ)

    @router.get(
        "/health",
        response_model=answers.Health,
        responses={503: {"model": answers.Health, "description": "The planner's loop stands still."}},
    )
    async def show_health() -> Response:
        """Whether plans are being made: 200, and 503 once no tick came for too long.

        A degraded planner still plans, on fallbacks; restarting it would not help, so it is no 503.
        """
        report = views.health(operations.snapshot, now(), stale_after_s, _version())
        return JSONResponse(report, status_code=503 if report["status"] == "stalled" else 200)

    # The two below are not async: the planner may have to read its store.
    @router.get(
        "/metrics/group/{groupID}",
        response_model=answers.GroupMetrics,
        responses=problems.documented(404, 422),
    )
    def group_metrics(
        group_id: GroupId,
        history_s: Annotated[float, Query(gt=0, le=86400, description="seconds of history")] = HISTORY_S,
    ) -> Response:
        """One group now and in the recent past."""
        snapshot = operations.snapshot
        group = next((group for group in snapshot.groups if group.id == group_id), None)
        if group is None:
            raise UnknownGroup(group_id)
        history = operations.group_history(group_id, now() - history_s)
        return Response(views.encode(views.group_metrics(snapshot, group, history)), media_type=_JSON)

    @router.get("/summary", response_model=answers.Summary)
    def show_summary() -> Response:
        """Offered, forecast, grant and measured of each pool; and what simpler schemes would have given."""
        return Response(views.encode(views.plain(operations.summary())), media_type=_JSON)

    return router
