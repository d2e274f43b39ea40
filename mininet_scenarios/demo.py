"""``python -m mininet_scenarios.demo``: a network, its controller and its traffic, for about four minutes."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.live import Live

from mininet_scenarios import leftovers, live, openvswitch
from mininet_scenarios.client import ApiError
from mininet_scenarios.controller import (
    ROOT,
    Controller,
    ControllerFailed,
    check_free,
    running_controller,
    token_file,
)
from mininet_scenarios.interrupts import Interrupted, raising, shielded
from mininet_scenarios.leftovers import AlreadyRunning, Run
from mininet_scenarios.network import OPENFLOW_PORT, Net, NetworkError, build, demo_network
from mininet_scenarios.openvswitch import OvsUnavailable, running_ovs
from mininet_scenarios.readback import Comparison, ReadBackError, read_back
from mininet_scenarios.schedule import demo_schedule, scarce_window
from mininet_scenarios.traffic import Measured, Traffic

RUN_ID = "tgdemo"
NAME_SERVER = "names"
EDGES = ("edge1", "edge2", "edge3", "edge4")
#: Meters are read back so often while the traffic runs.
READ_BACK_EVERY_S = 20.0
#: The traffic flowed if so large a share of the flows arrived at all.
FLOWED = 0.9


@dataclass
class Outcome:
    """What the demo found."""

    comparisons: list[Comparison] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)

    @property
    def meters_equal(self) -> bool:
        """Whether the last reading of the switches gave the plan."""
        return bool(self.comparisons) and self.comparisons[-1].equal

    @property
    def arrived(self) -> int:
        """Flows of which the receiver got something."""
        return sum(flow.received_bps > 0 for flow in self.measured)

    @property
    def flowed(self) -> bool:
        """Whether nearly all flows arrived."""
        return bool(self.measured) and self.arrived >= FLOWED * len(self.measured)


class Show:
    """Progress: a live table on a terminal, a few lines every ten seconds elsewhere."""

    def __init__(self, plain: bool) -> None:
        self.console = Console()
        self._plain = plain or not self.console.is_terminal
        self._next_lines = 0.0
        self._live: Live | None = None

    def say(self, line: str) -> None:
        """One line that stays."""
        # Not through rich's width: a pipe has none, and lines are for grep.
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)

    def __enter__(self) -> Show:
        if not self._plain:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, status: str, pools: list[dict[str, Any]], now_s: float) -> None:
        """The newest values."""
        if self._live is not None:
            self._live.update(live.screen(status, pools), refresh=True)
        elif now_s >= self._next_lines:
            self._next_lines = now_s + 10
            for line in live.plain(status, pools):
                self.say(line)


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit status 0: the meters equal the plan and traffic flowed."""
    options = _options(arguments)
    show = Show(options.plain)
    if os.geteuid() != 0:
        print(
            "the demo must run as root (it makes network namespaces and bridges): sudo make demo",
            file=sys.stderr,
        )
        return 2
    with raising():
        try:
            return _demo(options, show)
        except Interrupted as interrupted:
            show.say(f"{interrupted}: everything is cleared away")
            return 128 + interrupted.signum
        except (
            OvsUnavailable,
            NetworkError,
            ControllerFailed,
            AlreadyRunning,
            ApiError,
            ReadBackError,
        ) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        finally:
            # The blocks below have cleared up; this is for a signal that hit
            # just where one of them began to.
            with shielded():
                _clear_own()


def _clear_own() -> None:
    leftovers.clear_own()
    if openvswitch.CONTROL.exists():
        openvswitch.release()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mininet_scenarios.demo", description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "demo.yaml")
    parser.add_argument("--duration", type=float, default=200.0, help="seconds of traffic (default: 200)")
    parser.add_argument("--run-id", default=RUN_ID, help=f"leads the bridges' names (default: {RUN_ID})")
    parser.add_argument("--openflow-port", type=int, default=OPENFLOW_PORT, help="default: 6653")
    parser.add_argument("--plain", action="store_true", help="lines and no live table, also on a terminal")
    options = parser.parse_args(arguments)
    try:
        demo_schedule(options.duration)
    except ValueError as error:
        parser.error(str(error))
    if not options.config.is_file():
        parser.error(f"--config must be a file, got {options.config}")
    return options


def _demo(options: argparse.Namespace, show: Show) -> int:
    with ExitStack() as stack:
        show.say("Open vSwitch: userspace datapath")
        stack.enter_context(running_ovs())
        for run_id in leftovers.sweep():
            show.say(f"cleared away what the killed run {run_id} had left")
        run = stack.enter_context(leftovers.run(options.run_id))
        show.say(f"controller: ryu-manager ryu_apps/bandwidth.py (files in {run.directory})")
        api_port, planner_port = _ports(options.config)
        check_free(
            {"OpenFlow": options.openflow_port, "northbound.port": api_port, "planner.port": planner_port}
        )
        controller = stack.enter_context(
            running_controller(run, options.config, api_port, options.openflow_port)
        )
        controller.wait_until_answering()
        show.say(
            f"REST API: {controller.client.url}  (token in {run.directory / token_file(options.config)}; OpenAPI at /docs)"
        )
        net = stack.enter_context(build(demo_network(), options.openflow_port, run))
        show.say(
            f"network: {len(net.spec.switches)} switches, {len(net.spec.hosts)} hosts; "
            f"try: ovs-ofctl -O OpenFlow13 dump-meters {net.bridge('edge1')}"
        )
        _wait_until_connected(net, controller)
        controller.wait_until_healthy()
        outcome = _drive(net, run, controller, options.duration, show)
        return _conclude(outcome, options.config, show)


