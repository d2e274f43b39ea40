"""What REST answers, over a fake planner that keeps state."""

from __future__ import annotations

import json
from dataclasses import replace

import anyio
import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel

from northbound import answers, metrics_api
from northbound.api import create_app
from northbound.forecasts_api import PoolForecastAnswer
from northbound.models_api import Models, ModelVersion
from northbound.plan_api import PlanDiff, PlanHistory
from planner.config_northbound import Limits
from planner.snapshot import Health, Snapshot
from tests.northbound.conftest import Ask
from tests.northbound.doubles import EDGE, NOW, TOKEN, FakeOperations

READS: dict[str, type[BaseModel]] = {
    "/health": answers.Health,
    "/groups": answers.Groups,
    "/metrics/group/g1": metrics_api.GroupMetrics,
    "/metrics/global": metrics_api.GlobalMetrics,
    "/metrics/region/west": metrics_api.PoolMetrics,
    "/metrics/user/anna": metrics_api.PoolMetrics,
    "/metrics/global?history_s=60": metrics_api.GlobalMetrics,
    "/plan/history": PlanHistory,
    "/plan/diff": PlanDiff,
    "/plan": answers.PlanAnswer,
    "/switches": answers.Switches,
    "/summary": answers.Summary,
    "/models": Models,
    "/models/2": ModelVersion,
    "/forecasts/anna": PoolForecastAnswer,
}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
GROUP = {"id": "studio", "members": ["anna", "ben"], "ceiling_mbps": 12}


def is_problem(response: httpx.Response) -> bool:
    """Whether an error is told as every error shall be."""
    body = response.json()
    return (
        response.headers["content-type"].startswith("application/problem+json")
        and body["status"] == response.status_code
        and bool(body["title"])
    )


