"""Calendars by REST: taken whole or not at all, in place of their earlier selves, and kept over a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from northbound.events_api import Imported
from planner.config_events import Events
from planner.events.desk import EventDesk
from planner.events.imports import MAX_ENTRIES
from planner.events.parsed import MAX_EVENTS
from planner.events.uplift import EventUplift
from planner.process import PlannerProcess
from planner.snapshot import NotThere, Refused
from tests.northbound.conftest import Ask
from tests.northbound.doubles import NOW, FakeOperations
from tests.northbound.guarded import Guarded
from tests.planner.test_process import config_in

CALENDAR = "/events/import?name=season"
#: 1970-01-12T13:46:40Z is NOW.
FINAL = "UID:final\nDTSTART:19700115T180000Z\nDTEND:19700115T200000Z\nSUMMARY:Final\nCATEGORIES:Match"
CUP = "UID:cup\nDTSTART:19700116T180000Z\nDTEND:19700116T200000Z"


def calendar(*entries: str) -> bytes:
    body = "".join(f"BEGIN:VEVENT\n{entry}\nEND:VEVENT\n" for entry in entries)
    return f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:test\n{body}END:VCALENDAR\n".replace("\n", "\r\n").encode()


def desk_of(**settings: Any) -> EventDesk:
    return EventDesk(Events(**settings), EventUplift(60.0, (60.0, 300.0), 1e10), now=lambda: NOW)


@pytest.fixture
def desk(operations: FakeOperations) -> EventDesk:
    """The real desk, with an event of the file and a feed, behind the API."""
    filed = {"id": "open-day", "kind": "visit", "start": "1970-02-01", "end": "1970-02-02"}
    feed = {"format": "json", "file": "/nonexistent/list.json"}
    made = desk_of(announcements=[filed], feeds={"stadium": feed})
    operations.events = made  # type: ignore[assignment]
    return made


@pytest.fixture
def send(desk: EventDesk, ask: Ask) -> Any:
    """Hand a calendar over; ``desk`` must be there before the API is."""

    def sent(body: bytes, path: str = CALENDAR, **headers: str) -> httpx.Response:
        headers = {"Content-Type": "text/calendar"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return ask("POST", path, content=body, headers=headers)

    return sent


def ids(desk: EventDesk) -> list[str]:
    return [event.id for event in desk.uplift.calendar if event.source == "rest"]


def test_calendar_becomes_events(send: Any, desk: EventDesk):
    """Each entry with its own kind or the given one, and the given scope; the loop has them at once."""
    response = send(calendar(FINAL, CUP), f"{CALENDAR}&kind=cup&scope=west&scope=user:anna&expected_uplift=3")
    assert response.status_code == 201
    answer = Imported.model_validate(response.json())
    assert (answer.n_events, answer.n_new, answer.replaced, answer.dry_run) == (2, 2, False, False)
    first, second = (event for event in desk.uplift.calendar if event.source == "rest")
    assert (first.id, first.kind, first.summary) == ("season/final@1274400", "match", "Final")
    assert (first.start, first.end) == (1274400, 1281600)
    assert (second.kind, second.scope, second.expected_uplift) == ("cup", ("west", "user:anna"), 3.0)
    assert [event.id for event in answer.events] == [first.id, second.id]


def test_path_stands_below_v1_too(send: Any, desk: EventDesk):
    """Dry run included."""
    assert send(calendar(FINAL), f"/v1{CALENDAR}&dryRun=true").status_code == 200
    assert ids(desk) == []
    assert send(calendar(FINAL), f"/v1{CALENDAR}").status_code == 201
    assert ids(desk) == ["season/final@1274400"]


def test_import_again_replaces_its_earlier_self(send: Any, desk: EventDesk):
    """What is not in it any more is gone; another import and what was announced stay."""
    assert send(calendar(FINAL), "/events/import?name=other").status_code == 201
    send(calendar(FINAL, CUP))
    moved = CUP.replace("0116T20", "0116T21")
    answer = send(calendar(moved, "UID:new\nDTSTART;VALUE=DATE:19700120"))
    assert answer.status_code == 200
    counts = {name: answer.json()[name] for name in ("replaced", "n_new", "n_changed", "n_removed")}
    assert counts == {"replaced": True, "n_new": 1, "n_changed": 1, "n_removed": 1}
    assert ids(desk) == ["other/final@1274400", "season/cup@1360800", "season/new@1641600"]


def test_a_year_ahead_is_read(send: Any, desk: EventDesk):
    """Nobody reads it again: a season must fit. What is over or later is counted."""
    weekly = FINAL + "\nRRULE:FREQ=WEEKLY"
    late = CUP.replace("19700116", "19720116")
    answer = send(calendar(weekly, late, CUP.replace("1970", "1969"))).json()
    assert (answer["n_events"], answer["n_outside"]) == (52, 2)
    assert answer["until"] == NOW + 366 * 86400
    # All are shown: one must be able to see what one announced.
    assert len(desk.view(NOW).events) == 52


def test_events_come_by_the_page(send: Any, desk: EventDesk, ask: Ask):
    """By start; kinds and feeds are on each page."""
    send(calendar(FINAL + "\nRRULE:FREQ=WEEKLY"))
    page = ask("GET", "/events?limit=2&offset=50").json()
    assert (page["total"], page["offset"], page["limit"], len(page["feeds"])) == (52, 50, 2, 1)
    assert [one["id"] for one in page["events"]] == ids(desk)[50:]
    assert ask("GET", "/events?offset=52").json()["events"] == []
    assert ask("GET", "/events?limit=10001").status_code == 422


def test_dry_run_changes_nothing(send: Any, desk: EventDesk):
    """It answers what would change."""
    send(calendar(FINAL))
    answer = send(calendar(CUP), CALENDAR + "&dryRun=true")
    assert (answer.status_code, answer.json()["dry_run"], answer.json()["n_removed"]) == (200, True, 1)
    assert ids(desk) == ["season/final@1274400"]
    assert send(calendar(CUP), CALENDAR + "&dryRun=perhaps").status_code == 422


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("UID:2\nDTSTART:garbage", "body: line 11: 2: DTSTART must be readable"),
        ("UID:2\nDTSTART:19700115T180000Z\nRRULE:FREQ=SECONDLY", "body: line 12: 2: RRULE must be of DAILY, WEEKLY, MONTHLY, YEARLY, got SECONDLY"),
        ("UID:2\nDTSTART:19700115T180000Z\nRRULE:FREQ=OFTEN", "body: line 12: 2: RRULE must be readable"),
        ("UID:2\nDTSTART;TZID=Nowhere/Land:19700115T180000", "body: line 11: 2: DTSTART must have a TZID that is known, got 'Nowhere/Land'"),
        ("UID:2\nSUMMARY:no time", "body: line 9: 2: No DTSTART given"),
        ("UID:2\nDTSTART:19700115T180000Z\nDTEND:19700114T180000Z", "body: line "),
        ("UID:2\nSUMMARY:long\n er\nDTSTART:19700115T180000Z\nEXDATE:x", "body: line 14: 2: EXDATE must be readable"),
    ],
)  # fmt: skip
def test_bad_entry_is_named_by_its_line_and_nothing_is_taken(
    send: Any, desk: EventDesk, entry: str, told: str
):
    """A feed passes over it; here somebody is there to mend it."""
    response = send(calendar(FINAL.replace("\nSUMMARY:Final\nCATEGORIES:Match", ""), entry))
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["title"].startswith(told)
    assert ids(desk) == []


def test_every_fault_is_told(send: Any):
    """Not only the first one."""
    errors = send(calendar("UID:1", FINAL, "UID:2")).json()["errors"]
    assert [error.split(": ")[2] for error in errors] == ["1", "2"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "body: line 1: text must begin with BEGIN:VCALENDAR, got nothing"),
        (b"\r\n<html>", "body: line 2: text must begin with BEGIN:VCALENDAR, got '<html>'"),
        (calendar(FINAL).replace(b"Final", b"F\xe9te"), "body: line 8: text must be UTF-8, got byte 0xe9"),
        (calendar(FINAL)[:60], "body: line 4: BEGIN must have its END, got none of VEVENT"),
        (calendar(FINAL).replace(b"END:VEVENT", b"X:y"), "body: line 11: END must be of VEVENT (line 4), got 'VCALENDAR'"),
        (calendar(), "body: VEVENT must occur in the next 366 days, got 0 entries"),
        (calendar(FINAL.replace("1970", "1969")), "body: VEVENT must occur in the next 366 days, got 1 entries"),
        (calendar(*["UID:1"] * (MAX_ENTRIES + 1)), "body: VEVENT must occur at most 2000 times, got 2001"),
    ],
)  # fmt: skip
def test_what_is_no_calendar_is_refused(send: Any, body: bytes, told: str):
    """With the line where there is one."""
    response = send(body)
    assert response.status_code == 422
    assert response.json()["title"].startswith(told)


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/events/import", 422, "query.name must be given"),
        ("/events/import?name=a/b", 422, "query.name must match"),
        (f"{CALENDAR}&scope=/", 422, "query.scope.0 must match"),
        (f"{CALENDAR}&expected_uplift=0", 422, "query.expected_uplift must be >= 0.02, got '0'"),
        ("/events/import?name=stadium", 409, "query.name must not be that of a feed or of holidays, got 'stadium'"),
        ("/events/import?name=open-day", 409, "query.name must not be an event's id, got 'open-day'"),
    ],
)  # fmt: skip
def test_wrong_query_names_rule_and_value(send: Any, path: str, status: int, told: str):
    """A client can mend what it is told."""
    response = send(calendar(FINAL), path)
    assert (response.status_code, response.json()["title"].startswith(told)) == (status, True), response.text


def test_other_media_types_are_refused(send: Any):
    """JSON goes to POST /events."""
    response = send(calendar(FINAL), Content_Type="application/json")
    assert (response.status_code, response.json()["title"]) == (
        415,
        "Content-Type must be text/calendar, got 'application/json'",
    )


def test_large_body_is_refused(send: Any):
    """Before anything reads it."""
    assert send(b"X" * ((1 << 20) + 1)).status_code == 413


def test_too_many_events_are_refused(desk: EventDesk, send: Any):
    """Over all imports, and nothing of the last is taken."""
    daily = "UID:{}\nDTSTART;VALUE=DATE:19700113\nRRULE:FREQ=DAILY"
    assert send(calendar(*(daily.format(number) for number in range(13)))).status_code == 201
    had = len(ids(desk))
    response = send(calendar(daily.format("x")), "/events/import?name=more")
    assert (response.status_code, len(ids(desk))) == (409, had)
    assert f"at most {MAX_EVENTS}" in response.json()["title"]


def test_key_makes_it_once(send: Any, desk: EventDesk):
    """Sent again it is answered as it was then, though the import was taken back since."""
    first = send(calendar(FINAL), Idempotency_Key="one")
    desk.withdraw("season")
    second = send(calendar(FINAL), Idempotency_Key="one")
    assert (second.status_code, second.json()) == (first.status_code, first.json())
    assert (second.headers["idempotency-replayed"], ids(desk)) == ("true", [])
    assert send(calendar(CUP), Idempotency_Key="one").status_code == 422


def test_import_is_taken_back_by_its_name_and_an_event_by_its_id(send: Any, desk: EventDesk, ask: Ask):
    """With its slash."""
    send(calendar(FINAL, CUP))
    assert ask("DELETE", "/events/season/cup@1360800").status_code == 204
    assert ids(desk) == ["season/final@1274400"]
    assert ask("DELETE", "/events/season").status_code == 204
    assert ids(desk) == []
    assert ask("DELETE", "/events/season").status_code == 404


def test_name_of_an_import_is_no_events_id(send: Any, ask: Ask):
    """Else DELETE could mean either."""
    send(calendar(FINAL))
    fete = {"id": "season", "kind": "party", "start": NOW + 60, "end": NOW + 120}
    assert ask("POST", "/events", json=fete).status_code == 409


def test_imports_one_at_a_time():
    """The second is told so, and not made to wait."""
    desk = desk_of()
    with desk._importing, pytest.raises(Refused, match="must be alone"):
        desk.import_calendar(asked())
    desk.import_calendar(asked())


def test_imported_events_long_over_are_forgotten():
    """And then the name is free."""
    desk = desk_of()
    desk.import_calendar(asked())
    desk.refresh(NOW + 30 * 86400)
    assert desk.uplift.calendar == ()
    with pytest.raises(NotThere):
        desk.withdraw("season")


def asked(body: bytes = calendar(FINAL)) -> Any:
    from planner.events.imports import CalendarImport

    return CalendarImport("season", body)


def test_import_outlives_a_restart(tmp_path: Path):
    """It is on disk when it is acknowledged, and can still be replaced and taken back."""
    config = config_in(tmp_path)
    process = PlannerProcess(config)
    future = calendar(FINAL.replace("DTSTART:1970", "DTSTART:1971").replace("DTEND:1970", "DTEND:1971"))
    process.events._now = lambda: NOW + 360 * 86400
    process.events.import_calendar(asked(future))
    process.stop()
    successor = PlannerProcess(config)
    (event,) = successor.events.uplift.calendar
    assert event.id.startswith("season/final@")
    successor.events.withdraw("season")
    assert successor.events.uplift.calendar == ()
    successor.stop()


def test_state_of_an_older_planner_is_taken():
    """It knew no imports."""
    desk = desk_of()
    state = json.loads(desk.state(desk.uplift.state()))
    del state["imports"]
    desk.restore(json.dumps(state).encode())
    assert desk.uplift.calendar == ()


def test_import_is_in_the_audit_log(tmp_path: Path):
    """Who, what into which name, and which bytes; a reader may not, and that is there too."""
    guarded = Guarded(tmp_path)
    guarded.operations.events = desk_of()  # type: ignore[assignment]
    headers = {"Content-Type": "text/calendar"}
    body = calendar(FINAL)
    for scope, status in (("operate", 201), ("read", 403)):
        token = guarded.token(scope, name=scope)
        answer = guarded.ask("POST", CALENDAR, token, content=body, headers=headers)
        assert answer.status_code == status
    entries = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    made, refused = (entry for entry in entries if "import" in entry["action"])
    assert (made["actor"], made["target"], made["outcome"]) == ("operate", CALENDAR, "ok")
    assert made["after"].startswith(f"{len(body)} bytes, not JSON, SHA-256 ")
    assert refused["outcome"] == "refused with status 403"
