"""Events over REST and on the command line."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from northbound import tables
from northbound.events_api import Events
from tests.northbound.conftest import Ask
from tests.northbound.doubles import NOW, TOKEN

FETE = {"id": "fete", "kind": "party", "start": NOW + 60, "end": NOW + 120, "scope": ["user:anna"]}


def test_answer_matches_its_schema(ask: Ask):
    """The read answers what OpenAPI says, with no key more."""
    response = ask("GET", "/events")
    assert response.status_code == 200
    Events.model_validate(response.json())


def test_what_was_learnt_is_shown_with_its_uncertainty(ask: Ask):
    """A factor alone would look certain; and the directions are not swapped."""
    final = ask("GET", "/events").json()["events"][0]
    assert (final["state"], final["level"]) == ("active", "global")
    assert final["uplift"]["up"] == {"p10": 1.5, "p50": 2.0, "p90": 2.7, "n_events": 3.0}
    assert final["uplift"]["down"]["p50"] == 4.0


def test_event_of_nobody_here_says_so(ask: Ask):
    """A scope that names no pool has no level and no uplift."""
    exam = ask("GET", "/events").json()["events"][1]
    assert (exam["state"], exam["level"], exam["uplift"]) == ("upcoming", None, None)


def test_dead_feed_is_flagged(ask: Ask):
    """Staleness is visible, with its reason."""
    (feed,) = ask("GET", "/events").json()["feeds"]
    assert (feed["stale"], feed["error"]) == (True, "must answer 200, got 503")


def test_announcement_shows_and_can_be_taken_back(ask: Ask):
    """What is announced is there until it is withdrawn."""
    response = ask("POST", "/events", TOKEN, json=FETE)
    assert (response.status_code, response.json()) == (
        201,
        {"id": "fete", "start": NOW + 60, "end": NOW + 120},
    )
    assert "fete" in [event["id"] for event in ask("GET", "/events").json()["events"]]
    assert ask("DELETE", "/events/fete", TOKEN).status_code == 204
    assert "fete" not in [event["id"] for event in ask("GET", "/events").json()["events"]]


def test_ids_of_feeds_have_slashes_and_still_name_an_event(ask: Ask):
    """A feed's event is found by its whole id, so that the refusal can say whence it comes."""
    assert ask("DELETE", "/events/stadium/final@1", TOKEN).status_code == 204


@pytest.mark.parametrize(("method", "path"), [("POST", "/events"), ("DELETE", "/events/exam")])
def test_writes_need_the_token(ask: Ask, method: str, path: str):
    """Who may not write is told so before anything is looked at."""
    assert ask(method, path, None, json=FETE).status_code == 401


def test_unknown_event_is_404(ask: Ask):
    """The title names the id."""
    response = ask("DELETE", "/events/zoe", TOKEN)
    assert (response.status_code, response.json()["title"]) == (
        404,
        "eventID must be the id of an event, got 'zoe'",
    )


def test_id_twice_is_refused(ask: Ask):
    """The planner's refusal is a conflict."""
    assert ask("POST", "/events", TOKEN, json={**FETE, "id": "exam"}).status_code == 409


@pytest.mark.parametrize(
    ("change", "title"),
    [
        ({"expected_uplift": 0}, "body.expected_uplift must be >= 0.02, got 0"),
        ({"expected_uplift": True}, "body.expected_uplift must be a number, got True"),
        ({"kind": None}, "body.kind must be text, got None"),
        ({"start": "soon"}, "body.start must be a time such as"),
        ({"scope": ["/"]}, "body.scope.0 must match"),
        ({"x": 1}, "body.x is not a known key, got 1"),
    ],
)
def test_wrong_body_names_path_rule_and_value(ask: Ask, change: dict[str, object], title: str):
    """A client can mend what it is told."""
    response = ask("POST", "/events", TOKEN, json={**FETE, **change})
    assert response.status_code == 422
    assert response.json()["title"].startswith(title)


def test_table_shows_range_and_feed(ask: Ask):
    """The table shows the range, not the middle alone, and why an entry was passed over."""
    console = Console(width=200, record=True, file=None, quiet=False)
    answer = json.loads(ask("GET", "/events").content)
    with console.capture() as captured:
        for part in tables.events(answer):
            console.print(part)
    text = captured.get()
    assert "2.00 (1.50 to 2.70)" in text
    assert "stadium: skipped x" in text
    assert "everybody" in text
