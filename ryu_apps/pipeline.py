r"""The pipeline: which table does what, and the entries that each switch shall hold.

A packet goes one way through the stages and meets at most one meter in each::

    ingress -> upload application -> upload user -> upload group -> upload region -> classify -> accounting
        \--(from another switch)--> download application -> download user -> download group
            -> download region -> forwarding

The application stages are there only where the configuration names classes of some user.
What isolated hosts send ends at the ingress of their edge switch.
Upload is metered where the packet enters the network, download where it leaves:
what arrives from another switch skips the upload stages, and only switches
that hold the destination's port have download entries for it.

Everything here is pure: entries are values, and no entry mentions Ryu.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Final

from planner.plan import TABLES_FOR_APPLICATIONS, UNMETERED, Binding, SwitchLayout
from ryu_apps.cookies import Kind
from topology.network import Host

ETH_IPV4: Final = 0x0800
ETH_ARP: Final = 0x0806
ETH_IPV6: Final = 0x86DD
ETH_LLDP: Final = 0x88CC
_ICMPV6: Final = 58
_NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT = 135, 136
_MULTICAST: Final = ("01:00:00:00:00:00", "01:00:00:00:00:00")

#: Metadata: the group's meter id below, the application class above.
GROUP_MASK: Final = 0xFFFF_FFFF
CLASS_SHIFT: Final = 32
CLASS_MASK: Final = 0xFFFF << CLASS_SHIFT

_IP_PROTO: Final = {"icmp": 1, "tcp": 6, "udp": 17, "sctp": 132}

#: Bytes of a packet that the controller is sent: Ethernet, VLAN, IPv6 and a neighbour advertisement.
PUNT_BYTES: Final = 128


class Stage(IntEnum):
    """The stages in the order that packets meet them."""

    INGRESS = 0
    UPLOAD_APPLICATION = 1
    UPLOAD_USER = 2
    UPLOAD_GROUP = 3
    UPLOAD_REGION = 4
    CLASSIFY = 5
    ACCOUNTING = 6
    DOWNLOAD_APPLICATION = 7
    DOWNLOAD_USER = 8
    DOWNLOAD_GROUP = 9
    DOWNLOAD_REGION = 10
    FORWARDING = 11


_APPLICATION_STAGES: Final = (Stage.UPLOAD_APPLICATION, Stage.DOWNLOAD_APPLICATION)
_ALWAYS: Final = tuple(stage for stage in Stage if stage not in _APPLICATION_STAGES)


#: What a switch with few tables does without, first to last. Grants of children fit
#: into their parents' already, so the outer meters are the safest to leave out.
_DISPENSABLE: Final = (
    Stage.UPLOAD_REGION,
    Stage.DOWNLOAD_REGION,
    Stage.UPLOAD_GROUP,
    Stage.DOWNLOAD_GROUP,
    Stage.CLASSIFY,
    Stage.ACCOUNTING,
)


class TooFewTablesError(Exception):
    """The switch cannot hold the shortest pipeline."""


@dataclass(frozen=True)
class Pipeline:
    """The stages that one switch has, each in a table."""

    stages: tuple[Stage, ...] = _ALWAYS
    #: The stages that this switch does without.
    missing: tuple[Stage, ...] = ()

    @classmethod
    def fitting(cls, n_tables: int, applications: bool = False) -> Pipeline:
        """The longest pipeline for so many tables; ``applications``: somebody has classes. Raises TooFewTablesError."""
        if applications and n_tables >= TABLES_FOR_APPLICATIONS:
            return cls(tuple(Stage))
        dropped = max(0, len(_ALWAYS) - n_tables)
        if dropped > len(_DISPENSABLE):
            raise TooFewTablesError(
                f"a switch must have at least {len(_ALWAYS) - len(_DISPENSABLE)} tables, got {n_tables}"
            )
        # Classes first, and in both directions: the planner has then none for users at this switch.
        missing = (_APPLICATION_STAGES if applications else ()) + _DISPENSABLE[:dropped]
        return cls(tuple(stage for stage in _ALWAYS if stage not in missing), tuple(sorted(missing)))

    def __contains__(self, stage: Stage) -> bool:
        return stage in self.stages

    def table(self, stage: Stage) -> int:
        """The table id of a stage, or of the first one after it that the switch has."""
        return next(number for number, have in enumerate(self.stages) if have >= stage)


#: A match field's value, with a mask where it is a pair.
Field = int | str | tuple[int, int] | tuple[str, str]
Match = tuple[tuple[str, Field], ...]


@dataclass(frozen=True)
class FlowEntry:
    """One flow entry as a value. Instructions follow OpenFlow's own order."""

    kind: Kind
    table_id: int
    priority: int
    match: Match = ()
    meter_id: int = UNMETERED
    #: Ports to send a copy to.
    output: tuple[int, ...] = ()
    to_controller: bool = False
    #: Value and mask.
    write_metadata: tuple[int, int] | None = None
    goto_table: int | None = None
    idle_timeout_s: int = 0
    #: Goes into the cookie: whom the entry is for, where statistics ask.
    series: int = 0


