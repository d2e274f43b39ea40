"""What was found in one feed: the events, and the entries that were no good."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

from forecasting.event import Event

#: Of one feed; more is a mistake, or an attempt on our memory.
MAX_EVENTS: Final = 5000
_REASONS: Final = 5
#: Faults kept of one body, for who wants each of them.
MAX_FAULTS: Final = 100
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
    #: Before the slash of its events' ids; empty: the source.
    prefix: str = ""


@dataclass(frozen=True)
class Fault:
    """Why one entry was passed over."""

    name: str
    why: str
    #: Its number among the body's entries, from 0; None: it is of the whole.
    entry: int | None = None

    def __str__(self) -> str:
        return " ".join(f"{self.name}: {self.why}".split())[:_LINE]


@dataclass
class Parsed:
    """Events that touch the window, and what was passed over."""

    since: float
    until: float
    events: dict[str, Event] = field(default_factory=dict)
    n_skipped: int = 0
    #: Occurrences that were read, and are over or later than the window.
    n_outside: int = 0
    faults: list[Fault] = field(default_factory=list)

    @classmethod
    def around(cls, now: float, ahead_s: float = AHEAD_S) -> Parsed:
        """Nothing yet, for the window around now."""
        return cls(now - PAST_S, now + ahead_s)

    @property
    def reasons(self) -> list[str]:
        """Why entries were passed over: the first few, one line each."""
        return [str(fault) for fault in self.faults[:_REASONS]]

    def add(self, event: Event) -> None:
        """Keep an event if it touches the window. Of two with one id the later one stands."""
        if event.end <= self.since or event.start >= self.until:
            self.n_outside += 1
            return
        if len(self.events) >= MAX_EVENTS and event.id not in self.events:
            self.skip(event.id, f"more than {MAX_EVENTS} events")
            return
        self.events[event.id] = event

    def skip(self, name: object, why: object, entry: int | None = None) -> None:
        """Pass over one entry and say why."""
        self.n_skipped += 1
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(str(name), str(why), entry))
