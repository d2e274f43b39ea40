r"""The pipeline: which table does what, and the entries that each switch shall hold.

A packet goes one way through the stages and meets at most one meter in each::

    ingress -> upload user -> upload group -> upload region -> classify -> accounting
        \--(from another switch)--> download user -> download group -> download region -> forwarding

What isolated hosts send ends at the ingress of their edge switch.
Upload is metered where the packet enters the network, download where it leaves:
what arrives from another switch skips the upload stages, and only switches
that hold the destination's port have download entries for it.

Everything here is pure: entries are values, and no entry mentions Ryu.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Final

from planner.plan import UNMETERED, SwitchLayout
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
    UPLOAD_USER = 1
    UPLOAD_GROUP = 2
    UPLOAD_REGION = 3
    CLASSIFY = 4
    ACCOUNTING = 5
    DOWNLOAD_USER = 6
    DOWNLOAD_GROUP = 7
    DOWNLOAD_REGION = 8
    FORWARDING = 9


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

    stages: tuple[Stage, ...] = tuple(Stage)

    @classmethod
    def fitting(cls, n_tables: int) -> Pipeline:
        """The longest pipeline for so many tables. Raises TooFewTablesError."""
        dropped = max(0, len(Stage) - n_tables)
        if dropped > len(_DISPENSABLE):
            raise TooFewTablesError(
                f"a switch must have at least {len(Stage) - len(_DISPENSABLE)} tables, got {n_tables}"
            )
        return cls(tuple(stage for stage in Stage if stage not in _DISPENSABLE[:dropped]))

    @property
    def missing(self) -> tuple[Stage, ...]:
        """The stages that this switch does without."""
        return tuple(stage for stage in Stage if stage not in self.stages)

    def __contains__(self, stage: Stage) -> bool:
        return stage in self.stages

    def table(self, stage: Stage) -> int:
        """The table id of a stage, or of the first one after it that the switch has."""
        return next(number for number, have in enumerate(self.stages) if have >= stage)


#: A match field's value, with a mask where it is a pair.
Field = int | str | tuple[int, int] | tuple[str, str]


@dataclass(frozen=True)
class FlowEntry:
    """One flow entry as a value. Instructions follow OpenFlow's own order."""

    kind: Kind
    table_id: int
    priority: int
    match: tuple[tuple[str, Field], ...] = ()
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
    def bindings(self) -> Mapping[tuple[str, int], tuple[tuple[int, int], tuple[int, int]]]:
        """User and group meters by (mac, port)."""
        return {(b.mac, b.port_no): (b.user_meter, b.group_meter) for b in self.layout.bindings}


def switch_flows(view: SwitchView) -> Iterator[FlowEntry]:
    """Every entry that the switch shall hold, accounting entries of single pairs apart."""
    yield from _ingress(view)
    yield from _users(view, Stage.UPLOAD_USER)
    yield from _groups(view, Stage.UPLOAD_GROUP)
    yield from _region(view, Stage.UPLOAD_REGION)
    yield from _classify(view)
    yield from _accounting(view)
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
    upload = view.pipeline.table(Stage.UPLOAD_USER)
    download = view.pipeline.table(Stage.DOWNLOAD_USER)
    for port in view.edge_ports:
        yield FlowEntry(Kind.INGRESS, table, 10, (("in_port", port),), goto_table=upload)
    for port in view.link_ports:
        yield FlowEntry(Kind.INGRESS, table, 10, (("in_port", port),), goto_table=download)
    # No default: a port that is neither yet may lead to a switch, and could close a loop.


def _users(view: SwitchView, stage: Stage) -> Iterator[FlowEntry]:
    upload = stage is Stage.UPLOAD_USER
    direction = 0 if upload else 1
    kind = Kind.UPLOAD_USER if upload else Kind.DOWNLOAD_USER
    table = view.pipeline.table(stage)
    group_stage = Stage.UPLOAD_GROUP if upload else Stage.DOWNLOAD_GROUP
    region_stage = Stage.UPLOAD_REGION if upload else Stage.DOWNLOAD_REGION
    edge = set(view.edge_ports)
    for host in view.hosts:
        if host.port_no not in edge:
            continue
        unmetered = ((UNMETERED, UNMETERED), (UNMETERED, UNMETERED))
        user, group = view.bindings.get((host.mac, host.port_no), unmetered)
        in_group = group[direction] != UNMETERED
        match: tuple[tuple[str, Field], ...] = (
            (("in_port", host.port_no), ("eth_src", host.mac)) if upload else (("eth_dst", host.mac),)
        )
        yield FlowEntry(
            kind,
            table,
            10,
            match,
            meter_id=user[direction],
            # The upload group's number may still stand there, so zero is written too.
            write_metadata=(group[direction], GROUP_MASK),
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
    for application in view.applications:
        yield from _application(application, table, after)
    yield FlowEntry(Kind.DEFAULT, table, 0, write_metadata=(0, CLASS_MASK), goto_table=after)


def _application(application: ApplicationPort, table: int, after: int) -> Iterator[FlowEntry]:
    metadata = (application.app << CLASS_SHIFT, CLASS_MASK)
    for eth_type in (ETH_IPV4, ETH_IPV6):
        proto = _IP_PROTO[application.protocol]
        if application.protocol == "icmp" and eth_type == ETH_IPV6:
            proto = _ICMPV6
        base = (("eth_type", eth_type), ("ip_proto", proto))
        if not application.port:
            yield FlowEntry(Kind.DEFAULT, table, 10, base, write_metadata=metadata, goto_table=after)
            continue
        # Where both ports belong to a class, the one called to decides.
        for side, priority in (("dst", 30), ("src", 20)):
            match = (*base, (f"{application.protocol}_{side}", application.port))
            yield FlowEntry(Kind.DEFAULT, table, priority, match, write_metadata=metadata, goto_table=after)


def _accounting(view: SwitchView) -> Iterator[FlowEntry]:
    if Stage.ACCOUNTING not in view.pipeline:
        return
    table = view.pipeline.table(Stage.ACCOUNTING)
    after = view.pipeline.table(Stage.DOWNLOAD_USER)
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
        goto_table=pipeline.table(Stage.DOWNLOAD_USER),
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
