from __future__ import annotations

import numpy as np

from bench.planted import planted_applications
from topology.communities import find_communities
from topology.groups import GroupTracker
from topology.traffic import TrafficGraph


def test_samples_become_groups_that_follow_a_host_that_changes_its_application() -> None:
    """As the planner joins the parts: right after the first tick and two half-lives after the swap, same ids."""
    planted = planted_applications([4, 4, 4], 4, services=1, background_bps=50.0)
    graph, tracker = TrafficGraph(60.0), GroupTracker()
    names = np.array(planted.endpoints, object)
    swap = {0: 4, 4: 0}
    swapped = np.array([swap.get(i, i) for i in range(len(names))])
    rng = np.random.default_rng(0)
    history = []
    for tick in range(48):
        src, dst = (planted.src, planted.dst) if tick < 24 else (swapped[planted.src], swapped[planted.dst])
        ids = graph.intern(planted.endpoints)
        rate_bps = planted.rate_bps * rng.lognormal(0, 0.5, len(src))
        graph.observe(5.0 * tick, ids[src], ids[dst], 0, rate_bps, 5.0)
        view = graph.view(5.0 * tick)
        found = find_communities(view.endpoints, view.src, view.dst, view.rate_bps)
        groups, _ = tracker.update(found.groups(), 5.0 * tick)
        graph.prune(5.0 * tick)
        history.append({group.id: group.members for group in groups})
    apps = [frozenset(names[planted.truth == app]) for app in range(3)]
    assert set(history[0].values()) == set(apps)
    assert history[23] == history[0]
    after = [frozenset(names[swapped[np.flatnonzero(planted.truth == app)]]) for app in range(3)]
    assert set(history[-1].values()) == set(after)
    assert set(history[-1]) == set(history[0])
