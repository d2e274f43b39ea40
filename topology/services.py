"""Shared services: endpoints that talk to nearly everyone, and evenly.

DNS, gateways and monitoring tie every application to every other. They
are found first and left out when applications are looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: Entropy of equal parts may fall a rounding step short of their number.
_ROUNDING: Final = 1 - 1e-9


@dataclass(frozen=True)
class ServiceRules:
    """When an endpoint counts as a shared service. See ``shared_services``."""

    #: Effective peers as a part of all other endpoints, "nearly everyone".
    min_reach: float = 0.4
    #: Effective peers as a multiple of the median endpoint's: in a clique everyone reaches everyone.
    #: Below 2 an endpoint on its way from one application to another would count.
    min_ratio: float = 2.0
    #: The server of one small application is not a shared service.
    min_peers: int = 6
    #: The part of its peers that have company of their own.
    min_company: float = 0.5

    def __post_init__(self) -> None:
        if not (0 < self.min_reach <= 1 and 0 <= self.min_company <= 1):
            raise ValueError(f"min_reach must be in (0, 1] and min_company in [0, 1], got {self}")
        if self.min_ratio < 1 or self.min_peers < 1:
            raise ValueError(f"min_ratio and min_peers must be >= 1, got {self}")


def effective_peers(graph: sparse.csr_array) -> F64:
    """Among how many peers each endpoint spreads its traffic, shape (n,).

    The exponential of the entropy of the square roots of its rates: k equal
    rates give k, a strong peer and many faint ones little more than 1, and no traffic 0.
    """
    root = np.sqrt(graph.data)
    owner = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    total = np.bincount(owner, root, graph.shape[0])
    talks = total > 0
    # Of parts p = root / total: the sum of -p log p is log(total) - sum(root log(root)) / total.
    some = np.where(talks, total, 1.0)
    entropy = np.log(some) - np.bincount(owner, root * np.log(root), graph.shape[0]) / some
    return np.where(talks, np.exp(entropy), 0.0)


def shared_services(graph: sparse.csr_array, rules: ServiceRules | None = None) -> Mask:
    """Which endpoints are shared services, shape (n,).

    ``graph`` holds the rates between endpoints, symmetric, > 0. A shared service reaches at
    least ``min_reach`` of the endpoints that talk at all, at least ``min_peers``
    of them, at least ``min_ratio`` times as many as the median endpoint; and at
    least ``min_company`` of its peers also talk to someone who is no such
    hub. The last keeps a lone server with its clients one application.
    """
    rules = rules or ServiceRules()
    degree = np.diff(graph.indptr)
    talking: Mask = degree > 0
    hub: Mask = np.zeros(len(degree), bool)
    if not talking.any():
        return hub
    needed = max(float(rules.min_peers), rules.min_reach * (int(talking.sum()) - 1))
    # Nobody has more effective peers than peers, so most need not be looked at.
    likely = np.flatnonzero(degree >= needed * _ROUNDING)
    if not len(likely):
        return hub
    if rules.min_ratio * float(np.median(degree[talking])) > needed:
        needed = max(needed, rules.min_ratio * float(np.median(effective_peers(graph)[talking])))
    hub[likely] = effective_peers(graph[likely]) >= needed * _ROUNDING
    hubs = np.flatnonzero(hub)
    if not len(hubs):
        return hub
    of_hubs = graph[hubs]
    hubs_known = np.bincount(of_hubs.indices, minlength=len(degree))
    in_company = ((degree > hubs_known) & ~hub).astype(np.float64)
    connected = sparse.csr_array((np.ones_like(of_hubs.data), of_hubs.indices, of_hubs.indptr), of_hubs.shape)
    hub[hubs] = connected @ in_company >= rules.min_company * degree[hubs]
    return hub
