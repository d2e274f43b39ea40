"""Links, switches and hosts that go, come and move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from mininet_scenarios.network import HOST_INTERFACE
from mininet_scenarios.readback import planned_meters, read_meters
from tests.e2e.conftest import Scenario, wait_until
from tests.e2e.lab import Lab, log_says, open_lab
from tests.e2e.readings import flows, packets_out
from tests.e2e.streams import Stream, arriving_bps, pinging, received_packets, udp

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CHANGES = {
    "groups": {"crew": {"members": ["anna", "ben", "david"], "ceiling_mbps": 9}},
    "grouping": {"enabled": False},
}


@pytest.fixture(scope="module")
def lab(shared_scenario: Scenario) -> Lab:
    """One network for all tests here; each leaves every host reachable."""
    return open_lab(shared_scenario, CHANGES)


def test_every_host_reaches_every_other_over_both_ip_versions(lab: Lab) -> None:
    """ARP, IPv4, neighbour discovery and IPv6 work within and across regions."""
    for source, targets in {
        "anna": ("ben", "emma", "gina", "names"),
        "kira": ("jonas", "hugo", "carla"),
    }.items():
        for target in targets:
            assert lab.net.reaches(source, target), (source, target)
            assert lab.net.reaches(source, target, version=6), (source, target)


def test_a_broadcast_reaches_everyone_once_and_does_not_loop(lab: Lab) -> None:
    """On a network of rings each host gets one copy of a broadcast, and then there is silence."""
    net, n_asked = lab.net, 5
    others = [host for host in net.spec.hosts if host != "anna"]
    command = ["arping", "-q", "-c", str(n_asked), "-w", "3", "-I", HOST_INTERFACE, "10.0.9.9"]
    if net.execute("anna", ["sh", "-c", "command -v arping"]).returncode:
        # Asking for an address that nobody has is a broadcast as well: one a second.
        command = ["ping", "-c", str(n_asked), "-i", "0.2", "-W", "1", "10.0.9.9"]
    sent_before = {switch: packets_out(net, switch) for switch in net.spec.switches}
    before = {host: received_packets(net, host) for host in others}
    net.execute("anna", command)
    came = {host: received_packets(net, host) - before[host] for host in others}
    # Probes for links arrive at hosts too, at their own slow pace.
    assert min(came.values()) >= 3, came
    assert max(came.values()) < 60, came
    sent = sum(packets_out(net, switch) - count for switch, count in sent_before.items())
    # A storm would be hundreds of thousands.
    assert sent < 3000


def test_a_cut_link_is_routed_around_and_used_again_when_restored(lab: Lab) -> None:
    """With the way to the core cut, traffic goes round by the neighbour, in seconds; meters stay."""
    net = lab.net
    assert net.reaches("anna", "kira")
    meters = read_meters(net.bridge("edge1")).keys()
    for up in (False, True):
        net.set_link("core", "edge1", up=up)
        wait_until(
            lambda: net.reaches("anna", "kira"),
            6,
            f"anna to reach kira with the link {'up' if up else 'cut'}",
        )
        wait_until(lambda: net.reaches("anna", "kira", version=6), 6, "anna to reach kira over IPv6")
        assert net.reaches("anna", "ben")
    port = net.port_no("edge1", "core")
    kira = f"dl_dst={net.spec.hosts['kira'].mac}"
    wait_until(
        lambda: any(kira in flow.match and flow.actions == f"output:{port}" for flow in flows(net, "edge1")),
        10,
        "the shorter way to be used again",
    )
    assert read_meters(net.bridge("edge1")).keys() == meters


def test_a_dead_link_without_loss_of_carrier_is_found_by_its_silence(lab: Lab) -> None:
    """A switch port that only one end lost is noticed on both."""
    net = lab.net
    net.remove_link("core", "edge3")
    wait_until(lambda: net.reaches("gina", "anna"), 8, "gina to reach anna without the link")
    net.add_link("core", "edge3")
    wait_until(lambda: net.reaches("gina", "anna"), 8, "gina to reach anna with a new link")


def test_a_switch_deleted_and_added_again_gets_everything_back(lab: Lab) -> None:
    """A bridge made anew gets its tables and meters; the enforcement of others goes on meanwhile."""
    net = lab.net
    dpid = net.spec.switches["edge2"]
    others = {edge: read_meters(net.bridge(edge)).keys() for edge in ("edge1", "edge3", "edge4")}
    # Away from the switch, and more than the 20 Mbit/s that carla may have.
    with udp(net, Stream("carla", "gina", 28e6)), pinging(net, "ben", "kira") as pings:
        wait_until(lambda: arriving_bps(net, ["gina"], 1)["gina"] > 18e6, 15, "grants to follow the stream")
        with _deleted(lab, "edge2"):
            for _ in range(4):
                # A meter that is modified lets one more burst through, a quarter of a second's worth.
                assert 15e6 < arriving_bps(net, ["gina"], 1)["gina"] < 25.5e6
                for edge, meters in others.items():
                    assert meters <= read_meters(net.bridge(edge)).keys()
        wait_until(lambda: net.reaches("david", "anna"), 15, "david to reach anna again")
        wait_until(lambda: net.reaches("kira", "felix"), 15, "kira to reach felix again")
        for host in ("emma", "felix"):
            net.reaches(host, "anna")
        wait_until(lambda: len(lab.users()) == len(net.spec.hosts), 15, "all users to be planned for")
        for edge, meters in others.items():
            assert meters <= read_meters(net.bridge(edge)).keys()
        assert pings.stop() < 0.1
    lab.in_step()
    wanted = planned_meters(lab.plan(), dpid)
    assert {lab.meter("edge2", lab.path(user), "up") for user in ("david", "emma", "felix")} <= wanted.keys()
    used = {meter for flow in flows(net, "edge2") for meter in flow.meters}
    assert used == wanted.keys()


def test_a_host_that_changes_its_address_keeps_its_user_and_meters(lab: Lab) -> None:
    """A user known by MAC stays the same user under a new address."""
    net = lab.net
    before, path = net.spec.hosts["emma"], lab.path("emma")
    meter, entries = lab.meter("edge2", path, "up"), _entries(lab, "edge2", before.mac)
    net.set_host("emma", replace(before, ipv4="10.0.7.7/16", ipv6="fd00:7::7/16"))
    wait_until(lambda: net.reaches("anna", "emma"), 5, "anna to reach emma's new address")
    wait_until(log_says(lab, "10.0.7.7 added"), 5, "the new address to be learnt")
    assert lab.path("emma") == path
    assert lab.meter("edge2", path, "up") == meter
    assert _entries(lab, "edge2", before.mac) == entries
    net.set_host("emma", before)
    wait_until(lambda: net.reaches("anna", "emma"), 5, "anna to reach emma's old address")
    lab.in_step()


def test_a_host_that_moves_to_another_switch_is_followed(lab: Lab) -> None:
    """A host that moves is reachable and metered at its new switch, and its old meters go."""
    net = lab.net
    before = net.spec.hosts["felix"]
    net.set_host("felix", replace(before, switch="edge4"))

    def followed() -> bool:
        net.reaches("felix", "anna")
        return lab.path("felix").startswith("global/east/")

    wait_until(followed, 15, "felix to belong to the region he is in now")
    wait_until(lambda: net.reaches("anna", "felix"), 3, "anna to reach felix")
    assert net.reaches("kira", "felix", version=6)
    meter = lab.meter("edge4", lab.path("felix"), "up")
    wait_until(
        lambda: any(meter in flow.meters and before.mac in flow.match for flow in flows(net, "edge4")),
        6,
        "felix to be metered at his new switch",
    )
    lab.in_step()
    assert not _entries(lab, "edge2", before.mac)
    owners = {m["pool"] for m in lab.plan()["switches"][f"{net.spec.switches['edge2']:016x}"]["meters"]}
    assert not [pool for pool in owners if pool.endswith("/felix")]


@contextmanager
def _deleted(lab: Lab, switch: str) -> Iterator[None]:
    """Without a switch for as long as the block runs."""
    lab.net.delete_switch(switch)
    try:
        yield
    finally:
        lab.net.start_switch(switch)


def _entries(lab: Lab, switch: str, mac: str) -> list[tuple[str, str]]:
    """A host's metered entries on a switch."""
    return sorted(
        (flow.match, flow.actions) for flow in flows(lab.net, switch) if mac in flow.match and flow.meters
    )
