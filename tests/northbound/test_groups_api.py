"""Groups and the network by REST, over a real planner behind the real app."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner.report import NetworkReport
from telemetry.samples import PortSamples, SampleBatch
from tests.northbound.conftest import Ask
from tests.northbound.doubles import FakeOperations
from tests.planner.networks import PLACES, mac_of, network
from topology.network import Link, Port


def wired(operations: FakeOperations, version: int = 2, up: bool = True, **more: Any) -> NetworkReport:
    """The planner's network with a cable from port 9 of the first switch to port 8 of the second."""
    report = network(operations.running.config, version=version, **more)
    cable = Link(0x11, 9, 0x12, 8)
    ports = (Port(0x11, 9, "p9", 1e9, up), Port(0x12, 8, "p8", 1e8, True))
    links = frozenset({cable, cable.reverse}) if up else frozenset()
    return replace(report, ports=ports, links=links)


def shown(ask: Ask, group: str) -> list[str]:
    """A group's members in its newest event."""
    return list(ask("GET", f"/groups/{group}/events").json()["events"][-1]["members"])


def members(operations: FakeOperations) -> dict[str, set[str]]:
    return {group.id: set(group.members) for group in operations.running.planner.grouping.groups}


def test_one_group_is_shown(ask: Ask):
    """By its id; 404 with the id where there is none."""
    answer = ask("GET", "/groups/g1")
    assert (answer.status_code, answer.json()["members"]) == (200, ["anna", "ben"])
    missing = ask("GET", "/groups/nowhere")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    assert "nowhere" in missing.json()["title"]


