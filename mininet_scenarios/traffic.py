"""Real traffic: iperf3 in the hosts by a schedule, and what arrived by its own account.

Nothing here waits: ``step`` starts what is due and takes in what has ended, so
one loop can drive the traffic and show a table.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from mininet_scenarios import names
from mininet_scenarios.network import Net
from mininet_scenarios.schedule import Flow, servers

#: UDP payload that leaves room for every header in a frame of 1,500 bytes.
UDP_PAYLOAD_BYTES = 1400
#: iperf3 keeps its rate by whole writes; its own 128 kB at once would overrun
#: the burst of any meter of a few Mbit/s.
TCP_WRITE_BYTES = 8192
#: A client that has not ended so long after its time is killed.
OVERDUE_S = 8.0
NAMES_PORT, ASK_EVERY_S = 53, 0.5


@dataclass(frozen=True)
class Measured:
    """What a flow's receiver counted. NaN: iperf3 gave no result."""

    flow: Flow
    #: Payload that arrived.
    received_bps: float
    #: iperf3's message where the flow failed, else empty.
    error: str = ""


@dataclass
class _Client:
    flow: Flow
    process: subprocess.Popen[bytes]
    result: Path
    started_s: float


class Traffic:
    """The traffic of a schedule in a running network."""

    def __init__(self, net: Net, flows: Iterable[Flow], directory: Path) -> None:
        self.measured: list[Measured] = []
        self._net = net
        self._due = sorted(flows, key=lambda flow: flow.start_s)
        self._clients: list[_Client] = []
        self._background: list[subprocess.Popen[bytes]] = []
        self._directory = directory
        self._n_started = 0

    def start_servers(self, name_server: str | None = None) -> None:
        """Start the iperf3 servers and, if one host is the name server, everybody's questions to it."""
        for host, port in servers(self._due):
            self._start(host, ["iperf3", "-s", "-p", str(port)])
        if name_server is not None:
            script = [sys.executable, "-I", "-S", str(Path(names.__file__).resolve())]
            self._start(name_server, [*script, "serve", str(NAMES_PORT)])
            question = ["ask", self._net.address(name_server), str(NAMES_PORT), str(ASK_EVERY_S)]
            for host in self._net.spec.hosts:
                if host != name_server:
                    self._start(host, [*script, *question])

    def step(self, now_s: float) -> None:
        """Start flows that are due at ``now_s`` of the schedule, and take in those that ended."""
        while self._due and self._due[0].start_s <= now_s:
            self._start_client(self._due.pop(0), now_s)
        for client in list(self._clients):
            if client.process.poll() is not None:
                self._clients.remove(client)
                self._take_in(client, now_s)
            elif now_s > client.started_s + client.flow.duration_s + OVERDUE_S:
                _end(client.process)

    @property
    def done(self) -> bool:
        """Whether every flow has ended."""
        return not self._due and not self._clients

    @property
    def running(self) -> list[Flow]:
        """Flows under way."""
        return [client.flow for client in self._clients]

    def stop(self) -> None:
        """End every process that was started here, and reap it."""
        for process in [client.process for client in self._clients] + self._background:
            _end(process)
        self._clients.clear()
        self._background.clear()

    def _start_client(self, flow: Flow, now_s: float) -> None:
        self._n_started += 1
        result = self._directory / f"flow-{self._n_started}.json"
        address = self._net.address(flow.target, flow.ip_version)
        with result.open("wb") as output:
            process = self._spawn(flow.source, client_command(flow, address), output)
        self._clients.append(_Client(flow, process, result, now_s))

    def _take_in(self, client: _Client, now_s: float) -> None:
        measured = read_result(client.flow, client.result.read_bytes())
        client.result.unlink()
        left_s = client.flow.end_s - now_s
        if "busy" in measured.error and left_s > 1:
            # The server has not yet done with the flow before.
            self._due.insert(0, replace(client.flow, start_s=now_s + 0.5, duration_s=left_s - 0.5))
        else:
            self.measured.append(measured)

    def _start(self, host: str, command: Sequence[str]) -> None:
        with Path(os.devnull).open("wb") as nowhere:
            self._background.append(self._spawn(host, command, nowhere))

    def _spawn(self, host: str, command: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._net.inside(host, command),
            env=self._net.run.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,
            # Ctrl-C in the terminal is for the demo, which then ends these.
            start_new_session=True,
        )


def client_command(flow: Flow, address: str) -> list[str]:
    """The iperf3 command of a flow's sending end."""
    command = ["iperf3", "-c", address, "-p", str(flow.port), "-t", f"{max(1, round(flow.duration_s))}"]
    command += ["-b", f"{flow.rate_bps:.0f}", "--json", "--connect-timeout", "3000"]
    if flow.protocol == "udp":
        command += ["-u", "-l", str(UDP_PAYLOAD_BYTES)]
    else:
        command += ["-l", str(TCP_WRITE_BYTES)]
    return command


def read_result(flow: Flow, output: bytes) -> Measured:
    """What the receiver counted, from the client's ``--json`` output."""
    try:
        report: dict[str, Any] = json.loads(output)
        if "error" in report:
            return Measured(flow, float("nan"), str(report["error"]))
        return Measured(flow, float(report["end"]["sum_received"]["bits_per_second"]))
    except (ValueError, KeyError, TypeError) as error:
        return Measured(flow, float("nan"), f"no result from iperf3 ({error!r})")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
