from collections import defaultdict

import pytest

from mininet_scenarios.network import demo_network
from mininet_scenarios.schedule import (
    DEMO,
    PERIOD_S,
    conflicts,
    demo_schedule,
    offered_bps,
    recurring,
    scarce_window,
    servers,
)

DURATIONS = (40, 60, 137.5, 200, 400)


@pytest.mark.parametrize("duration_s", DURATIONS)
def test_no_server_has_two_clients(duration_s):
    """An iperf3 server takes one client at a time, so flows to one server stand apart."""
    assert conflicts(demo_schedule(duration_s)) == []


@pytest.mark.parametrize("duration_s", DURATIONS)
def test_everything_ends_in_time(duration_s):
    """All flows lie within the schedule, in order of their start, between hosts of the network."""
    flows = demo_schedule(duration_s)
    hosts = demo_network().hosts
    assert [f.start_s for f in flows] == sorted(f.start_s for f in flows)
    for flow in flows:
        assert 0 <= flow.start_s < flow.end_s <= duration_s
        assert flow.source in hosts
        assert flow.target in hosts


def test_applications_recur():
    """Each application is busy once a period, at the same time of it."""
    for application in DEMO:
        starts = sorted({flow.start_s for flow in recurring(application, 4 * PERIOD_S)})
        assert starts == [application.phase_s + k * PERIOD_S for k in range(4)]


def test_scarce_minute_lies_in_the_second_half():
    """For about a minute of the second half one application asks for more than a region's 36 Mbit/s."""
    start, end = scarce_window(200)
    assert [start, end] == pytest.approx([110, 170])
    asked: dict[str, float] = defaultdict(float)
    for flow in demo_schedule(200):
        if flow.start_s <= 140 < flow.end_s:
            asked[flow.application] += flow.rate_bps
    assert asked["studio"] > 36e6


def test_load_stays_modest():
    """Userspace switches on a small machine carry at most 80 Mbit/s in all."""
    flows = demo_schedule(200)
    assert max(offered_bps(flows, t) for t in range(200)) < 80e6


def test_conflicts_are_found():
    """Two flows to one server at one time are a conflict."""
    flow = demo_schedule(200)[0]
    assert conflicts([flow, flow]) == [(flow, flow)]


def test_servers_are_listed_once():
    """Each server port of a host is started once, however many flows use it."""
    found = servers(demo_schedule(200))
    assert len(found) == len(set(found)) > 10


def test_too_short_a_duration_is_refused():
    """The error names the rule and the value."""
    with pytest.raises(ValueError, match=r"duration must be >= 40 s, one period, got 5"):
        demo_schedule(5)