@pytest.mark.parametrize(("path", "model"), READS.items())
def test_answer_matches_its_schema(ask: Ask, path: str, model: type[BaseModel]):
    """Every read answers what OpenAPI says, with no key more."""
    response = ask("GET", path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    model.model_validate(response.json())


@pytest.mark.parametrize("path", READS)
def test_answer_holds_no_nan(ask: Ask, path: str):
    """What is unknown is null: JSON has no NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads(ask("GET", path).content, parse_constant=refuse)


@pytest.mark.parametrize("path", [path for path in READS if "group/" not in path])
def test_empty_snapshot_is_answered(path: str):
    """Before the first tick there is nothing to show, and it is shown."""
    operations = FakeOperations(Snapshot())

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(operations, TOKEN))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path, headers=BEARER)

    response = anyio.run(go)
    assert response.status_code == 200
    READS[path].model_validate(response.json())


def test_unknown_is_null_and_zero_is_zero(ask: Ask):
    """A user that sends nothing is not one of whom nothing is known."""
    pools = {pool["path"]: pool for pool in ask("GET", "/metrics/global").json()["pools"]}
    assert pools["global/west/g1/anna"]["up"]["offered_bps"] == 0
    assert pools["global/west/g1/ben"]["up"]["offered_bps"] is None
    assert pools["global/west/g1"]["up"]["ceiling_bps"] is None


def test_directions_are_not_swapped(ask: Ask):
    """Upload is the first row of every column."""
    pool = ask("GET", "/metrics/global").json()["pools"][0]
    assert (pool["up"]["grant_bps"], pool["down"]["grant_bps"]) == (9_000_000, 18_000_000)
    assert (pool["up"]["rung"], pool["up"]["bound"]) == ("auto_bandwidth", "ceiling")


def test_level_and_page(ask: Ask):
    """A level is a filter, and a page is a part of what passes it."""
    page = ask("GET", "/metrics/global?level=user&limit=1&offset=1").json()
    assert [pool["path"] for pool in page["pools"]] == ["global/west/g1/ben"]
    assert (page["total"], page["offset"], page["limit"]) == (2, 1, 1)


def test_long_lists_are_whole():
    """Lists encoded in pieces come out as one list."""
    operations = FakeOperations()
    group = operations.snapshot.groups[0]
    groups = tuple(replace(group, id=f"g{number}") for number in range(1234))
    operations.snapshot = replace(operations.snapshot, groups=groups)

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(operations, TOKEN))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/groups", headers=BEARER)

    assert [row["id"] for row in anyio.run(go).json()["groups"]] == [group.id for group in groups]


def test_plan_names_switch_meter_pool_and_direction(ask: Ask):
    """The plan reads like dump-meters, and says whose each meter is."""
    plan = ask("GET", "/plan").json()
    assert plan["version"] == 7
    edge = plan["switches"][f"{EDGE:016x}"]
    assert (edge["in_step"], edge["plan_version"]) == (True, 7)
    assert edge["meters"][1] == {
        "meter_id": 2,
        "rate_kbps": 8800,
        "burst_kbit": 880,
        "pool": "global/west/g1/anna",
        "direction": "down",
    }
    assert plan["switches"]["00000000000000c0"] == {"in_step": None, "plan_version": 0, "meters": []}


def test_group_metrics_hold_gaps(ask: Ask):
    """A lost poll is a gap in the history, and an unknown part makes the sum unknown."""
    metrics = ask("GET", "/metrics/group/g1?history_s=7").json()
    assert metrics["history"]["time"] == [NOW - 5, NOW]
    assert metrics["history"]["offered_bps"] == {"up": [None, 3_000_000], "down": [None, 6_000_000]}
    assert metrics["current"]["down"]["grant_bps"] == 18_000_000


def test_new_snapshot_is_seen_at_once(ask: Ask, operations: FakeOperations):
    """Answers are kept for one snapshot only."""
    assert ask("GET", "/plan").json()["version"] == 7
    newer = replace(operations.snapshot.plan, version=8)
    operations.snapshot = replace(operations.snapshot, plan=newer)
    assert ask("GET", "/plan").json()["version"] == 8


@pytest.mark.parametrize(
    ("status", "age_s", "code", "shown"),
    [
        ("ok", 1, 200, "ok"),
        ("degraded", 1, 200, "degraded"),
        ("ok", 31, 503, "stalled"),
        ("starting", NOW, 200, "starting"),
    ],
)
def test_health_tells_a_dead_loop(
    ask: Ask, operations: FakeOperations, status: str, age_s: float, code: int, shown: str
):
    """Only a loop that stands still is 503; a degraded one still plans."""
    operations.snapshot = replace(operations.snapshot, health=Health(status=status, last_tick=NOW - age_s))
    response = ask("GET", "/health")
    assert (response.status_code, response.json()["status"]) == (code, shown)
    answers.Health.model_validate(response.json())


def test_group_is_created_and_listed(ask: Ask, operations: FakeOperations):
    """What was created is in the next snapshot, in bit/s."""
    response = ask("POST", "/groups/create", TOKEN, json=GROUP)
    assert response.status_code == 201
    assert response.headers["location"] == "/metrics/group/studio"
    assert response.json()["ceiling_bps"] == {"up": 12_000_000, "down": 12_000_000}
    assert operations.written == [("studio", {"ceiling_bps": (12_000_000, 12_000_000)})]
    assert ask("GET", "/groups").json()["groups"][-1]["source"] == "operator"


def test_bandwidth_changes_only_what_is_given(ask: Ask, operations: FakeOperations):
    """An override of the weight leaves rates alone."""
    response = ask("PUT", "/groups/g1/bandwidth", TOKEN, json={"weight": 3})
    assert response.status_code == 200
    assert operations.written == [("g1", {"weight": 3.0})]


def test_directions_may_differ(ask: Ask, operations: FakeOperations):
    """A body may set upload and download apart."""
    body = {"guarantee_mbps": {"up": 1, "down": 4.5}}
    assert ask("PUT", "/groups/g1/bandwidth", TOKEN, json=body).status_code == 200
    assert operations.written == [("g1", {"guarantee_bps": (1_000_000, 4_500_000)})]


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "title"),
    [
        ("PUT", "/groups/none/bandwidth", {"weight": 1}, 404, "groupID must be the id of a group, got 'none'"),
        ("PUT", "/groups/g1/bandwidth", {}, 422, "body must hold at least one of"),
        ("PUT", "/groups/g1/bandwidth", {"ceiling_mbps": None}, 422, "body must hold at least one of"),
        ("PUT", "/groups/g1/bandwidth", {"ceiling_mbps": 0}, 422, "body.ceiling_mbps must be > 0, got 0"),
        ("PUT", "/groups/g1/bandwidth", {"ceiling_mbps": "12M"}, 422, "body.ceiling_mbps must be a number, got '12M'"),
        ("PUT", "/groups/g1/bandwidth", {"guarantee_mbps": {"up": -5, "down": 1}}, 422, "body.guarantee_mbps.up must be >= 0, got -5"),
        ("PUT", "/groups/g1/bandwidth", {"guarantee_mbps": {"up": 5}}, 422, "body.guarantee_mbps.down must be given"),
        ("PUT", "/groups/g1/bandwidth", {"guarantee_mbps": 5, "ceiling_mbps": 4}, 422, "must have guarantee_mbps.up <= its ceiling 4"),
        ("PUT", "/groups/g1/bandwidth", {"bandwidth": 5}, 422, "body.bandwidth is not a known key, got 5"),
        ("PUT", "/groups/g1/bandwidth", {"weight": True}, 422, "body.weight must be a number, got True"),
        ("PUT", "/groups/g1/bandwidth", [1], 422, "body must be a mapping, got [1]"),
        ("PUT", "/groups/g1/bandwidth", {"guarantee_mbps": 40}, 409, "guarantee_mbps.up must be <= the region's capacity"),
        ("POST", "/groups/create", {"id": "g1", "members": ["anna"]}, 409, "id must be new, got 'g1'"),
        ("POST", "/groups/create", {"id": "x", "members": ["zoe"]}, 409, "members must be users, got 'zoe'"),
        ("POST", "/groups/create", {"id": "x", "members": []}, 422, "body.members must have at least 1 entries, got []"),
        ("POST", "/groups/create", {"id": "x", "members": ["anna", "anna"]}, 422, "must name each member once"),
        ("POST", "/groups/create", {"id": "../x", "members": ["anna"]}, 422, "body.id must match"),
        ("POST", "/groups/create", {"id": "ungrouped", "members": ["anna"]}, 422, "must have another id"),
        ("POST", "/groups/create", {"members": ["anna"]}, 422, "body.id must be given"),
    ],
)  # fmt: skip
def test_refusal_names_path_rule_and_value(
    ask: Ask, operations: FakeOperations, method: str, path: str, body: object, code: int, title: str
):
    """A wrong write is refused with one line that says how to mend it, and nothing is stored."""
    response = ask(method, path, TOKEN, json=body)
    assert response.status_code == code
    assert is_problem(response)
    assert title in response.json()["title"]
    assert operations.written == []


@pytest.mark.parametrize(
    "content", [b"{", b"", b"[" * 100_000, b"\xff\xfe", b'{"weight": NaN}', b'{"weight": 1e999}']
)
def test_body_that_is_no_json_is_a_problem(ask: Ask, content: bytes):
    """No bytes make the API fail."""
    response = ask(
        "PUT", "/groups/g1/bandwidth", TOKEN, content=content, headers={"Content-Type": "application/json"}
    )
    assert response.status_code in (400, 422)
    assert is_problem(response)


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/metrics/group/none", 404),
        ("GET", "/metrics/global?level=planet", 422),
        ("GET", "/metrics/global?limit=0", 422),
        ("GET", "/metrics/global?limit=ten", 422),
        ("GET", "/static-offline-docs/none.js", 404),
        ("DELETE", "/plan", 405),
    ],
)
def test_other_errors_are_problems_too(ask: Ask, method: str, path: str, code: int):
    """A client needs one way of reading errors."""
    response = ask(method, path, TOKEN)
    assert response.status_code == code
    assert is_problem(response)


@pytest.mark.parametrize(
    ("method", "path", "title"),
    [
        ("GET", "/nowhere", "path must be one of /openapi.json, got '/nowhere'"),
        ("PATCH", "/plan", "method must be one that /openapi.json has for this path, got 'PATCH'"),
    ],
)
def test_wrong_path_or_method_is_told_back(ask: Ask, method: str, path: str, title: str):
    """Who mistyped a path learns which, and where the right ones are."""
    assert ask(method, path).json()["title"] == title


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_body_that_is_not_called_json_is_told_so(ask: Ask, operations: FakeOperations, media_type: str):
    """``curl -d`` without a header calls its body a form: the answer names the header that is missing."""
    headers = {"Content-Type": media_type} if media_type else {}
    response = ask("PUT", "/groups/g1/bandwidth", content=b'{"weight": 3}', headers=headers)
    assert (response.status_code, is_problem(response)) == (415, True)
    assert response.json()["title"] == f"Content-Type must be application/json, got {media_type!r}"
    assert operations.written == []


def test_failure_inside_is_a_problem_without_its_insides(ask: Ask, operations: FakeOperations):
    """A fault of ours is said to be one; where it lies is for the log."""
    operations.snapshot = replace(operations.snapshot, pools="none")  # type: ignore[arg-type]
    response = ask("GET", "/metrics/global")
    assert response.status_code == 500
    assert is_problem(response)
    assert "Traceback" not in response.text
    assert "attribute" not in response.text


# --- who may do what


def _filled(path: str) -> str:
    """A path that is answered, from the pattern of its route."""
    known = {
        "{groupID}": "g1",
        "{pool:path}": "anna",
        "{version}": "2",
        "{eventID}": "exam",
        "{archetypeID}": "0",
        "/metrics/user/{user}": "/metrics/user/anna",
        "{region}": "west",
        "{shapeID}": "lab",
        "{path:path}": "global/west",
        "{group_id}": "g1",
        "{user}": "emma",
        "{dpid}": f"{0x11:016x}",
    }
    for pattern, name in known.items():
        path = path.replace(pattern, name)
    return path


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every route there is, documented or not."""
    found = [
        (method, _filled(str(context.path)))
        for context in iter_route_contexts(app.routes)
        for method in getattr(context, "methods", None) or ()
    ]
    assert {("GET", "/plan"), ("GET", "/docs"), ("POST", "/groups/create")} <= set(found)
    return found


def test_every_write_needs_a_token(app: FastAPI, ask: Ask, operations: FakeOperations):
    """No route but a read does anything for somebody without the token, new routes included."""
    wrong = [None, "", "wrong", TOKEN[:-1], TOKEN + "x", "ü"]
    writes = [(method, path) for method, path in routes(app) if method not in ("GET", "HEAD")]
    assert len(writes) >= 2
    # Every method on every path, whether there is such a route or not.
    writes += [(method, path) for method in ("POST", "PUT", "PATCH", "DELETE") for _, path in routes(app)]
    # Where a login begins, the token is the body.
    for method, path in sorted(set(writes) - {("POST", "/session")}):
        for token in wrong:
            headers = {} if token is None else {"Authorization": f"Bearer {token}".encode()}
            response = ask(method, path, None, json=GROUP, headers=headers)
            assert response.status_code == 401, (method, path, token)
            assert response.headers["www-authenticate"].startswith("Bearer")
            assert is_problem(response)
            assert TOKEN not in response.text
    for header in (TOKEN, f"Basic {TOKEN}", f"Token {TOKEN}"):
        assert (
            ask(
                "POST", "/groups/create", None, json=GROUP, headers={"Authorization": header.encode()}
            ).status_code
            == 401
        )
    assert operations.written == []


def test_every_read_is_answered_to_the_token(app: FastAPI, ask: Ask):
    """Who may do all may see all."""
    missing = []
    for method, path in routes(app):
        # A stream has no end to wait for: test_stream_api.py.
        if method == "GET" and path != "/stream":
            # The root leads to the dashboard.
            wanted = 303 if path == "/" else 200
            if ask("GET", path).status_code != wanted:
                missing.append(path)
    assert missing == []


def test_scheme_is_case_insensitive(ask: Ask):
    """HTTP says that schemes are."""
    response = ask("POST", "/groups/create", json=GROUP, headers={"Authorization": f"bearer {TOKEN}"})
    assert response.status_code == 201


def test_foreign_host_is_refused(ask: Ask):
    """A name of somebody else that points here must not read what is served here."""
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""):
        response = ask("GET", "/plan", headers={"Host": host})
        assert response.status_code == 421
        assert is_problem(response)
    for host in ("127.0.0.1", "localhost:8080", "[::1]:8080", "[::1]"):
        assert ask("GET", "/plan", headers={"Host": host}).status_code == 200


