"""Missing is not zero: lost polls and reset counters on real switches, under steady traffic."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from mininet_scenarios.readback import read_meters
from tests.e2e.conftest import Scenario, wait_until
from tests.e2e.intermediary import Intermediary, standing_between
from tests.e2e.lab import Lab, open_lab
from tests.e2e.readings import ofctl
from tests.e2e.streams import Stream, udp

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

STREAM = Stream("anna", "gina", 3e6)
#: Far from nothing, and less than the stream: until an entry that was taken away is there again,
#: traffic does go past its meter for a part of an interval.
LEAST_BPS = 0.3e6
CHANGES = {
    "groups": {"crew": {"members": ["anna", "ben", "david"], "ceiling_mbps": 9}},
    "grouping": {"enabled": False},
    "polling": {"interval_s": 1.0, "timeout_s": 0.8},
}


@pytest.fixture(scope="module")
def proxy(shared_scenario: Scenario) -> Iterator[Intermediary]:
    """What stands between the switches and the controller."""
    with standing_between(shared_scenario.openflow_port) as proxy:
        shared_scenario.switch_port = proxy.port
        yield proxy


@pytest.fixture(scope="module")
def lab(shared_scenario: Scenario, proxy: Intermediary) -> Iterator[Lab]:
    """A network under steady traffic from one user to another."""
    lab = open_lab(shared_scenario, CHANGES)
    with udp(lab.net, STREAM):
        yield lab


@pytest.fixture
def watch(lab: Lab) -> Watch:
    """A watch over pools that carry the stream, with traffic known to all of them."""
    watch = Watch(lab)
    wait_until(watch.all_known, 20, "the stream to be seen")
    wait_until(lambda: watch.grant_bps > 1.03 * STREAM.rate_bps, 10, "the grant to follow the stream")
    return watch


class Watch:
    """What is said to be offered by every pool that the stream goes through."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._pools = [
            ("global", "up"),
            ("global/west", "up"),
            ("global/west/crew", "up"),
            (lab.path(STREAM.source), "up"),
            ("global/east", "down"),
            (lab.path(STREAM.target), "down"),
        ]
        #: How often each pool was unknown.
        self.n_unknown = dict.fromkeys(self._pools, 0)

    def offered(self) -> dict[tuple[str, str], float | None]:
        """Now, by pool and direction."""
        rows = {row["path"]: row for row in self._lab.controller.client.pools()["pools"]}
        return {(path, direction): rows[path][direction]["offered_bps"] for path, direction in self._pools}

    @property
    def grant_bps(self) -> float:
        """What the stream's sender may send."""
        return float(self._lab.user(STREAM.source)["up"]["grant_bps"])

    def all_known(self) -> bool:
        """Whether every pool is known to carry the stream."""
        return all(rate is not None and rate > LEAST_BPS for rate in self.offered().values())

    def for_a_while(self, duration_s: float) -> None:
        """Fail the test as soon as a pool is said to offer next to nothing; unknown is right."""
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            for pool, rate in self.offered().items():
                assert rate is None or rate > LEAST_BPS, (pool, rate)
                self.n_unknown[pool] += rate is None
            assert self.grant_bps > STREAM.rate_bps, "nobody is cut for want of samples"
            time.sleep(0.1)


def test_lost_polls_are_no_demand_of_zero(lab: Lab, proxy: Intermediary, watch: Watch) -> None:
    """While answers are lost demand is unknown, afterwards it is what it was; and the loss is told."""
    with proxy.losing_statistics():
        watch.for_a_while(7)
    assert proxy.n_lost
    assert all(watch.n_unknown.values()), watch.n_unknown
    watch.for_a_while(5)
    wait_until(watch.all_known, 10, "demand to be known again")
    switches = lab.controller.client._get("/switches")["switches"]
    assert all(switch["lost_polls"] >= 2 for switch in switches), switches
    lab.in_step()


def test_a_single_lost_poll_is_bridged(lab: Lab, proxy: Intermediary, watch: Watch) -> None:
    """The answer after a lost one spans both intervals: no rate is halved or doubled."""
    with proxy.losing_statistics():
        wait_until(lambda: proxy.n_lost, 3, "a poll to be lost")
        watch.for_a_while(0.8)
    watch.for_a_while(4)
    for pool, rate in watch.offered().items():
        assert rate is not None
        assert rate == pytest.approx(STREAM.rate_bps, rel=0.25), pool


@pytest.mark.parametrize("how", ["modified", "deleted and added"])
def test_reset_counters_are_no_demand_of_zero(lab: Lab, watch: Watch, how: str) -> None:
    """Meters made anew behind the controller's back start from nothing; demand does not."""
    switch, bridge = "edge1", lab.net.bridge("edge1")
    path = lab.path(STREAM.source)
    names = path.split("/")
    pools = [path, "/".join(names[:3]), "/".join(names[:2])]
    if how == "deleted and added":
        # Without the entry of its region's meter traffic does stop, until the next poll.
        del pools[2]
    for pool in pools:
        meter = lab.meter(switch, pool, "up")
        rate, burst = read_meters(bridge)[meter]
        anew = f"meter={meter},kbps,burst,stats,bands=type=drop,rate={rate},burst_size={burst}"
        if how == "modified":
            ofctl("mod-meter", bridge, anew)
        else:
            # The switch takes the entries that use the meter away with it.
            ofctl("del-meter", bridge, f"meter={meter}")
            ofctl("add-meter", bridge, anew)
        watch.for_a_while(2.5)
    watch.for_a_while(4)
    wait_until(watch.all_known, 10, "demand to be known")
    lab.in_step()
