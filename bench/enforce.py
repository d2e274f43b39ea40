"""Grants as throughput, and plans as meters, on real Open vSwitch (userspace datapath); needs root.

    python -m bench.enforce --json OUT [--quick]

udp, tcp                achieved / granted, frames, after the first burst is used up
udp_tbf, tcp_tbf        the same through the kernel's token bucket (tc tbf) of the same rate and burst
rate_change_lost_packets   UDP packets lost while rates change and stay above what is offered
eight_switches          achieved / granted of a group whose load wanders between eight switches; the whole system
plan_to_readback_ms     from a plan published to its meters read back, on 1, 10 and 50 switches, all meters changed
meters_20000            so many meters on one switch: written and read back by bulk messages, by Ryu's objects with
                        a barrier each, and through the whole OpenFlow process

Networks, switches and controllers are made for the run and removed, also after a failure.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench import enforce_group, enforce_meters, enforce_seam, enforce_traffic
from bench.enforce_traffic import Flow, Limit
from bench.figures import write_figures
from mininet_scenarios import leftovers, requirements
from mininet_scenarios.leftovers import Run
from mininet_scenarios.openvswitch import running_ovs
from planner.config import Allocation

_STARTED = time.monotonic()


def say(text: str) -> None:
    """Progress, for people."""
    print(f"{time.monotonic() - _STARTED:6.1f} s  {text}", file=sys.stderr, flush=True)


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def throughput(run: Run, quick: bool) -> dict[str, Any]:
    """What UDP and TCP get of their grants."""
    payloads = (64, 512, 1400)
    udp_rounds = [[(rate, payload) for payload in payloads] for rate in ((10.0,) if quick else (1.0, 10.0))]
    if not quick:
        # One at a time: small packets at this rate are work for the sender.
        udp_rounds += [[(50.0, payload)] for payload in payloads]
    tcp_rounds = [[1.0, 10.0]] if quick else [[1.0, 10.0, 50.0], [100.0]]
    over_s = 3.0 if quick else 10.0
    figures: dict[str, list[Flow]] = {"udp": [], "udp_tbf": [], "tcp": [], "tcp_tbf": []}
    with enforce_traffic.pairs_of_hosts(run) as net:
        limits: list[tuple[str, Limit]] = [
            ("", enforce_traffic.metered),
            ("_tbf", enforce_traffic.token_bucket),
        ]
        for suffix, limit in limits:
            for cases in udp_rounds:
                _add(figures, f"udp{suffix}", enforce_traffic.udp(net, cases, over_s / 2, limit))
            for rates in tcp_rounds:
                _add(figures, f"tcp{suffix}", enforce_traffic.tcp(net, rates, over_s, Allocation(), limit))
        for rtt_ms in (20.0,) if quick else (5.0, 20.0, 100.0):
            with enforce_traffic.wire(net, rtt_ms):
                settings = Allocation(rtt_ms=rtt_ms)
                for rates in tcp_rounds:
                    _add(figures, "tcp", enforce_traffic.tcp(net, rates, over_s, settings, far=True))
    return {
        name: [{k: v for k, v in asdict(flow).items() if v is not None} for flow in flows]
        for name, flows in figures.items()
    }


def _add(figures: dict[str, list[Flow]], name: str, flows: list[Flow]) -> None:
    for flow in flows:
        at = f", {flow.rtt_ms:.1f} ms" if flow.rtt_ms is not None else ""
        offered = f" of {flow.offered_over_granted:.2f} offered" if flow.offered_over_granted else ""
        say(
            f"{name} {flow.rate_mbps:g} Mbit/s, payload {flow.payload}{at}, burst {flow.burst_kbit} kbit: "
            f"{flow.achieved_over_granted:.3f} of the grant{offered}"
        )
    figures[name] += flows


def many_meters(run: Run, count: int) -> dict[str, Any]:
    """So many meters on one switch, written and read three ways."""
    spec = enforce_seam.switches_only(1)
    with enforce_seam.speaking(run, spec, free_port()) as (stand_in, net, _):
        with enforce_meters.connected(net.bridge("n1")) as connection:
            ours = enforce_meters.bulk(connection, count)
            say(f"{count} meters in bulk: {ours}")
            ryus = enforce_meters.by_ryu(connection, count)
            say(f"{count} meters by Ryu's objects, a barrier each: {ryus}")
        process = {}
        for version, name in ((1, "install_to_readback_ms"), (2, "modify_to_readback_ms")):
            took = stand_in.seconds_until_read_back(enforce_seam.flat_plan(version, (1,), count))
            process[name] = round(took * 1e3, 1)
        enforce_seam.check_held(net, stand_in.plan)
        say(f"{count} meters through the OpenFlow process: {process}")
    ratio = round(ryus["install_ms"] / ours["install_ms"], 1)
    return {"meters": count, **ours, "ryu_object_each": ryus, "install_ratio": ratio, "process": process}


def run_all(quick: bool) -> dict[str, Any]:
    """Every figure."""
    figures: dict[str, Any] = {}
    with running_ovs():
        leftovers.sweep()
        with leftovers.run() as run:
            figures |= throughput(run, quick)
        with leftovers.run() as run:
            changes = enforce_seam.rate_change_losses(
                run, free_port(), 20 if quick else 100, 5.0, enforce_traffic.lost_packets
            )
            say(f"rate changes in mid-flow: {changes}")
            figures |= {"rate_change_lost_packets": changes["lost"], "rate_change": changes}
        with leftovers.run() as run:
            ports = (free_port(), free_port(), free_port())
            group = enforce_group.group_on_eight_switches(run, ports, 30.0 if quick else 120.0)
            say(f"a group on eight switches: {group}")
            figures["eight_switches"] = group
        figures["plan_to_readback_ms"] = {}
        for n_switches in (1, 10) if quick else (1, 10, 50):
            with leftovers.run() as run:
                took = enforce_seam.read_back_ms(run, n_switches, 10 if quick else 100, free_port())
            say(f"plan to read-back on {n_switches} switches: {took} ms")
            figures["plan_to_readback_ms"][str(n_switches)] = took
        with leftovers.run() as run:
            count = 2_000 if quick else 20_000
            figures[f"meters_{count}"] = many_meters(run, count)
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; the JSON goes where asked, progress to standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.enforce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", required=True, metavar="OUT", help="file to write, or - for standard output"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two minutes instead of nine; fewer rates and rounds"
    )
    options = parser.parse_args(arguments)
    if lacking := requirements.missing():
        print(f"real switches need {'; '.join(lacking)}", file=sys.stderr)
        return 1
    write_figures(run_all(options.quick), options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
