"""Forecasts by REST: one pool's, now and before, beside what came; and how good all of them have been."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from forecasting.contest import Contestant
from forecasting.segments import class_of, level_of
from northbound import problems, views
from northbound.answers import Answer, Direction, Series
from planner.issued import IssuedHistory
from planner.snapshot import ForecastQuality, Operations, PoolForecast

HISTORY_S = 6 * 3600.0
#: Which horizons: a slice, or their places.
Rows = slice | npt.NDArray[np.intp]
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
        description="share of the last day's samples of its level below each quantile, by horizon; null: not known"
    )
    point_bps: list[int | None] | None = Field(
        description="medians made to add up the tree, by horizon; null: not known"
    )
    confidence: list[float | None] | None = Field(
        description="probability that demand stays within a fifth of the median, by horizon; null: not known"
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


class ApplicationForecast(Answer):
    """The forecast of one application class of a user."""

    application: str
    time: float = Field(description="epoch seconds; the forecast knew nothing later")
    up: ForecastDirection
    down: ForecastDirection


class PoolForecastAnswer(Answer):
    """One pool's forecast, now and before."""

    path: str
    application: str | None = Field(description="of which application class this is; null: of all of it")
    time: float = Field(description="epoch seconds; the forecast knew nothing later")
    horizon_s: list[float]
    quantile: list[float]
    up: ForecastDirection
    down: ForecastDirection
    issued: Issued
    applications: list[ApplicationForecast] = Field(
        description="a user's application classes that carry traffic; their points add up to its own"
    )


#: A level of the tree, or a user's application classes.
ForecastLevel = Literal["global", "region", "group", "user", "application"]
ContestantName = Literal["model", "persistence", "recent"]


class LevelCoverage(Answer):
    """How often what came of one level's forecasts lay below each quantile; that quantile is the aim."""

    level: ForecastLevel
    direction: Direction
    horizon_s: float
    hour: list[float | None] = Field(description="share of the last hour's samples, by quantile; null: none")
    day: list[float | None] = Field(description="... of the last day's")
    n_day: int = Field(description="samples of the last day")
    drifting: bool = Field(
        description="the hour's outermost band is too narrow or too wide by more than chance"
    )


class Losses(Answer):
    """Mean pinball loss over a series' own level, lately; less is better. Null: no evidence."""

    model: float | None
    persistence: float | None
    recent: float | None


class SegmentHorizon(Answer):
    """Whose forecast one kind of traffic gets at one horizon."""

    level: ForecastLevel
    direction: Direction
    traffic: str = Field(description="kind of traffic")
    horizon_s: float
    champion: ContestantName
    loss: Losses


class ChampionChange(Answer):
    """A champion gave way."""

    time: float
    level: ForecastLevel
    direction: Direction
    traffic: str
    horizon_s: float
    before: ContestantName
    after: ContestantName
    before_loss: float | None
    after_loss: float | None


class LiveScore(Answer):
    """Mean pinball loss on what came lately, all segments and horizons together; less is better."""

    model: float
    persistence: float


class ForecastQualityAnswer(Answer):
    """How good the forecasts have been."""

    time: float | None = Field(description="epoch seconds of the forecast in force; null before the first")
    quantile: list[float]
    horizon_s: list[float]
    live_score: LiveScore | None = Field(description="null: too little has come due")
    coverage: list[LevelCoverage]
    champions: list[SegmentHorizon] = Field(description="segments that anything is known of")
    changes: list[ChampionChange] = Field(description="of champions, oldest first, the latest 200")


