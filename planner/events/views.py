"""What operators see of events, and what they may do about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from forecasting.event import Event
from planner.config_events import Announcement

if TYPE_CHECKING:
    from planner.events.imports import CalendarImport


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


@dataclass(frozen=True)
class ImportReport:
    """What handing over a calendar changed, or would change."""

    name: str
    #: An earlier import had that name.
    replaced: bool
    #: Epoch seconds up to which it was read.
    until: float
    n_events: int
    #: Against the earlier import.
    n_new: int
    n_changed: int
    n_removed: int
    #: Occurrences that are over, or later than ``until``.
    n_outside: int
    #: The first ones by start.
    events: tuple[Event, ...]


class EventOperations(Protocol):
    """What northbound may ask about events. Writes return when they are stored."""

    def view(self, now: float) -> EventsView:
        """What is announced, what such events did, and how the feeds are."""

    def announce(self, announcement: Announcement) -> Event:
        """Announce an event. Raises Refused (the id exists, it is over)."""

    def import_calendar(self, asked: CalendarImport, *, dry_run: bool = False) -> ImportReport:
        """Announce all that is in a calendar, or with ``dry_run`` say what that would change.

        Raises BadCalendar (nothing was taken), Refused (the name is another's, too many).
        """

    def withdraw(self, event_id: str) -> None:
        """Take an announcement back, or all of an import by its name.

        Raises NotThere, Refused (it comes from a feed or the file).
        """
