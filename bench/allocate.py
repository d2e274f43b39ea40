"""How fast and how exact the allocation of a whole tree is.

    python -m bench.allocate --leaves N --json OUT

A tree of four levels (network, 10 regions, groups of 100, users), one direction: guarantees, then one row of claims,
then the leftover up to the ceilings. Timed against ``numpy.sort`` of as many claims, in turns. Times are the
thread's own on the processor: both run in one thread, and what else the machine does must not count. The grants of
that tree are compared with plain Python; and those of small random trees with a sequence of linear programs (HiGHS),
which takes about a minute. Differences are relative to the exact share and include the rounding to whole bits.

Keys: leaves, solve_ms_p50, sort_ms_p50, ratio_to_sort, lp_max_rel_diff, reference_max_rel_diff; and by_forecast_ms_p50, the
same tree shared by seven quantiles of each user's forecast.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog

from allocation.allocate import allocate
from allocation.expected_loss import allocate_by_forecast
from allocation.tree import PoolTree, Sharing
from bench.figures import write_figures

F64 = npt.NDArray[np.float64]

REGIONS: Final = 10
GROUP_SIZE: Final = 100
QUANTILES: Final = np.array([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
_MEDIAN_BPS: Final = 1e9


@dataclass(frozen=True)
class Problem:
    """One direction to allocate."""

    tree: PoolTree
    #: shape (1, n_leaves), bit/s
    claims_bps: F64
    capacity_bps: float


def large(leaves: int, seed: int = 1) -> Problem:
    """A network with so many users; a third have guarantees, half have ceilings.

    Every other region is short of capacity, so that claims are shared; the rest have some to spare, which is.
    """
    rng = np.random.default_rng(seed)
    groups = max(1, leaves // GROUP_SIZE)
    regions = min(REGIONS, groups)
    above = (
        [-1],
        np.zeros(regions),
        1 + np.arange(groups) * regions // groups,
        1 + regions + np.arange(leaves) * groups // leaves,
    )
    parent = np.concatenate(above).astype(np.int32)
    n = len(parent)
    user = np.arange(n) >= n - leaves
    claim = _MEDIAN_BPS * rng.lognormal(0, 1, leaves)
    guarantee = np.where(user & (rng.random(n) < 0.3), 0.05 * _MEDIAN_BPS, 0.0)
    ceiling = np.where(user & (rng.random(n) < 0.5), 3 * _MEDIAN_BPS, np.inf)
    weight = np.where(user, rng.choice([1.0, 1.0, 2.0, 4.0], n), 1.0)
    region = parent[parent[user]]
    wanted = np.bincount(region, np.minimum(claim, ceiling[user]), regions + 1)[1:]
    room = wanted * np.where(np.arange(regions) % 2 == 0, 0.8, 1.2)
    ceiling[1 : 1 + regions] = room
    tree = PoolTree(tuple(map(str, range(n))), parent, guarantee, ceiling, weight)
    return Problem(tree, claim[np.newaxis], float(room.sum()))


def small(rng: np.random.Generator) -> Problem:
    """Four levels, a handful of pools each, everything drawn; capacity from scarce to plenty.

    Rates are so high that a whole bit is not seen even in the smallest share.
    """
    median = 100 * _MEDIAN_BPS
    parent = [-1]
    level = [0]
    for _ in range(3):
        below = [pool for pool in level for _ in range(rng.integers(1, 4))]
        level = list(range(len(parent), len(parent) + len(below)))
        parent += below
    n = len(parent)
    leaf = np.arange(n) >= level[0]
    guarantee = np.where(leaf & (rng.random(n) < 0.4), rng.uniform(0, 0.3, n), 0.0) * median
    needs = np.floor(guarantee)
    for i in range(n - 1, 0, -1):
        needs[parent[i]] += needs[i]
    ceiling = np.where(rng.random(n) < 0.5, np.inf, needs + rng.uniform(0.1, 4, n) * median)
    tree = PoolTree(
        tuple(map(str, range(n))), np.array(parent), guarantee, ceiling, rng.choice([1.0, 2.0, 5.0], n)
    )
    claim = median * rng.lognormal(0, 1, int(leaf.sum()))
    return Problem(tree, claim[np.newaxis], float(needs[0] + claim.sum() * rng.uniform(0.3, 2)))


Share = Callable[[float, F64, F64, F64], F64]


def by_stages(problem: Problem, share: Share) -> F64:
    """Real grants of every pool, ``share(budget, lower, upper, weight)`` being asked for each set of siblings."""
    tree = problem.tree
    n = len(tree)
    below = [tree.children[tree.first_child[i] : tree.first_child[i + 1]] for i in range(n)]
    limit = np.minimum(tree.limit_bps, problem.capacity_bps).astype(np.float64)
    reserved = tree.reserved_bps.astype(np.float64)

    def total(leaf_values: F64) -> F64:
        out = np.zeros(n)
        out[tree.leaves] = leaf_values
        for i in range(n - 1, -1, -1):
            out[i] = max(reserved[i], min(limit[i], out[i]))
            if i > 0:
                out[tree.parent[i]] += out[i]
        return out

    grant = reserved
    for upper in (total(np.ceil(problem.claims_bps[0])), total(limit[tree.leaves])):
        after = np.zeros(n)
        after[0] = upper[0]
        for i in range(n):
            members = below[i]
            if len(members) == 0:
                continue
            least, most = grant[members].sum(), upper[members].sum()
            if after[i] >= most or after[i] <= least:
                after[members] = upper[members] if after[i] >= most else grant[members]
            else:
                after[members] = share(after[i], grant[members], upper[members], tree.weight[members])
        grant = after
    return grant


def share_plainly(budget: float, lower: F64, upper: F64, weight: F64) -> F64:
    """Progressive filling in plain Python: raise the level from knee to knee until the budget is used."""
    least, most, weights = lower.tolist(), upper.tolist(), weight.tolist()
    # At each knee a sibling begins to rise, or stops.
    knees = [(low / w, w) for low, w in zip(least, weights, strict=True)]
    knees += [(high / w, -w) for high, w in zip(most, weights, strict=True)]
    knees.sort()
    level, width, left = 0.0, 0.0, budget - sum(least)
    for knee, change in knees:
        if width > 0 and (knee - level) * width >= left:
            break
        left -= (knee - level) * width
        level, width = knee, width + change
    level += left / width if width > 0 else 0.0
    return np.array(
        [min(max(level * w, low), high) for low, high, w in zip(least, most, weights, strict=True)]
    )


def share_by_lp(budget: float, lower: F64, upper: F64, weight: F64) -> F64:
    """A sequence of linear programs: raise the least level, fix who can rise no further, and again."""
    n, scale = len(lower), budget
    lower, upper = lower / scale, np.minimum(upper / scale, 1.0)
    share, free = np.zeros(n), np.ones(n, bool)
    level = 0.0
    while free.any():
        # Unknown: the shares, then the level.
        rows = np.zeros((n + 1, n + 1))
        rows[:n, :n] = -np.diag(free.astype(float))
        rows[:n, n] = np.where(free, weight, 0.0)
        rows[n, :n] = 1.0
        least, most = np.where(free, lower, share), np.where(free, upper, share)
        bounds = [*zip(least, most, strict=True), (level, None)]
        answer = linprog(
            np.r_[np.zeros(n), -1.0], rows, np.r_[np.zeros(n), 1.0], bounds=bounds, method="highs"
        )
        if answer.status != 0:
            raise RuntimeError(answer.message)
        level = float(answer.x[n])
        full = free & (level * weight >= upper * (1 - 1e-9))
        share[full] = upper[full]
        if not full.any():
            share[free] = np.clip(level * weight, lower, upper)[free]
            break
        free &= ~full
    return share * scale


def relative_difference(problem: Problem, share: Share) -> float:
    """The largest difference of any pool's grant from the exact one, relative to that."""
    got = allocate(problem.tree, problem.claims_bps, capacity_bps=problem.capacity_bps).grant_bps
    exact = by_stages(problem, share)
    return float((np.abs(got - exact) / np.maximum(exact, 1.0)).max())


