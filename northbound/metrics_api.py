"""Rates by REST: every pool now, and each region's, group's and user's past at any resolution."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from northbound import answers, problems, views
from northbound.answers import Answer, Series
from northbound.bodies import Name
from northbound.encoded import UNCHANGED, EncodedAnswers, answer
from northbound.groups_api import GroupId
from northbound.problems import Unusable
from northbound.security.audience import CALLER
from planner.pool_names import rows_ending
from planner.rates import RateHistory
from planner.snapshot import Level, Operations, Pools, UnknownGroup

MAX_PAGE: Final = 10_000
MAX_POINTS: Final = 10_000
MAX_SPAN_S: Final = 400 * 86400.0
HISTORY_S: Final = 3600.0

Region = Annotated[Name, Path(alias="region", description="a region's name")]
User = Annotated[Name, Path(alias="user", description="a user's id")]
Moment = Annotated[float | None, Query(ge=0, le=1e11, allow_inf_nan=False)]


class Gaps(Answer):
    """How many of the samples of each point are missing."""

    up: list[int]
    down: list[int]


class RatesPast(Answer):
    """The past as columns of one length; null is a gap."""

    resolution_s: float = Field(description="each point is the mean of so many seconds")
    time: list[float | None] = Field(description="when each point ends, epoch seconds")
    offered_bps: Series
    grant_bps: Series = Field(description="null before what is remembered tick by tick, an hour at most")
    gaps: Gaps


class PoolMetrics(Answer):
    """One pool now and in the past."""

    time: float
    current: answers.Pool | None = Field(description="null: it is not on the network now")
    history: RatesPast


class GroupMetrics(Answer):
    """A group now and in the past."""

    time: float
    group: answers.Group
    current: answers.GroupCurrent
    parts: list[answers.Pool] = Field(description="its pools, one for each region")
    history: RatesPast


class GlobalMetrics(answers.GlobalMetrics):
    """One page of pools, parents first; with a range of time, what the whole network was offered then."""

    history: RatesPast | None = Field(default=None, description="of the root; null: no range was asked for")


class Span:
    """The range of time that a request asks for."""

    def __init__(
        self, start: float | None, end: float | None, resolution_s: float | None, history_s: float | None
    ) -> None:
        self._start, self._end, self._history_s = start, end, history_s
        self.resolution_s = resolution_s

    @property
    def asked(self) -> bool:
        """Whether anything of it was."""
        return any(one is not None for one in (self._start, self._end, self._history_s, self.resolution_s))

    def bounds(self, now: float) -> tuple[float, float]:
        """Start and end, epoch seconds. Raises Unusable."""
        if self._start is not None and self._history_s is not None:
            raise Unusable("query.history_s must be absent where there is a start, got both")
        end = now if self._end is None else min(self._end, now)
        start = end - (self._history_s or HISTORY_S) if self._start is None else self._start
        if not start < end:
            raise Unusable(f"query.start must be before the end {end:.0f}, got {start:.0f}")
        if end - start > MAX_SPAN_S:
            raise Unusable(f"query.start must be at most {MAX_SPAN_S / 86400:.0f} days before the end")
        if self.resolution_s is not None and (end - start) / self.resolution_s > MAX_POINTS:
            least = (end - start) / MAX_POINTS
            raise Unusable(
                f"query.resolution_s must be >= {least:.4g} for so long a range, got {self.resolution_s:g}"
            )
        return start, end


# Async although it waits for nothing: for any other dependency the framework changes threads.
async def _span(
    start: Annotated[Moment, Query(description="epoch seconds; absent: history_s before the end")] = None,
    end: Annotated[Moment, Query(description="epoch seconds; absent: now")] = None,
    resolution_s: Annotated[
        float | None,
        Query(ge=1, le=7 * 86400, allow_inf_nan=False, description="seconds to a point; absent: the finest"),
    ] = None,
    history_s: Annotated[
        float | None, Query(gt=0, le=MAX_SPAN_S, description="instead of a start: seconds before the end")
    ] = None,
) -> Span:
    return Span(start, end, resolution_s, history_s)


def metrics_router(operations: Operations, now: Callable[[], float]) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["metrics"], responses=problems.documented(421, 422))
    encoded = EncodedAnswers()

    def past(level: Level, name: str, span: Span) -> dict[str, Any]:
        start, end = span.bounds(now())
        return _past(operations.rate_history(level, name, start, end, span.resolution_s))

    @router.get("/metrics/global", response_model=GlobalMetrics, responses=UNCHANGED)
    async def global_metrics(
        request: Request,
        span: Annotated[Span, Depends(_span)],
        level: Annotated[answers.LevelName | None, Query(description="only this level")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="pools on a page")] = 1000,
        offset: Annotated[int, Query(ge=0, le=10**9, description="pools before the page")] = 0,
    ) -> Response:
        """Every pool of the tree: offered, forecast, grant, and what bound it."""
        encode = partial(views.global_metrics, level=level, offset=offset, limit=limit)
        page = await encoded.get(operations.snapshot, (level, offset, limit), encode)
        if not span.asked:
            return answer(request, page)
        caller = CALLER.get()
        if caller is not None and caller.limited:
            # Who is shown a part of the network is not told what all of it was offered.
            raise HTTPException(
                403, "token must not be limited to a region or group for a range of time here"
            )
        history = await run_in_threadpool(past, Level.GLOBAL, "", span)
        body = page.body[:-1] + b',"history":' + views.encode(history) + b"}"
        return Response(body, media_type="application/json")

    # The others are not async: the planner may have to read its store.
    @router.get("/metrics/region/{region}", response_model=PoolMetrics, responses=problems.documented(404))
    def region_metrics(region: Region, span: Annotated[Span, Depends(_span)]) -> Response:
        """One region now and in the past."""
        return _pool(operations, Level.REGION, region, past(Level.REGION, region, span))

    @router.get("/metrics/user/{user}", response_model=PoolMetrics, responses=problems.documented(404))
    def user_metrics(user: User, span: Annotated[Span, Depends(_span)]) -> Response:
        """One user now and in the past."""
        return _pool(operations, Level.USER, user, past(Level.USER, user, span))

    @router.get("/metrics/group/{groupID}", response_model=GroupMetrics, responses=problems.documented(404))
    def group_metrics(group_id: GroupId, span: Annotated[Span, Depends(_span)]) -> Response:
        """One group now and in the past."""
        snapshot = operations.snapshot
        group = next((group for group in snapshot.groups if group.id == group_id), None)
        if group is None:
            raise UnknownGroup(group_id)
        found = views.group_metrics(snapshot, group, past(Level.GROUP, group_id, span))
        return Response(views.encode(found), media_type="application/json")

    return router


def _pool(operations: Operations, level: Level, name: str, history: dict[str, Any]) -> Response:
    snapshot = operations.snapshot
    row = _row(snapshot.pools, level, name)
    found = {
        "time": views.plain(snapshot.time),
        "current": None if row is None else next(views.pool_rows(snapshot.pools, np.array([row]))),
        "history": history,
    }
    return Response(views.encode(found), media_type="application/json")


def _row(pools: Pools, level: Level, name: str) -> int | None:
    return next((row for row in rows_ending(pools.path, name) if pools.level[row] == level), None)


def _past(found: RateHistory) -> dict[str, Any]:
    """The answer as JSON has it."""
    rates = {"offered_bps": found.offered_bps, "grant_bps": found.grant_bps}
    return {
        "resolution_s": found.resolution_s,
        "time": found.time.tolist(),
        **{
            key: dict(zip(views.DIRECTION_NAMES, map(views.whole_bps, pair), strict=True))
            for key, pair in rates.items()
        },
        "gaps": dict(zip(views.DIRECTION_NAMES, found.gaps.tolist(), strict=True)),
    }
