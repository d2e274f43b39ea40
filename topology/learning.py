"""Where each host is, learnt from the packets it sends.

A host is its MAC: moving to another port or switch, or taking another address,
changes the host's record and not its identity. State in, state out;
the caller keeps the table and decides what to do with a change.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from topology.addresses import host_address, host_mac
from topology.network import Host

ChangeKind = Literal[
    "appeared",
    "moved",
    "address-added",
    "address-taken",
    "address-refused",
    "address-expired",
    "expired",
    "refused",
]


@dataclass(frozen=True)
class LearningRules:
    """The bounds within which hosts are learnt."""

    #: A host not seen for this long is forgotten, and so is an address. Four
    #: hours is what routers keep ARP entries: once its flows
    #: are installed, a switch sends the controller nothing more of a host.
    host_ttl_s: float = 4 * 3600.0
    address_ttl_s: float = 4 * 3600.0
    #: An address stays with its MAC while that MAC used it within this time.
    hold_down_s: float = 30.0
    #: ``last_seen`` moves in steps of this: a table is not copied for each packet.
    refresh_s: float = 5.0
    max_hosts: int = 200_000
    #: One host with forged sources must not fill the table.
    max_addresses_per_host: int = 16

    def __post_init__(self) -> None:
        for name in ("host_ttl_s", "address_ttl_s", "hold_down_s"):
            if not getattr(self, name) > self.refresh_s >= 0:
                raise ValueError(
                    f"{name} must be > refresh_s >= 0, got {getattr(self, name)}, {self.refresh_s}"
                )
        if self.max_hosts < 1 or self.max_addresses_per_host < 1:
            raise ValueError(f"max_hosts and max_addresses_per_host must be >= 1, got {self}")


@dataclass(frozen=True, slots=True)
class Holder:
    """The MAC an address belongs to, and when it last used it (epoch seconds)."""

    mac: str
    last_seen: float


@dataclass(frozen=True)
class HostTable:
    """The hosts known now, by MAC, and who holds each address."""

    by_mac: Mapping[str, Host] = field(default_factory=dict)
    holder_of: Mapping[str, Holder] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A packet from this MAC, perhaps with this source address, came in on this port."""

    mac: str
    address: str | None
    dpid: int
    port_no: int


@dataclass(frozen=True, slots=True)
class HostChange:
    """What one sighting, or time, changed about one host.

    ``before`` is None for a new host, ``after`` None for one that is gone or was
    refused. ``other_mac`` is the other party where an address was taken or refused.
    """

    kinds: tuple[ChangeKind, ...]
    mac: str
    before: Host | None
    after: Host | None
    reason: str
    other_mac: str | None = None


DEFAULT_RULES = LearningRules()


def observe(
    table: HostTable,
    mac: str,
    address: str | None,
    dpid: int,
    port_no: int,
    now: float,
    *,
    inter_switch: Container[tuple[int, int]] = (),
    rules: LearningRules = DEFAULT_RULES,
) -> tuple[HostTable, HostChange | None]:
    """The table after one sighting, and what it changed, None if nothing worth telling.

    ``inter_switch`` is ``Network.inter_switch_ports``. A sighting that teaches
    nothing returns the same table object. See ``observe_all`` for the rules.
    """
    table, changes = observe_all(
        table, (Sighting(mac, address, dpid, port_no),), now, inter_switch=inter_switch, rules=rules
    )
    return table, changes[0] if changes else None


def observe_all(
    table: HostTable,
    sightings: Iterable[Sighting],
    now: float,
    *,
    inter_switch: Container[tuple[int, int]] = (),
    rules: LearningRules = DEFAULT_RULES,
) -> tuple[HostTable, tuple[HostChange, ...]]:
    """The table after many sightings, and what they changed, in order.

    Nothing is learnt on an inter-switch port (the packet is in transit), nor from a
    multicast, zero or malformed MAC; an address that cannot be a host's is
    ignored and the MAC still learnt. A host is where it was seen last. An address
    seen with a second MAC stays with the first while that one used it within
    ``hold_down_s``, then goes to the second. A new host beyond
    ``max_hosts`` is refused, and a new address beyond ``max_addresses_per_host``.
    """
    draft = _Draft(table, now, rules)
    for sighting in sightings:
        mac = host_mac(sighting.mac)
        if mac is not None and (sighting.dpid, sighting.port_no) not in inter_switch:
            draft.see(mac, sighting)
    return draft.table(), tuple(draft.changes)


def expire(
    table: HostTable,
    now: float,
    *,
    inter_switch: Container[tuple[int, int]] = (),
    rules: LearningRules = DEFAULT_RULES,
) -> tuple[HostTable, tuple[HostChange, ...]]:
    """The table without what is too old, and without hosts on ports that turned out to be links."""
    draft = _Draft(table, now, rules)
    for address, holder in table.holder_of.items():
        if now - holder.last_seen > rules.address_ttl_s:
            draft.drop_address(address, f"{address} unused for {now - holder.last_seen:.0f} s")
    for mac, host in table.by_mac.items():
        if now - host.last_seen > rules.host_ttl_s:
            draft.drop_host(mac, f"not seen for {now - host.last_seen:.0f} s")
        elif (host.dpid, host.port_no) in inter_switch:
            draft.drop_host(mac, f"port {host.port_no} of {host.dpid:016x} is an inter-switch port")
    return draft.table(), tuple(draft.changes)


