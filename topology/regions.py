"""Which region a switch, and by its address or its attachment an endpoint, belongs to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from topology.network import Host

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class RegionMap:
    """The region of each switch that has one, and of addresses. Build it with ``region_map``."""

    by_dpid: Mapping[int, str]
    #: Longest first, so that the first that holds an address decides.
    by_prefix: tuple[tuple[Prefix, str], ...] = ()

    def of_switch(self, dpid: int) -> str | None:
        """The region of a switch, None if no region claims it."""
        return self.by_dpid.get(dpid)

    def of_device(self, dpid: int, addresses: Iterable[str]) -> str | None:
        """The region of what is attached to a switch and has these addresses.

        The longest prefix that holds one of the addresses decides, before the switch: whoever is numbered
        for a region pays there, wherever it plugs in. None on a switch without region: nothing
        is metered there.
        """
        own = self.by_dpid.get(dpid)
        if own is None or not self.by_prefix:
            return own
        parsed = [_parsed(address) for address in addresses]
        for prefix, region in self.by_prefix:
            if any(address in prefix for address in parsed):
                return region
        return own

    def of_hosts(self, hosts: Mapping[str, Host]) -> dict[str, str]:
        """The region of each host; hosts on switches without one are absent."""
        placed = ((mac, self.of_device(host.dpid, host.addresses)) for mac, host in hosts.items())
        return {mac: region for mac, region in placed if region is not None}


def region_map(
    dpids_of: Mapping[str, Iterable[int]], prefixes_of: Mapping[str, Iterable[str]] | None = None
) -> RegionMap:
    """The map from each region's list of dpids, and of prefixes.

    Raises
    ------
    ValueError : if a dpid or a prefix is listed in two regions, or a prefix is none.
    """
    by_dpid: dict[int, str] = {}
    for region, dpids in dpids_of.items():
        for dpid in dpids:
            other = by_dpid.setdefault(dpid, region)
            if other != region:
                raise ValueError(
                    f"regions.{region}.dpids must not hold {dpid:016x}, it is in regions.{other}"
                )
    by_prefix: dict[Prefix, str] = {}
    for region, prefixes in (prefixes_of or {}).items():
        for text in prefixes:
            prefix = ipaddress.ip_network(text)
            other = by_prefix.setdefault(prefix, region)
            if other != region:
                raise ValueError(
                    f"regions.{region}.prefixes must not hold {prefix}, it is in regions.{other}"
                )
    longest_first = sorted(by_prefix.items(), key=lambda item: (-item[0].prefixlen, str(item[0])))
    return RegionMap(by_dpid, tuple(longest_first))


def parts_by_region(members: Iterable[str], region_of: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """A group's members split by region: the part with which it draws on each region.

    Members outside every region are in no part.
    """
    parts: dict[str, set[str]] = {}
    for member in members:
        region = region_of.get(member)
        if region is not None:
            parts.setdefault(region, set()).add(member)
    return {region: frozenset(parts[region]) for region in sorted(parts)}


@lru_cache(maxsize=262_144)
def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(address)
