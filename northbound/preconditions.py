"""Against lost updates: what is changed must be what the client has seen (``If-Match``)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

from fastapi import Header, HTTPException

from northbound import views
from northbound.encoded import matches, tag_of

IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", max_length=1000, description="the ETag that was read: change that, or nothing"),
]
_CHANGED: Final = "If-Match must be the ETag of what is there now, got another: read it again"


def tag_of_entity(entity: dict[str, Any]) -> str:
    """The tag of an entity as it is answered."""
    return tag_of(views.encode(entity))


class Preconditions:
    """Lets one write at a time be compared with what is there, and be made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, if_match: str | None, tag: Callable[[], str | None]) -> Iterator[None]:
        """Make a write inside this. ``tag`` gives that of the entity as it is; None where that cannot be told.

        Raises
        ------
        HTTPException : 412, if the client has seen another.
        """
        with self._lock:
            if if_match is not None:
                found = tag()
                if found is None or not matches(found, if_match):
                    raise HTTPException(412, _CHANGED)
            yield
