"""Boosts, freeze and revert, standbys and explanations by REST, over a real planner."""

from __future__ import annotations

from typing import Any

import pytest

from planner.requests import Standby, StandbyReport
from tests.northbound.conftest import Ask
from tests.northbound.doubles import TOKEN, FakeOperations

BOOST = {
    "pools": ["user:anna"],
    "end": 1_000_600,
    "weight_factor": 2,
    "guarantee_mbps": 3,
    "reason": "launch",
}


def post(ask: Ask, path: str, body: Any = None, method: str = "POST") -> Any:
    return ask(method, path, token=TOKEN, json=body) if body is not None else ask(method, path, token=TOKEN)


def test_boosts_come_by_the_page(ask: Ask):
    """By their end; the total says how many there are."""
    for number in (3, 1, 2):
        post(ask, "/boosts", {**BOOST, "id": f"b{number}", "end": 1_000_600 + number})
    page = ask("GET", "/boosts?limit=2&offset=1").json()
    assert (page["total"], page["offset"], page["limit"]) == (3, 1, 2)
    assert [one["id"] for one in page["boosts"]] == ["b2", "b3"]
    assert ask("GET", "/boosts?limit=2&offset=9").json()["boosts"] == []
    assert ask("GET", "/boosts?limit=0").status_code == 422


def test_standbys_come_by_the_page(ask: Ask, operations: FakeOperations):
    """What all of them keep is on every page."""
    rows = tuple(Standby(f"user:u{n}", "global/west", 1, "waiting", 1e6, 2e6, 9e9) for n in range(5))
    operations.running.planner.standby_report = lambda: StandbyReport(rows)  # type: ignore[method-assign]
    page = ask("GET", "/standbys?limit=2&offset=3").json()
    assert (page["total"], page["offset"], page["limit"]) == (5, 3, 2)
    assert [one["owner"] for one in page["standbys"]] == ["user:u3", "user:u4"]
    assert page["kept_bps"] == {"up": 0, "down": 5_000_000}
    assert ask("GET", "/standbys?offset=-1").status_code == 422


def test_summary_comes_by_the_page(ask: Ask):
    """Its totals are of all pools."""
    whole, page = ask("GET", "/summary").json(), ask("GET", "/summary?limit=1&offset=1").json()
    assert (page["total"], page["offset"], page["limit"]) == (len(whole["pools"]), 1, 1)
    assert page["pools"] == whole["pools"][1:2]
    assert page["totals"] == whole["totals"]


def test_boost_is_made_listed_and_in_force_at_the_next_tick(ask: Ask, operations: FakeOperations):
    """Rates in bodies are Mbit/s, in answers bit/s; what is acknowledged is on disk."""
    response = post(ask, "/boosts", {**BOOST, "id": "launch"})
    assert response.status_code == 201
    made = response.json()
    assert (made["id"], made["start"], made["end"]) == ("launch", operations.running.now, 1_000_600)
    assert made["guarantee_bps"] == {"up": 3_000_000, "down": 3_000_000}
    assert made["ceiling_bps"] is None
    assert ask("GET", "/boosts").json() == {"total": 1, "offset": 0, "limit": 1000, "boosts": [made]}
    assert operations.told == ["boost launch for user:anna until 1000600"]
    operations.running.tick()
    pools = operations.running.planner.snapshot.pools
    assert pools.weight[operations.running.row("anna")] == 2


def test_boost_without_an_id_gets_one(ask: Ask):
    """And two of them have different ones."""
    ids = {post(ask, "/boosts", BOOST).json()["id"] for _ in range(2)}
    assert len(ids) == 2


def test_withdrawn_boost_is_gone(ask: Ask):
    """A second time there is nothing to withdraw."""
    post(ask, "/boosts", {**BOOST, "id": "launch"})
    assert post(ask, "/boosts/launch", method="DELETE").status_code == 204
    again = post(ask, "/boosts/launch", method="DELETE")
    assert again.status_code == 404
    assert again.json()["title"] == "boostID must be the id of a boost, got 'launch'"


@pytest.mark.parametrize(
    ("change", "status", "line"),
    [
        ({"end": None}, 422, "end must be"),
        ({"end": 5}, 409, "boosts.b.end must be in the future"),
        ({"end": "2030-01-01T00:00"}, 409, "end must be epoch seconds or a time with its zone"),
        ({"pools": ["anna"]}, 422, "pools.0 must match"),
        ({"pools": ["group:gone"]}, 409, "boosts.b.pools must be groups that are there, got 'gone'"),
        ({"weight_factor": 0.5}, 422, "weight_factor must be >= 1, got 0.5"),
    ],
)
def test_wrong_boost_is_refused(ask: Ask, change: dict[str, Any], status: int, line: str):
    """The title names path, rule and value."""
    response = post(ask, "/boosts", {**BOOST, "id": "b", **change})
    assert response.status_code == status
    assert line in response.json()["title"]
    assert ask("GET", "/boosts").json()["boosts"] == []


