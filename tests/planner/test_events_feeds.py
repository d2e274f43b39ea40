"""Feeds of events: what is read, what is refused, and what a dead feed leaves standing."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from planner.config_events import EventFeed, Events, Holidays
from planner.events import fetch as fetch_module
from planner.events.desk import EventDesk
from planner.events.fetch import MAX_BODY_BYTES, Validators, fetch
from planner.events.icalendars import MAX_OCCURRENCES, read_icalendar
from planner.events.listed import read_holidays, read_json
from planner.events.parsed import MAX_EVENTS, BadFeed, Defaults, Parsed
from planner.events.uplift import EventUplift

BERLIN = ZoneInfo("Europe/Berlin")
DEFAULTS = Defaults("stadium", BERLIN, "match", ("west",), 2.0)


def at(text: str, zone: Any = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


NOW = at("2026-10-24T12:00")


def calendar(*entries: str) -> bytes:
    body = "".join(f"BEGIN:VEVENT\n{entry.strip()}\nEND:VEVENT\n" for entry in entries)
    return f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:test\n{body}END:VCALENDAR\n".replace("\n", "\r\n").encode()


def times(parsed: Parsed) -> list[tuple[float, float]]:
    return sorted((event.start, event.end) for event in parsed.events.values())


# iCalendar.

MATCH = "UID:1\nDTSTART;TZID=Europe/Berlin:20261025T180000\nDTEND;TZID=Europe/Berlin:20261025T200000\nSUMMARY:Final"


def test_calendar_entry_becomes_an_event():
    """Times are those of the named zone; what the entry does not say the feed does."""
    (event,) = read_icalendar(calendar(MATCH), DEFAULTS, NOW).events.values()
    assert (event.start, event.end) == (at("2026-10-25T18:00"), at("2026-10-25T20:00"))
    assert (event.kind, event.scope, event.expected_uplift) == ("match", ("west",), 2.0)
    assert (event.source, event.summary) == ("stadium", "Final")


def test_category_is_the_kind():
    """The first category that is a name wins over the feed's kind."""
    entry = MATCH + "\nCATEGORIES:(?),Cup Final,x"
    (event,) = read_icalendar(calendar(entry), DEFAULTS, NOW).events.values()
    assert event.kind == "cup-final"


def test_days_and_zoneless_times_are_local():
    """An all-day event lasts from midnight to midnight, 25 hours where the clock is set back."""
    entries = calendar("UID:1\nDTSTART;VALUE=DATE:20261025", "UID:2\nDTSTART:20261026T090000\nDURATION:PT1H")
    assert times(read_icalendar(entries, DEFAULTS, NOW)) == [
        (at("2026-10-25T00:00"), at("2026-10-26T00:00")),
        (at("2026-10-26T09:00"), at("2026-10-26T10:00")),
    ]
    assert at("2026-10-26T00:00") - at("2026-10-25T00:00") == 25 * 3600


def test_recurrence_keeps_its_time_of_day_over_a_change_of_clocks():
    """A weekly match at 18:00 is at 18:00 in winter too, and lasts as long."""
    entry = MATCH.replace("20261025", "20200105") + "\nRRULE:FREQ=DAILY;INTERVAL=1;UNTIL=20261026T170000Z"
    found = times(read_icalendar(calendar(entry), DEFAULTS, NOW))
    assert found == [(at(f"2026-10-{day}T18:00"), at(f"2026-10-{day}T20:00")) for day in (23, 24, 25, 26)]


