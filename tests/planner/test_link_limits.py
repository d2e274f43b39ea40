"""Grants that respect the links between switches, through the whole loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from allocation.allocate import Bound
from tests.planner.networks import Running, network, small
from topology.network import Link

#: West's two switches, joined by one cable.
CABLE = Link(0x11, 10, 0x12, 10)
Talk = Mapping[tuple[str, str], float]
TALK: Talk = {("anna", "carla"): 12e6, ("ben", "carla"): 4e6, ("carla", "ben"): 1e6, ("anna", "ben"): 4e6}


def running(capacity_mbps: float | None, talk: Talk = TALK, **blocks: Any) -> Running:
    """Anna and ben send most to carla, across the cable."""
    links = [{"a": "0x11/10", "b": "0x12/10", "capacity_mbps": capacity_mbps}] if capacity_mbps else []
    made = Running(small(links=links, **blocks))
    made.planner.report(replace(network(made.config), links=frozenset({CABLE, CABLE.reverse})))
    graph = made.planner.grouping.graph
    for pair, rate in talk.items():
        src, dst = graph.intern(pair).tolist()
        graph.observe(made.now, src, dst, 0, rate, 600.0)
    made.offered = {"anna": 16e6, "ben": 4e6, "carla": 17e6}
    return made


def crossing(made: Running) -> float:
    """What grants let onto the cable from anna and ben, as their traffic is split."""
    up = {user: made.grant(user)[0] for user in ("anna", "ben")}
    return up["anna"] * 0.75 + up["ben"]


def test_grants_fit_the_cable_that_they_cross():
    """No more is promised than the cable carries; the use of one who needs little is not cut for another's wish."""
    free, tight = running(None), running(10)
    for made in (free, tight):
        made.tick(count=4)
    assert crossing(free) >= 16e6
    assert crossing(tight) <= 10e6 + 1
    assert tight.grant("ben")[0] >= 3.9e6
    # Downloads to carla cross it the same way, and to ben the other.
    assert tight.grant("carla")[1] <= 10e6
    assert tight.grant("ben")[1] >= free.grant("ben")[1]
    assert tight.planner.snapshot.pools.bound[0, tight.row("anna")] == Bound.LINK
    # David and emma are elsewhere, and have what they had.
    assert tight.grant("david") == free.grant("david")


def test_what_a_full_link_leaves_goes_to_others():
    """Of a region that is short, others get what cannot be used across the cable."""
    blocks = {
        "regions": {
            "west": {"dpids": [0x11, 0x12], "capacity_mbps": 24},
            "east": {"dpids": [0x21], "capacity_mbps": 9},
        }
    }
    # Where carla sends is not known, so no link bounds it.
    talk = {pair: rate for pair, rate in TALK.items() if pair[0] != "carla"}
    free, tight = running(None, talk, **blocks), running(6, talk, **blocks)
    for made in (free, tight):
        made.offered["carla"] = 19e6
        made.tick(count=4)
    assert tight.grant("anna")[0] < free.grant("anna")[0]
    assert tight.grant("carla")[0] > free.grant("carla")[0]
    for made in (free, tight):
        pools = made.planner.snapshot.pools
        members = [made.row(user) for user in ("anna", "ben", "carla")]
        assert (pools.grant_bps[:, members].sum(axis=1) <= pools.grant_bps[:, made.row("west")]).all()


def test_a_cut_cable_no_longer_bounds():
    """Its traffic has no way: nothing is known of where it goes."""
    made = running(5)
    made.tick(count=3)
    assert crossing(made) <= 5e6 + 1
    made.connect(version=2)
    made.tick(count=3)
    assert made.grant("anna")[0] >= 16e6


def test_without_known_capacity_nothing_is_reckoned():
    """Ports that do not say their speed bound nothing."""
    made = running(None)
    made.tick(count=2)
    assert made.planner.problems == {}
    assert np.isfinite(made.planner.snapshot.pools.grant_bps).all()
