"""The body of one multipart reply, kept as bytes until somebody wants it.

Ryu builds an object per entry by calling ``parser(buf, offset)`` of a registered
class until the message is used up. ``StatsBody`` is such a class and claims the
whole message at once. The bytes are looked at only when the application decodes
them, so a corrupt reply is the application's to report, with the switch's name.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_HEADER = struct.Struct("!BBHI")
REPLY_MORE = 1


@dataclass(frozen=True)
class StatsBody:
    """What one multipart message holds behind its header."""

    raw: memoryview

    @property
    def length(self) -> int:
        """How far Ryu shall advance: to the end of the message."""
        return len(self.raw)

    @classmethod
    def parser(cls, buf: bytes, offset: int) -> StatsBody:
        """The body of the message in ``buf``; Ryu calls this with the offset behind the header."""
        end: int = _HEADER.unpack_from(buf)[2]
        return cls(memoryview(buf)[offset:end])


@dataclass
class Assembler:
    """Collects the messages of multipart replies until each is complete.

    One per switch. A reply that never completes stays until it is forgotten:
    call ``forget`` when its request has timed out, or ``clear`` on a new connection.
    """

    _waiting: dict[int, list[StatsBody]] = field(default_factory=dict)

    def add(self, xid: int, bodies: list[StatsBody], flags: int) -> list[StatsBody] | None:
        """The whole reply's bodies if this message was its last, else None.

        ``bodies`` is the message's ``body``: one ``StatsBody``, or none if the reply is empty.
        """
        so_far = self._waiting.setdefault(xid, [])
        so_far.extend(bodies)
        if flags & REPLY_MORE:
            return None
        return self._waiting.pop(xid)

    def forget(self, xid: int) -> None:
        """Drop what came of a reply that is no longer awaited."""
        self._waiting.pop(xid, None)

    def clear(self) -> None:
        """Drop all that is incomplete."""
        self._waiting.clear()