def run(leaves: int, repeats: int, trees: int) -> dict[str, float]:
    """All figures."""
    problem = large(leaves)
    forecast = replace(problem.tree, sharing=np.full(len(problem.tree), Sharing.EXPECTED_LOSS))
    spread = np.sort(np.random.default_rng(2).lognormal(0, 0.5, (leaves, len(QUANTILES))), axis=1)
    demand = problem.claims_bps[0][:, np.newaxis] * spread
    use = 0.9 * demand[:, 3]
    took = _medians_ms(
        {
            "solve": lambda: allocate(problem.tree, problem.claims_bps, capacity_bps=problem.capacity_bps),
            "sort": lambda: np.sort(problem.claims_bps[0]),
        },
        repeats,
    )
    took |= _medians_ms(
        {
            "by_forecast": lambda: allocate_by_forecast(
                forecast, QUANTILES, demand, use, capacity_bps=problem.capacity_bps
            )
        },
        repeats,
    )
    rng = np.random.default_rng(3)
    return {
        "leaves": leaves,
        "solve_ms_p50": took["solve"],
        "sort_ms_p50": took["sort"],
        "ratio_to_sort": took["solve"] / took["sort"],
        "lp_max_rel_diff": max(
            (relative_difference(small(rng), share_by_lp) for _ in range(trees)), default=0.0
        ),
        "reference_max_rel_diff": relative_difference(problem, share_plainly),
        "by_forecast_ms_p50": took["by_forecast"],
        "lp_trees": trees,
    }


def _medians_ms(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Each job's median time on the processor; they take turns, so that caches are as cold for all."""
    for job in jobs.values():
        job()  # compiled, and memory mapped
    took: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.thread_time()
            job()
            took[name].append(1e3 * (time.thread_time() - start))
    return {name: float(np.median(times)) for name, times in took.items()}


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.allocate", description=__doc__.splitlines()[0])
    parser.add_argument("--leaves", type=int, default=100_000, help="users (default 100,000)")
    parser.add_argument("--json", type=Path, help="where the figures go (default: the screen)")
    parser.add_argument("--repeats", type=int, default=31, help="timed runs (default 31)")
    parser.add_argument("--trees", type=int, default=1000, help="small trees against HiGHS (default 1,000)")
    arguments = parser.parse_args()
    if arguments.leaves < 1 or arguments.repeats < 1 or arguments.trees < 0:
        print("--leaves must be >= 1, --repeats >= 1, --trees >= 0", file=sys.stderr)
        return 2
    write_figures(run(arguments.leaves, arguments.repeats, arguments.trees), arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
