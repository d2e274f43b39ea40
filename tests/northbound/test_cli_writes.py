"""What ``tidegate groups`` and ``boost`` write, to an API over a planner that plans with it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from northbound.cli import app
from northbound.cli_exit import Exit
from tests.northbound.replayed import Replayed
from tests.northbound.test_cli import served


@pytest.fixture(scope="module")
def planner() -> Replayed:
    """The demo's planner after some minutes: it found groups."""
    made = Replayed.of_demo(60)
    made.create_group = made.grouping.create  # type: ignore[attr-defined]
    made.set_group_bandwidth = made.grouping.set_bandwidth  # type: ignore[attr-defined]
    return made


@pytest.fixture(scope="module")
def url(planner: Replayed) -> Iterator[str]:
    with served(planner) as address:  # type: ignore[arg-type]
        yield address


def run(url: str, *words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*words, "--url", url])
    return result.exit_code, result.stdout, result.stderr


def test_group_is_made_changed_and_deleted(url: str, planner: Replayed):
    """Each is planned with at the next tick."""
    status, told, _ = run(
        url,
        "groups",
        "create",
        "crew",
        "anna",
        "ben",
        "--guarantee",
        "2",
        "--ceiling",
        "6/12",
        "--weight",
        "3",
    )
    assert (status, told) == (
        0, "crew: members anna, ben; guarantee 2.00/2.00 Mbit/s; ceiling 6.00/12.0 Mbit/s; weight 3; the next plan follows it\n",
    )  # fmt: skip
    planner.go_on()
    (crew,) = (group for group in planner.snapshot.groups if group.id == "crew")
    assert (crew.members, crew.ceiling_bps, crew.weight) == (("anna", "ben"), (6e6, 12e6), 3)
    assert run(url, "groups", "set", "crew", "--ceiling", "8")[0] == 0
    status, told, _ = run(url, "groups", "members", "crew", "anna", "carla", "--json")
    assert (status, json.loads(told)["members"]) == (0, ["anna", "carla"])
    planner.go_on()
    (crew,) = (group for group in planner.snapshot.groups if group.id == "crew")
    assert (crew.members, crew.ceiling_bps, crew.weight) == (("anna", "carla"), (8e6, 8e6), 3)
    assert "anna, carla" in run(url, "groups", "show", "crew")[1]
    assert run(url, "groups", "delete", "crew") == (0, "crew is deleted\n", "")
    planner.go_on()
    assert "crew" not in [group.id for group in planner.snapshot.groups]
    status, _, told = run(url, "groups", "delete", "crew")
    assert (status, told.count("\n"), "'crew'" in told) == (Exit.FAILED, 1, True)


def test_user_is_pinned_and_let_go(url: str, planner: Replayed):
    """Whatever was found of it."""
    found = next(
        group.id
        for group in planner.snapshot.groups
        if group.source == "discovered" and "anna" not in group.members
    )
    assert run(url, "groups", "pin", found, "anna") == (0, f"anna is pinned to {found}\n", "")
    assert f"anna is pinned to {found}\n" in run(url, "groups", "discovery")[1]
    planner.go_on()
    assert "anna" in next(group.members for group in planner.snapshot.groups if group.id == found)
    assert run(url, "groups", "unpin", found, "anna") == (0, f"anna is no longer pinned to {found}\n", "")
    assert "pinned" not in run(url, "groups", "discovery")[1]