@dataclass(frozen=True)
class ApplicationPort:
    """One server port of an application class. ``port`` 0 means all of the protocol."""

    app: int
    protocol: str
    port: int


@dataclass(frozen=True)
class SwitchView:
    """All that decides the entries of one switch."""

    pipeline: Pipeline
    layout: SwitchLayout
    #: Ports where hosts may be, and ports to other switches. Others stay silent.
    edge_ports: tuple[int, ...] = ()
    link_ports: tuple[int, ...] = ()
    #: Those of ``link_ports`` on which a broadcast may travel.
    flood_ports: tuple[int, ...] = ()
    #: Hosts on this switch's edge ports.
    hosts: tuple[Host, ...] = ()
    #: Output port by MAC, hosts of other switches included.
    ports_towards: Mapping[str, int] = field(default_factory=dict)
    #: Host number in cookies, by MAC, hosts of other switches included.
    host_series: Mapping[str, int] = field(default_factory=dict)
    applications: tuple[ApplicationPort, ...] = ()
    #: False while the accounting table is full: unknown pairs are not reported.
    report_pairs: bool = True

    @cached_property
    def bindings(self) -> Mapping[tuple[str, int], Binding]:
        """Bindings by (mac, port)."""
        return {(b.mac, b.port_no): b for b in self.layout.bindings}

    @cached_property
    def bound_hosts(self) -> tuple[tuple[Host, Binding], ...]:
        """The hosts on edge ports, and what holds for each; nothing where the plan does not know it there."""
        edge, unbound = set(self.edge_ports), Binding("", "", 0)
        return tuple(
            (host, self.bindings.get((host.mac, host.port_no), unbound))
            for host in self.hosts
            if host.port_no in edge
        )

    @cached_property
    def ports_of(self) -> Mapping[int, tuple[ApplicationPort, ...]]:
        """Server ports by number of the application class."""
        found: dict[int, list[ApplicationPort]] = {}
        for one in self.applications:
            found.setdefault(one.app, []).append(one)
        return {app: tuple(ports) for app, ports in found.items()}


def switch_flows(view: SwitchView) -> Iterator[FlowEntry]:
    """Every entry that the switch shall hold, accounting entries of single pairs apart."""
    yield from _ingress(view)
    yield from _applications(view, Stage.UPLOAD_APPLICATION)
    yield from _users(view, Stage.UPLOAD_USER)
    yield from _groups(view, Stage.UPLOAD_GROUP)
    yield from _region(view, Stage.UPLOAD_REGION)
    yield from _classify(view)
    yield from _accounting(view)
    yield from _applications(view, Stage.DOWNLOAD_APPLICATION)
    yield from _users(view, Stage.DOWNLOAD_USER)
    yield from _groups(view, Stage.DOWNLOAD_GROUP)
    yield from _region(view, Stage.DOWNLOAD_REGION)
    yield from _forwarding(view)


def _ingress(view: SwitchView) -> Iterator[FlowEntry]:
    table = view.pipeline.table(Stage.INGRESS)
    for port in view.edge_ports:
        # On every edge port, above LLDP: who is isolated stays so when plugged in elsewhere.
        for mac in view.layout.isolated:
            match = (("in_port", port), ("eth_src", mac))
            yield FlowEntry(Kind.QUARANTINE, table, 200, match, series=view.host_series.get(mac, 0))
    yield FlowEntry(Kind.CONTROL, table, 100, (("eth_type", ETH_LLDP),), to_controller=True)
    upload = view.pipeline.table(Stage.UPLOAD_APPLICATION)
    download = view.pipeline.table(Stage.DOWNLOAD_APPLICATION)
    for port in view.edge_ports:
        yield FlowEntry(Kind.INGRESS, table, 10, (("in_port", port),), goto_table=upload)
    for port in view.link_ports:
        yield FlowEntry(Kind.INGRESS, table, 10, (("in_port", port),), goto_table=download)
    # No default: a port that is neither yet may lead to a switch, and could close a loop.


