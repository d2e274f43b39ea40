"""Traffic that goes on while a test looks, and what arrives of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mininet_scenarios.network import HOST_INTERFACE, Net
from mininet_scenarios.traffic import TCP_WRITE_BYTES, UDP_PAYLOAD_BYTES

#: Ethernet, IPv4 and UDP headers around a payload.
UDP_HEADERS_BYTES = 42
#: Payload of a full TCP segment (with time stamps), and its frame.
TCP_SEGMENT_BYTES, TCP_FRAME_BYTES = 1448, 1514


@dataclass(frozen=True)
class Stream:
    """UDP from one host to another at a rate of payload."""

    source: str
    target: str
    rate_bps: float
    port: int = 5300


@contextmanager
def udp(net: Net, *streams: Stream) -> Iterator[None]:
    """The streams, for as long as the block runs."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for stream in streams:
            server = ["iperf3", "-s", "-p", str(stream.port)]
            running += [_start(net, stream.target, server)]
            _wait_for_server(net, stream.target, stream.port)
            client = ["iperf3", "-c", net.address(stream.target), "-p", str(stream.port), "-u", "-t", "300"]
            client += ["-b", f"{stream.rate_bps:.0f}", "-l", str(UDP_PAYLOAD_BYTES)]
            running.append(_start(net, stream.source, client))
        yield
        ended = [process.args for process in running if process.poll() is not None]
        assert not ended, f"traffic must go on, got an end of {ended}"
    finally:
        for process in running:
            _end(process)


def arriving_bps(net: Net, hosts: Iterable[str], over_s: float) -> dict[str, float]:
    """Frames that arrive at each host, bit/s, by its own interface's counters over so long a time."""
    hosts = tuple(hosts)
    started, before = time.monotonic(), {host: received_bytes(net, host) for host in hosts}
    time.sleep(over_s)
    took, after = time.monotonic() - started, {host: received_bytes(net, host) for host in hosts}
    return {host: (after[host] - before[host]) * 8 / took for host in hosts}


def received_bytes(net: Net, host: str) -> int:
    """Bytes of all frames that a host's interface ever received."""
    return _counters(net, host)[0]


def sent_packets(net: Net, host: str) -> int:
    """Packets that a host's interface ever sent."""
    return _counters(net, host)[9]


def received_packets(net: Net, host: str) -> int:
    """Packets that a host's interface ever received."""
    return _counters(net, host)[1]


def _counters(net: Net, host: str) -> list[int]:
    table = Path(f"/proc/{net.host_pid(host)}/net/dev").read_text()
    line = next(line for line in table.splitlines() if line.strip().startswith(f"{HOST_INTERFACE}:"))
    return [int(value) for value in line.split(":", 1)[1].split()]


def tcp_bps(net: Net, source: str, target: str, over_s: int, port: int = 5310) -> float:
    """TCP's rate in frames as the receiver counts, after its first four seconds."""
    server = _start(net, target, ["iperf3", "-s", "-p", str(port)])
    try:
        _wait_for_server(net, target, port)
        command = ["iperf3", "-c", net.address(target), "-p", str(port), "-t", str(over_s), "-O", "4", "-J"]
        reply = net.execute(source, [*command, "-l", str(TCP_WRITE_BYTES)], timeout_s=over_s + 20)
        received = json.loads(reply.stdout)["end"]["sum_received"]["bits_per_second"]
        return float(received) * TCP_FRAME_BYTES / TCP_SEGMENT_BYTES
    finally:
        _end(server)


class Pings:
    """Pings under way from one host to another."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    @property
    def answered(self) -> list[int]:
        """Numbers of the pings that were answered so far."""
        return [int(number) for number in re.findall(r"bytes from .*?icmp_seq=(\d+)", self._log.read_text())]

    def stop(self) -> float:
        """End them; the share that was not answered."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(5)
        sent, received = map(
            int, re.findall(r"(\d+) packets transmitted, (\d+) received", self._log.read_text())[0]
        )
        return 1 - received / sent


@contextmanager
def pinging(net: Net, source: str, target: str, every_s: float = 0.2) -> Iterator[Pings]:
    """Pings for as long as the block runs."""
    log = net.run.directory / f"ping-{source}-{target}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            net.inside(source, ["ping", "-n", "-i", str(every_s), "-W", "1", net.address(target)]),
            env=net.run.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Pings(process, log)
    finally:
        process.kill()
        process.wait()


def _start(net: Net, host: str, command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        net.inside(host, command),
        env=net.run.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait_for_server(net: Net, host: str, port: int, deadline_s: float = 5.0) -> None:
    end = time.monotonic() + deadline_s
    while f":{port}" not in net.execute(host, ["ss", "-ltnH"]).stdout:
        if time.monotonic() > end:
            raise TimeoutError(f"{host} must listen on port {port} within {deadline_s:g} s")
        time.sleep(0.05)
