"""Traffic shapes over a real planner, and what every write takes: keys, preconditions, dry runs, versions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.northbound.conftest import Ask
from tests.northbound.doubles import FakeOperations

SHAPE = {"id": "guests", "addresses": "10.7.0.0/24", "limit_mbps": {"up": 2, "down": 8}}
BOOST = {"pools": ["user:anna"], "end": 2e9, "guarantee_mbps": 4}


def test_shape_is_made_replaced_listed_and_removed(ask: Ask):
    """201, then 200 for the same id; each way to read it says the same."""
    made = ask("POST", "/updateTrafficShape", json=SHAPE)
    assert (made.status_code, made.headers["location"]) == (201, "/trafficShapes/guests")
    assert made.json()["limit_bps"] == {"up": 2_000_000, "down": 8_000_000}
    again = ask("POST", "/updateTrafficShape", json={**SHAPE, "limit_mbps": 3})
    assert again.status_code == 200
    shown = ask("GET", "/trafficShapes/guests")
    assert shown.json() == again.json()
    assert shown.headers["etag"] == again.headers["etag"] != made.headers["etag"]
    assert again.json() in ask("GET", "/trafficShapes").json()["shapes"]
    assert ask("DELETE", "/trafficShapes/guests").status_code == 204
    assert ask("GET", "/trafficShapes/guests").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"addresses": "10.7.0.1/24", "limit_mbps": 1},
        {"addresses": "10.7.0.9-10.7.0.1", "limit_mbps": 1},
        {"addresses": "10.7.0.1-2001:db8::1", "limit_mbps": 1},
        {"addresses": "nowhere", "limit_mbps": 1},
        {"addresses": "10.7.0.0/24"},
        {"addresses": "10.7.0.0/24", "dscp": 64},
        {"addresses": "10.7.0.0/24", "guarantee_mbps": 5, "limit_mbps": 4},
    ],
)
def test_shape_that_makes_no_sense_is_refused(ask: Ask, body: dict[str, object]):
    """422, and the title names what is wrong."""
    answer = ask("POST", "/updateTrafficShape", json=body)
    assert answer.status_code == 422
    assert answer.json()["title"].startswith("body")


def test_shape_of_nobody_together_is_refused(ask: Ask):
    """A group of nobody would limit nobody."""
    answer = ask("POST", "/updateTrafficShape", json={**SHAPE, "scope": "together"})
    assert answer.status_code == 409
    assert "addresses" in answer.json()["title"]


def test_write_with_a_key_is_made_once(ask: Ask, operations: FakeOperations):
    """Sent again it is answered and not made; another body or another moment of the same key is told apart."""
    key = {"Idempotency-Key": "one"}
    first = ask("POST", "/boosts", json=BOOST, headers=key)
    second = ask("POST", "/boosts", json=BOOST, headers=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    assert len(operations.policy.boosts()) == 1
    other = ask("POST", "/boosts", json={**BOOST, "guarantee_mbps": 5}, headers=key)
    assert other.status_code == 422
    assert ask("POST", "/boosts", json=BOOST, headers={"Idempotency-Key": "x" * 256}).status_code == 422


def test_refused_write_may_be_sent_again(ask: Ask):
    """It changed nothing, so its key is still free."""
    key = {"Idempotency-Key": "one"}
    assert ask("POST", "/boosts", json={**BOOST, "pools": ["user:nobody"]}, headers=key).status_code == 409
    assert ask("POST", "/boosts", json=BOOST, headers=key).status_code == 201


def test_group_is_changed_only_as_it_was_read(ask: Ask, operations: FakeOperations):
    """Of two who read the same, the second is told to read again; until the next tick there is no tag."""
    tag = {"If-Match": ask("GET", "/groups/g1").headers["etag"]}
    assert ask("PUT", "/groups/g1/bandwidth", json={"weight": 2}, headers=tag).status_code == 200
    assert ask("PUT", "/groups/g1/bandwidth", json={"weight": 3}, headers=tag).status_code == 412
    assert "etag" not in ask("GET", "/groups/g1").headers
    snapshot = operations.snapshot
    health = replace(snapshot.health, ticks=snapshot.health.ticks + 1)
    operations.snapshot = replace(snapshot, health=health)
    tag = {"If-Match": ask("GET", "/groups/g1").headers["etag"]}
    assert ask("PUT", "/groups/g1/bandwidth", json={"weight": 3}, headers=tag).status_code == 200


def test_shape_is_changed_only_as_it_was_read(ask: Ask):
    """What is not there has no tag either."""
    tag = {"If-Match": ask("POST", "/updateTrafficShape", json=SHAPE).headers["etag"]}
    assert ask("POST", "/updateTrafficShape", json={**SHAPE, "limit_mbps": 1}, headers=tag).status_code == 200
    assert ask("DELETE", "/trafficShapes/guests", headers=tag).status_code == 412
    assert ask("DELETE", "/trafficShapes/nothing", headers=tag).status_code == 412


def test_dry_run_tells_the_meters_and_changes_nothing(ask: Ask, operations: FakeOperations):
    """Of a boost, of a group that goes, and of a refusal; under both names of the parameter."""
    before = operations.running.planner.snapshot
    for name in ("dryRun", "dry_run", "dryrun", "dry-run"):
        tried = ask("POST", f"/boosts?{name}=true", json={**BOOST, "guarantee_mbps": 19})
        assert tried.status_code == 200
        assert tried.json()["dry_run"] is True
        assert {one["direction"] for one in tried.json()["meters"]} == {"up", "down"}
    gone = ask("DELETE", "/groups/crew?dryRun=true").json()["meters"]
    assert any(one["after_kbps"] is None and one["pool"] == "global/west/crew" for one in gone)
    assert ask("POST", "/boosts?dryRun=true", json={**BOOST, "pools": ["user:nobody"]}).status_code == 409
    assert ask("POST", "/boosts?dryRun=maybe", json=BOOST).status_code == 422
    assert ask("POST", "/plan/freeze?dryRun=true").status_code == 422
    assert operations.policy.boosts() == ()
    assert operations.running.planner.snapshot is before
    assert not operations.running.planner.publication.stance.frozen


def test_paths_stand_below_v1_too(ask: Ask):
    """The same answers, the same refusals, and one document for both."""
    assert ask("GET", "/v1/plan").json() == ask("GET", "/plan").json()
    assert ask("GET", "/v1/plan", None).status_code == 401
    assert ask("GET", "/v1/v1/plan").status_code == 404
    assert [one["url"] for one in ask("GET", "/v1/openapi.json").json()["servers"]] == ["/v1", "/"]


@pytest.mark.parametrize("path", ["/plan", "/groups", "/switches", "/metrics/global"])
def test_what_did_not_change_is_not_sent_again(ask: Ask, path: str):
    """304 without a body for who has it, 200 for who has another."""
    tag = ask("GET", path).headers["etag"]
    unchanged = ask("GET", path, headers={"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert ask("GET", path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "query", ["start=5&end=4", "start=1&history_s=2", "start=0&end=86400&resolution_s=1", "resolution_s=0"]
)
def test_range_of_time_that_cannot_be_answered_is_refused(ask: Ask, query: str):
    """422, naming the query."""
    answer = ask("GET", f"/metrics/user/anna?{query}")
    assert answer.status_code == 422
    assert answer.json()["title"].startswith("query")


def test_plans_are_compared(ask: Ask):
    """With the one before; a plan with itself is equal; what is not kept is not there."""
    plans = ask("GET", "/plan/history").json()["plans"]
    assert plans[0]["version"] > plans[1]["version"]
    found = ask("GET", "/plan/diff").json()
    assert (found["after"], found["before"]) == (plans[0], plans[1])
    newest = plans[0]["version"]
    assert ask("GET", f"/plan/diff?from={newest}&to={newest}").json()["changes"] == []
    assert ask("GET", "/plan/diff?from=99999").status_code == 404
