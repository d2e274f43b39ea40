"""POST /predictDemand, over a planner that plans."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from northbound.api import create_app
from northbound.demand_api import DemandAnswer
from tests.northbound.doubles import TOKEN, FakeOperations
from tests.planner.classes import BACKUP, WEB, Speaking
from tests.planner.networks import Never


class Planning(FakeOperations):
    """The fake one but for snapshot and forecasts, which are a real planner's."""

    def __init__(self, speaking: Speaking) -> None:
        super().__init__()
        self.snapshot = speaking.planner.snapshot
        self.pool_forecast = speaking.planner.pool_forecast  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def speaking() -> Speaking:
    """Anna sends ben web and backup, in a group that reaches into both regions."""
    speaking = Speaking(Never(), groups={"studio": {"members": ["anna", "ben", "emma"]}})
    speaking.sent = {("anna", "ben", WEB): 3e6, ("anna", "ben", BACKUP): 1e6}
    speaking.tick(count=12)
    return speaking


@pytest.fixture(scope="module")
def app(speaking: Speaking) -> FastAPI:
    return create_app(Planning(speaking), TOKEN, now=lambda: speaking.now)


def post(app: FastAPI, body: Any, token: str | None = TOKEN) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            return await client.post("/predictDemand", json=body, headers=headers)

    return anyio.run(go)


def demand(app: FastAPI, **body: Any) -> DemandAnswer:
    answer = post(app, body)
    assert answer.status_code == 200, answer.text
    return DemandAnswer.model_validate(answer.json())


def test_user_is_told_with_its_applications(app: FastAPI, speaking: Speaking) -> None:
    """By horizon and quantile, who forecast it and how sure it is; classes add up to the whole."""
    answer = demand(app, user="anna")
    assert (answer.horizon_s, len(answer.quantile)) == ([5, 15], 7)
    (pool,) = answer.pools
    assert (pool.path, pool.time, pool.application) == ("global/west/studio/anna", speaking.now, None)
    assert pool.up.rung == "archetype"
    assert pool.up.confidence is not None
    assert [len(row) for row in pool.up.demand_bps] == [7, 7]
    assert [one.application for one in pool.applications] == ["web", "backup"]
    for at in range(2):
        # Each is rounded to a whole bit/s.
        parts = sum(one.up.point_bps[at] or 0 for one in pool.applications if one.up.point_bps)
        assert pool.up.point_bps is not None
        assert parts == pytest.approx(pool.up.point_bps[at], abs=2)


def test_one_application_at_one_horizon(app: FastAPI) -> None:
    """Only what was asked for."""
    answer = demand(app, user="anna", application="web", horizon_s=15)
    assert answer.horizon_s == [15]
    (pool,) = answer.pools
    assert (pool.application, pool.applications) == ("web", [])
    assert len(pool.up.demand_bps) == 1


def test_horizons_are_told_in_their_order(app: FastAPI) -> None:
    """Whatever order they were asked in."""
    assert demand(app, region="west", horizons_s=[15, 5]).horizon_s == [5, 15]


def test_group_is_told_by_region(app: FastAPI) -> None:
    """Its parts draw on different capacities, and their quantiles do not add up."""
    paths = [pool.path for pool in demand(app, group="studio").pools]
    assert paths == ["global/east/studio", "global/west/studio"]
    assert [pool.path for pool in demand(app, region="east").pools] == ["global/east"]


@pytest.mark.parametrize(
    ("body", "status", "title"),
    [
        ({"user": "zoe"}, 404, "body.user must be a user that is forecast, got 'zoe'"),
        ({"user": "west"}, 404, "body.user must be a user that is forecast, got 'west'"),
        ({"group": "anna"}, 404, "body.group must be a group that is forecast, got 'anna'"),
        ({"region": "north"}, 404, "body.region must be a region that is forecast, got 'north'"),
        (
            {"user": "anna", "application": "games"},
            404,
            "application must be one of other, web, backup, got 'games'",
        ),
        ({"user": "anna", "horizon_s": 7}, 422, "body.horizon_s must be of 5, 15, got 7"),
        ({"user": "anna", "horizons_s": [5, 7]}, 422, "body.horizons_s must be of 5, 15, got 7"),
        ({"user": "anna", "horizon_s": 0}, 422, "body.horizon_s must be > 0, got 0"),
        ({"user": "anna", "when": 5}, 422, "body.when"),
        ({}, 422, "exactly one of region, group and user"),
        ({"user": "anna", "region": "west"}, 422, "exactly one of region, group and user"),
        ({"region": "west", "application": "web"}, 422, "must name a user with application"),
        ({"user": "anna", "horizon_s": 5, "horizons_s": [5]}, 422, "at most one of horizon_s and horizons_s"),
        ([], 422, "body"),
    ],
)
def test_what_is_wrong_is_told(app: FastAPI, body: Any, status: int, title: str) -> None:
    """Problem documents with path, rule and value."""
    answer = post(app, body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert title in answer.json()["title"]


def test_nothing_is_told_without_a_token(app: FastAPI) -> None:
    """A question is no write, and still nobody else's business."""
    assert post(app, {"user": "anna"}, token=None).status_code == 401
