"""What is killed comes back, and the network does not notice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mininet_scenarios.client import ApiError
from mininet_scenarios.leftovers import process_start
from mininet_scenarios.readback import Meters, read_meters
from tests.e2e.conftest import Scenario, wait_until
from tests.e2e.lab import EDGES, Lab, log_says, open_lab
from tests.e2e.streams import Stream, pinging, received_bytes, udp

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

STREAM = Stream("anna", "gina", 3e6)
CHANGES = {
    "groups": {"crew": {"members": ["anna", "ben", "david"], "ceiling_mbps": 9}},
    "grouping": {"enabled": False},
}


@pytest.fixture(scope="module")
def lab(shared_scenario: Scenario) -> Lab:
    """One network for all tests here; each leaves it in step."""
    return open_lab(shared_scenario, CHANGES)


def held(lab: Lab) -> dict[str, Meters]:
    """The meters on every edge switch now."""
    return {edge: read_meters(lab.net.bridge(edge)) for edge in EDGES}


def planner_of(manager_pid: int) -> int:
    """The planner that a ryu-manager started."""
    (pid,) = map(int, Path(f"/proc/{manager_pid}/task/{manager_pid}/children").read_text().split())
    return pid


class Delivery:
    """How much of a steady stream arrives."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._started, self._before = time.monotonic(), received_bytes(lab.net, STREAM.target)

    def share(self) -> float:
        """Arrived since the beginning, as a share of what was sent."""
        received = received_bytes(self._lab.net, STREAM.target) - self._before
        return received * 8 / (STREAM.rate_bps * (time.monotonic() - self._started))


def new_plan(lab: Lab, after_version: int, after_time: float) -> Callable[[], bool]:
    """Whether there is a plan of a planner that began after a moment."""

    def is_there() -> bool:
        try:
            plan = lab.plan()
        except ApiError:
            return False
        return plan["version"] > after_version and plan["time"] > after_time and bool(plan["switches"])

    return is_there


def test_a_killed_planner_is_started_again_while_traffic_and_meters_stay(lab: Lab) -> None:
    """After kill -9 of the planner the switches go on, ryu-manager says so, and planning resumes in 15 s."""
    planner = planner_of(lab.controller.process.pid)
    with udp(lab.net, STREAM):
        wait_until(lambda: (lab.user("anna")["up"]["offered_bps"] or 0) > 2.5e6, 15, "the stream to be seen")
        version, ids = lab.plan()["version"], {edge: meters.keys() for edge, meters in held(lab).items()}
        delivery, killed_at = Delivery(lab), time.time()
        os.kill(planner, signal.SIGKILL)
        frozen = held(lab)
        resumed = new_plan(lab, version, killed_at)
        while not resumed():
            assert time.time() < killed_at + 15, "planning must resume within 15 s"
            now = held(lab)
            assert {edge: meters.keys() for edge, meters in now.items()} == ids
            # A plan may reach the switches before it is seen here.
            assert now == frozen or resumed()
            time.sleep(0.3)
        wait_until(
            lambda: (lab.user("anna")["up"]["offered_bps"] or 0) > 2.5e6, 15, "samples to arrive again"
        )
        assert delivery.share() > 0.95
    assert log_says(lab, f"planner (pid {planner}) ended with status -9")()
    assert planner_of(lab.controller.process.pid) != planner
    lab.in_step()


def test_a_killed_ryu_manager_is_replaced_while_traffic_and_meters_stay(lab: Lab) -> None:
    """After kill -9 of ryu-manager the switches go on, and its successor removes no meter that is wanted."""
    planner = planner_of(lab.controller.process.pid)
    with (
        udp(lab.net, STREAM),
        pinging(lab.net, "ben", "kira") as pings,
        pinging(lab.net, "carla", "anna") as local,
    ):
        wait_until(lambda: (lab.user("anna")["up"]["offered_bps"] or 0) > 2.5e6, 15, "the stream to be seen")
        version, before = lab.plan()["version"], held(lab)
        delivery, killed_at = Delivery(lab), time.time()
        lab.controller.process.kill()
        lab.controller.process.wait()
        wait_until(lambda: process_start(planner) is None, 10, "the old planner to go away")
        assert held(lab) == before
        lab.start_controller()
        resumed = new_plan(lab, version, killed_at)
        settled_at = 0.0
        while not settled_at or time.time() < settled_at + 6:
            for edge, meters in held(lab).items():
                assert before[edge].keys() <= meters.keys(), (
                    f"{edge} must keep its meters, t={time.time() - killed_at:.1f}"
                )
            if not settled_at and resumed() and lab.comparison(0).equal:
                settled_at = time.time()
            assert time.time() < killed_at + 45, "planning must resume"
            time.sleep(0.3)
        assert {row["path"].rsplit("/", 1)[1] for row in lab.users()} == lab.net.spec.hosts.keys()
        assert delivery.share() > 0.95
        assert pings.stop() < 0.05
        assert local.stop() < 0.05
    lab.in_step()
    for host in ("ben", "felix", "hugo", "names"):
        assert lab.net.reaches("anna", host)
        assert lab.net.reaches("anna", host, version=6)
