"""Applications found in real traffic, and what an operator sets for them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from mininet_scenarios.client import ApiError
from mininet_scenarios.controller import ROOT
from mininet_scenarios.traffic import Traffic
from tests.e2e.conftest import Scenario, wait_until
from tests.e2e.lab import Lab, open_lab
from tests.e2e.readings import packets_in
from tests.e2e.streams import Stream, arriving_bps, udp
from tests.e2e.test_survival import planner_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

#: Hosts that talk to one another, each to the next: within a switch, within a region, and across.
APPLICATIONS = (("anna", "ben", "carla"), ("david", "emma", "felix"), ("gina", "hugo", "jonas"))


def ring(members: tuple[str, ...]) -> list[Stream]:
    """Each sends to the next."""
    return [Stream(a, b, 0.4e6) for a, b in zip(members, (*members[1:], members[0]), strict=True)]


@pytest.fixture(scope="module")
def lab(shared_scenario: Scenario) -> Iterator[Lab]:
    """A network with three applications at work, and everybody asking the name server."""
    lab = open_lab(shared_scenario)
    questions = Traffic(lab.net, (), lab.net.run.directory)
    try:
        questions.start_servers("names")
        with udp(lab.net, *(stream for members in APPLICATIONS for stream in ring(members))):
            yield lab
    finally:
        questions.stop()


def answer(lab: Lab) -> dict[str, Any]:
    """``GET /groups``; nothing while the planner is away."""
    try:
        return lab.controller.client._get("/groups")
    except ApiError:
        return {"groups": [], "shared_services": []}


def active(lab: Lab) -> dict[frozenset[str], dict[str, Any]]:
    """Groups that were found, by their members."""
    return {frozenset(g["members"]): g for g in answer(lab)["groups"] if g["source"] == "discovered"}


def group(lab: Lab, group_id: str) -> dict[str, Any] | None:
    """One group; None while there is none of this id."""
    return next((g for g in answer(lab)["groups"] if g["id"] == group_id), None)


def applications_found(lab: Lab) -> bool:
    """Whether each application is a group."""
    return {frozenset(members) for members in APPLICATIONS} <= active(lab).keys()


# First, while the network that the other tests share is not there yet: two at once are too much for two cores.
#: Two applications that swap a host; both work in both regions afterwards.
STAY = (("anna", "ben", "carla"), ("hugo", "ines", "jonas"))
SWAP = ("david", "gina")
GUARANTEE_BPS = 1e6
#: Eight megabits for four hosts that ask for more than two each, in either region and direction; groups are
#: found at the demo's own pace.
SCARCE: dict[str, Any] = {
    "grouping": yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())["grouping"],
    "regions": {
        "west": {"capacity_mbps": 8, "guarantee_mbps": 0},
        "east": {"capacity_mbps": 8, "guarantee_mbps": 0},
    },
    "users": {name: {"guarantee_mbps": 0, "ceiling_mbps": 20} for name in ("emma", "felix", "kira", "names")},
}


def mesh(members: tuple[str, ...], with_whom: tuple[str, ...] | None = None) -> list[Stream]:
    """Each sends to each other, on a port of the sender's own; or only to and from some."""
    number = {name: at for at, name in enumerate((*STAY[0], *STAY[1], *SWAP))}
    return [
        Stream(a, b, 0.7e6, 5400 + number[a])
        for a in members
        for b in members
        if a != b and (with_whom is None or a in with_whom or b in with_whom)
    ]


@pytest.mark.timeout(240)
def test_two_applications_swap_a_host_and_nobody_falls_below_its_guarantee(scenario: Scenario) -> None:
    """Within a minute of traffic both groups follow under their ids, and their meters with them."""
    lab = open_lab(scenario, SCARCE)
    before: list[tuple[str, ...]] = [(*STAY[0], SWAP[0]), (*STAY[1], SWAP[1])]
    after: list[tuple[str, ...]] = [(*STAY[0], SWAP[1]), (*STAY[1], SWAP[0])]
    everybody = (*STAY[0], *STAY[1], *SWAP)
    lowest: dict[str, float] = {}

    def measure() -> None:
        for host, rate in arriving_bps(lab.net, everybody, 3.0).items():
            lowest[host] = min(rate, lowest.get(host, rate))

    def settled() -> bool:
        lowest.clear()
        measure()
        return min(lowest.values()) >= GUARANTEE_BPS

    def groups_are(wanted: list[tuple[str, ...]]) -> bool:
        return {frozenset(members) for members in wanted} <= active(lab).keys()

    with udp(lab.net, *mesh(STAY[0]), *mesh(STAY[1])):
        with udp(lab.net, *(stream for members in before for stream in mesh(members, SWAP))):
            wait_until(lambda: groups_are(before), 90, "both applications to be groups")
            ids = [active(lab)[frozenset(members)]["id"] for members in before]
            # The meters of what was found are in force, and the sharing has settled on what is asked for.
            lab.in_step(10)
            wait_until(settled, 30, "everybody to get its guarantee")
            moved = udp(lab.net, *(stream for members in after for stream in mesh(members, SWAP)))
            moved.__enter__()
            measure()
        try:

            def followed() -> bool:
                measure()
                return groups_are(after)

            wait_until(followed, 60, "both groups to follow the hosts")
            assert [active(lab)[frozenset(members)]["id"] for members in after] == ids
            lab.in_step(10)
            # The host that went is policed by its new group's meter at its own switch.
            west, east = (f"global/{region}/{at}" for region, at in (("west", ids[1]), ("east", ids[0])))
            assert {lab.path("david"), lab.path("gina")} == {f"{west}/david", f"{east}/gina"}
            for pool in (west, east):
                switch = next(
                    edge for edge in ("edge1", "edge2", "edge3", "edge4") if has_meter(lab, edge, pool)
                )
                assert_metered(lab, switch, pool)
            measure()
        finally:
            moved.__exit__(None, None, None)
    assert min(lowest.values()) >= GUARANTEE_BPS, lowest


