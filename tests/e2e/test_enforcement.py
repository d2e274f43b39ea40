"""Grants as real throughput: what arrives is what the plan says, metered once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mininet_scenarios.readback import Meters, planned_meters, read_meters
from tests.e2e.conftest import Scenario, wait_until
from tests.e2e.lab import EDGES, Lab, open_lab
from tests.e2e.readings import flows, ofctl, packets_in
from tests.e2e.streams import Stream, arriving_bps, tcp_bps, udp

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

#: Members by weight; two switches of one region.
WEIGHT = {"anna": 1.0, "ben": 1.0, "david": 2.0}
CREW_MBPS = 9
CREW = "global/west/crew"
CHANGES = {
    "groups": {"crew": {"members": list(WEIGHT), "ceiling_mbps": CREW_MBPS}},
    # The groups stand still, so that only traffic moves the grants.
    "grouping": {"enabled": False},
    "users": {
        **{name: {"weight": weight} for name, weight in WEIGHT.items()},
        # So low that their grants do not move while TCP is measured.
        **{name: {"ceiling_mbps": 6} for name in ("emma", "ines")},
    },
}


@pytest.fixture(scope="module")
def lab(shared_scenario: Scenario) -> Lab:
    """One network for all tests here."""
    return open_lab(shared_scenario, CHANGES)


def steady(lab: Lab, path: str, direction: str, deadline_s: float = 20.0) -> None:
    """Return when a pool's demand exceeds its grant and its grant has stopped moving."""
    grants: list[float] = []

    def still() -> bool:
        row = lab.pool(path)[direction]
        offered = row["offered_bps"]
        if offered is None or offered < 1.5 * row["grant_bps"]:
            return False
        time.sleep(1)
        grants.append(row["grant_bps"])
        return len(grants) >= 4 and len(set(grants[-4:])) == 1

    wait_until(still, deadline_s, f"{path} {direction} to be scarce and still")


@contextmanager
def crowd(lab: Lab, direction: str) -> Iterator[None]:
    """Each member of the crew sends, or is sent, more than the crew has altogether."""
    outside = ("gina", "hugo", "jonas")
    pairs = zip(WEIGHT, outside, strict=True)
    streams = [Stream(*(pair if direction == "up" else pair[::-1]), 10.5e6) for pair in pairs]
    with udp(lab.net, *streams):
        steady(lab, CREW, direction)
        yield


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_crowded_group_gets_its_grant_shared_by_weight(lab: Lab, direction: str) -> None:
    """Three users who all send more than their group has get its grant between them, by weight."""
    receivers = ("gina", "hugo", "jonas") if direction == "up" else tuple(WEIGHT)
    with crowd(lab, direction):
        before = lab.pool(CREW)[direction]["grant_bps"]
        arrived = arriving_bps(lab.net, receivers, 10)
        after = lab.pool(CREW)[direction]["grant_bps"]
        lab.in_step()
    assert before == after == CREW_MBPS * 1e6
    total = sum(arrived.values())
    assert total == pytest.approx(after, rel=0.05), arrived
    for weight, rate in zip(WEIGHT.values(), arrived.values(), strict=True):
        assert rate == pytest.approx(total * weight / sum(WEIGHT.values()), rel=0.10), arrived


def test_meters_equal_the_plan_while_traffic_flows(lab: Lab) -> None:
    """Every edge switch holds exactly the plan's meters, at each of several readings under load."""
    with crowd(lab, "up"):
        for _ in range(4):
            result = lab.comparison(3)
            assert result.equal, result.differences
            assert result.n_meters >= 2 * len(lab.net.spec.hosts)
            time.sleep(1)


@pytest.mark.parametrize(("source", "target"), [("carla", "kira"), ("gina", "hugo")])
def test_no_packet_is_metered_twice_in_one_direction(lab: Lab, source: str, target: str) -> None:
    """A packet meets one meter of each level where it enters, and one of each where it leaves."""
    net, n_packets = lab.net, 200
    pools = {host: lab.path(host) for host in (source, target)}
    at = {host: net.spec.hosts[host].switch for host in (source, target)}
    assert net.reaches(source, target)
    # Requests and replies: both hosts are at both ends.
    expected = {
        (at[host], lab.meter(at[host], pool, direction))
        for host in (source, target)
        for pool in _up_to_region(pools[host])
        for direction in ("up", "down")
    }

    def counted() -> dict[tuple[str, int], int] | None:
        """Packets by switch and meter; None where a meter was changed meanwhile, which clears its counter."""
        before, rates = _all_packets(lab), _all_meters(lab)
        command = ["ping", "-n", "-q", "-c", str(n_packets), "-i", "0.002", net.address(target)]
        assert ", 0% packet loss" in net.execute(source, command).stdout
        after = _all_packets(lab)
        if rates != _all_meters(lab) or any(after[key] < before[key] for key in before):
            return None
        return {key: after[key] - before[key] for key in after if after[key] != before.get(key, 0)}

    found = wait_until(counted, 30, "the meters to stand still")
    busy = {key: count for key, count in found.items() if count >= n_packets / 2}
    assert busy.keys() == expected
    # Shared pools (a group or region of both hosts on one switch) see both ends' packets.
    for switch, meter in expected:
        sharers = sum(
            (at[host], lab.meter(at[host], pool, direction)) == (switch, meter)
            for host in (source, target)
            for pool in _up_to_region(pools[host])
            for direction in ("up", "down")
        )
        # Some address resolution may come in between.
        assert n_packets * sharers <= busy[switch, meter] <= n_packets * sharers + 10


def test_switches_without_users_meter_nothing(lab: Lab) -> None:
    """The core has no meter and no entry that would use one."""
    assert "meter=" not in ofctl("dump-meters", lab.net.bridge("core"))
    entries = flows(lab.net, "core")
    assert entries
    assert not [entry for entry in entries if entry.meters]


def test_each_entry_has_at_most_one_meter_and_all_meters_are_used(lab: Lab) -> None:
    """On the edge, an entry holds one meter or none, and a meter belongs to one table."""
    for edge in EDGES:
        tables: dict[int, set[int]] = {}
        for entry in flows(lab.net, edge):
            assert len(entry.meters) <= 1, entry
            for meter in entry.meters:
                tables.setdefault(meter, set()).add(entry.table_id)
        assert all(len(used) == 1 for used in tables.values()), tables
        dpid = lab.net.spec.switches[edge]
        assert tables.keys() == planned_meters(lab.plan(), dpid).keys()


def test_tcp_uses_its_grant(lab: Lab) -> None:
    """One TCP connection carries at least 85 % of what its users are granted."""
    ends = (("emma", "up"), ("ines", "down"))
    rate = tcp_bps(lab.net, "emma", "ines", over_s=10)
    granted = [lab.user(host)[direction]["grant_bps"] for host, direction in ends]
    assert granted == [6e6, 6e6]
    assert rate >= 0.85 * 6e6


def _up_to_region(path: str) -> list[str]:
    """A user's pool, its group's and its region's."""
    names = path.split("/")
    return ["/".join(names[:length]) for length in (4, 3, 2)]


def _all_packets(lab: Lab) -> dict[tuple[str, int], int]:
    return {
        (switch, meter): count
        for switch in lab.net.spec.switches
        for meter, count in packets_in(lab.net, switch).items()
    }


def _all_meters(lab: Lab) -> dict[str, Meters]:
    return {switch: read_meters(lab.net.bridge(switch)) for switch in lab.net.spec.switches}
