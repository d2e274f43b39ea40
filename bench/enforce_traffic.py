"""What gets through a meter of what was granted: UDP and TCP between hosts on Open vSwitch.

Each sender passes three meters one behind the other, of one rate and with the bursts that the planner gives
to a user, its group and its region. What arrives is counted in frames by the receiver's own interface.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from mininet_scenarios.leftovers import Run
from mininet_scenarios.network import HOST_INTERFACE, Net, NetworkSpec, build, host_spec
from planner.config import Allocation
from planner.metering import BURST_FACTOR, burst_bits
from planner.snapshot import Level

#: Ethernet, IPv4 and UDP headers; TCP's are 66 with time stamps.
UDP_HEADERS_BYTES: Final = 42
TCP_PAYLOAD_BYTES: Final = 1448
TCP_FRAME_BYTES: Final = 1514
#: UDP is sent so much faster than granted, in frames.
_OFFERED: Final = 1.2
#: Flows at a time.
N_PAIRS: Final = 3
#: Ports of the wire between the two switches.
_WIRE_PORT, _WIRE_END = 91, 92
_IPERF_PORT: Final = 5300


@dataclass(frozen=True)
class Flow:
    """What one flow got through; rates are of frames."""

    rate_mbps: float
    payload: int
    achieved_over_granted: float
    #: UDP: what the sender offered, of what was granted. Below 1 the sender and not the meter is the limit.
    offered_over_granted: float | None = None
    #: Including the burst with which it began, over the time that is measured.
    from_the_start: float | None = None
    rtt_ms: float | None = None
    burst_kbit: int = 0


@contextmanager
def pairs_of_hosts(run: Run) -> Iterator[Net]:
    """Senders and local receivers on one switch; distant receivers on another."""
    hosts = {f"s{i}": host_spec("near", 1, 1 + i) for i in range(N_PAIRS)}
    hosts |= {f"l{i}": host_spec("near", 2, 1 + i) for i in range(N_PAIRS)}
    hosts |= {f"d{i}": host_spec("far", 3, 1 + i) for i in range(N_PAIRS)}
    with build(NetworkSpec({"near": 1, "far": 2}, (), hosts), None, run) as net:
        for switch in ("near", "far"):
            _add_wire_end(net.bridge(switch))
            ofctl("add-flow", net.bridge(switch), "priority=1,actions=NORMAL")
        yield net


def _add_wire_end(bridge: str) -> None:
    port, end = f"{bridge}-{_WIRE_PORT}", f"{bridge}-{_WIRE_END}"
    _command("ip", "link", "add", port, "type", "veth", "peer", "name", end)
    for name in (port, end):
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        _command("ip", "link", "set", name, "up")
    _command("ovs-vsctl", "--timeout=20", "add-port", bridge, port)


@contextmanager
def wire(net: Net, rtt_ms: float) -> Iterator[None]:
    """The two switches joined by a wire over which there and back takes so long."""
    ends = [f"{net.bridge(switch)}-{_WIRE_END}" for switch in ("near", "far")]
    command = [sys.executable, "-m", "bench.delay_line", *ends, str(rtt_ms / 2)]
    process = subprocess.Popen(command, env=net.run.environment, cwd=Path(__file__).parents[1])
    try:
        deadline = time.monotonic() + 10
        while not net.reaches("s0", "d0"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the wire between the switches must carry a ping within 10 s")
        yield
    finally:
        process.kill()
        process.wait()


def ofctl(*arguments: str) -> str:
    """What ``ovs-ofctl`` says."""
    return _command("ovs-ofctl", "-O", "OpenFlow13", "--timeout=10", *arguments)


def _command(*arguments: str) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=True).stdout


def bursts_kbit(rate_mbps: float, settings: Allocation) -> list[int]:
    """The bursts of a user's meter, its group's and its region's."""
    levels = [Level.USER, Level.GROUP, Level.REGION]
    burst = burst_bits(np.full(3, rate_mbps * 1e6), settings, BURST_FACTOR[levels])
    return [int(one) for one in np.ceil(burst / 1e3)]