def test_exceptions_and_additions_of_a_recurrence():
    """EXDATE takes one out, RDATE puts one in, and a RECURRENCE-ID moves one."""
    series = (
        MATCH.replace("20261025", "20261024")
        + "\nRRULE:FREQ=DAILY;COUNT=4"
        + "\nEXDATE;TZID=Europe/Berlin:20261025T180000"
        + "\nRDATE;TZID=Europe/Berlin:20261101T120000"
    )
    moved = MATCH.replace("20261025T18", "20261026T21").replace("20261025T20", "20261026T22")
    moved += "\nRECURRENCE-ID;TZID=Europe/Berlin:20261026T180000"
    found = times(read_icalendar(calendar(series, moved), DEFAULTS, NOW))
    assert [start for start, _ in found] == [
        at("2026-10-24T18:00"), at("2026-10-26T21:00"), at("2026-10-27T18:00"), at("2026-11-01T12:00"),
    ]  # fmt: skip
    gone = moved + "\nSTATUS:CANCELLED"
    assert len(read_icalendar(calendar(series, gone), DEFAULTS, NOW).events) == 3


def test_recurring_days_are_whole_days():
    """Days are counted, not hours."""
    entry = "UID:1\nDTSTART;VALUE=DATE:20261024\nDTEND;VALUE=DATE:20261025\nRRULE:FREQ=DAILY;COUNT=2"
    assert times(read_icalendar(calendar(entry), DEFAULTS, NOW)) == [
        (at("2026-10-24T00:00"), at("2026-10-25T00:00")),
        (at("2026-10-25T00:00"), at("2026-10-26T00:00")),
    ]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("UID:2\nDTSTART:garbage", "DTSTART"),
        ("UID:2\nSUMMARY:no time", "No DTSTART given"),
        ("UID:2\nDTSTART:20261025T180000Z\nDTEND:20261025T170000Z", "end"),
        ("UID:2\nDTSTART:20261025T180000Z\nDURATION:PT1H\nRRULE:FREQ=SECONDLY", "RRULE must be of DAILY"),
        ("UID:2\nDTSTART:00010101T000000Z\nDURATION:PT1H\nRRULE:FREQ=DAILY", "1970 or later"),
        (
            "UID:2\nDTSTART:20261025T180000Z\nDURATION:PT1S\nRRULE:FREQ=DAILY;BYHOUR=0,1,2,3,4,5;BYMINUTE=0,9,19,29,39,49",
            f"at most {MAX_OCCURRENCES} times",
        ),
    ],
)
def test_bad_entry_is_passed_over_with_its_reason(entry: str, reason: str):
    """One bad entry costs itself, not the calendar."""
    parsed = read_icalendar(calendar(entry, MATCH), DEFAULTS, NOW)
    assert parsed.n_skipped == 1
    assert parsed.reasons[0].startswith("2: ")
    assert reason in parsed.reasons[0]
    assert any(event.summary == "Final" for event in parsed.events.values())


def test_rules_that_take_too_long_are_left():
    """A calendar full of costly rules ends with its time, and what is plain in it counts."""
    clock = iter(range(0, 1_000_000, 20))
    costly = "UID:2\nDTSTART:20200101T000000Z\nDURATION:PT1H\nRRULE:FREQ=DAILY"
    parsed = read_icalendar(calendar(costly, MATCH), DEFAULTS, NOW, lambda: next(clock))
    assert (parsed.n_skipped, len(parsed.events)) == (1, 1)


@pytest.mark.parametrize("body", [b"", b"garbage", b"\xff\xfe\x00", b"<html>", calendar()[:40]])
def test_what_is_no_calendar_is_a_bad_feed(body: bytes):
    """An error page is not an empty calendar."""
    with pytest.raises(BadFeed, match="iCalendar"):
        read_icalendar(body, DEFAULTS, NOW)


# JSON, holidays.


