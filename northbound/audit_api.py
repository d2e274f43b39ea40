"""The audit log by REST: who did what."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from northbound import problems, views
from northbound.answers import Answer
from planner.audit import AuditError, AuditLog


class AuditEntry(Answer):
    """One write or one automatic action. What operators do has a token's name as its actor."""

    n: int
    time: float = Field(description="epoch seconds")
    actor: str
    action: str
    target: str
    before: Any = Field(description="what was so; null: not known, or nothing")
    after: Any = Field(description="what was asked for, or is so now")
    outcome: str = Field(description="ok, or why not")
    prev: str = Field(description="hash of the entry before")
    hash: str


class AuditPage(Answer):
    """A part of the log, oldest first."""

    total: int = Field(description="entries in all")
    entries: list[AuditEntry]


def audit_router(audit: AuditLog | None) -> APIRouter:
    """The route; without a log there is nothing in it."""
    router = APIRouter(tags=["audit"])

    # Not async: a page is read from the disk.
    @router.get("/audit", response_model=AuditPage, responses=problems.documented(401, 403, 421, 422, 503))
    def show_audit(
        after: Annotated[
            int | None, Query(ge=0, le=2**53, description="entries above this number; absent: the newest")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="entries on a page")] = 100,
    ) -> Response:
        """Who did what. `tidegate audit verify` says whether the log is whole."""
        entries: list[dict[str, Any]] = []
        total = 0
        if audit is not None:
            try:
                if after is None:
                    after = max(0, audit.page(0, 0)[1] - limit)
                entries, total = audit.page(after, limit)
            except AuditError as error:
                return problems.problem(503, str(error))
        return Response(views.encode({"total": total, "entries": entries}), media_type="application/json")

    return router