def assert_metered(lab: Lab, switch: str, pool: str) -> None:
    """Packets come to the upload meter of a pool, by the switch's own count."""
    meter = lab.meter(switch, pool, "up")
    before = packets_in(lab.net, switch)[meter]
    wait_until(lambda: packets_in(lab.net, switch)[meter] > before + 50, 5, f"{pool} to be metered")


def has_meter(lab: Lab, switch: str, pool: str) -> bool:
    """Whether a switch has meters of a pool, by the plan."""
    planned = lab.plan()["switches"][f"{lab.net.spec.switches[switch]:016x}"]["meters"]
    return any(meter["pool"] == pool for meter in planned)


def test_hosts_that_talk_to_one_another_are_groups_and_the_name_server_is_no_glue(lab: Lab) -> None:
    """Three applications come out as three groups, and the endpoint that all ask as a shared service."""
    wait_until(lambda: applications_found(lab), 40, "the three applications to be groups")
    wait_until(lambda: "names" in answer(lab)["shared_services"], 20, "names to be a shared service")
    assert applications_found(lab)
    assert not [g for g in active(lab) if "names" in g and len(g) > 1]
    # A group across regions draws on each by its own part.
    pools = active(lab)[frozenset(APPLICATIONS[2])]["pools"]
    assert {pool.split("/")[1] for pool in pools} == {"east"}
    lab.in_step(10)


def test_an_override_outlives_clustering_anew_and_a_planner_killed(lab: Lab) -> None:
    """What an operator set for a found group holds when the group grows, and after kill -9 of the planner."""
    wait_until(lambda: applications_found(lab), 40, "the three applications to be groups")
    group_id = active(lab)[frozenset(APPLICATIONS[2])]["id"]
    lab.scenario.write("PUT", f"/groups/{group_id}/bandwidth", {"ceiling_mbps": {"up": 6, "down": 7}})

    def holds(members: set[str]) -> bool:
        found = group(lab, group_id)
        if found is None or set(found["members"]) != members or not found["pools"]:
            return False
        if found["ceiling_bps"] != {"up": 6_000_000, "down": 7_000_000}:
            return False
        grants = [lab.pool(path) for path in found["pools"]]
        return all(
            sum(grant[direction]["grant_bps"] for grant in grants) <= ceiling
            for direction, ceiling in found["ceiling_bps"].items()
        )

    members = set(APPLICATIONS[2])
    wait_until(lambda: holds(members), 10, "the ceiling to hold")
    with udp(lab.net, Stream("ines", "gina", 2e6, 5401), Stream("hugo", "ines", 2e6, 5401)):
        wait_until(lambda: holds(members | {"ines"}), 40, "the group to grow under the same id and ceiling")
        planner = planner_of(lab.controller.process.pid)
        os.kill(planner, signal.SIGKILL)
        wait_until(lambda: group(lab, group_id) is None, 10, "the planner to be away")
        wait_until(lambda: holds(members | {"ines"}), 20, "group and ceiling to hold after the restart")
    lab.in_step(10)


def test_a_group_made_by_an_operator_wins_and_outlives_a_planner_killed(lab: Lab) -> None:
    """Members of an operator's group leave those that were found, and it is there after kill -9."""
    lab.scenario.write(
        "POST", "/groups/create", {"id": "studio", "members": ["anna", "kira"], "ceiling_mbps": 8}
    )

    def stands() -> bool:
        found = group(lab, "studio")
        others = {member for members in active(lab) for member in members}
        return (
            found is not None
            and (found["source"], found["members"]) == ("operator", ["anna", "kira"])
            and len(found["pools"]) == 2
            and not others & {"anna", "kira"}
        )

    wait_until(stands, 10, "the operator's group to stand")
    # Acknowledged is on disk: no grace before the kill.
    os.kill(planner_of(lab.controller.process.pid), signal.SIGKILL)
    wait_until(lambda: group(lab, "studio") is None, 10, "the planner to be away")
    wait_until(stands, 20, "the operator's group to stand after the restart")
    lab.in_step(10)
