"""Ask for a forecast of demand: of a region, a group, a user, or one application class of a user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Response
from pydantic import Field, StringConstraints, model_validator

from northbound import problems, views
from northbound.answers import Answer
from northbound.forecasts_api import ApplicationForecast, ForecastDirection, applications_of, directions_of
from planner.config_block import Block
from planner.config_fields import Positive
from planner.snapshot import Level, NotThere, Operations, PoolForecast, Pools

#: Nothing of what was issued before is asked for.
_NO_HISTORY: Final = float("inf")
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class DemandQuestion(Block):
    """Whose demand, and how far ahead."""

    region: Name | None = Field(default=None, description="a region's name", examples=["west"])
    group: Name | None = Field(default=None, description="a group's id")
    user: Name | None = Field(default=None, description="a user's id")
    application: Name | None = Field(
        default=None, description="only this application class, of a user; absent: all, and the whole"
    )
    horizon_s: Positive | None = Field(default=None, description="one of forecasting.horizons_s")
    horizons_s: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="some of them; absent: all"
    )

    @model_validator(mode="after")
    def _one_of_each(self) -> DemandQuestion:
        if sum(name is not None for name in (self.region, self.group, self.user)) != 1:
            raise ValueError("must name exactly one of region, group and user")
        if self.application is not None and self.user is None:
            raise ValueError("must name a user with application: classes are forecast user by user")
        if self.horizon_s is not None and self.horizons_s is not None:
            raise ValueError("must hold at most one of horizon_s and horizons_s")
        return self

    @property
    def wanted_s(self) -> tuple[float, ...] | None:
        """The horizons asked for; None: all."""
        return (self.horizon_s,) if self.horizon_s is not None else self.horizons_s


class PoolDemand(Answer):
    """One pool's demand ahead."""

    path: str
    time: float = Field(description="epoch seconds; the forecast knew nothing later")
    application: str | None = Field(description="of which class this is; null: of all of it")
    up: ForecastDirection
    down: ForecastDirection
    applications: list[ApplicationForecast] = Field(
        description="a user's classes; their points add up to its own where all that carry traffic are here"
    )


class DemandAnswer(Answer):
    """Quantiles of demand. Those of several pools do not add up: ask for the pool above."""

    horizon_s: list[float]
    quantile: list[float]
    pools: list[PoolDemand] = Field(description="one; of a group, its part in each region")


def demand_router(operations: Operations) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["state"])

    # Not async: a forecast may have to be made.
    @router.post(
        "/predictDemand",
        response_model=DemandAnswer,
        responses=problems.documented(401, 404, 408, 413, 421, 422),
    )
    def predict_demand(body: DemandQuestion) -> Response:
        """Demand ahead by horizon and quantile, who forecast it, how often such forecasts held, and how sure it is."""
        found = [
            operations.pool_forecast(path, _NO_HISTORY, body.application)
            for path in _paths(operations.snapshot.pools, body)
        ]
        known = found[0].horizon_s.tolist()
        missing = [one for one in body.wanted_s or () if one not in known]
        if missing:
            offered = ", ".join(f"{one:g}" for one in known)
            name = "horizons_s" if body.horizon_s is None else "horizon_s"
            return problems.problem(422, f"body.{name} must be of {offered}, got {missing[0]:g}")
        rows = np.flatnonzero(np.isin(known, body.wanted_s or known))
        made = {
            "horizon_s": [known[row] for row in rows],
            "quantile": views.plain(found[0].quantile),
            "pools": [_pool(one, rows) for one in found],
        }
        return Response(views.encode(made), media_type="application/json")

    return router


def _paths(pools: Pools, asked: DemandQuestion) -> list[str]:
    """The pools that are asked for. Raises NotThere."""
    for kind, level, name in (
        ("region", Level.REGION, asked.region),
        ("group", Level.GROUP, asked.group),
        ("user", Level.USER, asked.user),
    ):
        if name is not None:
            found = [path for path in _at(pools, level) if path.rpartition("/")[2] == name]
            if not found:
                raise NotThere(f"body.{kind} must be a {kind} that is forecast, got {name!r}")
            return found
    raise AssertionError("the body names one of the three")


def _at(pools: Pools, level: Level) -> Iterator[str]:
    return (pools.path[row] for row in np.flatnonzero(pools.level == level))


def _pool(found: PoolForecast, rows: npt.NDArray[np.intp]) -> dict[str, Any]:
    return {
        "path": found.path,
        "time": found.end_time,
        "application": found.application,
        **directions_of(found, rows),
        "applications": applications_of(found, rows),
    }
