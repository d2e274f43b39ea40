"""Archetypes over REST and on the command line."""

from __future__ import annotations

from northbound.archetypes_api import ArchetypeDetail, Archetypes
from tests.northbound.conftest import Ask
from tests.northbound.doubles import TOKEN


def test_archetypes_are_listed(ask: Ask):
    """Level and direction by name; a figure that is not known is null."""
    answer = ask("GET", "/archetypes").json()
    Archetypes.model_validate(answer)
    first, second = answer["archetypes"]
    assert (first["level"], first["direction"], second["direction"]) == ("user", "up", "down")
    assert first["centre"] == {"relative_rate": 4.0, "idle_share": 0.0, "night": None}


def test_one_archetype_shows_who_belongs_to_it(ask: Ask):
    """The surest first, and no more than asked for."""
    answer = ask("GET", "/archetypes/0").json()
    ArchetypeDetail.model_validate(answer)
    assert [one["probability"] for one in answer["pools"]] == [0.9, 0.6]
    assert len(ask("GET", "/archetypes/0?limit=1").json()["pools"]) == 1


def test_an_operator_gives_a_name_and_takes_it_back(ask: Ask):
    """The rule's name stays beside it, and returns with null."""
    named = ask("PUT", "/archetypes/0/name", TOKEN, json={"name": "office"})
    assert (named.json()["name"], named.json()["rule_name"]) == ("office", "heavy streamer")
    assert ask("GET", "/archetypes/0").json()["name"] == "office"
    assert ask("PUT", "/archetypes/0/name", TOKEN, json={"name": None}).json()["name"] == "heavy streamer"


def test_what_is_wrong_is_told(ask: Ask):
    """No token, no such archetype, a name too long, a key too many."""
    assert ask("PUT", "/archetypes/0/name", None, json={"name": "x"}).status_code == 401
    assert ask("PUT", "/archetypes/7/name", TOKEN, json={"name": "x"}).status_code == 404
    assert ask("GET", "/archetypes/7").status_code == 404
    assert ask("PUT", "/archetypes/0/name", TOKEN, json={"name": "x" * 64}).status_code == 422
    assert ask("PUT", "/archetypes/0/name", TOKEN, json={"name": "x", "level": 1}).status_code == 422
    assert ask("PUT", "/archetypes/0/name", TOKEN, json={"name": "a\nb"}).status_code == 409
