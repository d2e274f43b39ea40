"""One pool's forecast by REST: what is forecast now, and what was issued before beside what came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from northbound import problems, views
from northbound.answers import Answer, Series
from planner.issued import IssuedHistory
from planner.snapshot import Operations, PoolForecast

HISTORY_S = 6 * 3600.0
PoolPath = Annotated[
    str,
    Path(
        min_length=1,
        max_length=400,
        description="a pool's path, or the end of one: a user's id, or a group's that is in one region",
        examples=["global/west/studio/anna"],
    ),
]


class ForecastDirection(Answer):
    """The forecast in force in one direction."""

    rung: str | None = Field(description="which rung of the ladder made it")
    demand_bps: list[list[int | None]] = Field(description="by horizon, then by quantile, bit/s")
    coverage: list[list[float | None]] | None = Field(
        description="share of recent samples of its level below each quantile, by horizon; null: not known"
    )


class IssuedAt(Answer):
    """Forecasts issued so long before the step that they are for, one list a quantile."""

    horizon_s: float | None
    up: list[list[int | None]]
    down: list[list[int | None]]


class Issued(Answer):
    """Step by step: what came, and what had been forecast. Null: a gap, still to come, or not forecast."""

    time: list[float] = Field(description="epoch seconds, end of each step; the last are still to come")
    quantile: list[float | None]
    demand_bps: Series
    shortest: IssuedAt
    longest: IssuedAt


class PoolForecastAnswer(Answer):
    """One pool's forecast, now and before."""

    path: str
    time: float = Field(description="epoch seconds; the forecast knew nothing later")
    horizon_s: list[float]
    quantile: list[float]
    up: ForecastDirection
    down: ForecastDirection
    issued: Issued


def forecasts_router(operations: Operations, now: Callable[[], float]) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["state"], responses=problems.documented(421))

    # Not async: it may have to wait for the loop to write a step down.
    @router.get(
        "/forecasts/{pool:path}",
        response_model=PoolForecastAnswer,
        responses=problems.documented(404, 422),
    )
    def pool_forecast(
        pool: PoolPath,
        history_s: Annotated[float, Query(gt=0, le=30 * 86400, description="seconds of history")] = HISTORY_S,
    ) -> Response:
        """One pool's demand quantiles by horizon, and what was forecast before against what came."""
        found = operations.pool_forecast(pool, now() - history_s)
        return Response(views.encode(answer_of(found)), media_type="application/json")

    return router


def answer_of(found: PoolForecast) -> dict[str, Any]:
    """The answer as JSON has it: whole bit/s, null for what is not known."""
    directions = {
        name: {
            "rung": views.RUNG_NAMES.get(found.rung[d]),
            "demand_bps": [views.whole_bps(row) for row in found.demand_bps[d]],
            "coverage": None if found.coverage is None else views.plain(found.coverage[d]),
        }
        for d, name in enumerate(views.DIRECTION_NAMES)
    }
    return {
        "path": found.path,
        "time": found.end_time,
        "horizon_s": views.plain(found.horizon_s),
        "quantile": views.plain(found.quantile),
        **directions,
        "issued": _issued(*_aligned(*found.issued)),
    }


def _issued(up: IssuedHistory, down: IssuedHistory) -> dict[str, Any]:
    pair = dict(zip(views.DIRECTION_NAMES, (up, down), strict=True))

    def at(horizon: int) -> dict[str, Any]:
        return {
            "horizon_s": views.plain(up.horizon_s[horizon]),
            **{
                name: [views.whole_bps(row) for row in one.forecast_bps[:, horizon].T]
                for name, one in pair.items()
            },
        }

    return {
        "time": views.plain(up.time),
        "quantile": views.plain(up.quantile),
        "demand_bps": {name: views.whole_bps(one.demand_bps) for name, one in pair.items()},
        "shortest": at(0),
        "longest": at(1),
    }


def _aligned(up: IssuedHistory, down: IssuedHistory) -> tuple[IssuedHistory, IssuedHistory]:
    """Both over the same steps: the loop may have written one down between the two readings."""
    if np.array_equal(up.time, down.time):
        return up, down
    _, mine, theirs = np.intersect1d(up.time, down.time, return_indices=True)
    return up.at(mine), down.at(theirs)
