"""What happened to groups: a bounded history of numbered events that survives a restart."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

EventKind = Literal[
    "forming",
    "active",
    "dissolving",
    "dissolved",
    "joined",
    "left",
    "split",
    "merged",
    "pinned",
    "unpinned",
    "member-pinned",
    "member-unpinned",
    "forbidden",
    "allowed",
]

#: Of a larger event so many members are kept by name: its size says how many there were.
_NAMES: Final = 100


@dataclass(frozen=True)
class GroupEvent:
    """Something that happened to a group; ``members`` are those it concerns.

    ``other`` is the group that a new one split from, or that one merged into. Of a pair that is
    forbidden or allowed again ``group_id`` is empty.
    """

    time: float
    kind: EventKind
    group_id: str
    members: frozenset[str]
    reason: str
    other: str = ""


@dataclass(frozen=True)
class LoggedEvent:
    """An event as it is kept. Ids rise by one."""

    id: int
    time: float
    kind: str
    group_id: str
    #: By name, a hundred at most.
    members: tuple[str, ...]
    size: int
    reason: str
    other: str = ""


class GroupLog:
    """The latest ``keep`` events."""

    def __init__(self, keep: int = 1000) -> None:
        self._events: deque[LoggedEvent] = deque(maxlen=keep)
        self._last = 0

    def add(self, events: Iterable[GroupEvent]) -> None:
        """Keep these."""
        for event in events:
            self._last += 1
            names = tuple(sorted(event.members)[:_NAMES])
            size, reason = len(event.members), event.reason
            self._events.append(
                LoggedEvent(
                    self._last, event.time, event.kind, event.group_id, names, size, reason, event.other
                )
            )

    def of(self, group_id: str | None = None, since: int = 0) -> tuple[LoggedEvent, ...]:
        """The events of a group, or of all, with greater ids; oldest first."""
        return tuple(
            event
            for event in self._events
            if event.id > since and (group_id is None or group_id in (event.group_id, event.other))
        )

    def to_list(self) -> list[Any]:
        """The log as JSON-able values."""
        rows = [
            [e.time, e.kind, e.group_id, list(e.members), e.size, e.reason, e.other] for e in self._events
        ]
        return [self._last, rows]

    @classmethod
    def from_list(cls, raw: Sequence[Any]) -> GroupLog:
        """The log that ``to_list`` gave. Raises TypeError, ValueError."""
        log = cls()
        last, rows = raw
        log._last = int(last)
        for number, (time, kind, group_id, members, size, reason, other) in enumerate(
            rows, log._last - len(rows) + 1
        ):
            log._events.append(
                LoggedEvent(
                    number,
                    float(time),
                    str(kind),
                    str(group_id),
                    tuple(map(str, members)),
                    int(size),
                    str(reason),
                    str(other),
                )
            )
        return log
