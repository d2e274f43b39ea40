"""``tidegate events``, against an API with a real desk of events behind it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from northbound.cli import app
from northbound.cli_exit import Exit
from planner.config_events import Events
from planner.events.desk import EventDesk
from planner.events.uplift import EventUplift
from tests.northbound.doubles import FakeOperations
from tests.northbound.test_cli import served
from tests.northbound.test_events_import import calendar


@pytest.fixture
def desk() -> EventDesk:
    return EventDesk(Events(), EventUplift(60.0, (60.0, 300.0), 1e10))


@pytest.fixture
def url(desk: EventDesk) -> Iterator[str]:
    operations = FakeOperations()
    operations.events = desk  # type: ignore[assignment]
    with served(operations) as address:
        yield address


@pytest.fixture
def season(tmp_path: Path) -> Path:
    """A calendar of one match in ten days."""
    day = datetime.fromtimestamp(time.time() + 10 * 86400, UTC).strftime("%Y%m%d")
    file = tmp_path / "season.ics"
    file.write_bytes(calendar(f"UID:final\nDTSTART:{day}T180000Z\nDTEND:{day}T200000Z"))
    return file


def run(*words: str, **more: Any) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["events", *words], **more)
    return result.exit_code, result.stdout, result.stderr


def test_import_replaces_and_is_withdrawn(url: str, desk: EventDesk, season: Path):
    """Under the file's name."""
    status, told, _ = run(
        "import", str(season), "--url", url, "--kind", "match", "--scope", "west", "--scope", "user:anna"
    )
    assert (status, told.splitlines()[0].endswith("1 new, 0 changed; 0 of the earlier import removed")) == (
        0,
        True,
    )
    (event,) = desk.uplift.calendar
    assert (event.kind, event.scope, event.expected_uplift) == ("match", ("west", "user:anna"), None)
    status, told, _ = run("import", str(season), "--url", url, "--expected-uplift", "2.5", "--json")
    assert (status, json.loads(told)["n_changed"]) == (0, 1)
    assert desk.uplift.calendar[0].expected_uplift == 2.5
    assert "season/final@" in run("list", "--url", url)[1]
    assert run("withdraw", "season", "--url", url) == (0, "season is withdrawn\n", "")
    assert desk.uplift.calendar == ()


def test_dry_run_says_what_would_change(url: str, desk: EventDesk, season: Path):
    """And changes nothing."""
    status, told, _ = run("import", str(season), "--url", url, "--dry-run")
    assert (status, told.startswith("season: nothing was changed; it would be 1 events")) == (0, True)
    assert desk.uplift.calendar == ()


def test_standard_input_has_no_name(url: str, desk: EventDesk, season: Path):
    """So one must be given."""
    assert run("import", "-", "--url", url, input=season.read_bytes())[0] == Exit.MISUSED
    assert run("import", "-", "--url", url, "--name", "cup", input=season.read_bytes())[0] == 0
    assert desk.uplift.calendar[0].id.startswith("cup/final@")


def test_each_fault_is_a_line_with_its_line(url: str, season: Path):
    """And a wrong call: the file is to be mended."""
    season.write_bytes(calendar("UID:1", "UID:2\nDTSTART:x"))
    status, _, told = run("import", str(season), "--url", url)
    assert (status, told.count("\n")) == (Exit.MISUSED, 2)
    assert "body: line 4: 1: No DTSTART given" in told
    assert "body: line 9: 2: DTSTART must be readable" in told


def test_file_that_is_not_there_is_one_line(url: str, tmp_path: Path):
    """With its name."""
    status, _, told = run("import", str(tmp_path / "none.ics"), "--url", url)
    assert (status, told.count("\n"), "none.ics" in told) == (Exit.FAILED, 1, True)


def test_announce_and_withdraw_one_event(url: str, desk: EventDesk):
    """Times are the machine's own; what is refused is told as the planner said it."""
    words = (
        "announce",
        "fete",
        "--kind",
        "party",
        "--start",
        "2100-05-04T09:00+00:00",
        "--end",
        "2100-05-04T17:00+00:00",
    )
    status, told, _ = run(*words, "--url", url, "--scope", "west", "--summary", "Fête")
    assert (status, told.startswith("announced: fete, 2100-05-04")) == (0, True)
    (event,) = desk.uplift.calendar
    assert (event.start, event.end, event.summary) == (4113104400, 4113133200, "Fête")
    status, _, told = run(*words, "--url", url)
    assert (status, told.endswith("events.fete must be a new id, got one that exists\n")) == (
        Exit.FAILED,
        True,
    )
    assert run("withdraw", "fete", "--url", url)[0] == 0
    status, _, told = run("withdraw", "fete", "--url", url)
    assert (status, told.endswith("eventID must be the id of an event, got 'fete'\n")) == (Exit.FAILED, True)