def test_large_body_is_refused(ask: Ask, operations: FakeOperations):
    """Whether its length is told or not."""
    body = b'{"id": "' + b"x" * Limits().body_bytes + b'"}'

    async def pieces():
        for at in range(0, len(body), 65536):
            yield body[at : at + 65536]

    for content in (body, pieces()):
        response = ask("POST", "/groups/create", TOKEN, content=content)
        assert response.status_code == 413
        assert is_problem(response)
    assert operations.written == []


# --- OpenAPI


def test_openapi_documents_every_route(app: FastAPI, ask: Ask):
    """The document holds every route with its errors, and says that they need a token."""
    document = ask("GET", "/openapi.json").json()
    assert document["openapi"].startswith("3.")
    expected = {
        "/health",
        "/groups",
        "/groups/create",
        "/groups/{groupID}/bandwidth",
        "/metrics/group/{groupID}",
    }
    expected |= {"/metrics/global", "/plan", "/switches", "/summary", "/events", "/events/{eventID}"}
    expected |= {
        "/alarms",
        "/alarms/{alarmID}/acknowledge",
        "/forecasts",
        "/forecasts/{pool}",
        "/predictDemand",
        "/models",
        "/models/{version}",
        "/models/{version}/rollback",
        "/archetypes",
        "/archetypes/{archetypeID}",
        "/archetypes/{archetypeID}/name",
        "/models/release",
    }
    expected |= {f"/plan/{word}" for word in ("state", "freeze", "unfreeze", "revert", "mode")}
    expected |= {"/boosts", "/boosts/{boostID}", "/standbys", "/explain/{pool}"}
    texts = {"/metrics": "text/plain", "/stream": "text/event-stream"}
    expected |= texts.keys()
    assert expected <= set(document["paths"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], path
            assert bool(operation["security"]) == ((method, path) != ("post", "/session")), path
            for status, response in operation["responses"].items():
                if int(status) in (202, 204, 304):
                    assert "content" not in response, path
                elif int(status) < 400 and path in texts:
                    assert list(response["content"]) == [texts[path]], path
                elif int(status) < 400:
                    assert {"$ref", "anyOf"} & response["content"]["application/json"]["schema"].keys(), path
                elif (path, status) != ("/health", "503"):
                    assert list(response["content"]) == ["application/problem+json"], (path, status)


def test_openapi_references_resolve(ask: Ask):
    """Nothing in the document points at what is not there."""
    document = ask("GET", "/openapi.json").json()

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    for reference in references(document):
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_docs_need_no_internet(ask: Ask):
    """The page loads nothing from elsewhere, and what it loads is there."""
    page = ask("GET", "/docs").text
    assert "http://" not in page
    assert "https://" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/static-offline-docs/{asset}" in page
        assert ask("GET", f"/static-offline-docs/{asset}").status_code == 200
