"""Tokens of one region or group: what lies in it is shown and written, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from northbound.security.callers import Caller, Scope
from northbound.security.territory import Territory
from planner.snapshot import GroupView, Level, Pools, Snapshot
from tests.northbound.doubles import NOW, make_snapshot
from tests.northbound.guarded import Guarded

PATHS = (
    "global", "global/west", "global/west/g1", "global/west/g1/anna", "global/west/ungrouped", "global/west/ungrouped/ben",
    "global/east", "global/east/g2", "global/east/g2/carla", "global/east/both", "global/west/both",
)  # fmt: skip
PARENTS = (-1, 0, 1, 2, 1, 4, 0, 6, 7, 6, 1)


def two_regions() -> Snapshot:
    n = len(PATHS)
    rates = {
        name: np.arange(2 * n, dtype=float).reshape(2, n)
        for name in (
            "guarantee_bps",
            "ceiling_bps",
            "offered_bps",
            "delivered_bps",
            "p50_bps",
            "p90_bps",
            "grant_bps",
        )
    }
    level = np.array([Level(path.count("/")) for path in PATHS], np.uint8)
    pools = Pools(
        PATHS, level, np.array(PARENTS, np.int32), weight=np.ones(n), rung=np.zeros((2, n), np.uint8),
        bound=np.zeros((2, n), np.uint8), **rates,
    )  # fmt: skip

    def group(name: str, members: tuple[str, ...], *rows: int) -> GroupView:
        return GroupView(name, "operator", "active", members, NOW, "", None, None, 1.0, rows)

    groups = (group("g1", ("anna",), 2), group("g2", ("carla",), 7), group("both", ("ben", "carla"), 9, 10))
    return Snapshot(NOW, pools=pools, groups=groups, shared_services=("names",), plan=make_snapshot().plan)


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    made = Guarded(tmp_path)
    made.operations.snapshot = two_regions()
    return made


def caller(region: str | None = None, group: str | None = None) -> Caller:
    return Caller("id", "name", Scope.READ, region, group)


@pytest.mark.parametrize(
    ("limit", "paths", "groups"),
    [
        (
            {"region": "east"},
            ["global/east", "global/east/g2", "global/east/g2/carla", "global/east/both"],
            ["g2"],
        ),
        ({"group": "g1"}, ["global/west/g1", "global/west/g1/anna"], ["g1"]),
        ({"group": "both"}, ["global/east/both", "global/west/both"], ["both"]),
        ({"region": "east", "group": "both"}, ["global/east/both"], []),
        ({"region": "north"}, [], []),
    ],
)
def test_part_of_a_snapshot_is_what_lies_there(limit: dict[str, str], paths: list[str], groups: list[str]):
    """Columns, parents and groups' rows still fit one another; nothing else of the network is in it."""
    whole = two_regions()
    part = Territory(caller(**limit), whole).part()
    assert list(part.pools.path) == paths
    assert [group.id for group in part.groups] == groups
    for at, path in enumerate(part.pools.path):
        row = PATHS.index(path)
        assert (part.pools.grant_bps[:, at] == whole.pools.grant_bps[:, row]).all()
        parent = part.pools.parent[at]
        assert parent == -1 or part.pools.path[parent] == path.rsplit("/", 1)[0]
    for group in part.groups:
        assert all(part.pools.path[row].endswith(f"/{group.id}") for row in group.pools)
    assert not part.switches
    assert not part.shared_services
    assert not part.plan.meters


def test_lists_show_only_the_region(guarded: Guarded):
    """And another caller's list of the same moment shows the other region, or all."""
    east, west = (guarded.token("operate", region=name) for name in ("east", "west"))
    for _ in range(2):
        for token, groups in (
            (east, ["g2"]),
            (west, ["g1"]),
            (guarded.token("operate"), ["g1", "g2", "both"]),
        ):
            assert [g["id"] for g in guarded.ask("GET", "/groups", token).json()["groups"]] == groups
    answer = guarded.ask("GET", "/metrics/global", east)
    assert answer.json()["total"] == 4
    assert "west" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "body", "statuses"),
    [
        ("GET", "/metrics/group/g2", None, {200}),
        ("PUT", "/groups/g2/bandwidth", {"weight": 2}, {200}),
        ("GET", "/metrics/group/g1", None, {403, 404}),
        ("GET", "/metrics/group/both", None, {403, 404}),
        ("GET", "/metrics/group/nowhere", None, {403, 404}),
        ("PUT", "/groups/g1/bandwidth", {"weight": 2}, {403, 404}),
        ("PUT", "/groups/both/bandwidth", {"weight": 2}, {403, 404}),
        ("GET", "/forecasts/anna", None, {403, 404}),
        ("GET", "/forecasts/global", None, {403, 404}),
        ("GET", "/forecasts/global/west/g1/anna", None, {403, 404}),
        ("GET", "/explain/ben", None, {403, 404}),
        ("GET", "/explain/both", None, {403, 404}),
        ("GET", "/alarms", None, {403}),
        ("GET", "/alarms?pool=global/west", None, {403}),
        ("GET", "/alarms?pool=global", None, {403}),
        ("GET", "/alarms?pool=global/east", None, {200}),
        ("POST", "/boosts", {"pools": ["user:anna"], "end": NOW + 60, "weight_factor": 2}, {403}),
        ("POST", "/boosts", {"pools": ["user:carla", "region:west"], "end": NOW + 60, "weight_factor": 2}, {403}),
        ("POST", "/boosts", {"end": NOW + 60, "weight_factor": 2}, {403}),
        ("POST", "/boosts", [], {403}),
        ("POST", "/groups/create", {"id": "x", "members": ["carla", "anna"]}, {403}),
        ("POST", "/groups/create", {"id": "x", "members": []}, {403}),
        ("DELETE", "/boosts/none", None, {403, 404}),
        ("POST", "/predictDemand", {"region": "west"}, {403, 404}),
        ("POST", "/predictDemand", {}, {403, 404}),
        ("GET", "/session", None, {200}),
        ("GET", "/health", None, {200}),
        *[("GET", path, None, {403}) for path in ("/plan", "/switches", "/summary", "/models", "/boosts", "/standbys",
                                                  "/events", "/archetypes", "/forecasts", "/stream", "/metrics", "/audit")],
        ("POST", "/plan/freeze", {}, {403}),
        ("PUT", "/plan/mode", {"mode": "shadow"}, {403}),
    ],
)  # fmt: skip
def test_what_lies_elsewhere_is_refused(
    guarded: Guarded, method: str, path: str, body: Any, statuses: set[int]
):
    """A token of the region east may ask what lies wholly in it, and what cannot be limited is refused."""
    token = guarded.token("operate", region="east")
    more = {} if body is None else {"json": body}
    answer = guarded.ask(method, path, token, **more)
    assert answer.status_code in statuses, answer.text
    if 200 not in statuses:
        assert guarded.operations.written == []


def test_token_of_a_group_is_held_to_it(guarded: Guarded):
    """The group's own parts in all regions, and no other's."""
    token = guarded.token("operate", group="both")
    assert guarded.ask("PUT", "/groups/both/bandwidth", token, json={"weight": 2}).status_code == 200
    assert guarded.ask("PUT", "/groups/g1/bandwidth", token, json={"weight": 2}).status_code == 403
    assert {pool["path"] for pool in guarded.ask("GET", "/metrics/global", token).json()["pools"]} == {
        "global/east/both",
        "global/west/both",
    }