@contextmanager
def metered(net: Net, pair: int, rate_mbps: float, bursts: Sequence[int]) -> Iterator[None]:
    """Meters in a row for what a sender sends."""
    bridge, port = net.bridge("near"), net.port_no("near", f"s{pair}")
    ids = [1 + pair * len(bursts) + stage for stage in range(len(bursts))]
    for stage, (meter, burst) in enumerate(zip(ids, bursts, strict=True)):
        band = f"type=drop,rate={round(rate_mbps * 1e3)},burst_size={burst}"
        ofctl("add-meter", bridge, f"meter={meter},kbps,burst,stats,bands={band}")
        match = f"table={stage},priority=10,in_port={port}"
        ofctl("add-flow", bridge, f"{match},actions=meter:{meter},goto_table:{stage + 1}")
    ofctl("add-flow", bridge, f"table={len(ids)},priority=10,in_port={port},actions=NORMAL")
    try:
        yield
    finally:
        # Entries go with the meters that they use.
        for meter in ids:
            ofctl("del-meter", bridge, f"meter={meter}")


@contextmanager
def token_bucket(net: Net, pair: int, rate_mbps: float, bursts: Sequence[int]) -> Iterator[None]:
    """The named alternative: the kernel's token bucket (``tc tbf``) before the local receiver, no queue to speak of."""
    port = f"{net.bridge('near')}-{net.port_no('near', f'l{pair}')}"
    burst_bytes = bursts[0] * 1000 // 8
    rule = [
        "rate",
        f"{round(rate_mbps * 1e6)}bit",
        "burst",
        str(burst_bytes),
        "limit",
        str(2 * TCP_FRAME_BYTES),
    ]
    _command("tc", "qdisc", "replace", "dev", port, "root", "tbf", *rule)
    try:
        yield
    finally:
        _command("tc", "qdisc", "del", "dev", port, "root")


Limit = Callable[[Net, int, float, Sequence[int]], contextlib.AbstractContextManager[None]]


def udp(net: Net, cases: Sequence[tuple[float, int]], over_s: float, limit: Limit = metered) -> list[Flow]:
    """What arrives of UDP at these rates (Mbit/s) and payloads, side by side."""
    settings = Allocation()
    with ExitStack() as stack:
        bursts = [bursts_kbit(rate, settings) for rate, _ in cases]
        for pair, (rate, _) in enumerate(cases):
            stack.enter_context(limit(net, pair, rate, bursts[pair]))
            stack.enter_context(_serving(net, f"l{pair}"))
        start, began = [_counters(net, pair) for pair in range(len(cases))], time.monotonic()
        for pair, (rate, payload) in enumerate(cases):
            send_bps = _OFFERED * rate * 1e6 * payload / (payload + UDP_HEADERS_BYTES)
            options = ["-u", "-b", f"{send_bps:.0f}", "-l", str(payload), "-t", "600"]
            stack.enter_context(_client(net, pair, f"l{pair}", options))
        # Until the burst is used up: at 1.2 times the rate it lasts five times as long.
        time.sleep(6 * max(b[0] / (r * 1e3) for b, (r, _) in zip(bursts, cases, strict=True)) + 0.5)
        before, at = [_counters(net, pair) for pair in range(len(cases))], time.monotonic()
        time.sleep(over_s)
        after, end = [_counters(net, pair) for pair in range(len(cases))], time.monotonic()
    flows = []
    for pair, (rate, payload) in enumerate(cases):
        sent, arrived = (after[pair][i] - before[pair][i] for i in (0, 1))
        whole = after[pair][1] - start[pair][1]
        granted = rate * 1e6 / 8
        flows.append(
            Flow(
                rate,
                payload,
                achieved_over_granted=round(arrived / granted / (end - at), 4),
                offered_over_granted=round(sent / granted / (end - at), 3),
                from_the_start=round(whole / granted / (end - began), 3),
                burst_kbit=bursts[pair][0],
            )
        )
    return flows


