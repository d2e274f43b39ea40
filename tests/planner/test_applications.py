"""Accounts of polls become the split of each step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.applications import ApplicationTraffic, Split, shares
from telemetry.samples import EdgeSamples, SampleBatch
from topology.identity import Resolution

USERS = ("anna", "ben", "carla")
MACS = ("00:00:00:00:01:01", "00:00:00:00:01:02", "00:00:00:00:01:03", "02:00:00:00:00:99")
RESOLUTION = Resolution(user_of=dict(zip(MACS[:3], USERS, strict=True)))
STEP_S = 60.0
Edge = tuple[int, int, int, float]


def poll(time: float, *edges: Edge, interval_s: float = 5.0, dpid: int = 1) -> SampleBatch:
    """One switch's accounts: (sender, receiver, class, bit/s), by the number of the MAC."""
    source, target, app = (np.array([edge[at] for edge in edges], np.uint32) for at in range(3))
    rate = np.array([edge[3] for edge in edges])
    return SampleBatch(
        dpid,
        time,
        edges=EdgeSamples(source, target, app, np.full(len(edges), interval_s), rate),
        endpoints=MACS,
    )


@pytest.fixture
def traffic() -> ApplicationTraffic:
    return ApplicationTraffic(USERS, 3, STEP_S)


def after(traffic: ApplicationTraffic, now: float, *polls: SampleBatch) -> ApplicationTraffic:
    for one in polls:
        traffic.observe(one, RESOLUTION)
    traffic.gather(now)
    return traffic


def test_both_ends_are_told_of_it(traffic: ApplicationTraffic) -> None:
    """What one sends another receives; several switches and classes add up."""
    after(
        traffic, 50.0, poll(50.0, (0, 1, 1, 2e6), (0, 2, 1, 1e6), (0, 1, 2, 4e6)), poll(48.0, (2, 1, 1, 8e6))
    )
    split = traffic.take(60.0)
    np.testing.assert_allclose(split.bits[0], np.array([[0, 15e6, 20e6], [0, 0, 0], [0, 40e6, 0]]))
    np.testing.assert_allclose(split.bits[1], np.array([[0, 0, 0], [0, 50e6, 20e6], [0, 5e6, 0]]))


def test_peers_are_counted_once_whatever_the_applications(traffic: ApplicationTraffic) -> None:
    """The mean number over the step: two peers in one of twelve polls are a sixth."""
    after(traffic, 50.0, poll(50.0, (0, 1, 1, 2e6), (0, 1, 2, 4e6), (0, 3, 0, 1.0), (1, 0, 0, 0.0)))
    split = traffic.take(60.0)
    np.testing.assert_allclose(split.peers * 12, np.array([[2, 0, 0], [0, 1, 0]]))


def test_poll_over_the_end_of_a_step_is_shared_out(traffic: ApplicationTraffic) -> None:
    """By seconds: four in the step before, six in the step under way."""
    after(traffic, 66.0, poll(66.0, (0, 1, 0, 1e6), interval_s=10.0))
    assert traffic.take(60.0).bits[0, 0, 0] == pytest.approx(4e6)
    assert traffic.take(120.0).bits[0, 0, 0] == pytest.approx(6e6)


def test_what_was_taken_is_forgotten(traffic: ApplicationTraffic) -> None:
    """A step is told once; what nobody took is dropped with it."""
    after(traffic, 50.0, poll(50.0, (0, 1, 0, 1e6)))
    after(traffic, 110.0, poll(110.0, (0, 1, 0, 3e6)))
    assert traffic.take(120.0).bits.sum() == pytest.approx(2 * 15e6)
    assert traffic.take(60.0).bits.sum() == traffic.take(120.0).bits.sum() == 0


def test_clock_set_back_drops_the_future(traffic: ApplicationTraffic) -> None:
    """Steps that did not happen are not mixed with those that come."""
    after(traffic, 1000.0, poll(1000.0, (0, 1, 0, 1e6)))
    after(traffic, 70.0, poll(70.0, (0, 1, 0, 3e6)))
    assert traffic.take(120.0).bits[0, 0, 0] == pytest.approx(15e6)
    assert traffic.take(1020.0).bits.sum() == 0


BAD = st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 0.0])


@given(rate=BAD, interval_s=BAD | st.just(5.0), time=st.sampled_from([50.0, np.nan, np.inf, 1e300, -5.0]))
def test_what_no_counter_can_give_is_passed_over(rate: float, interval_s: float, time: float) -> None:
    """A good account of the same poll counts; a bad time costs its poll."""
    traffic = ApplicationTraffic(USERS, 3, STEP_S)
    good = poll(50.0, (1, 2, 1, 1e6))
    bad = poll(time, (0, 1, 1, rate), (0, 1, 4000, 1e6), interval_s=interval_s)
    split = after(traffic, 55.0, bad, good).take(60.0)
    assert split.bits[:, 0].sum() == 0
    assert split.bits[0, 1, 1] == pytest.approx(5e6)


def test_mac_that_becomes_another_users(traffic: ApplicationTraffic) -> None:
    """Whose a device is, is asked anew when that changed."""
    after(traffic, 50.0, poll(50.0, (0, 3, 0, 1e6)))
    moved = Resolution(user_of={MACS[0]: "ben"})
    traffic.observe(poll(55.0, (0, 3, 0, 1e6)), moved)
    traffic.gather(55.0)
    np.testing.assert_allclose(traffic.take(60.0).bits[0].sum(axis=1), [5e6, 5e6, 0])


def test_shares_know_idleness_from_silence() -> None:
    """No account of an idle user is no traffic; of a busy one it is a gap, and so is what was not measured."""
    bits = np.zeros((2, 4, 2), np.float32)
    bits[0, 0] = [3e6, 1e6]
    bits[0, 3] = [1e6, 0]
    demand = np.array([[8e6, 0, 5e6, np.nan], [0, 500, 2e3, np.nan]], np.float32)
    found = shares(Split(bits, np.zeros((2, 4), np.float32)), demand)
    np.testing.assert_allclose(found[0], np.array([[0.75, 0.25], [0, 0], [np.nan] * 2, [np.nan] * 2]))
    np.testing.assert_allclose(found[1], np.array([[0, 0], [0, 0], [np.nan] * 2, [np.nan] * 2]))
