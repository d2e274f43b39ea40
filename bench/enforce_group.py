"""A group on eight switches whose load wanders between them: how much of its grant it gets, whole system, real switches."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import yaml

from bench.enforce_traffic import interface_counters
from mininet_scenarios.controller import Controller, running_controller
from mininet_scenarios.leftovers import Run
from mininet_scenarios.network import Net, NetworkSpec, build, host_spec

N_SWITCHES: Final = 8
GRANT_MBPS: Final = 16.0
#: What all offer together, of the grant, and the time in which each goes once from little to much and back.
_OFFERED, _PERIOD_S = 1.25, 60.0
_PORT: Final = 9000
_PATIENCE_S: Final = 60.0


def star() -> NetworkSpec:
    """A user on each of eight edge switches, and eight hosts to send to behind a ninth."""
    edges = {f"e{i}": i for i in range(1, N_SWITCHES + 2)}
    hosts = {f"u{i}": host_spec(f"e{i}", i, 1) for i in range(1, N_SWITCHES + 1)}
    hosts |= {f"t{i}": host_spec(f"e{N_SWITCHES + 1}", 99, i) for i in range(1, N_SWITCHES + 1)}
    return NetworkSpec({**edges, "core": 99}, tuple(("core", edge) for edge in edges), hosts)


def configuration(spec: NetworkSpec, api_port: int, planner_port: int) -> dict[str, Any]:
    """One group of all users; meters follow its load every two seconds."""
    users = [name for name in spec.hosts if name.startswith("u")]
    return {
        "capacity_mbps": 1000,
        "regions": {
            "west": {"dpids": list(range(1, N_SWITCHES + 1)), "capacity_mbps": 1000},
            "east": {"dpids": [N_SWITCHES + 1], "capacity_mbps": 1000},
        },
        "users": {user: {"macs": [spec.hosts[user].mac]} for user in users},
        "groups": {"crew": {"members": users, "ceiling_mbps": GRANT_MBPS}},
        "grouping": {"enabled": False},
        "polling": {"interval_s": 1.0},
        "openflow": {"settle_s": 1.5, "lldp_interval_s": 0.4, "link_timeout_s": 4},
        "forecasting": {"step_s": 5, "horizons_s": [5, 10, 15], "min_history_steps": 8},
        "allocation": {"tick_s": 2.0},
        "northbound": {"port": api_port},
        "planner": {"port": planner_port},
    }


def group_on_eight_switches(run: Run, ports: tuple[int, int, int], over_s: float) -> dict[str, Any]:
    """What arrives of a group's load over so long a time, of what it is granted."""
    openflow_port, api_port, planner_port = ports
    spec = star()
    path = run.directory / "group.yaml"
    path.write_text(yaml.safe_dump(configuration(spec, api_port, planner_port)))
    with (
        running_controller(run, path, api_port, openflow_port) as controller,
        build(spec, openflow_port, run) as net,
        ExitStack() as stack,
    ):
        controller.wait_until_healthy()
        _wait_until_all_known(net, controller)
        for number in range(1, N_SWITCHES + 1):
            stack.callback(_end, _source(net, number))
        time.sleep(20)
        before, began = _arrived(net), time.monotonic()
        time.sleep(over_s)
        arrived, took = _arrived(net) - before, time.monotonic() - began
    return {
        "switches": N_SWITCHES,
        "grant_mbps": GRANT_MBPS,
        "offered_over_granted": _OFFERED,
        "period_s": _PERIOD_S,
        "achieved_over_granted": round(arrived * 8 / (GRANT_MBPS * 1e6 * took), 4),
    }


def _wait_until_all_known(net: Net, controller: Controller) -> None:
    end = time.monotonic() + _PATIENCE_S
    while True:
        met = [net.reaches(f"u{number}", f"t{number}") for number in range(1, N_SWITCHES + 1)]
        rows = controller.client.pools()["pools"]
        if all(met) and sum(row["level"] == "user" for row in rows) == N_SWITCHES:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"all users must be known within {_PATIENCE_S:g} s\n{controller.log_tail()}")


def _source(net: Net, number: int) -> subprocess.Popen[bytes]:
    mean_mbps = _OFFERED * GRANT_MBPS / N_SWITCHES
    target, phase = net.address(f"t{number}"), number / N_SWITCHES
    numbers = [str(one) for one in (_PORT, mean_mbps, _PERIOD_S, phase)]
    command = [sys.executable, "-m", "bench.wandering_source", target, *numbers]
    root = Path(__file__).parents[1]
    return subprocess.Popen(net.inside(f"u{number}", command), env=net.run.environment, cwd=root)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _arrived(net: Net) -> int:
    return sum(interface_counters(net, f"t{number}")[0] for number in range(1, N_SWITCHES + 1))
