"""Which traffic runs when: plain values, made before anything starts.

The demo's day has forty seconds. Four applications are busy for part of it,
each at its own time, so there is something to forecast; in the second half one
application sends more than its region can carry for a minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

#: Server ports by the application classes of ``config/demo.yaml``.
WEB_PORT, VIDEO_PORTS = 5201, (5202, 5203)
PERIOD_S = 40.0
#: An iperf3 server serves one client at a time and needs a moment between two.
PAUSE_S = 2.0
SCARCE_FROM, SCARCE_S = 0.55, 60.0


@dataclass(frozen=True)
class Flow:
    """One iperf3 transfer: the client at ``source`` sends to the server at ``target``."""

    application: str
    source: str
    target: str
    protocol: Literal["tcp", "udp"]
    port: int
    #: Payload that the client tries to send.
    rate_bps: float
    start_s: float
    duration_s: float
    ip_version: int = 4

    @property
    def end_s(self) -> float:
        """When the client stops sending."""
        return self.start_s + self.duration_s


@dataclass(frozen=True)
class Leg:
    """One leg of an application's ring, Mbit/s while it is busy."""

    source: str
    target: str
    protocol: Literal["tcp", "udp"]
    port: int
    rate_mbps: float
    ip_version: int = 4


@dataclass(frozen=True)
class Application:
    """Users who exchange traffic once a period, for ``busy_s`` from ``phase_s`` on."""

    name: str
    legs: tuple[Leg, ...]
    phase_s: float
    busy_s: float = 20.0


DEMO = (
    Application(
        "studio",
        (
            Leg("anna", "ben", "tcp", WEB_PORT, 5),
            Leg("ben", "carla", "udp", VIDEO_PORTS[0], 4),
            Leg("carla", "anna", "udp", VIDEO_PORTS[0], 4),
        ),
        phase_s=0,
    ),
    Application(
        "backup",
        (
            Leg("david", "emma", "tcp", WEB_PORT, 4),
            Leg("emma", "felix", "udp", VIDEO_PORTS[0], 4),
            Leg("felix", "david", "tcp", WEB_PORT, 3),
        ),
        phase_s=10,
    ),
    Application(
        "meeting",
        (
            Leg("gina", "hugo", "udp", VIDEO_PORTS[0], 5),
            Leg("hugo", "ines", "tcp", WEB_PORT, 4, ip_version=6),
            Leg("ines", "gina", "udp", VIDEO_PORTS[0], 3),
        ),
        phase_s=16,
    ),
    Application(
        "mirror",
        (
            Leg("jonas", "kira", "tcp", WEB_PORT, 4),
            Leg("kira", "jonas", "udp", VIDEO_PORTS[0], 3, ip_version=6),
        ),
        phase_s=4,
        busy_s=24,
    ),
)

#: Each sends more than its share of a region of 36 Mbit/s in proportion to the
#: weights of ``config/demo.yaml``, and none more than a user's ceiling.
SCARCE_LEGS = (
    Leg("anna", "ben", "udp", VIDEO_PORTS[1], 14),
    Leg("ben", "carla", "udp", VIDEO_PORTS[1], 14),
    Leg("carla", "anna", "udp", VIDEO_PORTS[1], 18.5),
)


def demo_schedule(duration_s: float) -> tuple[Flow, ...]:
    """The demo's flows in order of their start; all end by ``duration_s``.

    Raises
    ------
    ValueError : if the duration has no room for a period.
    """
    if duration_s < PERIOD_S:
        raise ValueError(f"duration must be >= {PERIOD_S:g} s, one period, got {duration_s:g}")
    start, end = scarce_window(duration_s)
    flows: list[Flow] = []
    for application in DEMO:
        for flow in recurring(application, duration_s):
            busy_elsewhere = application is DEMO[0] and flow.start_s < end and start < flow.end_s + PAUSE_S
            if not busy_elsewhere:
                flows.append(flow)
    flows += [_flow("studio", leg, start, end - start) for leg in SCARCE_LEGS]
    return tuple(sorted(flows, key=lambda flow: flow.start_s))


def scarce_window(duration_s: float) -> tuple[float, float]:
    """Start and end of the minute in which one application asks for too much."""
    start = SCARCE_FROM * duration_s
    return start, min(start + SCARCE_S, duration_s - PAUSE_S)


def recurring(application: Application, duration_s: float, period_s: float = PERIOD_S) -> Iterator[Flow]:
    """An application's flows, period after period; the last may be cut short."""
    start = application.phase_s
    while start + PAUSE_S < duration_s:
        busy_s = min(application.busy_s, duration_s - PAUSE_S - start)
        if busy_s >= 1:
            for leg in application.legs:
                yield _flow(application.name, leg, start, busy_s)
        start += period_s


def servers(flows: Iterable[Flow]) -> list[tuple[str, int]]:
    """Host and port of each iperf3 server that the flows need."""
    return sorted({(flow.target, flow.port) for flow in flows})


def conflicts(flows: Iterable[Flow]) -> list[tuple[Flow, Flow]]:
    """Pairs of flows that want one server within ``PAUSE_S`` of each other."""
    last: dict[tuple[str, int], Flow] = {}
    found = []
    for flow in sorted(flows, key=lambda flow: flow.start_s):
        before = last.get((flow.target, flow.port))
        if before is not None and flow.start_s < before.end_s + PAUSE_S:
            found.append((before, flow))
        last[flow.target, flow.port] = flow
    return found


def offered_bps(flows: Iterable[Flow], at_s: float) -> float:
    """Payload that all flows together try to send at a time."""
    return sum(flow.rate_bps for flow in flows if flow.start_s <= at_s < flow.end_s)


def _flow(application: str, leg: Leg, start_s: float, duration_s: float) -> Flow:
    return Flow(
        application,
        leg.source,
        leg.target,
        leg.protocol,
        leg.port,
        leg.rate_mbps * 1e6,
        start_s,
        duration_s,
        leg.ip_version,
    )
