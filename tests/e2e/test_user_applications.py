"""Application classes of one user on real switches: each within its own limit, all within the user's."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Scenario, wait_until
from tests.e2e.lab import Lab, open_lab
from tests.e2e.readings import flows
from tests.e2e.streams import Stream, arriving_bps, tcp_bps, udp

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

USER_MBPS, CLASS_MBPS = 10, 2
#: Ports of ``config/demo.yaml``; 5300 is of no class.
WEB, VIDEO, NONE = 5201, 5202, 5300
CHANGES = {
    "grouping": {"enabled": False},
    "users": {
        "anna": {"ceiling_mbps": USER_MBPS, "applications": {"video": {"ceiling_mbps": CLASS_MBPS}}},
        "ben": {
            "ceiling_mbps": USER_MBPS,
            "applications": {"web": {"ceiling_mbps": CLASS_MBPS, "guarantee_mbps": CLASS_MBPS}},
        },
    },
}


@pytest.fixture(scope="module")
def lab(shared_scenario: Scenario) -> Lab:
    """One network for all tests here."""
    return open_lab(shared_scenario, CHANGES)


def granted(lab: Lab, name: str, direction: str) -> float:
    """What anna, or a class of hers, may have; in Mbit/s."""
    path = lab.path("anna") + (f"/{name}" if name else "")
    return float(lab.pool(path)[direction]["grant_bps"]) / 1e6


def test_class_is_held_and_the_rest_of_the_user_gets_the_rest(lab: Lab) -> None:
    """Of ten that a user may send, a class limited to two gets two, and what is of no class eight."""
    streams = (Stream("anna", "gina", 9e6, VIDEO), Stream("anna", "hugo", 12e6, NONE))
    with udp(lab.net, *streams):
        wait_until(lambda: granted(lab, "other", "up") >= 7.9, 20, "the rest to be granted to the rest")
        assert granted(lab, "video", "up") == CLASS_MBPS
        assert granted(lab, "", "up") == USER_MBPS
        lab.in_step()
        arrived = arriving_bps(lab.net, ("gina", "hugo"), 6)
    assert arrived["gina"] == pytest.approx(2e6, rel=0.06), arrived
    assert arrived["hugo"] == pytest.approx(8e6, rel=0.06), arrived
    assert sum(arrived.values()) <= 10.5e6


def test_class_is_held_where_its_user_receives(lab: Lab) -> None:
    """Download is metered where it leaves the network, by the class's own meter, however idle the user is."""
    with udp(lab.net, Stream("gina", "anna", 6e6, VIDEO)):
        wait_until(lambda: granted(lab, "video", "down") == CLASS_MBPS, 20, "the class to be at its ceiling")
        lab.in_step()
        arrived = arriving_bps(lab.net, ["anna"], 5)["anna"]
    assert arrived == pytest.approx(2e6, rel=0.06)


def test_tcp_of_a_class_gets_its_part_beside_a_flood_of_the_same_user(lab: Lab) -> None:
    """What else the user sends, and it is more than it may, does not push a class out of its guarantee."""
    with udp(lab.net, Stream("ben", "hugo", 12e6, NONE)):
        rate = tcp_bps(lab.net, "ben", "gina", over_s=6, port=WEB)
    assert 0.85 * 2e6 <= rate <= 1.05 * 2e6


def test_entries_of_classes_are_at_the_edge_of_their_user_alone(lab: Lab) -> None:
    """Each class has its own meter on its user's switch, in both directions; no other switch has an entry for one."""
    named = {"anna": ("other", "video"), "ben": ("other", "web")}
    pools = [f"{lab.path(user)}/{name}" for user, names in named.items() for name in names]
    own = {lab.meter("edge1", pool, direction) for pool in pools for direction in ("up", "down")}
    assert len(own) == 8
    for switch in lab.net.spec.switches:
        metering = [entry for entry in flows(lab.net, switch) if entry.table_id in (1, 7) and entry.meters]
        assert {meter for entry in metering for meter in entry.meters} == (
            own if switch == "edge1" else set()
        )
