"""Real parts for the tests: Open vSwitch, Mininet networks and controllers, all gone afterwards."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from mininet_scenarios import leftovers, requirements
from mininet_scenarios.controller import ROOT, Controller, running_controller
from mininet_scenarios.leftovers import Run
from mininet_scenarios.network import Net, NetworkSpec, build
from mininet_scenarios.openvswitch import running_ovs

#: The demo's configuration at a pace for tests.
QUICK: Mapping[str, Any] = {
    "polling": {"interval_s": 1.0},
    "openflow": {"settle_s": 1.5, "lldp_interval_s": 0.4, "link_timeout_s": 1.5},
    "grouping": {"half_life_s": 10, "every_s": 3, "hold_s": 3},
    "allocation": {"tick_s": 2, "compare": False},
}


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(predicate: Callable[[], object], deadline_s: float = 10.0, what: str = "") -> Any:
    """The first true value of the predicate; fails the test when the deadline passes."""
    end = time.monotonic() + deadline_s
    while True:
        if value := predicate():
            return value
        if time.monotonic() > end:
            pytest.fail(f"{what or 'the condition'} must hold within {deadline_s:g} s, last value {value!r}")
        time.sleep(0.1)


class Scenario:
    """One run: networks and controllers on ports of its own, with one directory for files."""

    def __init__(self, run: Run, stack: ExitStack) -> None:
        self.run = run
        self.openflow_port, self.api_port, self.planner_port = free_port(), free_port(), free_port()
        #: Where switches call: another port than the controller's when something stands between them.
        self.switch_port = self.openflow_port
        self.controllers: list[Controller] = []
        self.token_file = run.directory / "var" / "demo" / "token"
        self._stack = stack

    def build(self, spec: NetworkSpec, controlled: bool = True) -> Net:
        """A network whose switches look for this scenario's controller, or for none."""
        return self._stack.enter_context(build(spec, self.switch_port if controlled else None, self.run))

    def config(self, changes: Mapping[str, Any] | None = None) -> Path:
        """``config/demo.yaml`` with blocks changed (merged, key by key) and this scenario's ports."""
        raw = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
        ports = {
            "northbound": {"port": self.api_port, "token_file": str(self.token_file)},
            "planner": {"port": self.planner_port},
        }
        path = self.run.directory / "config.yaml"
        path.write_text(yaml.safe_dump(merged(merged(raw, changes or {}), ports)))
        return path

    def start_controller(self, config: Path | None = None, answering: bool = True) -> Controller:
        """``ryu-manager`` with a configuration, by default the demo's, answering on return.

        It is healthy (``wait_until_healthy``) only once it has switches to plan for.
        Start it again after it was killed: it finds the files of the one before.
        """
        controller = self._stack.enter_context(
            running_controller(self.run, config or self.config(), self.api_port, self.openflow_port)
        )
        self.controllers.append(controller)
        if answering:
            controller.wait_until_answering()
        return controller

    def write(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A write by REST with the operator's token; anything but success fails the test."""
        reply = httpx.request(
            method,
            f"http://127.0.0.1:{self.api_port}{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.token_file.read_text().strip()}"},
            timeout=10,
            trust_env=False,
        )
        assert reply.is_success, f"{method} {path} must succeed, got {reply.status_code} {reply.text}"
        answer: dict[str, Any] = reply.json()
        return answer


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with blocks changed, key by key."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


@contextmanager
def new_scenario(node: pytest.Item | pytest.Collector) -> Iterator[Scenario]:
    """A scenario for as long as the block runs; its controllers' logs join a failure's report."""
    with leftovers.run() as run, ExitStack() as stack:
        scenario = Scenario(run, stack)
        node.stash[_SCENARIO] = scenario
        try:
            yield scenario
        finally:
            del node.stash[_SCENARIO]


_SCENARIO = pytest.StashKey[Scenario]()


@pytest.fixture(scope="session")
def ovs() -> Iterator[None]:
    """Open vSwitch, running. In CI a machine that lacks something fails; elsewhere it skips."""
    if lacking := requirements.missing():
        said = f"real switches need {'; '.join(lacking)}"
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(said)
        pytest.skip(said)
    with running_ovs():
        leftovers.sweep()
        yield


@pytest.fixture
def scenario(ovs: None, request: pytest.FixtureRequest) -> Iterator[Scenario]:
    """A scenario of the test's own."""
    with new_scenario(request.node) as made:
        yield made


@pytest.fixture(scope="module")
def shared_scenario(ovs: None, request: pytest.FixtureRequest) -> Iterator[Scenario]:
    """A scenario that the tests of a module share."""
    with new_scenario(request.node) as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the end of each controller's log to a failure."""
    report = yield
    if report.failed:
        for node in item.listchain():
            if (scenario := node.stash.get(_SCENARIO, None)) is not None:
                for number, controller in enumerate(scenario.controllers, start=1):
                    report.sections.append((f"controller {number}: last lines", controller.log_tail(80)))
    return report
