"""What operators see of events, and what they may do about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from forecasting.event import Event
from planner.config_events import Announcement


@dataclass(frozen=True)
class UpliftView:
    """What events of a kind do to demand: quantiles of the factor on it."""

    p10: float
    p50: float
    p90: float
    #: Past events that it was learnt from; 0: as announced, or nothing known.
    n_events: float


@dataclass(frozen=True)
class EventView:
    """One announced event, and what it is expected to do when it begins. Levels are depths in the tree."""

    event: Event
    #: Depth of the highest pool concerned; None: no pool there has this name.
    level: int | None
    #: Upload and download at that level; empty without one.
    uplift: tuple[UpliftView, ...]


@dataclass(frozen=True)
class KindView:
    """What was learnt of one kind of event at one level."""

    kind: str
    level: int
    #: Upload and download.
    uplift: tuple[UpliftView, ...]


@dataclass(frozen=True)
class FeedView:
    """Where events come from, and whether it still speaks."""

    name: str
    address: str
    #: Its events may be out of date; they stay.
    stale: bool
    last_success: float | None
    error: str | None
    n_events: int
    #: Entries that could not be read, and the first reasons.
    n_skipped: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class EventsView:
    """The events that are on or ahead, by start; what was learnt; the feeds."""

    events: tuple[EventView, ...] = ()
    kinds: tuple[KindView, ...] = ()
    feeds: tuple[FeedView, ...] = ()


class EventOperations(Protocol):
    """What northbound may ask about events. Writes return when they are stored."""

    def view(self, now: float) -> EventsView:
        """What is announced, what such events did, and how the feeds are."""

    def announce(self, announcement: Announcement) -> Event:
        """Announce an event. Raises Refused (the id exists, it is over)."""

    def withdraw(self, event_id: str) -> None:
        """Take an announcement back. Raises NotThere, Refused (it comes from a feed or the file)."""
