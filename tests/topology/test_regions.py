from __future__ import annotations

import pytest

from topology.network import Host
from topology.regions import parts_by_region, region_map


def test_an_endpoint_is_in_the_region_of_its_switch() -> None:
    """A host on a switch that no region claims is in none."""
    regions = region_map({"eu": [1, 2], "us": [3]})
    hosts = {f"m{dpid}": Host(f"m{dpid}", frozenset(), dpid, 1, 0.0) for dpid in (1, 3, 9)}
    assert regions.of_hosts(hosts) == {"m1": "eu", "m3": "us"}
    assert regions.of_switch(9) is None


def test_a_dpid_in_two_regions_is_refused() -> None:
    """With path, rule and value."""
    with pytest.raises(ValueError, match=r"regions\.us\.dpids must not hold 0000000000000001, .*regions\.eu"):
        region_map({"eu": [1, 1], "us": [1]})


def test_a_group_across_regions_has_a_part_in_each() -> None:
    """Members outside every region are in no part."""
    assert parts_by_region("abcd", {"a": "us", "b": "eu", "c": "us"}) == {
        "eu": frozenset("b"),
        "us": frozenset("ac"),
    }


def test_the_longest_prefix_wins_over_the_switch() -> None:
    """Of several addresses the one in the longest prefix counts; on a switch of no region nothing does."""
    regions = region_map({"eu": [1], "us": [2]}, {"eu": ["10.0.0.0/8"], "us": ["10.2.0.0/16", "fd00::/8"]})
    assert regions.of_device(2, ["10.1.0.1"]) == "eu"
    assert regions.of_device(1, ["10.1.0.1", "10.2.0.1"]) == "us"
    assert regions.of_device(1, ["fd00::1"]) == "us"
    assert regions.of_device(1, ["192.0.2.1"]) == regions.of_device(1, []) == "eu"
    assert regions.of_device(9, ["10.1.0.1"]) is None


def test_a_prefix_in_two_regions_is_refused() -> None:
    """With path, rule and value."""
    with pytest.raises(ValueError, match=r"regions\.us\.prefixes must not hold 10\.0\.0\.0/8, .*regions\.eu"):
        region_map({}, {"eu": ["10.0.0.0/8"], "us": ["10.0.0.0/8"]})
