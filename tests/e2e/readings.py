"""What the switches say when they are asked directly, past the controller."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

from mininet_scenarios.network import Net

_COUNTER = re.compile(r"\bmeter:(\d+) .*?packet_in_count:(\d+) byte_in_count:(\d+)")
_FLOW = re.compile(r"\btable=(\d+), n_packets=(\d+),.* priority=\d+,?(\S*) actions=(.*)")
_METER = re.compile(r"\bmeter:(\d+)")
_PORT = re.compile(r"port\s+(\S+): rx pkts=(\d+), bytes=(\d+).*?tx pkts=(\d+), bytes=(\d+)", re.DOTALL)


@dataclass(frozen=True)
class Flow:
    """A flow entry; ``meters`` are the meters in its instructions."""

    table_id: int
    n_packets: int
    match: str
    actions: str

    @property
    def meters(self) -> tuple[int, ...]:
        """Meters that a packet passes here."""
        return tuple(map(int, _METER.findall(self.actions)))


def ofctl(*arguments: str) -> str:
    """What ``ovs-ofctl`` says."""
    command = ["ovs-ofctl", "-O", "OpenFlow13", "--timeout=10", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout


def flows(net: Net, switch: str) -> list[Flow]:
    """Every flow entry of a switch."""
    found = _FLOW.findall(ofctl("dump-flows", net.bridge(switch)))
    return [Flow(int(table), int(packets), match, actions) for table, packets, match, actions in found]


def packets_in(net: Net, switch: str) -> dict[int, int]:
    """Packets that came to each meter of a switch, dropped ones included, by meter id."""
    dump = " ".join(ofctl("meter-stats", net.bridge(switch)).split()).replace(" meter:", "\nmeter:")
    return {int(meter): int(packets) for meter, packets, _ in _COUNTER.findall(dump)}


def packets_out(net: Net, switch: str) -> int:
    """Packets that a switch sent on all its ports."""
    ports = _PORT.findall(ofctl("dump-ports", net.bridge(switch)))
    return sum(int(sent) for port, _, _, sent, _ in ports if port != "LOCAL")