def test_pair_is_kept_apart_and_may_meet_again(url: str):
    """In whichever order they are named."""
    assert run(url, "groups", "forbid", "anna", "ben") == (0, "anna and ben are kept apart\n", "")
    assert "anna and ben are kept apart\n" in run(url, "groups", "discovery")[1]
    assert run(url, "groups", "allow", "ben", "anna") == (0, "ben and anna may meet\n", "")
    assert "kept apart" not in run(url, "groups", "discovery")[1]


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("groups", "set", "crew"), Exit.MISUSED, "at least one of --guarantee, --ceiling and --weight must be given"),
        (("groups", "set", "nobody", "--weight", "2"), Exit.FAILED, "groupID must be the id of a group, got 'nobody'"),
        (("groups", "create", "x", "nobody"), Exit.FAILED, "members must be users"),
        (("groups", "create", "x", "anna", "anna"), Exit.MISUSED, "must name each member once"),
        (("groups", "create", "x", "anna", "--ceiling", "fast"), Exit.MISUSED, "--ceiling must be Mbit/s, or UP/DOWN"),
        (("groups", "pin", "nobody", "anna"), Exit.FAILED, "'nobody'"),
        (("groups", "forbid", "anna", "anna"), Exit.FAILED, "anna"),
        (("boost", "create", "user:anna", "--weight-factor", "2"), Exit.MISUSED, "one of --for and --until must be given"),
        (("boost", "create", "user:anna", "--for", "1h"), Exit.MISUSED, "at least one of"),
        (("boost", "create", "anna", "--for", "1h", "--priority", "0"), Exit.MISUSED, "body.pools.0 must match"),
        (("boost", "create", "user:nobody", "--for", "1h", "--priority", "0"), Exit.FAILED, "'nobody'"),
        (("boost", "end", "nothing"), Exit.FAILED, "boostID must be the id of a boost, got 'nothing'"),
    ],
)  # fmt: skip
def test_refusals_are_told_as_the_planner_says(url: str, words: tuple[str, ...], status: Exit, told: str):
    """On one line of standard error, and nothing else is printed."""
    done, out, fault = run(url, *words)
    assert (done, out, fault.count("\n")) == (status, "", 1), fault
    assert told in fault


def test_boost_is_made_listed_and_ended(url: str, planner: Replayed):
    """From a moment to a moment, with all that it may give."""
    status, told, _ = run(
        url, "boost", "create", "user:anna", "--start", "2030-01-01T18:00+00:00", "--until", "2030-01-01T20:00+00:00",
        "--guarantee", "2/4", "--ceiling", "8", "--weight-factor", "2", "--priority", "1", "--reason", "live", "--id", "b1", "--json",
    )  # fmt: skip
    assert status == 0
    made = json.loads(told)
    assert (made["start"], made["end"]) == (1893520800, 1893528000)
    assert (made["guarantee_bps"], made["ceiling_bps"]) == (
        {"up": 2e6, "down": 4e6},
        {"up": 8e6, "down": 8e6},
    )
    assert (made["weight_factor"], made["priority"], made["reason"]) == (2, 1, "live")
    assert [boost.id for boost in planner.policy.boosts()] == ["b1"]
    listed = run(url, "boost", "list")[1]
    assert "user:anna" in listed
    assert "2/4" in listed
    assert run(url, "boost", "end", "b1") == (0, "b1 has ended\n", "")
    assert planner.policy.boosts() == ()


def test_boost_for_a_time_begins_now(url: str, planner: Replayed, monkeypatch: pytest.MonkeyPatch):
    """And is in force at the next tick."""
    monkeypatch.setattr("northbound.cli_boost.time.time", lambda: planner.now)
    before = _weight(planner, "anna")
    assert (
        run(url, "boost", "create", "user:anna", "--for", "1h", "--weight-factor", "2", "--id", "b2")[0] == 0
    )
    (boost,) = planner.policy.boosts()
    assert boost.end - boost.start == pytest.approx(3600)
    planner.go_on()
    assert _weight(planner, "anna") == 2 * before
    run(url, "boost", "end", "b2")
    planner.go_on()
    assert _weight(planner, "anna") == before


def _weight(planner: Replayed, user: str) -> float:
    pools = planner.snapshot.pools
    (row,) = (row for row, path in enumerate(pools.path) if path.endswith(f"/{user}"))
    return float(pools.weight[row])
