"""The ``events`` block: what is announced in the file, and the feeds that announce more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, StringConstraints

from forecasting.event import MAX_TEXT, MAX_UPLIFT, MIN_UPLIFT, Event
from planner.config_block import Block
from planner.config_fields import NAME_PATTERN, Positive, number

MAX_SCOPES = 1000
#: ``user:NAME``, ``group:NAME``, or a path of one to three names below the root.
_NAME = NAME_PATTERN.strip("^$")
SCOPE_PATTERN = rf"^((user|group):{_NAME}|{_NAME}(/{_NAME}){{0,2}})$"

Kind = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Scope = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=SCOPE_PATTERN)], ...], Field(max_length=MAX_SCOPES)
]
Uplift = Annotated[float, BeforeValidator(number), Field(ge=MIN_UPLIFT, le=MAX_UPLIFT)]
Moment = datetime | date


def parse_moment(value: object) -> Moment:
    """A day, a time of day with or without its zone, or epoch seconds."""
    if isinstance(value, datetime | date):
        return value
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, ZoneInfo("UTC"))
        if isinstance(value, str):
            text = value.strip()
            return date.fromisoformat(text) if len(text) <= 10 else datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        pass
    raise ValueError(
        "must be a time such as 2026-11-28T18:00+01:00, a day such as 2026-11-28 or epoch seconds"
    )


MomentField = Annotated[Moment, BeforeValidator(parse_moment)]


def epoch_s(moment: Moment, zone: ZoneInfo) -> float:
    """Epoch seconds; a day is its first moment, and what names no zone is local time."""
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()


class Announcement(Block):
    """One event that is announced by hand, here or by REST, or by a JSON feed."""

    id: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] = Field(
        description="a name of its own; letters, digits and . _ @ -"
    )
    kind: Kind = Field(description="a free tag; events of one kind are taken to be alike")
    start: MomentField = Field(description="when it begins; without a zone, in `events.time_zone`")
    end: MomentField = Field(description="when it ends; a day is meant with all of it")
    scope: Scope = Field(
        default=(), description="pools concerned: `west`, `west/lab`, `group:NAME`, `user:NAME`; none: all"
    )
    expected_uplift: Uplift | None = Field(
        default=None, description="factor on demand that is expected, 0.02 to 50; absent: not known"
    )
    summary: str = Field(default="", max_length=MAX_TEXT, description="for people")

    def event(self, zone: ZoneInfo, source: str, prefix: str = "") -> Event:
        """The event that is meant. Raises ValueError when it does not end after it starts."""
        end = self.end if isinstance(self.end, datetime) else self.end + timedelta(days=1)
        first, last = epoch_s(self.start, zone), epoch_s(end, zone)
        if last <= first:
            raise ValueError(f"end must be after start {self.start}, got {self.end}")
        return Event(
            prefix + self.id, self.kind, first, last, self.scope, self.expected_uplift, source, self.summary
        )


class EventFeed(Block):
    """A calendar or a list of events that is read again and again."""

    format: Literal["icalendar", "json"] = Field(description="what is found there")
    url: str | None = Field(default=None, description="https, http or file URL, without credentials")
    file: Path | None = Field(default=None, description="a file, instead of `url`")
    token_file: Path | None = Field(
        default=None, description="file with the bearer token, mode 0600; https or loopback only"
    )
    kind: Kind = Field(default="event", description="kind of entries that name none")
    scope: Scope = Field(default=(), description="pools concerned, for entries that name none")
    expected_uplift: Uplift | None = Field(default=None, description="for entries that name none")
    refresh_s: Annotated[Positive, Field(ge=5, le=7 * 86400)] = Field(
        default=900.0, description="seconds from one reading to the next, >= 5"
    )
    timeout_s: Annotated[Positive, Field(le=60)] = Field(
        default=10.0, description="the whole answer must be there within"
    )

    @property
    def address(self) -> str:
        """Where it is, as far as may be shown: paths and queries of calendars are often secret."""
        if self.file is not None:
            return str(self.file)
        parts = urlsplit(self.url or "")
        return self.url or "" if parts.scheme == "file" else f"{parts.scheme}://{parts.hostname}/..."


class Holidays(Block):
    """A country's public holidays, each an event of a whole day."""

    country: str = Field(pattern=r"^[A-Z]{2,3}$", description="ISO 3166 code, such as DE")
    subdivision: str | None = Field(default=None, max_length=40, description="state or province, such as BY")
    kind: Kind = Field(default="holiday", description="kind of these events")
    scope: Scope = Field(default=(), description="pools concerned")
    expected_uplift: Uplift | None = Field(default=None, description="factor on demand that is expected")


