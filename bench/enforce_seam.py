"""The real OpenFlow process between Open vSwitch and a stand-in for the planner that publishes what it is told."""

from __future__ import annotations

import http.server
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import numpy as np
import yaml

from mininet_scenarios.controller import Controller, running_controller
from mininet_scenarios.leftovers import Run
from mininet_scenarios.network import Net, NetworkSpec, build, host_spec
from mininet_scenarios.readback import read_meters
from planner.plan import Binding, MeterTable, Plan, SwitchLayout, encode_plan
from planner.report import NetworkReport, decode_applied, decode_network
from planner.seam_auth import ANSWER_HEADER, seal
from planner.secret import read_or_make

_MOST_WAIT_S: Final = 120.0
#: Meters of a switch in the measurement of time.
METERS_A_SWITCH: Final = 100


@dataclass
class StandIn:
    """Serves plans over the seam's protocol and notes what comes back, with the time."""

    #: What answers are sealed with.
    secret: str = ""
    plan: Plan = field(default_factory=Plan)
    network: NetworkReport | None = None
    #: When the newest plan was published, by the monotonic clock.
    published_at: float = 0.0
    #: When each switch was first said to hold the newest plan.
    in_step_at: dict[int, float] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def publish(self, plan: Plan) -> None:
        """Hand a plan to whoever waits for one."""
        with self.changed:
            self.plan, self.in_step_at = plan, {}
            self.published_at = time.monotonic()
            self.changed.notify_all()

    def next_plan(self, after: int, wait_s: float) -> Plan | None:
        """A plan of another version than the caller's."""
        with self.changed:
            self.changed.wait_for(lambda: self.plan.layouts and self.plan.version != after, wait_s)
            return self.plan if self.plan.layouts and self.plan.version != after else None

    def take(self, path: str, body: bytes) -> int:
        """A report; returns the version of the network that is known."""
        with self.changed:
            if path == "/v1/network":
                self.network = decode_network(body)
            elif path == "/v1/applied":
                applied = decode_applied(body)
                if applied.in_step and applied.plan_version == self.plan.version:
                    self.in_step_at.setdefault(applied.dpid, time.monotonic())
            self.changed.notify_all()
            return self.network.version if self.network is not None else -1

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Return when a condition on what was reported holds."""
        with self.changed:
            if not self.changed.wait_for(condition, _MOST_WAIT_S):
                raise TimeoutError(f"{what} within {_MOST_WAIT_S:g} s")

    def seconds_until_read_back(self, plan: Plan) -> float:
        """Publish a plan; how long until all its switches were read back and hold it."""
        self.publish(plan)
        dpids = plan.meters.keys()
        self.wait(lambda: dpids <= self.in_step_at.keys(), f"{len(dpids)} switches must hold the plan")
        return max(self.in_step_at.values()) - self.published_at


def _handler(stand_in: StandIn) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Else the body waits for the acknowledgement of the head, 40 ms.
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(str(stand_in.take(self.path, body)).encode())

        def do_GET(self) -> None:
            asked = {name: float(values[0]) for name, values in parse_qs(urlsplit(self.path).query).items()}
            plan = stand_in.next_plan(int(asked["after"]), asked["wait_s"])
            self._answer(b"" if plan is None else encode_plan(plan, int(asked["layout"])))

        def _answer(self, body: bytes) -> None:
            # The OpenFlow process may have ended meanwhile.
            with suppress(ConnectionError):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                nonce = re.search(r"nonce=(\w+)", self.headers.get("Authorization", ""))
                if nonce:
                    self.send_header(ANSWER_HEADER, seal(stand_in.secret, nonce[1], 200, body))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[tuple[StandIn, int]]:
    """A stand-in that listens, and its port."""
    stand_in = StandIn()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(stand_in))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield stand_in, server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def speaking(run: Run, spec: NetworkSpec, openflow_port: int) -> Iterator[tuple[StandIn, Net, Controller]]:
    """A network of real switches, all connected to a real OpenFlow process whose planner is a stand-in."""
    with serving() as (stand_in, port):
        config = {
            "capacity_mbps": 10_000,
            "regions": {"all": {"dpids": list(spec.switches.values()), "capacity_mbps": 10_000}},
            "openflow": {"settle_s": 0.5},
            "planner": {"url": f"http://127.0.0.1:{port}", "secret_file": str(run.directory / "seam.secret")},
        }
        stand_in.secret = read_or_make(run.directory / "seam.secret")
        path = run.directory / "enforce.yaml"
        path.write_text(yaml.safe_dump(config))
        with (
            running_controller(run, path, port, openflow_port) as controller,
            build(spec, openflow_port, run) as net,
        ):
            dpids = set(spec.switches.values())
            stand_in.wait(
                lambda: stand_in.network is not None and dpids <= stand_in.network.switches.keys(),
                f"{len(dpids)} switches must be reported\n{controller.log_tail()}",
            )
            yield stand_in, net, controller


def switches_only(count: int) -> NetworkSpec:
    """Switches that stand alone."""
    return NetworkSpec({f"n{i}": i for i in range(1, count + 1)}, (), {})


def flat_plan(version: int, dpids: tuple[int, ...], n_meters: int) -> Plan:
    """A plan whose every rate differs from the plan before: half of them rise, half of them fall."""
    meter = np.arange(1, n_meters + 1, dtype=np.uint32)
    rate = (10_000 + 1_000 * ((meter + version) % 2) + version % 997).astype(np.uint32)
    table = MeterTable(meter, rate, rate // 4)
    layouts = {dpid: SwitchLayout() for dpid in dpids}
    return Plan(version, time.time(), "live", 1, layouts, dict.fromkeys(dpids, table))


def read_back_ms(run: Run, n_switches: int, rounds: int, openflow_port: int) -> dict[str, float]:
    """From the plan to its meters read back on all switches, p50 and p99 over rounds that change each meter."""
    spec = switches_only(n_switches)
    dpids = tuple(spec.switches.values())
    with speaking(run, spec, openflow_port) as (stand_in, net, _):
        # The first makes the meters.
        stand_in.seconds_until_read_back(flat_plan(1, dpids, METERS_A_SWITCH))
        took = []
        for version in range(2, rounds + 2):
            took.append(stand_in.seconds_until_read_back(flat_plan(version, dpids, METERS_A_SWITCH)))
            time.sleep(0.1)
        check_held(net, stand_in.plan)
    quantiles = np.quantile(took, [0.5, 0.99]) * 1e3
    return {"p50": round(float(quantiles[0]), 1), "p99": round(float(quantiles[1]), 1), "rounds": rounds}


def check_held(net: Net, plan: Plan) -> None:
    """Raise AssertionError unless the switches, asked past the OpenFlow process, hold the plan."""
    for name, dpid in net.spec.switches.items():
        held, wanted = read_meters(net.bridge(name)), plan.meters[dpid].rates()
        assert held == wanted, f"{name} must hold {len(wanted)} meters of the plan, got {len(held)}"


def rate_change_losses(
    run: Run, openflow_port: int, changes: int, offered_mbps: float, lost: Callable[..., tuple[int, int]]
) -> dict[str, float]:
    """Packets of a flow that are lost while the rates of its meters change and stay above what it offers."""
    hosts = {"s0": host_spec("edge", 1, 1), "l0": host_spec("edge", 1, 2)}
    spec = NetworkSpec({"edge": 1}, (), hosts)
    with speaking(run, spec, openflow_port) as (stand_in, net, controller):
        deadline = time.monotonic() + 30
        while not (net.reaches("s0", "l0") and len(stand_in.network.hosts if stand_in.network else ()) == 2):
            if time.monotonic() > deadline:
                raise TimeoutError(f"both hosts must be known within 30 s\n{controller.log_tail()}")
        places = {host.mac: host.port_no for host in stand_in.network.hosts.values()}  # type: ignore[union-attr]
        bindings = tuple(
            Binding(name, hosts[name].mac, places[hosts[name].mac], user, group)
            for name, user, group in (("s0", (1, 2), (5, 6)), ("l0", (3, 4), (5, 6)))
        )
        layout = SwitchLayout(bindings, (), (7, 8))

        def plan(version: int) -> Plan:
            meter = np.arange(1, 9, dtype=np.uint32)
            rate = np.full(8, (2 + version % 3) * offered_mbps * 1e3, np.uint32)
            return Plan(version, time.time(), "live", 1, {1: layout}, {1: MeterTable(meter, rate, rate // 4)})

        stand_in.seconds_until_read_back(plan(1))
        took: list[float] = []

        def change() -> None:
            for version in range(2, changes + 2):
                took.append(stand_in.seconds_until_read_back(plan(version)))
                time.sleep(0.05)

        sent, n_lost = lost(net, "s0", "l0", offered_mbps, change)
        check_held(net, stand_in.plan)
        # The same flow for as long, and nobody changes anything: what a busy machine loses by itself.
        left_alone = sum(took) + 0.05 * changes
        _, n_lost_alone = lost(net, "s0", "l0", offered_mbps, lambda: time.sleep(left_alone))
    return {
        "sent": sent,
        "lost": n_lost,
        "lost_without_changes": n_lost_alone,
        "changes": changes,
        "offered_mbps": offered_mbps,
        "change_ms_p50": round(statistics.median(took) * 1e3, 1),
    }
