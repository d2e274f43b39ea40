"""Who calls whom between groups, and whose demand follows whose, as operators see it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from topology.dependencies import Dependencies, find_dependencies, lagged_correlation
from topology.traffic import TrafficView

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Parties:
    """Who may depend on whom: groups, and shared services, each a party alone.

    ``demand_bps``, shape (n_steps, n_groups), is what each group wanted, upload and download together, NaN where
    not known.
    """

    groups: Mapping[str, Collection[str]]
    services: Sequence[str]
    demand_bps: F64
    step_s: float

    @property
    def names(self) -> tuple[str, ...]:
        """The groups, then the services."""
        return (*self.groups, *self.services)

    def of(self, endpoints: Sequence[str]) -> I64:
        """The party of each endpoint, shape (n,); -1 for none. A service in a group is the group's."""
        party_of = {name: len(self.groups) + at for at, name in enumerate(self.services)}
        for at, members in enumerate(self.groups.values()):
            party_of.update(dict.fromkeys(members, at))
        return np.fromiter((party_of.get(name, -1) for name in endpoints), np.int64, len(endpoints))


def strongest_dependencies(
    view: TrafficView, parties: Parties, offset: int, limit: int, max_lag: int = 5
) -> tuple[Dependencies, int]:
    """So many dependencies from the strongest on, with correlations; and how many there are."""
    found = find_dependencies(parties.names, parties.of(view.endpoints), view.src, view.dst, view.rate_bps)
    ranked = np.lexsort((found.target, found.source, -found.rate_bps))[offset : offset + limit]
    source, target = found.source[ranked], found.target[ranked]
    silent = np.full((len(parties.demand_bps), len(parties.services)), np.nan)
    demand = np.concatenate([parties.demand_bps, silent], axis=1)
    correlation, lag = lagged_correlation(demand, source, target, max_lag)
    page = Dependencies(
        found.groups, source, target, found.rate_bps[ranked], correlation, lag * parties.step_s
    )
    return page, len(found.rate_bps)


def rows_of(page: Dependencies) -> list[dict[str, Any]]:
    """One row a dependency, as JSON-able values: None for what is not known."""
    columns = (page.rate_bps, page.correlation, page.lag_s)
    known = ([None if np.isnan(value) else float(value) for value in column.tolist()] for column in columns)
    return [
        {
            "source": page.groups[source],
            "target": page.groups[target],
            "rate_bps": rate_bps,
            "correlation": correlation,
            "lag_s": lag_s,
        }
        for source, target, rate_bps, correlation, lag_s in zip(
            page.source.tolist(), page.target.tolist(), *known, strict=True
        )
    ]
