"""The desk where announcements come in: feeds are read again and again, and the loop is handed one tuple.

Feeds are read by a thread of their own. A feed that fails keeps the events it
gave before, and is flagged; nothing else changes.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from zoneinfo import ZoneInfo

from forecasting.event import Event
from planner.config_events import Announcement, EventFeed, Events, Holidays
from planner.events.fetch import Fetched, Validators, fetch
from planner.events.imports import SOURCE as REST
from planner.events.imports import CalendarImport, Imports, read_import
from planner.events.listed import read_holidays, read_json
from planner.events.parsed import AHEAD_S, MAX_EVENTS, PAST_S, BadFeed, Defaults, Parsed
from planner.events.uplift import EventUplift
from planner.events.views import EventsView, FeedView, ImportReport
from planner.snapshot import NotThere, Refused

LOG = logging.getLogger("tidegate.planner")

#: Whoever announces more than this by REST means a feed.
MAX_ANNOUNCED: Final = 1000
#: Holidays are reckoned anew so often: the window moves on.
_HOLIDAYS_S: Final = 6 * 3600.0
#: After so many missed readings a feed's events may be out of date.
_STALE_READINGS: Final = 2.5
_LONGEST_PAUSE_S: Final = 60.0
FILE: Final = "file"


@dataclass
class _Feed:
    """One source that is read again and again, and what it gave last."""

    name: str
    address: str
    refresh_s: float
    #: Gives what there is now; None where nothing has changed since ``body``.
    read: Callable[[_Feed, float], Parsed]
    events: tuple[Event, ...] = ()
    last_try: float = -math.inf
    last_success: float | None = None
    error: str | None = None
    n_skipped: int = 0
    reasons: tuple[str, ...] = ()
    #: The last good body: the window moves on while the server says "not modified", or nothing.
    body: bytes | None = field(default=None, repr=False)
    validators: Validators = Validators()

    def due(self, now: float) -> bool:
        # A clock set back must not stop the readings for good.
        return not 0 <= now - self.last_try < self.refresh_s

    def stale(self, now: float) -> bool:
        """Whether its events may be out of date."""
        if self.error is not None or self.last_success is None:
            return True
        return not -self.refresh_s <= now - self.last_success <= _STALE_READINGS * self.refresh_s

    def view(self, now: float) -> FeedView:
        return FeedView(
            self.name,
            self.address,
            self.stale(now),
            self.last_success,
            self.error,
            len(self.events),
            self.n_skipped,
            self.reasons,
        )


class EventDesk:
    """Everything that is announced. Writes may come from any thread; ``uplift`` is the loop's."""

    def __init__(
        self,
        settings: Events,
        uplift: EventUplift,
        keep: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``keep`` is called after each write; when it returns, ``state`` is on disk."""
        self.uplift = uplift
        self._keep = keep
        self._zone = settings.zone
        self._now = now
        self._filed = tuple(_filed(one, self._zone) for one in settings.announcements)
        self._announced: dict[str, Event] = {}
        self._imports = Imports()
        #: One calendar at a time: reading one costs a second of the loop's processor.
        self._importing = threading.Lock()
        self._feeds = [_reading(name, feed, self._zone) for name, feed in settings.feeds.items()]
        self._feeds += [_reckoning(name, place, self._zone) for name, place in settings.holidays.items()]
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._publish()

    def start(self) -> None:
        """Begin to read the feeds."""
        if self._feeds:
            self._thread.start()

    def stop(self) -> None:
        """Read no more. A reading under way is not waited for."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.refresh(self._now())
            except Exception:
                LOG.exception("events: reading feeds failed, going on")
            pause = min((feed.refresh_s for feed in self._feeds), default=_LONGEST_PAUSE_S)
            self._stop.wait(min(pause, _LONGEST_PAUSE_S))

    def refresh(self, now: float) -> None:
        """Read the feeds that are due, and hand the loop what is announced now."""
        for feed in self._feeds:
            if feed.due(now) and not self._stop.is_set():
                self._read(feed, now)
                self._publish()
        self._tidy(now)

    def _read(self, feed: _Feed, now: float) -> None:
        feed.last_try = now
        try:
            parsed = feed.read(feed, now)
        except BadFeed as error:
            self._failed(feed, str(error), now)
            return
        except Exception as error:
            LOG.exception("events: feed %s failed", feed.name)
            self._failed(feed, f"failed: {type(error).__name__}", now)
            return
        if feed.error is not None:
            LOG.info("events: feed %s is back", feed.name)
        feed.events = tuple(parsed.events.values())
        feed.n_skipped, feed.reasons = parsed.n_skipped, tuple(parsed.reasons)
        feed.last_success, feed.error = now, None

    def _failed(self, feed: _Feed, why: str, now: float) -> None:
        if feed.error is None:
            LOG.warning("events: feed %s: %s; its last %d events stay", feed.name, why, len(feed.events))
        feed.error = why

    def _publish(self) -> None:
        """Hand the loop one tuple; of two events with one id the operator's own stands."""
        with self._lock:
            found = {event.id: event for feed in self._feeds for event in feed.events}
            found |= {event.id: event for event in self._filed}
            found |= {event.id: event for event in self._imports}
            found |= self._announced
            self.uplift.calendar = tuple(sorted(found.values(), key=lambda event: (event.start, event.id)))

    def _tidy(self, now: float) -> None:
        """Forget announcements that are long over."""
        with self._lock:
            over = [name for name, event in self._announced.items() if event.end < now - PAST_S]
            for name in over:
                del self._announced[name]
            forgotten = self._imports.forget(now - PAST_S)
        if over or forgotten:
            self._publish()

    # What operators do.

    def announce(self, announcement: Announcement) -> Event:
        """Add an event. Raises Refused: the id exists, it is over, or too far ahead."""
        try:
            event = announcement.event(self._zone, REST)
        except (ValueError, OverflowError) as error:
            raise Refused(f"events.{announcement.id}.{error}") from None
        if event.end <= self._now():
            raise Refused(f"events.{event.id}.end must not be past, got {announcement.end}")
        with self._lock:
            known = event.id in self._announced or event.id in self._imports
            if known or any(event.id == one.id for one in self._filed):
                raise Refused(f"events.{event.id} must be a new id, got one that exists")
            if len(self._announced) >= MAX_ANNOUNCED:
                raise Refused(f"events must be at most {MAX_ANNOUNCED}, got one more")
            self._announced[event.id] = event
        self._publish()
        self._keep()
        LOG.info("operator: event %s (%s) announced", event.id, event.kind)
        return event

    def import_calendar(self, asked: CalendarImport, *, dry_run: bool = False) -> ImportReport:
        """Announce a whole calendar. Raises BadCalendar, Refused: the name is another's, or there are too many."""
        if not self._importing.acquire(blocking=False):
            raise Refused("events.import must be alone, got one while another is under way")
        try:
            calendar = read_import(asked, self._zone, self._now())
            with self._lock:
                self._check_import(asked.name, len(calendar.events))
                report = self._imports.compared(asked.name, calendar)
                if not dry_run:
                    self._imports.put(asked.name, calendar.events)
            if not dry_run:
                self._publish()
                self._keep()
                LOG.info(
                    "operator: events %s imported: %d, of which %d new, %d changed; %d removed",
                    asked.name, report.n_events, report.n_new, report.n_changed, report.n_removed,
                )  # fmt: skip
            return report
        finally:
            self._importing.release()

    def _check_import(self, name: str, n_events: int) -> None:
        if name in self._announced or any(name == one.id for one in self._filed):
            raise Refused(f"query.name must not be an event's id, got {name!r}")
        if any(name == feed.name for feed in self._feeds):
            raise Refused(f"query.name must not be that of a feed or of holidays, got {name!r}")
        others = self._imports.besides(name)
        if others + n_events > MAX_EVENTS:
            raise Refused(
                f"events that are imported must be at most {MAX_EVENTS}, got {n_events} and {others} of other imports"
            )

    def withdraw(self, event_id: str) -> None:
        """Take back what was announced or imported, an import by its name. Raises NotThere, Refused."""
        with self._lock:
            found = self._announced.pop(event_id, None) is not None or self._imports.remove(event_id)
        if found:
            self._publish()
            self._keep()
            LOG.info("operator: event %s withdrawn", event_id)
            return
        for event in self.uplift.calendar:
            if event.id == event_id:
                raise Refused(f"events.{event_id} must be withdrawn where it comes from: {event.source}")
        raise NotThere(f"eventID must be the id of an event, got {event_id!r}")

    def view(self, now: float) -> EventsView:
        """What is announced from now on, what was learnt, and how the feeds are."""
        # What was announced by REST shows however far ahead: it must be possible to take it back.
        ahead = [
            event
            for event in self.uplift.calendar
            if event.end > now and (event.start < now + AHEAD_S or event.source == REST)
        ]
        return self.uplift.view(ahead, tuple(feed.view(now) for feed in self._feeds))

    # Restarts.

    def state(self, learnt: Mapping[str, Any]) -> bytes:
        """What a successor needs: announcements, the feeds' last events, and ``uplift.state()``.

        That is taken apart, under the planner's lock.
        """
        with self._lock:
            state = {
                "learnt": learnt,
                "announced": [asdict(event) for event in self._announced.values()],
                "imports": {
                    name: [asdict(event) for event in events]
                    for name, events in self._imports.state().items()
                },
                "feeds": {
                    feed.name: {
                        "last_success": feed.last_success,
                        "events": [asdict(event) for event in feed.events],
                    }
                    for feed in self._feeds
                    if feed.last_success is not None
                },
            }
        return json.dumps(state, sort_keys=True).encode()

    def restore(self, body: bytes) -> None:
        """Become what ``state`` described. Raises ValueError; nothing changes then."""
        try:
            state = json.loads(body)
            announced = _events(state["announced"])[:MAX_ANNOUNCED]
            feeds = {
                str(name): (float(kept["last_success"]), _events(kept["events"])[:MAX_EVENTS])
                for name, kept in state["feeds"].items()
            }
            # An older planner knew none.
            imports = {str(name): _events(kept) for name, kept in state.get("imports", {}).items()}
            self.uplift.restore(state["learnt"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"events' state is malformed: {error!r}") from None
        with self._lock:
            self._announced = {event.id: event for event in announced}
            self._imports.restore(imports)
            for feed in self._feeds:
                if feed.name in feeds:
                    feed.last_success, feed.events = feeds[feed.name]
        self._publish()


def _filed(announcement: Announcement, zone: ZoneInfo) -> Event:
    return announcement.event(zone, FILE)


def _events(raw: list[Mapping[str, Any]]) -> tuple[Event, ...]:
    return tuple(Event(**{**entry, "scope": tuple(entry["scope"])}) for entry in raw)


def _reading(name: str, settings: EventFeed, zone: ZoneInfo) -> _Feed:
    defaults = Defaults(name, zone, settings.kind, settings.scope, settings.expected_uplift)

    def read(feed: _Feed, now: float) -> Parsed:
        # Conditions only where the body they speak of is at hand.
        fetched: Fetched = fetch(settings, feed.validators if feed.body is not None else Validators())
        body = fetched.body if fetched.body is not None else feed.body
        assert body is not None
        parsed = _parse(settings.format, body, defaults, now)
        # Kept once it was found good: garbage with an ETag must not be "not modified" for ever.
        feed.body, feed.validators = body, fetched.validators
        return parsed

    return _Feed(name, settings.address, settings.refresh_s, _or_again(read, settings, defaults))


def _or_again(
    read: Callable[[_Feed, float], Parsed], settings: EventFeed, defaults: Defaults
) -> Callable[[_Feed, float], Parsed]:
    """A reading that, where it fails, lets the window of the last good body move on all the same."""

    def tried(feed: _Feed, now: float) -> Parsed:
        try:
            return read(feed, now)
        except BadFeed:
            if feed.body is not None:
                feed.events = tuple(_parse(settings.format, feed.body, defaults, now).events.values())
            raise

    return tried


def _parse(form: str, body: bytes, defaults: Defaults, now: float) -> Parsed:
    if form == "json":
        return read_json(body, defaults, now)
    # Here and not above: only files that ask for calendars need the library.
    from planner.events.icalendars import read_icalendar

    return read_icalendar(body, defaults, now)


def _reckoning(name: str, place: Holidays, zone: ZoneInfo) -> _Feed:
    defaults = Defaults(name, zone, place.kind, place.scope, place.expected_uplift)
    where = "-".join(part for part in (place.country, place.subdivision) if part)
    return _Feed(
        name, f"holidays of {where}", _HOLIDAYS_S, lambda _, now: read_holidays(place, defaults, now)
    )