def tcp(
    net: Net,
    rates: Sequence[float],
    over_s: float,
    settings: Allocation,
    limit: Limit = metered,
    far: bool = False,
) -> list[Flow]:
    """What one TCP connection each carries at these rates (Mbit/s), side by side, after slow start."""
    with ExitStack() as stack:
        bursts = [bursts_kbit(rate, settings) for rate in rates]
        receivers = [f"{'d' if far else 'l'}{pair}" for pair in range(len(rates))]
        rtts = [_rtt_ms(net, f"s{pair}", receiver) for pair, receiver in enumerate(receivers)]
        for pair, rate in enumerate(rates):
            stack.enter_context(limit(net, pair, rate, bursts[pair]))
            stack.enter_context(_serving(net, receivers[pair]))
        clients = [
            stack.enter_context(_client(net, pair, receiver, ["-t", f"{over_s:g}", "-O", "3", "-J"]))
            for pair, receiver in enumerate(receivers)
        ]
        results = [json.loads(client.communicate(timeout=over_s + 30)[0]) for client in clients]
    return [
        Flow(
            rate,
            TCP_PAYLOAD_BYTES,
            achieved_over_granted=round(_frames_bps(result) / (rate * 1e6), 4),
            rtt_ms=rtt,
            burst_kbit=burst[0],
        )
        for rate, burst, rtt, result in zip(rates, bursts, rtts, results, strict=True)
    ]


def _frames_bps(result: Mapping[str, Any]) -> float:
    received = result["end"]["sum_received"]["bits_per_second"]
    return float(received) * TCP_FRAME_BYTES / TCP_PAYLOAD_BYTES


def lost_packets(
    net: Net, source: str, target: str, rate_mbps: float, during: Callable[[], None]
) -> tuple[int, int]:
    """UDP packets sent at a rate while something happens, and how many of them did not arrive."""
    with _serving(net, target):
        before = [_datagrams(net, host) for host in (source, target)]
        options = ["-u", "-b", f"{rate_mbps}M", "-l", "1400", "-t", "600"]
        with _client(net, int(source[1:]), target, options):
            time.sleep(1)
            during()
        time.sleep(0.3)
        after = [_datagrams(net, host) for host in (source, target)]
    sent = after[0]["OutDatagrams"] - before[0]["OutDatagrams"]
    arrived = sum(after[1][name] - before[1][name] for name in ("InDatagrams", "InErrors", "NoPorts"))
    return sent, sent - arrived


def _datagrams(net: Net, host: str) -> dict[str, int]:
    """What a host's UDP counted."""
    table = Path(f"/proc/{net.host_pid(host)}/net/snmp").read_text().splitlines()
    names, values = (line.split()[1:] for line in table if line.startswith("Udp:"))
    return dict(zip(names, map(int, values), strict=True))


def _counters(net: Net, pair: int) -> tuple[int, int]:
    """Bytes of frames that a pair's sender sent and its local receiver received."""
    return interface_counters(net, f"s{pair}")[8], interface_counters(net, f"l{pair}")[0]


def interface_counters(net: Net, host: str) -> list[int]:
    """What a host's interface counted: bytes and packets received first, bytes sent at 8."""
    table = Path(f"/proc/{net.host_pid(host)}/net/dev").read_text()
    (line,) = (line for line in table.splitlines() if line.strip().startswith(f"{HOST_INTERFACE}:"))
    return [int(value) for value in line.split(":", 1)[1].split()]


def _rtt_ms(net: Net, source: str, target: str) -> float:
    reply = net.execute(source, ["ping", "-n", "-q", "-c5", "-i0.05", net.address(target)])
    return float(reply.stdout.rsplit("= ", 1)[1].split("/")[0])


@contextmanager
def _serving(net: Net, host: str) -> Iterator[subprocess.Popen[bytes]]:
    with _running(net, host, ["iperf3", "-s", "-p", str(_IPERF_PORT)], subprocess.DEVNULL) as server:
        deadline = time.monotonic() + 5
        while f":{_IPERF_PORT}" not in net.execute(host, ["ss", "-ltnH"]).stdout:
            if time.monotonic() > deadline:
                raise TimeoutError(f"iperf3 must listen in {host} within 5 s")
            time.sleep(0.02)
        yield server


@contextmanager
def _client(net: Net, pair: int, target: str, options: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    command = ["iperf3", "-c", net.address(target), "-p", str(_IPERF_PORT), *options]
    with _running(net, f"s{pair}", command, subprocess.PIPE) as client:
        yield client


@contextmanager
def _running(net: Net, host: str, command: list[str], output: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        net.inside(host, command), env=net.run.environment, stdout=output, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