class Events(Block):
    """What is announced to happen, and may change demand."""

    time_zone: str = Field(default="UTC", description="of days and of times that name no zone")
    feeds: dict[str, EventFeed] = Field(
        default_factory=dict, max_length=32, description="calendars and lists by name"
    )
    holidays: dict[str, Holidays] = Field(
        default_factory=dict, max_length=32, description="public holidays by name"
    )
    announcements: tuple[Announcement, ...] = Field(
        default=(), max_length=1000, description="events that are known now"
    )

    @property
    def zone(self) -> ZoneInfo:
        """The time zone. Raises ZoneInfoNotFoundError; a checked configuration does not."""
        return ZoneInfo(self.time_zone)


def broken_event_rules(events: Events) -> Iterator[str]:
    """The rules of the block that span its fields."""
    try:
        zone = events.zone
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield f"events.time_zone must be a zone such as Europe/Berlin, got {events.time_zone!r}"
        return
    named: Mapping[str, Mapping[str, Any]] = {"feeds": events.feeds, "holidays": events.holidays}
    for block, entries in named.items():
        for name in entries:
            if not re.fullmatch(NAME_PATTERN, name):
                yield f"events.{block}.{name} must be a name of letters, digits and . _ @ - (63 at most), got {name!r}"
    for name in sorted(events.feeds.keys() & events.holidays.keys()):
        yield f"events.holidays.{name} must have a name of its own, got that of a feed"
    for name, feed in events.feeds.items():
        yield from _bad_feed(f"events.feeds.{name}", feed)
    for name, place in events.holidays.items():
        yield from _bad_place(f"events.holidays.{name}", place)
    seen: set[str] = set()
    for number_, announced in enumerate(events.announcements):
        path = f"events.announcements.{number_}"
        if announced.id in seen:
            yield f"{path}.id must be new, got {announced.id!r} twice"
        seen.add(announced.id)
        try:
            announced.event(zone, "file")
        except (ValueError, OverflowError) as error:
            yield f"{path}.{error}"


def _bad_feed(path: str, feed: EventFeed) -> Iterator[str]:
    if (feed.url is None) == (feed.file is None):
        yield f"{path} must have url or file, got {'neither' if feed.url is None else 'both'}"
        return
    if feed.url is None:
        if feed.token_file is not None:
            yield f"{path}.token_file must not be given for a file, got {str(feed.token_file)!r}"
        return
    try:
        parts = urlsplit(feed.url)
        host, secret = parts.hostname, parts.username is not None or parts.password is not None
    except ValueError:
        yield f"{path}.url must be a URL"
        return
    # The value is not shown: it may hold a secret.
    if parts.scheme not in ("http", "https", "file") or (parts.scheme == "file") == bool(host):
        yield f"{path}.url must be like https://host/path or file:///path, got scheme {parts.scheme!r}"
    elif secret:
        yield f"{path}.url must not hold a user or password; use token_file"
    elif feed.token_file is not None and not may_carry_token(feed.url):
        yield f"{path}.token_file must not be sent without TLS, got scheme {parts.scheme!r}"


def may_carry_token(url: str) -> bool:
    """Whether a secret may be sent there: by TLS, or within this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("127.0.0.1", "::1", "localhost")


def _bad_place(path: str, place: Holidays) -> Iterator[str]:
    # Here and not above: only files that ask for holidays need the library.
    import holidays

    known = holidays.list_supported_countries()
    if place.country not in known:
        yield f"{path}.country must be a country whose holidays are known, got {place.country!r}"
    elif place.subdivision is not None and place.subdivision not in known[place.country]:
        subdivisions = ", ".join(known[place.country]) or "none"
        yield f"{path}.subdivision must be one of {subdivisions}, got {place.subdivision!r}"