def _applications(view: SwitchView, stage: Stage) -> Iterator[FlowEntry]:
    if stage not in view.pipeline:
        return
    upload = stage is Stage.UPLOAD_APPLICATION
    kind = Kind.UPLOAD_APPLICATION if upload else Kind.DOWNLOAD_APPLICATION
    table = view.pipeline.table(stage)
    after = view.pipeline.table(Stage.UPLOAD_USER if upload else Stage.DOWNLOAD_USER)
    for host, binding in view.bound_hosts:
        whose, series = _whose(host, upload), view.host_series.get(host.mac, 0)
        for app, *meters in binding.applications:
            # Number 0 is all that is in no class that the user names.
            found = _signatures(view.ports_of.get(app, ())) if app else [(5, ())]
            for priority, what in found:
                match, meter = (*whose, *what), meters[0 if upload else 1]
                yield FlowEntry(kind, table, priority, match, meter, goto_table=after, series=series)
    yield FlowEntry(Kind.DEFAULT, table, 0, goto_table=after)


def _whose(host: Host, upload: bool) -> Match:
    return (("in_port", host.port_no), ("eth_src", host.mac)) if upload else (("eth_dst", host.mac),)


def _users(view: SwitchView, stage: Stage) -> Iterator[FlowEntry]:
    upload = stage is Stage.UPLOAD_USER
    direction = 0 if upload else 1
    kind = Kind.UPLOAD_USER if upload else Kind.DOWNLOAD_USER
    table = view.pipeline.table(stage)
    group_stage = Stage.UPLOAD_GROUP if upload else Stage.DOWNLOAD_GROUP
    region_stage = Stage.UPLOAD_REGION if upload else Stage.DOWNLOAD_REGION
    for host, binding in view.bound_hosts:
        group = binding.group_meter[direction]
        in_group = group != UNMETERED
        yield FlowEntry(
            kind,
            table,
            10,
            _whose(host, upload),
            meter_id=binding.user_meter[direction],
            # The upload group's number may still stand there, so zero is written too.
            write_metadata=(group, GROUP_MASK),
            goto_table=view.pipeline.table(group_stage if in_group else region_stage),
            series=view.host_series.get(host.mac, 0),
        )
    if upload:
        # A source not seen here before is told to the controller, and not held up.
        after = view.pipeline.table(region_stage)
        yield FlowEntry(Kind.CONTROL, table, 0, to_controller=True, goto_table=after)
    else:
        yield FlowEntry(Kind.DEFAULT, table, 0, goto_table=view.pipeline.table(Stage.FORWARDING))


def _groups(view: SwitchView, stage: Stage) -> Iterator[FlowEntry]:
    if stage not in view.pipeline:
        return
    upload = stage is Stage.UPLOAD_GROUP
    direction = 0 if upload else 1
    kind = Kind.UPLOAD_GROUP if upload else Kind.DOWNLOAD_GROUP
    table = view.pipeline.table(stage)
    after = view.pipeline.table(Stage.UPLOAD_REGION if upload else Stage.DOWNLOAD_REGION)
    for meter in sorted({b.group_meter[direction] for b in view.layout.bindings} - {UNMETERED}):
        match = (("metadata", (meter, GROUP_MASK)),)
        yield FlowEntry(kind, table, 10, match, meter_id=meter, goto_table=after)
    yield FlowEntry(Kind.DEFAULT, table, 0, goto_table=after)