class _Draft:
    """A table being changed; it copies the mappings once, and only if something changes."""

    def __init__(self, table: HostTable, now: float, rules: LearningRules) -> None:
        self._original = table
        self._now = now
        self._rules = rules
        self._hosts: dict[str, Host] | None = None
        self._holders: dict[str, Holder] | None = None
        self.changes: list[HostChange] = []

    def table(self) -> HostTable:
        if self._hosts is None and self._holders is None:
            return self._original
        return HostTable(
            self._original.by_mac if self._hosts is None else self._hosts,
            self._original.holder_of if self._holders is None else self._holders,
        )

    def see(self, mac: str, sighting: Sighting) -> None:
        before = self._host(mac)
        if before is None and len(self._by_mac()) >= self._rules.max_hosts:
            reason = f"the table is full: {self._rules.max_hosts} hosts"
            self.changes.append(HostChange(("refused",), mac, None, None, reason))
            return
        kinds: list[ChangeKind] = []
        reasons: list[str] = []
        after = before or Host(mac, frozenset(), sighting.dpid, sighting.port_no, self._now)
        where = f"port {sighting.port_no} of {sighting.dpid:016x}"
        if before is None:
            kinds.append("appeared")
            reasons.append(f"first seen on {where}")
        elif (before.dpid, before.port_no) != (sighting.dpid, sighting.port_no):
            kinds.append("moved")
            reasons.append(f"port {before.port_no} of {before.dpid:016x} -> {where}")
            after = replace(after, dpid=sighting.dpid, port_no=sighting.port_no)
        if before is None or kinds or self._now - before.last_seen >= self._rules.refresh_s:
            after = replace(after, last_seen=max(after.last_seen, self._now))
        address = host_address(sighting.address) if sighting.address else None
        other = None
        if address is not None:
            after, kind, reason, other = self._claim(after, address)
            if kind is not None:
                kinds.append(kind)
                reasons.append(reason)
        if after is not before:
            self._put(after)
        if kinds:
            self.changes.append(HostChange(tuple(kinds), mac, before, after, "; ".join(reasons), other))

    def _claim(self, host: Host, address: str) -> tuple[Host, ChangeKind | None, str, str | None]:
        """The host after it used an address, and what that changed."""
        holder = (self._original.holder_of if self._holders is None else self._holders).get(address)
        if holder is not None and holder.mac == host.mac:
            if self._now - holder.last_seen >= self._rules.refresh_s:
                self._hold(address, host.mac)
            return host, None, "", None
        if len(host.addresses) >= self._rules.max_addresses_per_host:
            reason = f"{address} refused: the host has {len(host.addresses)} addresses already"
            return host, "address-refused", reason, None
        kind: ChangeKind = "address-added"
        reason, other = f"{address} added", None
        if holder is not None:
            other, silent_s = holder.mac, self._now - holder.last_seen
            if silent_s < self._rules.hold_down_s:
                return host, "address-refused", f"{address} in use by {other} {silent_s:.0f} s ago", other
            loser = self._by_mac()[other]
            self._put(replace(loser, addresses=loser.addresses - {address}))
            kind, reason = "address-taken", f"{address} taken from {other}, silent for {silent_s:.0f} s"
        self._hold(address, host.mac)
        return replace(host, addresses=host.addresses | {address}), kind, reason, other

    def drop_address(self, address: str, reason: str) -> None:
        mac = self._holder_map().pop(address).mac
        before = self._by_mac()[mac]
        after = replace(before, addresses=before.addresses - {address})
        self._put(after)
        self.changes.append(HostChange(("address-expired",), mac, before, after, reason))

    def drop_host(self, mac: str, reason: str) -> None:
        if self._hosts is None:
            self._hosts = dict(self._original.by_mac)
        host = self._hosts.pop(mac)
        for address in host.addresses:
            del self._holder_map()[address]
        self.changes.append(HostChange(("expired",), mac, host, None, reason))

    def _by_mac(self) -> Mapping[str, Host]:
        return self._original.by_mac if self._hosts is None else self._hosts

    def _host(self, mac: str) -> Host | None:
        return self._by_mac().get(mac)

    def _holder_map(self) -> dict[str, Holder]:
        if self._holders is None:
            self._holders = dict(self._original.holder_of)
        return self._holders

    def _put(self, host: Host) -> None:
        if self._hosts is None:
            self._hosts = dict(self._original.by_mac)
        self._hosts[host.mac] = host

    def _hold(self, address: str, mac: str) -> None:
        self._holder_map()[address] = Holder(mac, self._now)
