"""Calendars that are handed over once: all of one is taken, or nothing, and it stands in place of its earlier self."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

from forecasting.event import Event
from planner.events.lines import Lines
from planner.events.parsed import BadFeed, Defaults
from planner.events.views import ImportReport

#: Entries of one calendar: parsing 2,000 takes about a second.
MAX_ENTRIES: Final = 2000
#: Nobody reads it again, so it must reach further than a feed does.
AHEAD_S: Final = 366 * 86_400.0
#: Where imported events come from, as one sees it.
SOURCE: Final = "rest"
_SHOWN: Final = 10


class BadCalendar(Exception):
    """Nothing was taken: each argument is a fault with its line, rule and value."""


@dataclass(frozen=True)
class CalendarImport:
    """What is handed over."""

    #: Its events are ``name/UID@start``; an earlier import of this name gives way.
    name: str
    body: bytes
    #: What holds for entries that do not say it themselves.
    kind: str = "event"
    scope: tuple[str, ...] = ()
    expected_uplift: float | None = None


@dataclass(frozen=True)
class Calendar:
    """What was read of it."""

    events: tuple[Event, ...]
    n_outside: int
    #: Epoch seconds up to which it was read.
    until: float


def read_import(asked: CalendarImport, zone: ZoneInfo, now: float) -> Calendar:
    """The events of a calendar, from a day ago to a year ahead.

    Raises
    ------
    BadCalendar : when it is none, or one entry of it cannot be read.
    """
    # Here and not above: only calendars need the library.
    from planner.events.icalendars import read_icalendar

    defaults = Defaults(SOURCE, zone, asked.kind, asked.scope, asked.expected_uplift, prefix=asked.name)
    try:
        lines = Lines(asked.body)
        if len(lines.entries) > MAX_ENTRIES:
            raise BadFeed(f"VEVENT must occur at most {MAX_ENTRIES} times, got {len(lines.entries)}")
        parsed = read_icalendar(asked.body, defaults, now, ahead_s=AHEAD_S)
    except BadFeed as error:
        raise BadCalendar(f"body: {error}") from None
    if parsed.faults:
        more = parsed.n_skipped - len(parsed.faults)
        told = [f"body: {lines.told(fault)}" for fault in parsed.faults]
        raise BadCalendar(*told, *([f"body: {more} more faults"] if more else []))
    if not parsed.events:
        raise BadCalendar(
            f"body: VEVENT must occur in the next 366 days, got {len(lines.entries)} entries of which none does"
        )
    return Calendar(tuple(parsed.events.values()), parsed.n_outside, parsed.until)


class Imports:
    """The imported calendars by name. Whoever uses it holds the desk's lock."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[str, Event]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Event]:
        for events in self._by_name.values():
            yield from events.values()

    def besides(self, name: str) -> int:
        """How many events all other imports have."""
        return sum(len(events) for own, events in self._by_name.items() if own != name)

    def compared(self, name: str, calendar: Calendar) -> ImportReport:
        """What putting the calendar there would change."""
        old = self._by_name.get(name, {})
        new = {event.id: event for event in calendar.events}
        first = sorted(calendar.events, key=lambda event: (event.start, event.id))[:_SHOWN]
        return ImportReport(
            name=name,
            replaced=name in self._by_name,
            until=calendar.until,
            n_events=len(new),
            n_new=len(new.keys() - old.keys()),
            n_changed=sum(one in old and old[one] != event for one, event in new.items()),
            n_removed=len(old.keys() - new.keys()),
            n_outside=calendar.n_outside,
            events=tuple(first),
        )

    def put(self, name: str, events: tuple[Event, ...]) -> None:
        """In place of what had that name."""
        self._by_name[name] = {event.id: event for event in events}

    def remove(self, event_id: str) -> bool:
        """Take one event away, or all of the import of that name. Whether there was one."""
        if self._by_name.pop(event_id, None) is not None:
            return True
        name = event_id.partition("/")[0]
        found = self._by_name.get(name, {}).pop(event_id, None) is not None
        self._drop_empty()
        return found

    def forget(self, before: float) -> bool:
        """Drop events that ended before then. Whether there were any."""
        over = [
            (name, one)
            for name, events in self._by_name.items()
            for one, event in events.items()
            if event.end < before
        ]
        for name, one in over:
            del self._by_name[name][one]
        self._drop_empty()
        return bool(over)

    def _drop_empty(self) -> None:
        self._by_name = {name: events for name, events in self._by_name.items() if events}

    def state(self) -> dict[str, list[Event]]:
        """All events by the import's name."""
        return {name: list(events.values()) for name, events in self._by_name.items()}

    def restore(self, kept: Mapping[str, tuple[Event, ...]]) -> None:
        """Become what ``state`` gave."""
        self._by_name = {name: {event.id: event for event in events} for name, events in kept.items()}
