"""Dry runs: ``dryRun=true`` has a write made to a copy of the planner, and answers which meters that would change."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

from pydantic import Field
from starlette.types import ASGIApp, Receive, Scope, Send

from northbound import views
from northbound.answers import Answer
from northbound.captured import Captured
from northbound.plan_api import ChangedMeter, changed_meter
from northbound.problems import ProblemResponse, problem
from northbound.security.audience import CALLER, REHEARSAL
from northbound.security.territory import Territory
from planner.dry_run import Rehearsal
from planner.snapshot import Operations, Refused

#: The second name is for those who are used to it.
PARAMETERS: Final = ("dryRun", "dry_run")
_NAMES: Final = frozenset(name.lower() for name in PARAMETERS)
MAX_CHANGES: Final = 10_000
_WRITES: Final = (
    ("POST", "/groups/create"),
    ("PUT", "/groups/{groupID}/bandwidth"),
    ("PUT", "/groups/{groupID}/members"),
    ("DELETE", "/groups/{groupID}"),
    ("POST", "/groups/{groupID}/pins/{user}"),
    ("DELETE", "/groups/{groupID}/pins/{user}"),
    ("POST", "/boosts"),
    ("DELETE", "/boosts/{boostID}"),
    ("POST", "/updateTrafficShape"),
    ("DELETE", "/trafficShapes/{shapeID}"),
)
#: Writes that try themselves: what they change is no meter's rate by itself.
_BY_THEMSELVES: Final = (("POST", "/events/import"),)
_STATE: Final = "dry_run"
_PATTERNS: Final = [(method, re.compile(re.sub(r"{\w+}", "[^/]+", path))) for method, path in _WRITES]


class DryRun(Answer):
    """What a write would change. Nothing was changed."""

    dry_run: Literal[True]
    mode: str = Field(description="live, canary or shadow: whether plans reach the switches at all")
    frozen: bool = Field(description="true: nothing would change before the plan is unfrozen")
    total: int = Field(description="meters that would differ; the largest changes are listed")
    meters: list[ChangedMeter] = Field(description="use and forecasts are those of the newest decision")


def can_be_tried(method: str, path: str) -> bool:
    """Whether a write, by its path or by the pattern of it, has a dry run."""
    return (method, path) in _WRITES or any(
        method == own and pattern.fullmatch(path) for own, pattern in _PATTERNS
    )


def tries_itself(method: str, path: str) -> bool:
    """Whether a write has a dry run of its own, and asks ``asks_dry_run``."""
    return (method, path) in _BY_THEMSELVES


def asks_dry_run(scope: Scope) -> bool:
    """Whether this request to a write that tries itself is to change nothing."""
    return bool(scope.get("state", {}).get(_STATE, False))


class Rehearsing:
    """Answers dry runs; all else goes on."""

    def __init__(self, app: ASGIApp, operations: Operations) -> None:
        self._app = app
        self._operations = operations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, as ASGI wants it."""
        asked = (
            scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS") and _asked(scope)
        )
        if not asked:
            await self._app(scope, receive, send)
            return
        if asked is not True:
            await asked(scope, receive, send)
            return
        if tries_itself(scope["method"], scope["path"]):
            scope.setdefault("state", {})[_STATE] = True
            await self._app(scope, receive, send)
            return
        if not can_be_tried(scope["method"], scope["path"]):
            refusal = "query.dryRun must be of a write to groups, boosts or traffic shapes, or of an import of events"
            await problem(422, refusal)(scope, receive, send)
            return
        try:
            rehearsal = await asyncio.to_thread(self._operations.rehearse)
        except Refused as error:
            await problem(409, str(error))(scope, receive, send)
            return
        captured = Captured()
        reset = REHEARSAL.set(rehearsal)
        try:
            await self._app(scope, receive, captured.send)
        finally:
            REHEARSAL.reset(reset)
        if captured.status >= 300:
            await captured.replay(send)
            return
        answer = await asyncio.to_thread(self._outcome, rehearsal)
        await Captured.of_json(200, views.encode(answer)).replay(send)

    def _outcome(self, rehearsal: Rehearsal) -> dict[str, Any]:
        changes, caller = rehearsal.outcome(), CALLER.get()
        if caller is not None and caller.limited:
            territory = Territory(caller, self._operations.snapshot)
            changes = tuple(one for one in changes if one.pool is not None and territory.holds(one.pool))
        stance = self._operations.policy.plan_state().stance
        return {
            "dry_run": True,
            "mode": stance.mode,
            "frozen": stance.frozen,
            "total": len(changes),
            "meters": [changed_meter(one) for one in changes[:MAX_CHANGES]],
        }


def _asked(scope: Scope) -> bool | ProblemResponse:
    """Whether a dry run is asked for, or why that cannot be told."""
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    # In any spelling: what was meant as a trial must not be made.
    values = {value.lower() for name, value in query if name.lower().replace("-", "_") in _NAMES}
    if not values <= {"true", "false", "1", "0"} or len(values) > 1:
        return problem(422, f"query.dryRun must be true or false, got {', '.join(sorted(values))[:40]!r}")
    return bool(values & {"true", "1"})