def test_json_entries_become_events():
    """Entries say what they know; the feed fills in the rest."""
    body = json.dumps(
        {"events": [
            {"id": "a", "start": "2026-10-25", "end": "2026-10-25"},
            {"id": "b", "kind": "exam", "start": "2026-10-26T09:00", "end": at("2026-10-26T11:00"), "scope": ["user:anna"]},
            {"id": "old", "start": "2020-01-01", "end": "2020-01-02"},
        ]}
    ).encode()  # fmt: skip
    parsed = read_json(body, DEFAULTS, NOW)
    first, second = parsed.events.values()
    assert (first.id, first.kind, first.end - first.start) == ("stadium/a", "match", 25 * 3600)
    assert (second.kind, second.scope, second.expected_uplift) == ("exam", ("user:anna",), 2.0)
    assert second.end - second.start == 7200
    assert parsed.n_skipped == 0


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (3, "entry 0: must be an object, got int"),
        ({"id": "a", "end": 3}, "entry 0: start must be given"),
        ({"id": "a", "start": 9, "end": 3}, "entry 0: end must be after start"),
        ({"id": "a", "start": 1e30, "end": 3}, "entry 0: start must be a time such as"),
        ({"id": "a", "start": 1, "end": 3, "x": 1}, "entry 0: x is not a known key, got 1"),
        ({"id": "a", "start": 1, "end": 3, "expected_uplift": 1e9}, "entry 0: expected_uplift must be <= 50"),
    ],
)
def test_bad_json_entry_is_passed_over_with_its_reason(entry: object, reason: str):
    """The reason names path, rule and value."""
    good = {"id": "good", "start": NOW, "end": NOW + 60}
    parsed = read_json(json.dumps([entry, good]).encode(), DEFAULTS, NOW)
    assert (parsed.n_skipped, list(parsed.events)) == (1, ["stadium/good"])
    assert parsed.reasons[0].startswith(reason)


@pytest.mark.parametrize("body", [b"", b"{", b"3", b'{"events": 3}', b"[" * 100_000, b"\xff"])
def test_what_is_no_list_is_a_bad_feed(body: bytes):
    """Garbage is an error of the feed."""
    with pytest.raises(BadFeed, match="JSON"):
        read_json(body, DEFAULTS, NOW)


def test_number_of_events_is_bounded():
    """More than anybody means is counted and left."""
    body = json.dumps(
        [{"id": f"e{n}", "start": NOW, "end": NOW + 60} for n in range(MAX_EVENTS + 3)]
    ).encode()
    parsed = read_json(body, DEFAULTS, NOW)
    assert (len(parsed.events), parsed.n_skipped) == (MAX_EVENTS, 3)


def test_holidays_are_days_of_the_zone():
    """New Year is on both sides of the year, from midnight to midnight."""
    now = at("2026-12-31T12:00")
    parsed = read_holidays(Holidays(country="DE", subdivision="BY"), DEFAULTS, now)
    assert (at("2027-01-01T00:00"), at("2027-01-02T00:00")) in times(parsed)
    assert (at("2027-01-06T00:00"), at("2027-01-07T00:00")) in times(parsed)  # Epiphany, in Bavaria
    assert "stadium/2027-01-01" in parsed.events


# Fetching, from a real server.


