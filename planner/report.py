"""What an OpenFlow process tells the planner besides samples: its network, and how its switches stand."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Final

import msgpack

from topology.network import Host, Link, Port

#: What unpacked values of the wrong kind raise when they are taken apart.
_MALFORMED: Final = (LookupError, TypeError, ValueError, AttributeError, OverflowError)


@dataclass(frozen=True)
class SwitchFacts:
    """What a connected switch said of itself."""

    n_tables: int
    max_meters: int
    description: str


@dataclass(frozen=True)
class NetworkReport:
    """The part of the network that one OpenFlow process speaks for."""

    #: Names the process; stable over its reconnects, new at its restart.
    speaker: str
    #: Rises with every change.
    version: int
    #: Connected switches only.
    switches: dict[int, SwitchFacts] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    links: frozenset[Link] = frozenset()
    hosts: dict[str, Host] = field(default_factory=dict)
    #: Links that are there and not used, because they flap; not among ``links``.
    held: frozenset[Link] = frozenset()


@dataclass(frozen=True)
class AppliedReport:
    """How one switch stands after it was compared with a plan."""

    speaker: str
    dpid: int
    #: None: compared without a plan, since there was none.
    plan_version: int | None
    #: Whether the meters read back equal the plan. None: not known.
    in_step: bool | None
    n_meters: int
    lost_polls: int
    #: Meters that are not as the plan wants them, and entries that the switch did not take.
    meters_differ: int = 0
    entries_differ: int = 0
    #: Meters that the switch rounds within the tolerance.
    meters_rounded: int = 0
    #: Meters and entries that others changed, since the connection began.
    repairs: int = 0
    #: Since when the switch differs from what it shall hold, epoch seconds; None: it does not.
    differs_since: float | None = None
    #: It did not say in time that it lowered what a plan lowers; nothing else in the report is known then.
    behind: bool = False


def encode_network(report: NetworkReport) -> bytes:
    """The bytes that ``decode_network`` reads."""
    packed: bytes = msgpack.packb(
        {
            "speaker": report.speaker,
            "version": report.version,
            "switches": {d: [f.n_tables, f.max_meters, f.description] for d, f in report.switches.items()},
            "ports": [[p.dpid, p.port_no, p.name, p.speed_bps, p.up] for p in report.ports],
            "links": [[k.src_dpid, k.src_port, k.dst_dpid, k.dst_port] for k in sorted(report.links)],
            "held": [[k.src_dpid, k.src_port, k.dst_dpid, k.dst_port] for k in sorted(report.held)],
            "hosts": [
                [h.mac, sorted(h.addresses), h.dpid, h.port_no, h.last_seen] for h in report.hosts.values()
            ],
        }
    )
    return packed


def decode_network(body: bytes) -> NetworkReport:
    """The report in these bytes. Raises ValueError."""
    raw = _unpack(body, "network report")
    try:
        hosts = [_host(*host) for host in raw["hosts"]]
        return NetworkReport(
            speaker=str(raw["speaker"]),
            version=int(raw["version"]),
            switches={int(dpid): _facts(*facts) for dpid, facts in raw["switches"].items()},
            ports=tuple(_port(*port) for port in raw["ports"]),
            links=frozenset(Link(*map(int, link)) for link in raw["links"]),
            hosts={host.mac: host for host in hosts},
            held=frozenset(Link(*map(int, link)) for link in raw.get("held", ())),
        )
    except _MALFORMED as error:
        raise ValueError(f"network report is malformed: {error!r}") from None


# The loop trusts a report: one text where a number belongs would fail every tick that comes after.


def _facts(n_tables: Any, max_meters: Any, description: Any) -> SwitchFacts:
    if int(max_meters) < 0:
        raise ValueError(f"max_meters must be >= 0, got {max_meters}")
    return SwitchFacts(int(n_tables), int(max_meters), str(description))


def _port(dpid: Any, port_no: Any, name: Any, speed_bps: Any, up: Any) -> Port:
    return Port(int(dpid), int(port_no), str(name), float(speed_bps), bool(up))


def _host(mac: Any, addresses: Any, dpid: Any, port_no: Any, last_seen: Any) -> Host:
    return Host(str(mac), frozenset(map(str, addresses)), int(dpid), int(port_no), float(last_seen))


def encode_applied(report: AppliedReport) -> bytes:
    """The bytes that ``decode_applied`` reads."""
    columns = [getattr(report, column.name) for column in fields(report)]
    # Left out where there is nothing to say, so that an older planner can read it.
    packed: bytes = msgpack.packb(columns if report.behind else columns[:-1])
    return packed


_DIFFERENCES: Final = ("meters_differ", "entries_differ", "meters_rounded", "repairs")


def decode_applied(body: bytes) -> AppliedReport:
    """The report in these bytes. Raises ValueError."""
    raw = _unpack(body, "applied report")
    try:
        speaker, dpid, plan_version, in_step, n_meters, lost_polls, *more = raw
        # An older release tells no more than this.
        counts, rest = more[: len(_DIFFERENCES)], more[len(_DIFFERENCES) :]
        differs = dict(zip(_DIFFERENCES, counts, strict=True)) if more else {}
        since, behind = (*rest, False)[:2] if more else (None, False)
        return AppliedReport(
            speaker=str(speaker),
            dpid=int(dpid),
            plan_version=None if plan_version is None else int(plan_version),
            in_step=None if in_step is None else bool(in_step),
            n_meters=int(n_meters),
            lost_polls=int(lost_polls),
            **{name: int(count) for name, count in differs.items()},
            differs_since=None if since is None else float(since),
            behind=bool(behind),
        )
    except _MALFORMED as error:
        raise ValueError(f"applied report is malformed: {error!r}") from None


def _unpack(body: bytes, what: str) -> Any:
    try:
        return msgpack.unpackb(body, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"{what} is not MessagePack: {error!r}") from None