def test_boost_must_have_an_end(ask: Ask):
    """Nothing that is temporary lasts for ever."""
    response = post(ask, "/boosts", {"pools": ["user:anna"], "weight_factor": 2})
    assert response.status_code == 422
    assert response.json()["title"] == "body.end must be given"


def test_freeze_revert_and_unfreeze(ask: Ask, operations: FakeOperations):
    """Each answers which plan stands then."""
    frozen = post(ask, "/plan/freeze", {"reason": "change window"}).json()
    assert (frozen["frozen"], frozen["reason"], frozen["mode"]) == (True, "change window", "live")
    operations.running.tick()
    state = ask("GET", "/plan/state").json()
    assert state["proposed"]["version"] == state["published"]["version"] + 1
    reverted = post(ask, "/plan/revert").json()
    assert reverted["published"]["time"] == reverted["kept"][1]["time"]
    assert reverted["published"]["version"] > state["proposed"]["version"]
    assert not post(ask, "/plan/unfreeze").json()["frozen"]
    assert len(operations.told) == 3


def test_unknown_version_is_not_found(ask: Ask):
    """The title names it."""
    response = post(ask, "/plan/revert", {"version": 999})
    assert response.status_code == 404
    assert response.json()["title"] == "version must be one of the kept plans, got 999"


def test_mode_is_changed_for_named_regions_or_a_share_of_them(ask: Ask):
    """Half of two regions is one of them."""
    named = post(ask, "/plan/mode", {"mode": "canary", "regions": ["east"]}, "PUT").json()
    assert (named["mode"], named["regions"]) == ("canary", ["east"])
    shared = post(ask, "/plan/mode", {"mode": "canary", "share": 0.5}, "PUT").json()
    assert len(shared["regions"]) == 1
    assert post(ask, "/plan/mode", {"mode": "shadow"}, "PUT").json()["regions"] == []
    assert post(ask, "/plan/mode", {"mode": "canary", "regions": ["north"]}, "PUT").status_code == 409


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/plan/freeze"),
        ("POST", "/plan/unfreeze"),
        ("POST", "/plan/revert"),
        ("PUT", "/plan/mode"),
        ("POST", "/boosts"),
        ("DELETE", "/boosts/x"),
    ],
)
def test_writes_need_the_token(ask: Ask, method: str, path: str):
    """Without it nothing is looked at."""
    assert ask(method, path, None).status_code == 401


@pytest.mark.parametrize("pool", ["anna", "global/west/crew/anna", "west/crew/anna"])
def test_pool_is_explained_by_its_path_or_the_end_of_it(ask: Ask, operations: FakeOperations, pool: str):
    """From the sample to the meters, in numbers and in words."""
    answer = ask("GET", f"/explain/{pool}").json()
    assert answer["path"] == "global/west/crew/anna"
    assert answer["plan_version"] == operations.running.planner.snapshot.plan.version
    up, down = answer["directions"]
    assert (up["direction"], down["direction"]) == ("up", "down")
    assert up["sample"]["offered_bps"] == 2e6
    assert up["meters"][0]["dpid"] == f"{0x11:016x}"
    assert up["meters"][0]["rate_kbps"] == up["share"]["grant_bps"] // 1000
    assert up["text"][0] == "it offered 2 Mbit/s"


def test_unknown_pool_is_not_found(ask: Ask):
    """The title names it."""
    response = ask("GET", "/explain/nobody")
    assert response.status_code == 404
    assert "got 'nobody'" in response.json()["title"]


def test_standbys_are_counted(ask: Ask):
    """None here: nothing doubtful is forecast."""
    answer = ask("GET", "/standbys").json()
    assert answer == {
        "made": 0,
        "activated": 0,
        "expired": 0,
        "kept_bps": {"up": 0, "down": 0},
        "total": 0,
        "offset": 0,
        "limit": 1000,
        "standbys": [],
    }


def test_boost_is_tried_without_being_made(ask: Ask, operations: FakeOperations):
    """The answer lists meters; no boost is there afterwards."""
    body = {"pools": ["user:anna"], "end": operations.running.now + 600, "guarantee_mbps": 15}
    answer = ask("POST", "/boosts?dry_run=true", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["dry_run"] is True
    assert any(
        one["pool"].endswith("/anna") and one["after_kbps"] > one["before_kbps"] for one in found["meters"]
    )
    assert ask("GET", "/boosts").json()["boosts"] == []