def forecasts_router(operations: Operations, now: Callable[[], float]) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["state"], responses=problems.documented(421))

    # Not async: it waits for the loop to end its tick.
    @router.get("/forecasts", response_model=ForecastQualityAnswer)
    def forecast_quality() -> Response:
        """How often forecasts held what they say, who makes them, and how much better than persistence."""
        found = quality_of(operations.forecast_quality())
        return Response(views.encode(views.plain(found)), media_type="application/json")

    # Not async: it may have to wait for the loop to write a step down.
    @router.get(
        "/forecasts/{pool:path}",
        response_model=PoolForecastAnswer,
        responses=problems.documented(404, 422),
    )
    def pool_forecast(
        pool: PoolPath,
        history_s: Annotated[float, Query(gt=0, le=30 * 86400, description="seconds of history")] = HISTORY_S,
        application: Annotated[
            str | None, Query(max_length=200, description="of a user: only this application class")
        ] = None,
    ) -> Response:
        """One pool's demand quantiles by horizon, and what was forecast before against what came."""
        found = operations.pool_forecast(pool, now() - history_s, application)
        return Response(views.encode(answer_of(found)), media_type="application/json")

    return router


def answer_of(found: PoolForecast) -> dict[str, Any]:
    """The answer as JSON has it: whole bit/s, null for what is not known."""
    return {
        "path": found.path,
        "time": found.end_time,
        "horizon_s": views.plain(found.horizon_s),
        "quantile": views.plain(found.quantile),
        "application": found.application,
        **directions_of(found),
        "issued": _issued(*_aligned(*found.issued)),
        "applications": applications_of(found),
    }


def directions_of(found: PoolForecast, horizons: Rows = slice(None)) -> dict[str, Any]:
    """Both directions at some horizons, as ``ForecastDirection`` has it."""
    return {
        name: {
            "rung": views.RUNG_NAMES.get(found.rung[d]),
            "demand_bps": [views.whole_bps(row) for row in found.demand_bps[d][horizons]],
            "coverage": None if found.coverage is None else views.plain(found.coverage[d][horizons]),
            "point_bps": None if found.point_bps is None else views.whole_bps(found.point_bps[d][horizons]),
            "confidence": None if found.confidence is None else views.plain(found.confidence[d][horizons]),
        }
        for d, name in enumerate(views.DIRECTION_NAMES)
    }


def applications_of(found: PoolForecast, horizons: Rows = slice(None)) -> list[dict[str, Any]]:
    """A user's classes, as ``ApplicationForecast`` has them."""
    return [
        {"application": one.application, "time": one.end_time, **directions_of(one, horizons)}
        for one in found.applications
    ]


def quality_of(found: ForecastQuality) -> dict[str, Any]:
    """The answer, with NaN for what is not known."""
    known = np.argwhere(np.isfinite(found.loss).any(axis=2))
    horizon_s = found.horizon_s.tolist()
    score = found.live_score
    return {
        "time": found.end_time,
        "quantile": found.quantile.tolist(),
        "horizon_s": horizon_s,
        "live_score": None if score is None else {"model": score[0], "persistence": score[1]},
        "coverage": [
            {
                **_level(one.level),
                "horizon_s": one.horizon_s,
                "hour": one.hour.tolist(),
                "day": one.day.tolist(),
                "n_day": one.n_day,
                "drifting": one.drifting,
            }
            for one in found.coverage
        ],
        "champions": [
            {
                **_segment(segment),
                "horizon_s": horizon_s[horizon],
                "champion": _name(found.champion[segment, horizon]),
                "loss": {_name(one): float(found.loss[segment, horizon, one]) for one in Contestant},
            }
            for segment, horizon in known.tolist()
        ],
        "changes": [
            {
                "time": change.time,
                **_segment(change.segment),
                "horizon_s": horizon_s[change.horizon],
                "before": _name(change.before),
                "after": _name(change.after),
                "before_loss": change.before_loss,
                "after_loss": change.after_loss,
            }
            for change in found.changes
        ],
    }


def _segment(segment: int) -> dict[str, str]:
    return {**_level(level_of(segment)), "traffic": class_of(segment)}


def _level(level: int) -> dict[str, str]:
    """What a forecaster's level is called: upload and download have one each."""
    name, direction = views.forecaster_level(level)
    return {"level": name, "direction": direction}


def _name(contestant: int) -> str:
    return Contestant(int(contestant)).name.lower()


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
