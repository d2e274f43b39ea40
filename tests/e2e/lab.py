"""The demo's network under control, and what its planner and its switches say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mininet_scenarios.controller import Controller
from mininet_scenarios.network import Net, demo_network
from mininet_scenarios.readback import Comparison, read_back
from tests.e2e.conftest import QUICK, Scenario, merged, wait_until

EDGES = ("edge1", "edge2", "edge3", "edge4")


@dataclass
class Lab:
    """The network, and the controller of the moment."""

    scenario: Scenario
    net: Net
    controller: Controller
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bridges(self) -> dict[int, str]:
        """The edge switches."""
        return {self.net.spec.switches[edge]: self.net.bridge(edge) for edge in EDGES}

    def plan(self) -> dict[str, Any]:
        """``GET /plan``."""
        return self.controller.client.plan()

    def pool(self, path: str) -> dict[str, Any]:
        """One pool of ``GET /metrics/global``."""
        rows: list[dict[str, Any]] = self.controller.client.pools()["pools"]
        return {row["path"]: row for row in rows}[path]

    def user(self, name: str) -> dict[str, Any]:
        """A user's pool, wherever in the tree it is."""
        return self.pool(self.path(name))

    def path(self, user: str) -> str:
        """Where in the tree a user's pool is."""
        (path,) = (row["path"] for row in self.users() if row["path"].endswith(f"/{user}"))
        return str(path)

    def users(self) -> list[dict[str, Any]]:
        """The users' pools."""
        return [row for row in self.controller.client.pools()["pools"] if row["level"] == "user"]

    def meter(self, switch: str, pool: str, direction: str) -> int:
        """The meter of a pool on a switch, by the plan."""
        meters = self.plan()["switches"][f"{self.net.spec.switches[switch]:016x}"]["meters"]
        (found,) = (m["meter_id"] for m in meters if (m["pool"], m["direction"]) == (pool, direction))
        return int(found)

    def comparison(self, deadline_s: float = 6.0) -> Comparison:
        """Plan and switches, as soon as they agree."""
        return read_back(self.controller.client.plan, self.bridges, deadline_s)

    def in_step(self, deadline_s: float = 6.0) -> None:
        """Fail the test unless the switches come to hold the plan."""
        result = self.comparison(deadline_s)
        assert result.equal, result.differences

    def start_controller(self) -> None:
        """Start the next controller, where the last one was killed."""
        self.controller = self.scenario.start_controller(
            self.scenario.config(merged(QUICK, self.changes)), answering=False
        )


def open_lab(scenario: Scenario, changes: Mapping[str, Any] | None = None) -> Lab:
    """The demo's network with every host known, every user planned for, and the meters in step."""
    changes = changes or {}
    controller = scenario.start_controller(scenario.config(merged(QUICK, changes)), answering=False)
    lab = Lab(scenario, scenario.build(demo_network()), controller, changes)
    controller.wait_until_healthy()
    hosts = set(lab.net.spec.hosts)

    def all_known() -> bool:
        known = {row["path"].rsplit("/", 1)[1] for row in lab.users()}
        for host in hosts - known:
            lab.net.reaches(host, "names" if host != "names" else "anna")
        return hosts <= known

    wait_until(all_known, 40, "every host to be a user with a pool")
    lab.in_step(10)
    return lab


def log_says(lab: Lab, words: str) -> Callable[[], bool]:
    """Whether the newest controller's log holds the words by now."""
    return lambda: words in lab.controller.log.read_text(errors="replace")