def _region(view: SwitchView, stage: Stage) -> Iterator[FlowEntry]:
    if stage not in view.pipeline:
        return
    upload = stage is Stage.UPLOAD_REGION
    direction = 0 if upload else 1
    after = view.pipeline.table(Stage.CLASSIFY if upload else Stage.FORWARDING)
    kind = Kind.UPLOAD_REGION if upload else Kind.DOWNLOAD_REGION
    table = view.pipeline.table(stage)
    # The group's number still stands in the metadata, and tells whose users are of another region.
    for group, region in view.layout.other_regions:
        if group[direction] != UNMETERED:
            match = (("metadata", (group[direction], GROUP_MASK)),)
            yield FlowEntry(kind, table, 10, match, meter_id=region[direction], goto_table=after)
    yield FlowEntry(kind, table, 0, meter_id=view.layout.region_meter[direction], goto_table=after)


def _classify(view: SwitchView) -> Iterator[FlowEntry]:
    if Stage.CLASSIFY not in view.pipeline:
        return
    table = view.pipeline.table(Stage.CLASSIFY)
    after = view.pipeline.table(Stage.ACCOUNTING)
    # Who has which address shows in ARP and neighbour discovery, of hosts long known too.
    yield FlowEntry(Kind.CONTROL, table, 100, (("eth_type", ETH_ARP),), to_controller=True, goto_table=after)
    for kind in (_NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT):
        match = (("eth_type", ETH_IPV6), ("ip_proto", _ICMPV6), ("icmpv6_type", kind))
        yield FlowEntry(Kind.CONTROL, table, 100, match, to_controller=True, goto_table=after)
    for app, ports in view.ports_of.items():
        metadata = (app << CLASS_SHIFT, CLASS_MASK)
        for priority, what in _signatures(ports):
            yield FlowEntry(Kind.DEFAULT, table, priority, what, write_metadata=metadata, goto_table=after)
    yield FlowEntry(Kind.DEFAULT, table, 0, write_metadata=(0, CLASS_MASK), goto_table=after)


def _signatures(ports: Iterable[ApplicationPort]) -> Iterator[tuple[int, Match]]:
    """What tells packets of these ports, with priorities."""
    for one in ports:
        for eth_type in (ETH_IPV4, ETH_IPV6):
            proto = _ICMPV6 if (one.protocol, eth_type) == ("icmp", ETH_IPV6) else _IP_PROTO[one.protocol]
            base: Match = (("eth_type", eth_type), ("ip_proto", proto))
            if not one.port:
                yield 10, base
                continue
            # Where both ports belong to a class, the one called to decides.
            for side, priority in (("dst", 30), ("src", 20)):
                yield priority, (*base, (f"{one.protocol}_{side}", one.port))


def _accounting(view: SwitchView) -> Iterator[FlowEntry]:
    if Stage.ACCOUNTING not in view.pipeline:
        return
    table = view.pipeline.table(Stage.ACCOUNTING)
    after = view.pipeline.table(Stage.DOWNLOAD_APPLICATION)
    yield FlowEntry(Kind.DEFAULT, table, 20, (("eth_dst", _MULTICAST),), goto_table=after)
    yield FlowEntry(Kind.CONTROL, table, 0, to_controller=view.report_pairs, goto_table=after)


def pair_entry(
    pipeline: Pipeline, src: str, dst: str, app: int, series: int, idle_timeout_s: int
) -> FlowEntry:
    """The accounting entry of one pair and application class. It goes when the pair falls silent."""
    match = (("metadata", (app << CLASS_SHIFT, CLASS_MASK)), ("eth_src", src), ("eth_dst", dst))
    return FlowEntry(
        Kind.ACCOUNTING,
        pipeline.table(Stage.ACCOUNTING),
        10,
        match,
        goto_table=pipeline.table(Stage.DOWNLOAD_APPLICATION),
        idle_timeout_s=idle_timeout_s,
        series=series,
    )


def _forwarding(view: SwitchView) -> Iterator[FlowEntry]:
    table = view.pipeline.table(Stage.FORWARDING)
    for mac, port in view.ports_towards.items():
        # The host's number tells its entry from another's with the same digest: of 10,000, two may well share one.
        series = view.host_series.get(mac, 0)
        yield FlowEntry(Kind.FORWARDING, table, 10, (("eth_dst", mac),), output=(port,), series=series)
    # Broadcasts and strangers go along the tree, in the switch itself: a network
    # without its controller still resolves addresses.
    everywhere = tuple(sorted({*view.edge_ports, *view.flood_ports}))
    yield FlowEntry(Kind.FORWARDING, table, 0, output=everywhere)
