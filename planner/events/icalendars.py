"""Events from iCalendar (RFC 5545): single ones, recurring ones, and their exceptions.

Recurrence rules are expanded within the window only, and in bounded time: a rule
of 40 characters may describe more occurrences than there are seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from dateutil.rrule import rrulestr
from icalendar import Calendar

from forecasting.event import MAX_TEXT, Event
from planner.config_events import Moment, epoch_s
from planner.config_fields import NAME_PATTERN
from planner.events.parsed import AHEAD_S, BadFeed, Defaults, Parsed

#: Occurrences of one entry within the window; an event every hour for two weeks.
MAX_OCCURRENCES: Final = 400
#: Occurrences passed over from the first one to the window: a century of days.
_MAX_PASSED: Final = 40_000
#: For all rules of one calendar.
_BUDGET_S: Final = 10.0
#: Properties that say when. An entry of which one cannot be read would be at another time than it says.
_WHEN: Final = ("DTSTART", "DTEND", "DURATION", "RRULE", "RDATE", "EXDATE", "RECURRENCE-ID")
_FREQUENCIES: Final = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
#: What the icalendar library raises on entries that are not as they should be.
_BROKEN: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


def read_icalendar(
    body: bytes,
    defaults: Defaults,
    now: float,
    clock: Callable[[], float] = time.monotonic,
    ahead_s: float = AHEAD_S,
) -> Parsed:
    """The events of a calendar from a day ago to ``ahead_s``; entries that cannot be read are passed over and counted.

    A category that is a name (letters, digits, ``. _ @ -``) is the event's kind.

    Raises
    ------
    BadFeed : when it is no calendar.
    """
    try:
        calendars = Calendar.from_ical(body, multiple=True)
    except _BROKEN as error:
        raise BadFeed(f"must be an iCalendar file, got {_short(error)}") from None
    if not calendars:
        raise BadFeed("must be an iCalendar file, got none")
    parsed = Parsed.around(now, ahead_s)
    entries: list[Any] = [entry for calendar in calendars for entry in calendar.walk("VEVENT")]
    # An entry with a RECURRENCE-ID takes the place of one occurrence of the entry with its UID.
    replaced: dict[str, set[float]] = {}
    for entry in entries:
        if "RECURRENCE-ID" in entry:
            try:
                moment = epoch_s(entry["RECURRENCE-ID"].dt, defaults.zone)
            except _BROKEN:
                continue
            replaced.setdefault(str(entry.get("UID", "")), set()).add(moment)
    deadline = clock() + _BUDGET_S
    for number, entry in enumerate(entries):
        # An id is one line, in logs too.
        uid = " ".join(str(entry.get("UID", "")).split()) or f"entry {number}"
        try:
            _read_entry(entry, uid, defaults, replaced, parsed, lambda: clock() > deadline)
        except _BROKEN as error:
            parsed.skip(uid, _short(error), number)
    return parsed


@dataclass(frozen=True)
class _Times:
    """When an entry happens for the first time."""

    start: Moment
    end: Moment
    zone: ZoneInfo

    def end_of(self, start: Moment) -> float:
        """When the occurrence that starts then ends: days are counted, hours measured."""
        if isinstance(start, datetime):
            return epoch_s(start, self.zone) + self._length_s
        days = self.end - self.start if not isinstance(self.end, datetime) else timedelta(days=1)
        return epoch_s(start + days, self.zone)

    @property
    def _length_s(self) -> float:
        return epoch_s(self.end, self.zone) - epoch_s(self.start, self.zone)


def _read_entry(
    entry: Any,
    uid: str,
    defaults: Defaults,
    replaced: dict[str, set[float]],
    parsed: Parsed,
    late: Callable[[], bool],
) -> None:
    if str(entry.get("STATUS", "")).upper() == "CANCELLED":
        return
    _check_readable(entry)
    times = _Times(entry.start, entry.end, defaults.zone)
    gone = {epoch_s(moment, defaults.zone) for moment in entry.exdates}
    if "RECURRENCE-ID" not in entry:
        gone |= replaced.get(str(entry.get("UID", "")), set())
    kind, summary = _kind(entry, defaults), str(entry.get("SUMMARY", ""))[:MAX_TEXT]
    found = 0
    for start in _starts(entry, times, parsed, late):
        begins = epoch_s(start, defaults.zone)
        ends = times.end_of(start)
        if begins in gone:
            continue
        if ends <= parsed.since or begins >= parsed.until:
            parsed.n_outside += 1
            continue
        if found >= MAX_OCCURRENCES:
            raise ValueError(f"must recur at most {MAX_OCCURRENCES} times in the window")
        found += 1
        name = f"{defaults.prefix or defaults.source}/{uid[:120]}@{begins:.0f}"
        parsed.add(
            Event(
                name,
                kind,
                begins,
                ends,
                defaults.scope,
                defaults.expected_uplift,
                defaults.source,
                summary,
            )
        )


def _check_readable(entry: Any) -> None:
    """Raise ValueError where a time of the entry is not what it says: the library reads on."""
    for name, why in entry.errors:
        if name in _WHEN:
            raise ValueError(f"{name} must be readable: {why}")
    for name in _WHEN:
        values = entry.get(name, [])
        for value in values if isinstance(values, list) else [values]:
            zone = getattr(value, "params", {}).get("TZID")
            moments = [one.dt for one in value.dts] if hasattr(value, "dts") else [getattr(value, "dt", None)]
            if zone is not None and any(isinstance(one, datetime) and one.tzinfo is None for one in moments):
                raise ValueError(f"{name} must have a TZID that is known, got {str(zone)[:60]!r}")


def _starts(entry: Any, times: _Times, parsed: Parsed, late: Callable[[], bool]) -> Iterator[Moment]:
    """The first start, those of the rules and the listed ones; those far from the window may be left out."""
    first = times.start
    rules = entry.rrules if "RECURRENCE-ID" not in entry else []
    for rule in rules:
        yield from _expanded(rule, first, times, parsed, late)
    if not rules:
        yield first
    for moment, _ in entry.rdates:
        yield moment


def _expanded(
    rule: Any, first: Moment, times: _Times, parsed: Parsed, late: Callable[[], bool]
) -> Iterator[Moment]:
    """The rule's occurrences until the window ends, in the zone of the first one."""
    frequency = str(rule.get("FREQ", [""])[0]).upper()
    if frequency not in _FREQUENCIES:
        raise ValueError(f"RRULE must be of {', '.join(_FREQUENCIES)}, got {frequency}")
    if first.year < 1970:
        raise ValueError(f"a recurring event must start in 1970 or later, got {first.year}")
    zone = (first.tzinfo if isinstance(first, datetime) else None) or times.zone
    naive = (
        first.replace(tzinfo=None)
        if isinstance(first, datetime)
        else datetime.combine(first, datetime.min.time())
    )
    parts = {key: value for key, value in rule.items() if key not in ("UNTIL", "SKIP", "RSCALE")}
    last = datetime.fromtimestamp(parsed.until, UTC).astimezone(zone).replace(tzinfo=None)
    for until in rule.get("UNTIL", []):
        last = min(last, _local(until, zone))
    text = type(rule)(parts).to_ical().decode()
    if late():
        raise ValueError("the calendar's rules take too long to expand")
    for passed, moment in enumerate(rrulestr(text, dtstart=naive)):
        if moment > last:
            return
        if passed >= _MAX_PASSED or late():
            raise ValueError("RRULE has too many occurrences before the window")
        yield moment.replace(tzinfo=zone) if isinstance(first, datetime) else moment.date()


def _local(until: Moment, zone: Any) -> datetime:
    if not isinstance(until, datetime):
        # A day is meant with all of it.
        return datetime.combine(until, datetime.max.time())
    return (until.astimezone(zone) if until.tzinfo else until).replace(tzinfo=None)


def _kind(entry: Any, defaults: Defaults) -> str:
    categories = entry.get("CATEGORIES")
    if categories is not None:
        for category in entry.categories:
            name = re.sub(r"\s+", "-", str(category).strip().lower())
            if re.fullmatch(NAME_PATTERN, name):
                return name
    return defaults.kind


def _short(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:MAX_TEXT]
