"""The REST API. Reads take the newest snapshot and never lock the loop; every route needs a token."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline

from northbound import problems
from northbound.alarms_api import alarms_router
from northbound.archetypes_api import archetypes_router
from northbound.audit_api import audit_router
from northbound.dashboard.pages import dashboard_router
from northbound.demand_api import demand_router
from northbound.events_api import events_router
from northbound.findings_api import findings_router
from northbound.forecasts_api import forecasts_router
from northbound.groups_api import groups_router
from northbound.guard import put_in_force
from northbound.metrics_api import metrics_router
from northbound.models_api import models_router
from northbound.plan_api import plan_router
from northbound.policies_api import policies_router
from northbound.preconditions import Preconditions
from northbound.prometheus_api import prometheus_router
from northbound.remediation_api import remediation_router, webhooks_router
from northbound.security.audience import narrowed
from northbound.security.desk import Security
from northbound.session_api import session_router
from northbound.shaping_api import shaping_router
from northbound.state_api import state_router
from northbound.stream_api import stream_router
from northbound.topology_api import topology_router
from northbound.versioned import SERVERS, Versioned
from northbound.writes import add_writes
from planner.snapshot import Operations

#: The check itself is in front: ``guard.Guard``; ``security.document`` tells OpenAPI of every route.
_BEARER = Depends(HTTPBearer(auto_error=False, description="the token of northbound.token_file"))


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
        servers=list(SERVERS),
        # Null: the page asks nobody on the internet whether the document is valid.
        swagger_ui_parameters={"validatorUrl": None},
    )
    problems.install(app)
    preconditions = Preconditions()
    app.include_router(state_router(operations, stale_after_s, now, _version()))
    app.include_router(metrics_router(operations, now))
    app.include_router(plan_router(operations))
    app.include_router(findings_router(operations))
    app.include_router(groups_router(operations, _BEARER, preconditions))
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
    app.include_router(shaping_router(operations, _BEARER, preconditions))
    app.include_router(stream_router(operations))
    app.include_router(dashboard_router(operations, now, stale_after_s))
    app.include_router(session_router(security))
    app.include_router(audit_router(security.audit))
    add_writes(app, operations, now)
    put_in_force(app, security, whole)
    app.add_middleware(Versioned)
    return app


_DESCRIPTION = (
    "Forecast demand, grants and meters of an OpenFlow network. Rates are bit/s of frames in answers and "
    "Mbit/s in bodies; up is towards the network. Null means: not known, or none. "
    "Errors are RFC 9457 problem documents."
)


def _version() -> str:
    try:
        return version("tidegate")
    except PackageNotFoundError:
        return "0+uninstalled"
