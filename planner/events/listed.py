"""Events from a JSON list, from the country's holidays, and from the configuration file."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import ValidationError

from forecasting.event import Event
from planner.config_events import Announcement, Holidays, epoch_s
from planner.config_faults import fault_lines
from planner.events.parsed import BadFeed, Defaults, Parsed

#: Entries that are looked at: most of a long list is out of the window.
_MAX_ENTRIES: Final = 50_000


def read_json(body: bytes, defaults: Defaults, now: float) -> Parsed:
    """The events of a JSON list whose entries are as ``Announcement`` has them; ``kind`` may be absent.

    Raises
    ------
    BadFeed : when it is no JSON list, nor an object whose ``events`` is one.
    """
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadFeed(f"must be JSON, got {type(error).__name__}") from None
    if isinstance(raw, dict):
        raw = raw.get("events")
    if not isinstance(raw, list):
        raise BadFeed(f"must be a JSON list of events, got {type(raw).__name__}")
    parsed = Parsed.around(now)
    for number, entry in enumerate(raw[:_MAX_ENTRIES]):
        try:
            parsed.add(_entry(entry, defaults))
        except ValidationError as error:
            parsed.skip(f"entry {number}", fault_lines(error.errors(), entry)[0])
        except (ValueError, TypeError, OverflowError) as error:
            parsed.skip(f"entry {number}", error)
    if len(raw) > _MAX_ENTRIES:
        parsed.skip("list", f"more than {_MAX_ENTRIES} entries, got {len(raw)}")
    return parsed


def _entry(entry: object, defaults: Defaults) -> Event:
    if not isinstance(entry, dict):
        raise TypeError(f"must be an object, got {type(entry).__name__}")
    given = {
        "kind": defaults.kind,
        "scope": defaults.scope,
        "expected_uplift": defaults.expected_uplift,
        **{key: value for key, value in entry.items() if value is not None},
    }
    return Announcement.model_validate(given).event(defaults.zone, defaults.source, f"{defaults.source}/")


def read_holidays(place: Holidays, defaults: Defaults, now: float) -> Parsed:
    """The public holidays that touch the window, each from midnight to midnight."""
    # Here and not above: only files that ask for holidays need the library.
    import holidays

    parsed = Parsed.around(now)
    first = datetime.fromtimestamp(parsed.since, UTC).date()
    last = datetime.fromtimestamp(parsed.until, UTC).date()
    days = holidays.country_holidays(
        place.country, subdiv=place.subdivision, years=range(first.year, last.year + 1)
    )
    for day, name in sorted(days.items()):
        parsed.add(
            Event(
                f"{defaults.source}/{day.isoformat()}",
                defaults.kind,
                epoch_s(day, defaults.zone),
                epoch_s(day + timedelta(days=1), defaults.zone),
                defaults.scope,
                defaults.expected_uplift,
                defaults.source,
                name[:200],
            )
        )
    return parsed