def test_members_of_an_operators_group_are_replaced_whole(ask: Ask, operations: FakeOperations):
    """And it can be deleted; both are stored before they are answered."""
    answer = ask("PUT", "/groups/crew/members", json={"members": ["ben"]})
    assert (answer.status_code, answer.json()["members"]) == (200, ["ben"])
    assert members(operations)["crew"] == {"ben"}
    assert ask("DELETE", "/groups/crew").status_code == 204
    assert "crew" not in members(operations)
    assert operations.told == ["group crew now has ben", "group crew deleted"]
    assert [event["kind"] for event in ask("GET", "/groups/crew/events").json()["events"]] == [
        "pinned",
        "pinned",
        "unpinned",
    ]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("PUT", "/groups/lab/members", {"members": ["anna"]}, 409, "it is the configuration file's"),
        ("PUT", "/groups/auto-1/members", {"members": ["anna"]}, 409, "it was found from traffic"),
        ("PUT", "/groups/nowhere/members", {"members": ["anna"]}, 404, "nowhere"),
        ("PUT", "/groups/crew/members", {"members": ["zoe"]}, 409, "must be users, got 'zoe'"),
        ("PUT", "/groups/crew/members", {"members": ["emma"]}, 409, "must not hold emma, it is in lab"),
        ("PUT", "/groups/crew/members", {"members": []}, 422, "members"),
        ("PUT", "/groups/crew/members", {"members": ["anna", "anna"]}, 422, "each member once"),
        ("DELETE", "/groups/lab", None, 409, "it is the configuration file's"),
        ("DELETE", "/groups/auto-1", None, 409, "it was found from traffic"),
        ("DELETE", "/groups/nowhere", None, 404, "nowhere"),
        ("POST", "/groups/crew/pins/carla", None, 409, "must be a discovered group"),
        ("POST", "/groups/auto-1/pins/emma", None, 409, "it is in lab"),
        ("POST", "/groups/auto-1/pins/zoe", None, 409, "must be users, got 'zoe'"),
        ("POST", "/groups/nowhere/pins/carla", None, 404, "nowhere"),
        ("DELETE", "/groups/auto-1/pins/carla", None, 404, "must be one pinned to auto-1, got 'carla'"),
        ("POST", "/groups/forbidden-pairs", {"users": ["carla", "carla"]}, 409, "must be two users"),
        ("POST", "/groups/forbidden-pairs", {"users": ["carla"]}, 422, "users"),
        ("POST", "/groups/forbidden-pairs", {"users": ["carla", "zoe"]}, 409, "must be users, got 'zoe'"),
        ("DELETE", "/groups/forbidden-pairs/carla/david", None, 404, "must be a forbidden pair"),
        ("POST", "/groups/create", {"id": "discovery", "members": ["anna"]}, 422, "a name of the API's own"),
        ("GET", "/groups/nowhere/events", None, 404, "nowhere"),
        ("GET", "/users/zoe/bindings", None, 404, "got 'zoe'"),
        ("PUT", "/users/anna/bindings", {}, 409, "must be given macs or addresses"),
        ("PUT", "/users/anna/bindings", {"macs": ["rubbish"]}, 422, "macs"),
        ("PUT", "/users/anna/bindings", {"addresses": ["10.0.0.9"], "ttl_s": 0}, 422, "ttl_s"),
        ("PUT", "/users/anna/bindings", {"macs": ["00:00:00:00:01:02"]}, 409, "it is users.ben's"),
        ("DELETE", "/users/anna/bindings", None, 404, "must be one bound by REST"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    ask: Ask, operations: FakeOperations, method: str, path: str, body: Any, status: int, said: str
):
    """A problem document with path, rule and value; nothing is stored."""
    tracker = operations.running.planner.grouping.tracker
    before = tracker.state()
    answer = ask(method, path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert said in answer.json()["title"]
    assert tracker.state() == before
    assert operations.told == []


def test_a_user_is_pinned_to_a_discovered_group_and_let_go(ask: Ask, operations: FakeOperations):
    """The pin is seen at once; the group keeps it through whatever is found."""
    assert ask("DELETE", "/groups/crew").status_code == 204
    assert ask("POST", "/groups/auto-1/pins/anna").status_code == 200
    assert members(operations)["auto-1"] == {"anna", "carla", "david"}
    assert ask("GET", "/groups/discovery").json()["pins"] == {"anna": "auto-1"}
    tracker = operations.running.planner.grouping.tracker
    for step in range(5):
        tracker.update([frozenset({"carla", "david"})], operations.running.now + step)
    assert members(operations)["auto-1"] == {"anna", "carla", "david"}
    assert shown(ask, "auto-1") != []
    assert ask("DELETE", "/groups/auto-1/pins/anna").status_code == 204
    assert ask("GET", "/groups/discovery").json()["pins"] == {}


def test_a_forbidden_pair_is_parted_and_may_meet_again(ask: Ask, operations: FakeOperations):
    """The pair is listed as long as it is forbidden; how much may change is told beside it."""
    assert ask("POST", "/groups/forbidden-pairs", json={"users": ["david", "carla"]}).status_code == 201
    assert ask("GET", "/groups/forbidden-pairs").json() == {"pairs": [["carla", "david"]]}
    assert "auto-1" not in members(operations)
    standing = ask("GET", "/groups/discovery").json()
    assert (standing["forbidden_pairs"], standing["churn_left"], standing["waiting"]) == (
        [["carla", "david"]],
        20,
        0,
    )
    assert ask("DELETE", "/groups/forbidden-pairs/david/carla").status_code == 204
    assert ask("GET", "/groups/forbidden-pairs").json() == {"pairs": []}


def test_events_come_after_the_one_last_seen(ask: Ask):
    """Each with an id, a time and a reason."""
    every = ask("GET", "/groups/auto-1/events").json()["events"]
    assert [event["kind"] for event in every] == ["forming", "joined"]
    assert every[0]["members"] == ["carla", "david"]
    newer = ask("GET", f"/groups/auto-1/events?since={every[0]['id']}").json()["events"]
    assert newer == every[1:]


def test_the_topology_shows_links_with_capacity_and_use(ask: Ask, operations: FakeOperations):
    """The slower port's speed is the capacity; what is not measured is null; hosts come by the page."""
    running = operations.running
    running.planner.report(wired(operations))
    ports = PortSamples(*(np.array([value]) for value in (9, 5.0, 1e6, 25e6, 0.0)))
    running.planner.ingest(SampleBatch(0x11, running.now, ports=ports))
    running.tick()
    running.planner.fleet.polled(SampleBatch(0x11, running.now, ports=ports), running.now)
    view = ask("GET", "/topology?limit=2&offset=1").json()
    assert [switch["dpid"] for switch in view["switches"]] == [f"{dpid:016x}" for dpid in (0x11, 0x12, 0x21)]
    there, back = view["links"]
    assert there["src"] == {"dpid": f"{0x11:016x}", "port_no": 9}
    assert (there["capacity_bps"], there["rate_bps"], there["utilisation"]) == (100_000_000, 25_000_000, 0.25)
    assert (back["rate_bps"], back["utilisation"], back["state"]) == (None, None, "used")
    assert view["total_hosts"] == len(PLACES)
    assert [host["user"] for host in view["hosts"]] == ["ben", "carla"]
    assert view["hosts"][0]["region"] == "west"


def test_changes_of_the_network_are_events(ask: Ask, operations: FakeOperations):
    """Switches, links, ports that go down, users that move; a reader asks for what is new."""
    running = operations.running
    first = ask("GET", "/topology/events").json()
    assert {event["what"] for event in first["events"]} == {"switch"}
    running.planner.report(wired(operations))
    running.tick()
    running.planner.report(wired(operations, 3, up=False, places=PLACES | {"anna": 0x21}))
    running.tick()
    answer = ask("GET", f"/topology/events?since={first['last']}").json()
    assert answer["complete"]
    assert [(event["what"], event["change"]) for event in answer["events"]] == [
        ("link", "up"),
        ("link", "down"),
        ("port", "down"),
        ("user", "moved"),
    ]
    assert answer["events"][0]["name"] == f"{0x11:016x}/9-{0x12:016x}/8"
    assert answer["last"] == answer["events"][-1]["id"]


def test_what_is_bound_to_a_user_is_shown_with_its_source_and_end(ask: Ask, operations: FakeOperations):
    """A bound card is the user's from the next look on, until its time is over or it is taken back."""
    running = operations.running
    card = "00:00:00:00:09:09"
    answer = ask("PUT", "/users/anna/bindings", json={"macs": [card], "ttl_s": 60})
    assert answer.status_code == 200
    assert [(b["value"], b["source"], b["until"]) for b in answer.json()["bindings"]] == [
        (mac_of(running.config, "anna"), "configured", None),
        (card, "api", running.now + 60),
    ]
    (device,) = answer.json()["devices"]
    assert (device["dpid"], device["recognised_by"]) == (f"{0x11:016x}", "mac")
    running.tick(count=13)
    assert len(ask("GET", "/users/anna/bindings").json()["bindings"]) == 1
    ask("PUT", "/users/anna/bindings", json={"addresses": ["10.0.0.9"]})
    assert ask("DELETE", "/users/anna/bindings").status_code == 204
    assert operations.told[-1] == "user anna no longer bound by REST"
