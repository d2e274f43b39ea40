"""The planner as one caller sees it: all of it, or the part that lies in its region or group."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final, cast

from northbound.security.callers import Caller
from northbound.security.territory import Territory
from planner.dry_run import Rehearsal
from planner.snapshot import Operations, Snapshot

#: Whoever the request under way is of; set by the guard, and seen in the threads that answer it.
CALLER: Final[ContextVar[Caller | None]] = ContextVar("caller", default=None)

#: What the writes of the request under way go to instead of the planner: a dry run's.
REHEARSAL: Final[ContextVar[Rehearsal | None]] = ContextVar("rehearsal", default=None)


class _Narrowed:
    """What ``Operations`` is, but for the snapshot."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._whole: Snapshot | None = None
        self._parts: dict[tuple[str | None, str | None], Snapshot] = {}

    def __getattr__(self, name: str) -> Any:
        # In a dry run writes go to a copy.
        return getattr(REHEARSAL.get() or self._operations, name)

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot, or the caller's part of it, made once."""
        whole, caller = self._operations.snapshot, CALLER.get()
        if caller is None or not caller.limited:
            return whole
        if whole is not self._whole:
            self._whole, self._parts = whole, {}
        key = (caller.region, caller.group)
        if key not in self._parts:
            self._parts[key] = Territory(caller, whole).part()
        return self._parts[key]


def narrowed(operations: Operations) -> Operations:
    """The same operations, whose snapshot is the caller's own."""
    return cast("Operations", _Narrowed(operations))
