"""Errors as RFC 9457 problem documents: the title names path, rule and value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from northbound.security.headers import protect
from planner.config_faults import fault_lines
from planner.snapshot import NotThere, Refused, UnknownGroup

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """Why a request failed."""

    type: str = Field(default="about:blank", description="kind of problem; about:blank: what the status says")
    title: str = Field(description="one line: path, rule and value")
    status: int = Field(description="the HTTP status again")
    errors: list[str] = Field(default=[], description="every fault, where there is more than one")


class ProblemResponse(JSONResponse):
    """A problem document with its own media type."""

    media_type = MEDIA_TYPE


class Unusable(ValueError):
    """The request breaks a rule that no schema states: path, rule and value. Answered 422."""


def problem(
    status: int, title: str, errors: list[str] | None = None, headers: Mapping[str, str] | None = None
) -> ProblemResponse:
    """The answer that tells a client what was wrong."""
    body = Problem(title=title, status=status, errors=errors or [])
    return ProblemResponse(body.model_dump(), status_code=status, headers=headers)


def too_many(what: str, wait_s: float) -> ProblemResponse:
    """The answer to one who asks too often."""
    return problem(429, f"too many {what}: try again later", headers={"Retry-After": str(math.ceil(wait_s))})


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` that FastAPI writes into OpenAPI for these statuses."""
    schema = Problem.model_json_schema()
    return {
        status: {"description": _DESCRIPTIONS[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


_DESCRIPTIONS = {
    400: "The body could not be read, or the URL holds a secret.",
    401: "The token is missing, unknown, revoked or expired.",
    403: "The token's scope is too small, or its region or group is another.",
    404: "Nothing has this id.",
    408: "The body did not arrive in time.",
    409: "The planner refuses: the title names path, rule and value.",
    412: "What is to be changed is not what If-Match names: read it again.",
    413: "The body is too large.",
    415: "The body is of another media type.",
    421: "The Host header is not a name of the planner.",
    422: "The request breaks its schema: the title names path, rule and value.",
    429: "Too many requests, logins or refused tokens: Retry-After says when to try again.",
    503: "The planner stands still, is too busy, or cannot write its audit log.",
}


def install(app: FastAPI) -> None:
    """Make every error of the app a problem document."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(UnknownGroup, _unknown_group)
    app.add_exception_handler(NotThere, _not_there)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(Unusable, _unusable)
    # Starlette logs the traceback through the server; the client learns nothing of our insides.
    app.add_exception_handler(Exception, _unexpected)


def _http(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    title = str(error.detail)
    # The router's own two say nothing of what was asked.
    if title == HTTPStatus.NOT_FOUND.phrase:
        # Quoted: what a stranger made up is shown in no form that a browser could take for a page.
        title = f"path must be one of /openapi.json, got {_shown(quote(request.url.path))}"
    elif title == HTTPStatus.METHOD_NOT_ALLOWED.phrase:
        # Without the path: a pseudonym in it stands there as the user by now.
        title = (
            f"method must be one that /openapi.json has for this path, got {_shown(quote(request.method))}"
        )
    return problem(error.status_code, title, headers=error.headers)


def _shown(value: str) -> str:
    return repr(value[:100])


def _invalid(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes):
        # FastAPI parses no body that is not called JSON, as by curl -d without a header.
        media_type = request.headers.get("content-type", "")
        return problem(415, f"Content-Type must be application/json, got {_shown(media_type)}")
    faults: list[str] = []
    found = error.errors()
    for fault in found:
        if fault["type"] == "too_short" and any(_below(other["loc"], fault["loc"]) for other in found):
            # What is wrong in a list is left out before it is counted.
            continue
        if fault["type"] == "json_invalid":
            # Its location is a character's number, which is no path.
            faults.append(f"body must be JSON, got an error at character {fault['loc'][-1]}")
        else:
            faults += fault_lines([fault], {"body": error.body})
    faults = list(dict.fromkeys(faults))
    return problem(422, faults[0], faults if len(faults) > 1 else None)


def _below(place: tuple[int | str, ...], other: tuple[int | str, ...]) -> bool:
    """Whether one place in a body is within another."""
    return len(place) > len(other) and place[: len(other)] == other


def _unknown_group(_request: Request, error: Exception) -> ProblemResponse:
    return problem(404, f"groupID must be the id of a group, got {error.args[0] if error.args else ''!r}")


def _not_there(_request: Request, error: Exception) -> ProblemResponse:
    return problem(404, str(error))


def _refused(_request: Request, error: Exception) -> ProblemResponse:
    return problem(409, str(error))


def _unusable(_request: Request, error: Exception) -> ProblemResponse:
    return problem(422, str(error))


def _unexpected(request: Request, _error: Exception) -> ProblemResponse:
    answer = problem(500, "the planner failed to answer; its log says why")
    # Starlette makes this answer in front of the guard, which adds them to all others.
    protect(answer.raw_headers, request.url.path, request.url.scheme == "https")
    return answer