def _ports(config: Path) -> tuple[int, int]:
    """Where the configuration says that the REST API and the planner listen."""
    raw = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    blocks = (raw.get("northbound") or {}, raw.get("planner") or {})
    return int(blocks[0].get("port", 8080)), int(blocks[1].get("port", 8650))


def _wait_until_connected(net: Net, controller: Controller, deadline_s: float = 60.0) -> None:
    """Return when the far ends of the network answer one another, in both IP versions."""
    end = time.monotonic() + deadline_s
    while not (net.reaches("anna", "kira") and net.reaches("felix", "gina", version=6)):
        controller.check_alive()
        if time.monotonic() > end:
            raise ControllerFailed(
                f"hosts must reach one another within {deadline_s:g} s of the start\n{controller.log_tail()}"
            )


def _drive(net: Net, run: Run, controller: Controller, duration_s: float, show: Show) -> Outcome:
    """Run the schedule to its end, showing and checking meanwhile."""
    outcome = Outcome()
    traffic = Traffic(net, demo_schedule(duration_s), run.directory)
    traffic.start_servers(NAME_SERVER)
    started, next_read_back, next_update = time.monotonic(), READ_BACK_EVERY_S, 0.0
    try:
        with show:
            while not traffic.done:
                now_s = time.monotonic() - started
                traffic.step(now_s)
                controller.check_alive()
                if now_s >= next_read_back and now_s < duration_s - 2:
                    next_read_back += READ_BACK_EVERY_S
                    outcome.comparisons.append(_read_back(net, controller))
                if now_s >= next_update:
                    next_update = now_s + 1
                    show.update(_status(now_s, duration_s, outcome), _pools(controller), now_s)
                time.sleep(0.1)
        outcome.comparisons.append(_read_back(net, controller))
    finally:
        with shielded():
            traffic.stop()
    outcome.measured = traffic.measured
    return outcome


def _read_back(net: Net, controller: Controller) -> Comparison:
    bridges = {net.spec.switches[edge]: net.bridge(edge) for edge in EDGES}
    return read_back(controller.client.plan, bridges)


def _pools(controller: Controller) -> list[dict[str, Any]]:
    try:
        pools: list[dict[str, Any]] = controller.client.pools()["pools"]
    except ApiError:
        # A planner that is being started again does not end the demo.
        return []
    return pools


def _status(now_s: float, duration_s: float, outcome: Outcome) -> str:
    start, end = scarce_window(duration_s)
    phase = (
        "scarce: studio asks for more than its region has" if start <= now_s < end else "recurring pattern"
    )
    checks = outcome.comparisons
    equal = f"meters equal the plan: {sum(c.equal for c in checks)} of {len(checks)} readings"
    return f"{now_s:4.0f} of {duration_s:.0f} s | {phase} | {equal}"


def _conclude(outcome: Outcome, config: Path, show: Show) -> int:
    """Print the summary; the planner's comparison comes from its own command."""
    show.say("")
    # While the controller still runs: the command asks its REST API.
    tidegate = Path(sys.executable).parent / "tidegate"
    summary = subprocess.run(
        [str(tidegate), "summary", "--config", str(config)], stdin=subprocess.DEVNULL, timeout=60, check=False
    )
    equal = sum(comparison.equal for comparison in outcome.comparisons)
    show.say("")
    show.say(_applications(outcome.measured))
    show.say(
        f"meters read back equal the plan: {'yes' if outcome.meters_equal else 'NO'} "
        f"({equal} of {len(outcome.comparisons)} readings of {len(EDGES)} edge switches, "
        f"{outcome.comparisons[-1].n_meters} meters in the last)"
    )
    for difference in outcome.comparisons[-1].differences[:10]:
        show.say(f"  {difference}")
    show.say(
        f"traffic flowed: {'yes' if outcome.flowed else 'NO'} ({outcome.arrived} of {len(outcome.measured)} flows)"
    )
    if summary.returncode:
        show.say(f"tidegate summary must succeed, got exit status {summary.returncode}")
    return 0 if outcome.meters_equal and outcome.flowed and summary.returncode == 0 else 1


def _applications(measured: list[Measured]) -> str:
    """Payload sent and received by each application, by iperf3's account."""
    lines = ["by iperf3's receivers (payload, mean while sending):"]
    for name in sorted({m.flow.application for m in measured}):
        flows = [m for m in measured if m.flow.application == name and m.received_bps >= 0]
        seconds = sum(m.flow.duration_s for m in flows) or float("nan")
        tried = sum(m.flow.rate_bps * m.flow.duration_s for m in flows) / seconds
        got = sum(m.received_bps * m.flow.duration_s for m in flows) / seconds
        lines.append(
            f"  {name:<10} {len(flows):3d} flows, sent {live.mbps(tried)}, received {live.mbps(got)} Mbit/s each"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
