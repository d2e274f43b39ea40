"""What was found in one feed: the events, and the entries that were no good."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

from forecasting.event import Event

#: Of one feed; more is a mistake, or an attempt on our memory.
MAX_EVENTS: Final = 5000
_REASONS: Final = 5
_LINE: Final = 200
#: The past is needed for events that ended just now, the future for operators to look ahead.
PAST_S: Final = 86_400.0
AHEAD_S: Final = 14 * 86_400.0


class BadFeed(Exception):
    """Nothing in the feed can be used; the text says why, and holds no secret."""


@dataclass(frozen=True)
class Defaults:
    """What holds for entries that do not say it themselves."""

    source: str
    zone: ZoneInfo
    kind: str = "event"
    scope: tuple[str, ...] = ()
    expected_uplift: float | None = None


@dataclass
class Parsed:
    """Events that touch the window, and what was passed over."""

    since: float
    until: float
    events: dict[str, Event] = field(default_factory=dict)
    n_skipped: int = 0
    #: The first few reasons, one line each.
    reasons: list[str] = field(default_factory=list)

    @classmethod
    def around(cls, now: float) -> Parsed:
        """Nothing yet, for the window around now."""
        return cls(now - PAST_S, now + AHEAD_S)

    def add(self, event: Event) -> None:
        """Keep an event if it touches the window. Of two with one id the later one stands."""
        if event.end <= self.since or event.start >= self.until:
            return
        if len(self.events) >= MAX_EVENTS and event.id not in self.events:
            self.skip(event.id, f"more than {MAX_EVENTS} events")
            return
        self.events[event.id] = event

    def skip(self, name: object, why: object) -> None:
        """Pass over one entry and say why."""
        self.n_skipped += 1
        if len(self.reasons) < _REASONS:
            self.reasons.append(" ".join(f"{name}: {why}".split())[:_LINE])
