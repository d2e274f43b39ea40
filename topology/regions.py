"""Which region a switch, and by its attachment an endpoint, belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from topology.network import Host


@dataclass(frozen=True)
class RegionMap:
    """The region of each switch that has one. Build it with ``region_map``."""

    by_dpid: Mapping[int, str]

    def of_switch(self, dpid: int) -> str | None:
        """The region of a switch, None if no region claims it."""
        return self.by_dpid.get(dpid)

    def of_hosts(self, hosts: Mapping[str, Host]) -> dict[str, str]:
        """The region of each host by where it is attached; hosts outside every region are absent."""
        placed = ((mac, self.by_dpid.get(host.dpid)) for mac, host in hosts.items())
        return {mac: region for mac, region in placed if region is not None}


def region_map(dpids_of: Mapping[str, Iterable[int]]) -> RegionMap:
    """The map from switches to regions, from each region's list of dpids.

    Raises
    ------
    ValueError : if a dpid is listed in two regions.
    """
    by_dpid: dict[int, str] = {}
    for region, dpids in dpids_of.items():
        for dpid in dpids:
            other = by_dpid.setdefault(dpid, region)
            if other != region:
                raise ValueError(
                    f"regions.{region}.dpids must not hold {dpid:016x}, it is in regions.{other}"
                )
    return RegionMap(by_dpid)


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
