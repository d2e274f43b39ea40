"""Long lists, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import Query
from pydantic import Field

from northbound.answers import Answer

MAX_LIMIT: Final = 10_000
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="entries on a page")]
Offset = Annotated[int, Query(ge=0, le=10**9, description="entries before the page")]


class Page(Answer):
    """One page of a list, and where it lies in it."""

    total: int = Field(description="entries on all pages")
    offset: int
    limit: int


def page_of(name: str, entries: Sequence[Any], limit: int, offset: int) -> dict[str, Any]:
    """One page of the entries, under their name."""
    return {"total": len(entries), "offset": offset, "limit": limit, name: entries[offset : offset + limit]}
