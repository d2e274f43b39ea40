"""Which groups depend on which: who sends to whom, and whose demand follows whose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import networkx as nx
import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: Fewer steps than this tell nothing about two demands.
MIN_STEPS: Final = 20
#: Pairs of groups correlated at once; bounds the memory.
_BLOCK: Final = 4096


@dataclass(frozen=True)
class Dependencies:
    """A graph between groups.

    ``source`` and ``target``, shape (n_edges,), index ``groups``; ``rate_bps`` is what the one sends the
    other. ``correlation`` (-1..1) is that of the changes of their demands, the target's taken
    ``lag_s`` later, at the lag where it is highest: above 0 the target follows, below 0 it leads. Both are
    NaN where there is too little to tell from.
    """

    groups: tuple[str, ...]
    source: I64
    target: I64
    rate_bps: F64
    correlation: F64
    lag_s: F64

    def to_networkx(self) -> nx.DiGraph[str]:
        """All groups, and an edge for each dependency; what is not known is left out of its attributes."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(self.groups)
        columns = (self.source, self.target, self.rate_bps, self.correlation, self.lag_s)
        for source, target, rate_bps, correlation, lag_s in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            measured = {"rate_bps": rate_bps, "correlation": correlation, "lag_s": lag_s}
            known = {name: value for name, value in measured.items() if not math.isnan(value)}
            graph.add_edge(self.groups[source], self.groups[target], **known)
        return graph


def find_dependencies(
    groups: Sequence[str],
    group_of: npt.ArrayLike,
    src: npt.ArrayLike,
    dst: npt.ArrayLike,
    rate_bps: npt.ArrayLike,
    *,
    demand_bps: npt.ArrayLike | None = None,
    step_s: float = 60.0,
    max_lag: int = 5,
    min_part: float = 0.01,
) -> Dependencies:
    """The traffic between groups, and how the demand of one follows that of the other.

    Parameters
    ----------
    groups :       names of the groups; a shared service may be a group of one.
    group_of :     shape (n_endpoints,), an index into ``groups``, or -1 for none.
    src, dst :     shape (n_edges,), indices of endpoints.
    rate_bps :     shape (n_edges,). Edges whose rate is not > 0 and finite are ignored.
    demand_bps :   shape (n_steps, n_groups), NaN where not measured; None if there is no history.
    step_s :       from one row of it to the next, > 0.
    max_lag :      in steps, >= 0.
    min_part :     an edge counts if it carries this part of what the two groups
                   exchange with others, of the one or of the other.

    Raises
    ------
    ValueError : if a shape or a value breaks a bound above.
    """
    if step_s <= 0 or max_lag < 0 or not 0 <= min_part <= 1:
        raise ValueError(
            f"step_s must be > 0, max_lag >= 0 and min_part in [0, 1], got {step_s}, {max_lag} and {min_part}"
        )
    n = len(groups)
    source, target, rate = _between(n, np.asarray(group_of, np.int64), src, dst, rate_bps)
    exchanged = np.bincount(source, rate, n) + np.bincount(target, rate, n)
    counts = rate >= min_part * np.minimum(exchanged[source], exchanged[target])
    source, target, rate = source[counts], target[counts], rate[counts]
    correlation, lag = np.full(len(rate), np.nan), np.full(len(rate), np.nan)
    if demand_bps is not None:
        demand = np.asarray(demand_bps, np.float64)
        if demand.ndim != 2 or demand.shape[1] != n:
            raise ValueError(f"demand_bps must have shape (n_steps, {n}), got {demand.shape}")
        correlation, lag = lagged_correlation(demand, source, target, max_lag)
    return Dependencies(tuple(groups), source, target, rate, correlation, lag * step_s)


def lagged_correlation(series: F64, first: I64, second: I64, max_lag: int) -> tuple[F64, F64]:
    """The highest correlation of the changes of two series over the lags, and that lag in steps.

    Of changes and not of levels: all demands rise in the morning, and that is no dependency.

    Parameters
    ----------
    series :         shape (n_steps, n_series), NaN where missing.
    first, second :  shape (n_pairs,), which series; a lag above 0 means that the second comes later.
    max_lag :        lags from minus this to this are tried; of equal ones the least counts.

    Returns
    -------
    two of shape (n_pairs,); NaN where fewer than ``MIN_STEPS`` changes of both are known, or one has none.
    """
    change = np.diff(series, axis=0)
    best, best_lag = np.full(len(first), np.nan), np.full(len(first), np.nan)
    for lag in sorted(range(-max_lag, max_lag + 1), key=abs):
        if len(change) - abs(lag) < MIN_STEPS:
            continue
        early = change[: len(change) - lag] if lag >= 0 else change[-lag:]
        late = change[lag:] if lag >= 0 else change[: len(change) + lag]
        for start in range(0, len(first), _BLOCK):
            block = slice(start, start + _BLOCK)
            found = _correlation(early[:, first[block]], late[:, second[block]])
            # Rounding must not decide between equal ones.
            better = np.isfinite(found) & ~(found <= best[block] + 1e-12)
            best[block][better] = found[better]
            best_lag[block][better] = lag
    return best, best_lag


def _between(
    n_groups: int, group_of: I64, src: npt.ArrayLike, dst: npt.ArrayLike, rate_bps: npt.ArrayLike
) -> tuple[I64, I64, F64]:
    """Source, target and rate of the traffic that leaves a group for another, by source and target."""
    source, target, rate = np.asarray(src, np.int64), np.asarray(dst, np.int64), np.asarray(rate_bps, float)
    if not source.shape == target.shape == rate.shape or source.ndim != 1:
        raise ValueError(
            f"src, dst and rate_bps must have one shape, got {source.shape}, {target.shape}, {rate.shape}"
        )
    n = len(group_of)
    if len(source) and not 0 <= min(source.min(), target.min()) <= max(source.max(), target.max()) < n:
        raise ValueError(f"src and dst must index the {n} endpoints of group_of")
    if n and not -1 <= group_of.min() <= group_of.max() < n_groups:
        raise ValueError(f"group_of must be -1 or index the {n_groups} groups")
    source, target = group_of[source], group_of[target]
    leaves = (source >= 0) & (target >= 0) & (source != target) & np.isfinite(rate) & (rate > 0)
    pair, place = np.unique(source[leaves] * n_groups + target[leaves], return_inverse=True)
    total = np.bincount(place, rate[leaves], len(pair)).astype(np.float64)
    return pair // max(n_groups, 1), pair % max(n_groups, 1), total


def _correlation(a: F64, b: F64) -> F64:
    """Pearson's, column by column, over the rows where both are known."""
    known = np.isfinite(a) & np.isfinite(b)
    count = known.sum(axis=0)
    enough = count >= MIN_STEPS
    divisor = np.maximum(count, 1)
    a = np.where(known, a, 0.0)
    b = np.where(known, b, 0.0)
    # Scaled first: squares of bits per second overflow nothing, but lose what is small beside them.
    a = np.where(known, a - a.sum(axis=0) / divisor, 0.0) / np.maximum(np.abs(a).max(axis=0), 1e-300)
    b = np.where(known, b - b.sum(axis=0) / divisor, 0.0) / np.maximum(np.abs(b).max(axis=0), 1e-300)
    spread = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    told = enough & (spread > 1e-9)
    return np.where(told, (a * b).sum(axis=0) / np.where(told, spread, 1.0), np.nan)