class Server(ThreadingHTTPServer):
    """Answers what it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.body, self.headers = 200, b"[]", {"ETag": '"1"'}
        self.asked: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/secret-path?token=secret"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append({name.lower(): value for name, value in self.headers.items()})
        etag = server.headers.get("ETag")
        fresh = etag is not None and self.headers.get("If-None-Match") == etag and server.status == 200
        self.send_response(304 if fresh else server.status)
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if not fresh:
            self.wfile.write(server.body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def feed_at(url: str, **more: Any) -> EventFeed:
    return EventFeed(**{"format": "json", "url": url, **more})


def test_not_modified_is_asked_for_and_understood(server: Server):
    """The second time the server need not send what we have."""
    first = fetch(feed_at(server.url))
    assert (first.body, first.validators.etag) == (b"[]", '"1"')
    assert fetch(feed_at(server.url), first.validators).body is None


def test_body_is_bounded(server: Server):
    """Nobody fills our memory."""
    server.body = b" " * (MAX_BODY_BYTES + 1)
    with pytest.raises(BadFeed, match=f"at most {MAX_BODY_BYTES} bytes"):
        fetch(feed_at(server.url))


def test_compressed_body_is_refused(server: Server):
    """A small body could become a large one."""
    server.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(BadFeed, match="compressed"):
        fetch(feed_at(server.url))


def test_trickle_is_cut(server: Server):
    """A server that always sends a little more does not hold the thread."""
    clock = iter([0.0, 100.0, 200.0])
    with pytest.raises(BadFeed, match="in time"):
        fetch(feed_at(server.url), Validators(), lambda: next(clock))


@pytest.mark.parametrize("status", [204, 304, 401, 404, 500])
def test_other_status_is_a_bad_feed(server: Server, status: int):
    """304 too, where nothing was asked that could be unmodified."""
    server.status, server.headers = status, {}
    with pytest.raises(BadFeed, match=f"got {status}"):
        fetch(feed_at(server.url))


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/passwd", "must not redirect from http to file"),
        ("ftp://127.0.0.1/x", "must not redirect from http to ftp"),
        ("http://u:p@127.0.0.1/x", "user or password"),
        ("/again", "at most 3 times"),
    ],
)
def test_redirect_that_leads_astray_is_refused(server: Server, location: str, reason: str):
    """A feed's server cannot make us read our own files, nor run in circles."""
    server.status, server.headers = 302, {"Location": location}
    with pytest.raises(BadFeed, match=reason):
        fetch(feed_at(server.url))


def secret_file(directory: Path) -> Path:
    file = directory / "token"
    file.write_text("s3cret\n")
    file.chmod(0o600)
    return file


def test_token_is_sent_but_not_to_others(server: Server, tmp_path: Path):
    """A redirect to another origin goes without the secret."""
    with Server() as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.status, server.headers = 302, {"Location": other.url}
        fetch(feed_at(server.url, token_file=secret_file(tmp_path)))
        other.shutdown()
        thread.join()
    assert server.asked[0]["authorization"] == "Bearer s3cret"
    assert "authorization" not in other.asked[0]


def test_token_that_others_may_read_is_refused(server: Server, tmp_path: Path):
    """The message says what to do."""
    file = secret_file(tmp_path)
    file.chmod(0o644)
    with pytest.raises(BadFeed, match="chmod 600"):
        fetch(feed_at(server.url, token_file=file))
    assert server.asked == []


def test_errors_hold_no_secret(server: Server):
    """Calendars' URLs are often secrets themselves."""
    url = server.url
    server.server_close()
    with pytest.raises(BadFeed) as error:
        fetch(feed_at(url))
    assert "secret" not in str(error.value)
    assert "Connection refused" in str(error.value)
    assert feed_at(url).address == "http://127.0.0.1/..."


