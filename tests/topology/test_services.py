from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from topology.closeness import undirected
from topology.services import ServiceRules, effective_peers, shared_services


def plainly(graph: sparse.csr_array, rules: ServiceRules) -> list[bool]:
    """The rule endpoint by endpoint, with nothing left out early."""
    rates = graph.toarray()
    peers = effective_peers(graph)
    talking = int((peers > 0).sum())
    if not talking:
        return [False] * len(peers)
    needed = max(
        rules.min_peers,
        rules.min_reach * (talking - 1),
        rules.min_ratio * float(np.median(peers[peers > 0])),
    )
    hub = [count >= needed * (1 - 1e-9) for count in peers]
    found = []
    for node, is_hub in enumerate(hub):
        mine = [peer for peer in range(len(peers)) if rates[node, peer] > 0]
        company = [
            not hub[peer] and any(rates[peer, other] > 0 and not hub[other] for other in range(len(peers)))
            for peer in mine
        ]
        found.append(bool(is_hub and sum(company) >= rules.min_company * len(mine)))
    return found


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 30), st.integers(0, 4), st.integers(0, 10_000), st.integers(1, 6), st.floats(1, 3))
def test_shared_services_are_those_of_the_rule(
    n: int, hubs: int, seed: int, min_peers: int, min_ratio: float
) -> None:
    """On random networks with endpoints that talk to nearly everyone."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(0, 2 * n + 1))
    src, dst = rng.integers(0, n, m), rng.integers(0, n, m)
    for hub in range(min(hubs, n)):
        reached = np.flatnonzero(rng.random(n) < 0.9)
        src, dst = np.concatenate([src, np.full(len(reached), hub)]), np.concatenate([dst, reached])
    graph = undirected(n, src, dst, rng.lognormal(3, 1, len(src)))
    rules = ServiceRules(min_peers=min_peers, min_ratio=min_ratio)
    assert shared_services(graph, rules).tolist() == plainly(graph, rules)
