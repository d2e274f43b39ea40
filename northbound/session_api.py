"""Logins: a token for a browser's session, and its end."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from northbound import problems
from northbound.answers import Answer
from northbound.security.audience import CALLER
from northbound.security.callers import Caller, Unrecognised
from northbound.security.desk import Security
from planner.config_block import Block


class Login(Block):
    """What a session is opened with."""

    token: Annotated[str, Field(min_length=1, max_length=8192)] = Field(
        description="a token; it goes nowhere but here"
    )


class Session(Answer):
    """Who is logged in, and what they may."""

    name: str
    scope: Literal["read", "operate", "admin"]
    region: str | None = Field(description="all that is shown lies in it; null: everywhere")
    group: str | None = Field(description="all that is shown lies in it; null: everywhere")
    users: bool = Field(description="whether users are shown by name")
    ends: float | None = Field(description="epoch seconds; null: never")


def session_router(security: Security) -> APIRouter:
    """The routes of logins."""
    router = APIRouter(prefix="/session", tags=["session"])

    @router.post(
        "",
        status_code=201,
        response_model=Session,
        responses=problems.documented(400, 401, 403, 408, 413, 421, 422, 429, 503),
    )
    async def log_in(body: Login, request: Request, response: Response) -> Session | Response:
        """Open a session: the answer sets a cookie that holds no token. Writes then send `Tidegate-CSRF: 1`."""
        address = request.client.host if request.client else ""
        now = security.now()
        if wait_s := security.logins.take(address, now):
            return problems.too_many("logins", wait_s)
        try:
            caller, own = await security.by_token(body.token.strip())
        except Unrecognised as error:
            await _noted(security, "nobody", address, f"refused: {error}")
            return problems.problem(401, f"token must be in force: {error}")
        value, ends = security.sessions.open(caller, own, now)
        response.headers["Set-Cookie"] = security.sessions.set_cookie(value, ends - now)
        await _noted(security, caller.name, address, "ok")
        return _session(caller, ends)

    @router.get("", response_model=Session, responses=problems.documented(401, 403, 421, 429, 503))
    async def show_session() -> Session:
        """Who asks, and what they may."""
        caller = CALLER.get()
        assert caller is not None, "the guard lets nobody through unrecognised"
        return _session(caller, caller.expires)

    @router.delete(
        "", status_code=204, response_class=Response, responses=problems.documented(401, 403, 421, 429, 503)
    )
    async def log_out(response: Response) -> None:
        """Take the cookie away."""
        response.headers["Set-Cookie"] = security.sessions.set_cookie("", 0)

    return router


async def _noted(security: Security, name: str, address: str, outcome: str) -> None:
    if security.audit is not None:
        await asyncio.to_thread(security.audit.note, name, "log in", address, None, None, outcome)


def _session(caller: Caller, ends: float) -> Session:
    return Session.model_validate(
        {
            "name": caller.name,
            "scope": caller.scope.name.lower(),
            "region": caller.region,
            "group": caller.group,
            "users": caller.sees_users,
            "ends": None if ends == float("inf") else ends,
        }
    )