def test_files_are_read_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By path or by file URL; a directory or a pipe is no feed, nor a file too large."""
    file = tmp_path / "a b.json"
    file.write_bytes(b"[]")
    assert fetch(EventFeed(format="json", file=file)).body == b"[]"
    assert fetch(feed_at(file.as_uri())).body == b"[]"
    with pytest.raises(BadFeed, match="Is a directory"):
        fetch(EventFeed(format="json", file=tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadFeed, match="must be a file"):
        fetch(EventFeed(format="json", file=tmp_path / "pipe"))
    with pytest.raises(BadFeed, match="No such file"):
        fetch(EventFeed(format="json", file=tmp_path / "none"))
    monkeypatch.setattr(fetch_module, "MAX_BODY_BYTES", 1)
    with pytest.raises(BadFeed, match="at most 1 bytes"):
        fetch(EventFeed(format="json", file=file))


# The desk over them.


def desk_of(**settings: Any) -> EventDesk:
    return EventDesk(Events(**settings), EventUplift(60.0, (60.0, 300.0), 1e10), now=lambda: NOW)


def names(desk: EventDesk) -> list[str]:
    return [event.id for event in desk.uplift.calendar]


def listed(*ids: str) -> bytes:
    return json.dumps([{"id": name, "start": NOW, "end": NOW + 600} for name in ids]).encode()


DEATHS: dict[str, dict[str, Any]] = {
    "error": {"status": 503},
    "garbage": {"body": b"<html>", "headers": {}},
    "huge": {"body": b" " * (MAX_BODY_BYTES + 1), "headers": {}},
    "astray": {"status": 302, "headers": {"Location": "file:///etc/passwd"}},
}


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS)
def test_dead_feed_changes_nothing_but_its_flag(server: Server, death: dict[str, Any]):
    """The last known events stay, the flag goes up, and down again when the feed is back."""
    server.body = listed("a", "b")
    desk = desk_of(feeds={"stadium": feed_at(server.url)})
    desk.refresh(NOW)
    calendar_before = desk.uplift.calendar
    assert names(desk) == ["stadium/a", "stadium/b"]
    assert desk.view(NOW).feeds[0].stale is False
    alive = vars(server).copy()
    vars(server).update(death)
    desk.refresh(NOW + 900)
    (flagged,) = desk.view(NOW).feeds
    assert desk.uplift.calendar == calendar_before
    assert (flagged.stale, flagged.last_success, flagged.n_events) == (True, NOW, 2)
    assert flagged.error
    vars(server).update({name: alive[name] for name in ("status", "headers")}, body=listed("a"))
    server.headers = {"ETag": '"2"'}
    desk.refresh(NOW + 1800)
    assert names(desk) == ["stadium/a"]
    assert (desk.view(NOW + 1800).feeds[0].stale, desk.view(NOW).feeds[0].error) == (False, None)


def test_unmodified_feed_is_no_stale_one(server: Server):
    """304 is an answer, and the window moves on over the body that we have."""
    server.body = json.dumps([{"id": "late", "start": NOW + 20 * 86400, "end": NOW + 20.1 * 86400}]).encode()
    desk = desk_of(feeds={"stadium": feed_at(server.url)})
    desk.refresh(NOW)
    assert names(desk) == []
    desk.refresh(NOW + 10 * 86400)
    assert server.asked[1]["if-none-match"] == '"1"'
    assert names(desk) == ["stadium/late"]
    assert desk.view(NOW + 10 * 86400).feeds[0].last_success == NOW + 10 * 86400


def test_feed_is_read_no_more_often_than_asked(server: Server):
    """A desk that is asked again and again does not ask the server as often."""
    desk = desk_of(feeds={"stadium": feed_at(server.url)})
    for second in (0, 1, 899, 900):
        desk.refresh(NOW + second)
    assert len(server.asked) == 2


def test_one_dead_feed_does_not_hold_up_others(server: Server, tmp_path: Path):
    """Feeds fail by themselves."""
    server.body = listed("a")
    dead = EventFeed(format="icalendar", file=tmp_path / "none.ics")
    desk = desk_of(feeds={"dead": dead, "stadium": feed_at(server.url)})
    desk.refresh(NOW)
    assert names(desk) == ["stadium/a"]
    assert [(feed.name, feed.stale) for feed in desk.view(NOW).feeds] == [("dead", True), ("stadium", False)]


def test_thread_reads_the_feeds(server: Server):
    """Started, the desk reads by itself; stopped, it ends."""
    server.body = listed("a")
    desk = desk_of(feeds={"stadium": feed_at(server.url)})
    desk.start()
    deadline = threading.Event()
    for _ in range(500):
        if names(desk):
            break
        deadline.wait(0.02)
    desk.stop()
    assert names(desk) == ["stadium/a"]


def test_feeds_that_never_answered_are_stale():
    """Before the first answer nobody knows."""
    desk = desk_of(feeds={"stadium": feed_at("http://127.0.0.1:9/")})
    assert desk.view(NOW).feeds[0].stale is True
