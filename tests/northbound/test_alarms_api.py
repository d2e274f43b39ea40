"""Alarms over REST and on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from northbound import cli_alarms
from northbound.alarms_api import Alarm, Alarms
from northbound.cli_shared import console
from tests.northbound.conftest import Ask
from tests.northbound.doubles import NOW, TOKEN


def test_alarms_are_answered_by_their_schema(ask: Ask):
    """Oldest change first, with evidence; what does not apply is null."""
    answer = Alarms.model_validate(ask("GET", "/alarms").json())
    assert [(one.kind, one.side, one.closed) for one in answer.alarms] == [
        ("spike", "above", None),
        ("silence", "below", NOW),
    ]
    assert answer.alarms[0].evidence.e_value is None
    assert (answer.sequence, answer.open, answer.complete) == (3, 1, True)


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("since=2", [1]),
        ("since=3", []),
        ("open=true", [2]),
        ("open=false", [1]),
        ("limit=1", [2]),
        ("pool=global/west/g1", [2]),
    ],
)
def test_filters(ask: Ask, query: str, ids: list[int]):
    """Since, open, pool and limit each leave out what they should."""
    assert [one["id"] for one in ask("GET", f"/alarms?{query}").json()["alarms"]] == ids


def test_acknowledging_needs_the_token_and_is_seen(ask: Ask):
    """Who may write may acknowledge; the next answer shows it as a change."""
    assert ask("POST", "/alarms/2/acknowledge", None).status_code == 401
    acknowledged = Alarm.model_validate(ask("POST", "/alarms/2/acknowledge", TOKEN).json())
    assert (acknowledged.acknowledged, acknowledged.closed) == (NOW, None)
    assert [one["id"] for one in ask("GET", "/alarms?since=3").json()["alarms"]] == [2]


@pytest.mark.parametrize(
    ("method", "path", "status", "title"),
    [
        ("POST", "/alarms/9/acknowledge", 404, "alarmID must be the id of an alarm that is kept, got 9"),
        ("POST", "/alarms/0/acknowledge", 422, "path.alarmID must be >= 1, got '0'"),
        ("GET", "/alarms?since=-1", 422, "query.since must be >= 0, got '-1'"),
        ("GET", "/alarms?limit=0", 422, "query.limit must be >= 1, got '0'"),
    ],
)
def test_faults_name_path_rule_and_value(ask: Ask, method: str, path: str, status: int, title: str):
    """As everywhere else."""
    response = ask(method, path, TOKEN)
    assert (response.status_code, response.json()["title"]) == (status, title)


def test_the_table_shows_state_and_sentence(ask: Ask):
    """One row an alarm, and how the stream stands below."""
    screen = console()
    with screen.capture() as captured:
        for part in cli_alarms.parts(ask("GET", "/alarms").json()):
            screen.print(part)
    assert "back to normal" in captured.get()
    assert "1 open, 1 of them not acknowledged; 0 held back" in captured.get()


class Enough(Exception):
    """The test has seen what it wanted."""


@pytest.mark.parametrize("as_json", [True, False])
def test_follow_prints_each_change_once(ask: Ask, capsys: pytest.CaptureFixture[str], as_json: bool):
    """A change of an alarm is one line, when it comes."""
    acts: Iterator[Any] = iter(
        [lambda: None, lambda: ask("POST", "/alarms/2/acknowledge", TOKEN), lambda: None]
    )

    def pause(_seconds: float) -> None:
        act = next(acts, None)
        if act is None:
            raise Enough
        act()

    with pytest.raises(Enough):
        cli_alarms.follow(lambda since: ask("GET", f"/alarms?since={since}").json(), as_json, pause)
    lines = capsys.readouterr().out.splitlines()
    if as_json:
        assert [json.loads(line)["id"] for line in lines] == [2, 1, 2]
    else:
        assert [" acknowledged" in line for line in lines] == [False, False, True]
